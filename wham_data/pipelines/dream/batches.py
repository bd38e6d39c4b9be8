"""Make dreams from a batch of episodes: the work of one worker.

    claim     the episodes that no other command has     run/claims.py
    for every episode of a batch:
      read    a window of it, in the model's tokens        sources.py
      act     choose recorded or other actions             actions.py
    dream     all of them together                         inference/dream.py
    save      each dream completely                        files.py

This code does not know in which process it runs. If one episode fails, the others are not affected.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.device.failures import device_errors
from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.session import DreamStats
from wham_data.inference.tokenizer import Tokenizer
from wham_data.inference.world_model import WorldModel
from wham_data.pipelines.dream.actions import RECORDED, Actions
from wham_data.pipelines.dream.files import DreamFolder, DreamtSteps
from wham_data.pipelines.dream.model_steps import ModelSteps, is_wham
from wham_data.pipelines.dream.pictures import Provenance
from wham_data.pipelines.dream.report import FileKind
from wham_data.pipelines.dream.settings import DreamSettings
from wham_data.pipelines.dream.sources import Episode, SourceKind
from wham_data.pipelines.dream.window import Window
from wham_data.pipelines.run.claims import Claims
from wham_data.pipelines.run.progress import Failed
from wham_data.pipelines.run.runner import Advance, Work
from wham_data.schemas.errors import (
    IntegrityError,
    Reason,
    RefusedInput,
    UsageError,
    counted,
    printable,
)

Batch = tuple[Episode, ...]


@dataclass(frozen=True, slots=True)
class DreamTask:
    """The data that all dreams of a run have in common. It is sent to the workers.

    root         folder of the dreams
    agreed       plain values that are equal for all dreams in the folder
    settings     settings that determine the dreams
    save         kinds of files
    fingerprint  of the world model
    source_kind  kind of the episodes
    space        name of the action space of the recordings; for pictures the model's
    speculate    guess tokens ahead, which changes nothing but the time
    """

    root: Path
    agreed: Mapping[str, object]
    settings: DreamSettings
    save: tuple[FileKind, ...]
    fingerprint: str
    source_kind: SourceKind
    space: str
    speculate: bool

    def folder(self, model: WorldModel) -> DreamFolder:
        """The folder of this model's dreams."""
        steps, tokenizer = ModelSteps.of(model), tokenizer_of(model)
        return DreamFolder(self.root, steps, tokenizer, self.agreed, self.settings.look)

    def provenance(self, model: WorldModel, episode: Episode) -> Provenance:
        """The provenance for the metadata of pictures and videos."""
        return Provenance(
            model=model.name,
            fingerprint=self.fingerprint,
            wham=model.wham,
            seed=self.settings.seed,
            mode=self.settings.mode,
            source=episode.title,
        )


@dataclass(frozen=True, slots=True)
class Dreamt:
    """The result of a batch.

    made     names of the saved dreams
    stats    work of each of them
    notes    notes for the user, one line each
    seconds  wall time of dreaming, without reading and saving
    left     names of those that another command makes, or has just made
    """

    made: tuple[str, ...]
    stats: tuple[DreamStats, ...]
    failed: tuple[Failed, ...]
    notes: tuple[str, ...]
    seconds: float
    left: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Incomplete:
    """An existing dream with missing files.

    start    step of the episode at which its context begins
    missing  kinds of the missing files
    """

    episode: Episode
    start: int
    missing: tuple[FileKind, ...]


@dataclass(frozen=True, slots=True)
class DreamBatches:
    """Set-up of the stage that dreams.

    dead  claims of dead commands, see `Claims`
    """

    task: DreamTask
    dead: frozenset[str] = frozenset()

    def __call__(self, model: WorldModel) -> Work[Batch, Dreamt]:
        """The function that dreams from one batch of episodes."""
        tokenizer, folder = tokenizer_of(model), self.task.folder(model)
        parts = ModelSteps.of(model)
        steps = self.task.settings.taken + self.task.settings.steps

        def made(name: str) -> bool:
            """Whether somebody has made it since it was looked at."""
            return folder.saved(name) is not None and folder.arrays(name, steps) is not None

        def work(batch: Batch, advance: Advance) -> Dreamt:
            names = [episode.name for episode in batch]
            with Claims(folder.root, self.dead).taken(names) as claimed:
                mine = tuple(e for e in batch if e.name in claimed and not made(e.name))
                dreamt = _BatchRun(self.task, model, parts, tokenizer, folder, advance).run(mine)
            return replace(dreamt, left=frozenset(names).difference(e.name for e in mine))

        return work


@dataclass(frozen=True, slots=True)
class CompleteDreams:
    """Set-up of the stage that makes the files that dreams lack, from their steps.

    dead  claims of dead commands, see `Claims`
    """

    task: DreamTask
    dead: frozenset[str] = frozenset()

    def __call__(self, model: WorldModel) -> Work[Incomplete, bool | None]:
        """The function that completes one dream.

        It returns False if the tokens are not usable, and None if another command completes the dream.
        """
        tokenizer, folder = tokenizer_of(model), self.task.folder(model)
        settings, space = self.task.settings, ModelSteps.of(model).space

        def work(item: Incomplete, _: Advance) -> bool | None:
            with Claims(folder.root, self.dead).taken([item.episode.name]) as mine:
                return complete(item) if mine else None

        def complete(item: Incomplete) -> bool:
            name = item.episode.name
            arrays = folder.arrays(name, settings.taken + settings.steps)
            if arrays is None:
                return False
            need = replace(settings.need(item.missing), start=item.start)
            try:
                window = item.episode.read(need, tokenizer, space)
            except IntegrityError as why:
                raise RefusedInput(Reason.CORRUPT, str(why)) from None
            dreamt = DreamtSteps(settings.taken, arrays, window.tokens, window.pictures)
            provenance = self.task.provenance(model, item.episode)
            folder.save(name, dreamt, item.missing, provenance, description=None)
            return True

        return work


def tokenizer_of(model: WorldModel) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        UsageError: the model has none.
    """
    if model.tokenizer is None:
        raise UsageError(f"{model.name}: has no tokenizer, so it can't read or show pictures")
    return model.tokenizer


def failure_of(episode: Episode, why: RefusedInput | IntegrityError) -> Failed:
    """The entry in the report for an episode without a dream."""
    reason = why.reason if isinstance(why, RefusedInput) else Reason.CORRUPT
    return Failed(printable(episode.title), printable(episode.source), str(reason), str(why))


def chance_index(title: str) -> int:
    """The index of a dream among those with the same seed: 32 bits of the hash of the episode's name."""
    return int(hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16)


@dataclass(frozen=True, slots=True)
class _Start:
    """A dream that is ready to begin.

    frames  uint16 [K, N], tokens for which the model chooses actions, in mode "policy"
    future  float32 [K, A], given actions, in mode "world"
    """

    episode: Episode
    identity: str
    window: Window
    context: Context
    context_actions: str
    future: Actions | None
    frames: NDArray[np.uint16] | None


@dataclass(slots=True)
class _BatchRun:
    """The work on one batch."""

    task: DreamTask
    model: WorldModel
    parts: ModelSteps
    tokenizer: Tokenizer
    folder: DreamFolder
    advance: Advance
    failed: list[Failed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, batch: Batch) -> Dreamt:
        """Dream from all suitable episodes, and save the dreams."""
        starts = list(self._starts(batch))
        began = time.monotonic()
        dreams = self._dream(starts) if starts else []
        seconds = time.monotonic() - began
        for start, dreamt in zip(starts, dreams, strict=True):
            self._save(start, dreamt, seconds / (len(starts) * self.task.settings.steps))
        return Dreamt(
            made=tuple(start.episode.name for start in starts),
            stats=tuple(dreamt.stats for dreamt in dreams),
            failed=tuple(self.failed),
            notes=tuple(dict.fromkeys(self.notes)),
            seconds=seconds,
        )

    def _starts(self, batch: Batch) -> Iterator[_Start]:
        """The dreams that can begin; records the failures of the others."""
        for episode in batch:
            try:
                yield self._start(episode)
            except (RefusedInput, IntegrityError) as why:
                self.failed.append(failure_of(episode, why))

    def _start(self, episode: Episode) -> _Start:
        settings = self.task.settings
        taken = settings.taken
        identity = episode.identity()
        window = episode.read(settings.need(self.task.save), self.tokenizer, self.parts.space)
        before, origin = self._before(window)
        future = settings.actions.future(settings.steps, chance_index(episode.title))
        if settings.actions == RECORDED:  # equal, not the same: it has travelled
            future = window.actions[taken:]
        self.notes += window.notes
        if window.size not in (None, self.tokenizer.frame_size):
            (width, height), (to_width, to_height) = window.size, self.tokenizer.frame_size
            self.notes.append(f"pictures of {width}x{height} are brought to {to_width}x{to_height}")
        if (largest := int(window.tokens.max())) >= self.model.spec.image_vocab:
            raise IntegrityError(f"token {largest} is none of this model's")
        for actions in (before, future):
            if actions is not None:
                self.parts.check(actions)
        return _Start(
            episode=episode,
            identity=identity,
            window=window,
            context=Context(actions=before, tokens=window.tokens[:taken]),
            context_actions=origin,
            future=future,
            frames=window.tokens[taken:] if settings.mode == "policy" else None,
        )

    def _before(self, window: Window) -> tuple[Actions, str]:
        """The actions of the context, float32 [C, A], and their source."""
        taken = self.task.settings.taken
        if self.task.source_kind != "pictures":
            return self._at_rest_if_unknown(window.actions[:taken]), "recorded"
        given = self.task.settings.actions.on_pictures(taken)
        if given is not None:
            return given, self.task.settings.actions.kind
        self.notes.append("what was done on the pictures is not known; they are taken as at rest")
        return np.tile(self.parts.space.null(), (taken, 1)), "at rest"

    def _at_rest_if_unknown(self, actions: Actions) -> Actions:
        """The actions of a context; those that are not known, as of a last picture, are at rest."""
        unknown = np.array(np.isnan(actions).any(axis=1))
        if self.task.source_kind != "demonstrator" or not unknown.any():
            return actions
        self.notes.append("some pictures of the context have no action; they are taken as at rest")
        return np.where(unknown[:, None], self.parts.space.null(), actions).astype(np.float32)

    def _dream(self, batch: Sequence[_Start]) -> list[Dream]:
        fewer = f"a --batch-size below {len(batch)}, " if len(batch) > 1 else ""
        lower = f"Give {fewer}a shorter --context or --dtype bf16"
        with device_errors(f"{counted(len(batch), 'dream')} at once on {self.model.device}", lower):
            return dream_batch(
                self.model,
                [start.context for start in batch],
                steps=self.task.settings.steps,
                mode=self.task.settings.mode,
                actions=[s.future for s in batch if s.future is not None] or None,
                frames=[s.frames for s in batch if s.frames is not None] or None,
                sampling=self.task.settings.sampling,
                seed=self.task.settings.seed,
                indices=[chance_index(start.episode.title) for start in batch],
                context_steps=self.task.settings.context,
                speculate=self.task.speculate,
                advance=self.advance,
            )

    def _save(self, start: _Start, dreamt: Dream, seconds_per_frame: float) -> None:
        """Save a dream."""
        taken = self.task.settings.taken
        images = np.concatenate([start.window.tokens[:taken], dreamt.tokens])
        arrays = self.parts.to_arrays(
            images, np.concatenate([start.context.actions, dreamt.actions])
        )
        steps = DreamtSteps(taken, arrays, start.window.tokens, start.window.pictures)
        self.folder.save(
            start.episode.name,
            steps,
            self.task.save,
            self.task.provenance(self.model, start.episode),
            self._description(start, dreamt, seconds_per_frame),
        )

    def _description(
        self, start: _Start, dreamt: Dream, seconds_per_frame: float
    ) -> dict[str, object]:
        """The content of `dream.json`."""
        info = self.tokenizer.info
        decoded = start.window.pictures is None
        return {
            "episode": start.episode.title,
            "source": start.episode.source,
            "identity": start.identity,
            "model": {
                "name": self.model.name,
                "fingerprint": self.task.fingerprint,
                "tokenizer": {"name": info.name, "fingerprint": info.fingerprint},
                "wham": self.model.wham,
                "dtype": self.model.dtype,
                "device": self.model.device,
                **self._action_space(),
            },
            "mode": self.task.settings.mode,
            "context": {
                "start": start.window.start,
                "steps": self.task.settings.taken,
                "most_seen": dreamt.stats.context_steps,
                "tokens": "encoded" if start.window.encoded else "of the corpus",
                "pictures": "decoded" if decoded else "recorded",
                "picture_size": start.window.size,
                "actions": start.context_actions,
                "action_space": self.task.space,
            },
            "steps": self.task.settings.steps,
            "actions": {
                "source": self.task.settings.actions.description,
                "clamped": dreamt.stats.clamped,
            },
            "sampling": asdict(self.task.settings.sampling),
            "seed": self.task.settings.seed,
            "index": chance_index(start.episode.title),
            "stats": {
                **asdict(dreamt.stats),
                "acceptance": round(dreamt.stats.acceptance, 4),
                "tokens_per_pass": round(dreamt.stats.tokens_per_pass, 3),
                "ms_per_frame": round(1000 * seconds_per_frame, 3),
            },
        }

    def _action_space(self) -> dict[str, object]:
        """The model's action space; empty for `wham16`, which is the default of a reader."""
        return {} if is_wham(self.parts.space) else {"action_space": self.parts.space.name}
