"""Batches of episodes become dreams: the work that a runner shares out.

    for every episode of a batch:
      read    a window of it, in the model's tokens        sources.py
      act     recorded actions, or others                  actions.py
    dream     all of them side by side                     inference/dream.py
    save      each one whole                               files.py

Nothing here knows where it runs. An episode that cannot be dreamt from costs itself alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.session import DreamStats, ModelSpec
from wham_data.inference.tokenizer import Tokenizer
from wham_data.inference.world_model import WorldModel
from wham_data.pipelines.dream.actions import RECORDED, Actions
from wham_data.pipelines.dream.files import DreamFolder, DreamtSteps
from wham_data.pipelines.dream.pictures import Provenance
from wham_data.pipelines.dream.report import Kind
from wham_data.pipelines.dream.settings import DreamSettings
from wham_data.pipelines.dream.sources import Episode, SourceKind
from wham_data.pipelines.dream.window import Window
from wham_data.pipelines.run.progress import Failed
from wham_data.pipelines.run.runner import Advance, Work
from wham_data.schemas.errors import (
    IntegrityError,
    Reason,
    RefusedInput,
    UsageError,
    WhamDataError,
    printable,
)
from wham_data.schemas.wham_tokens import ACTION_SIZE, NoTokenError, encode_actions

Batch = tuple[Episode, ...]


@dataclass(frozen=True, slots=True)
class DreamTask:
    """What all dreams of a run have in common. It travels to the workers.

    root         folder of the dreams
    agreed       plain values that all dreams in there have to agree on
    settings     what shapes the dreams
    save         kinds of files
    fingerprint  of the world model
    source_kind  what the episodes are
    space        the action space that they are recorded in
    speculate    guess tokens ahead, which changes nothing but the time
    """

    root: Path
    agreed: Mapping[str, object]
    settings: DreamSettings
    save: tuple[Kind, ...]
    fingerprint: str
    source_kind: SourceKind
    space: str
    speculate: bool

    def folder(self, tokenizer: Tokenizer) -> DreamFolder:
        """The folder of the dreams, which this tokenizer makes pictures for."""
        return DreamFolder(self.root, tokenizer, self.agreed, self.settings.look)

    def provenance(self, model: WorldModel, episode: Episode) -> Provenance:
        """What the pictures and videos say about where they come from."""
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
    """What came of a batch.

    made     names of the dreams that are saved
    stats    of each of them
    notes    what a person should know, a line each
    seconds  wall time of the dreaming alone
    """

    made: tuple[str, ...]
    stats: tuple[DreamStats, ...]
    failed: tuple[Failed, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A dream that is there and lacks files.

    start    the step of the episode that it started from
    missing  kinds of files
    """

    episode: Episode
    start: int
    missing: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class DreamBatches:
    """Set-up of the stage that dreams."""

    task: DreamTask

    def __call__(self, model: WorldModel) -> Work[Batch, Dreamt]:
        """The work on one batch of episodes."""
        tokenizer = tokenizer_of(model)
        folder = self.task.folder(tokenizer)

        def work(batch: Batch, advance: Advance) -> Dreamt:
            return _BatchRun(self.task, model, tokenizer, folder, advance).run(batch)

        return work


@dataclass(frozen=True, slots=True)
class CompleteDreams:
    """Set-up of the stage that makes the files that dreams lack, from their tokens."""

    task: DreamTask

    def __call__(self, model: WorldModel) -> Work[Incomplete, bool]:
        """The work on one dream: False if its tokens are not usable, so it has to be dreamt again."""
        tokenizer = tokenizer_of(model)
        folder = self.task.folder(tokenizer)
        settings = self.task.settings
        shape = (settings.taken + settings.steps, model.spec.tokens_per_step)

        def work(item: Incomplete, _: Advance) -> bool:
            name = item.episode.name
            tokens = folder.tokens(name, shape)
            if tokens is None:
                return False
            need = replace(settings.need(item.missing), start=item.start)
            try:
                window = item.episode.read(need, tokenizer)
            except IntegrityError as why:
                raise RefusedInput(Reason.CORRUPT, str(why)) from None
            dreamt = DreamtSteps(settings.taken, tokens, window.tokens, window.pictures)
            provenance = self.task.provenance(model, item.episode)
            folder.save(name, dreamt, item.missing, provenance, description=None)
            return True

        return work


def tokenizer_of(model: WorldModel) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        UsageError: it has none.
    """
    if model.tokenizer is None:
        raise UsageError(f"{model.name}: has no tokenizer, so it can't read or show pictures")
    return model.tokenizer


def failure_of(episode: Episode, why: RefusedInput | IntegrityError) -> Failed:
    """What the report says of an episode that nothing was made of."""
    reason = why.reason if isinstance(why, RefusedInput) else Reason.CORRUPT
    return Failed(printable(episode.title), printable(episode.source), str(reason), str(why))


def chance_index(title: str) -> int:
    """The index of a dream among all that share a seed: 32 bits of the hash of its episode's name."""
    return int(hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16)


@dataclass(frozen=True, slots=True)
class _Start:
    """A dream that is ready to begin.

    frames  uint16 [K, N] that the model is to act on, in mode policy
    future  float32 [K, 16] given actions, in mode world
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
    """One batch on its way."""

    task: DreamTask
    model: WorldModel
    tokenizer: Tokenizer
    folder: DreamFolder
    advance: Advance
    failed: list[Failed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, batch: Batch) -> Dreamt:
        """Dream from every episode that can be dreamt from, and save."""
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
        """The dreams that can begin; the others have failed."""
        for episode in batch:
            try:
                yield self._start(episode)
            except (RefusedInput, IntegrityError) as why:
                self.failed.append(failure_of(episode, why))

    def _start(self, episode: Episode) -> _Start:
        settings = self.task.settings
        taken = settings.taken
        identity = episode.identity()
        window = episode.read(settings.need(self.task.save), self.tokenizer)
        before, origin = self._before(window)
        future = settings.actions.future(settings.steps, chance_index(episode.title))
        if settings.actions == RECORDED:  # equal, not the same: it has travelled
            future = window.actions[taken:]
        if window.size not in (None, self.tokenizer.frame_size):
            (width, height), (to_width, to_height) = window.size, self.tokenizer.frame_size
            self.notes.append(f"pictures of {width}x{height} are brought to {to_width}x{to_height}")
        if (largest := int(window.tokens.max())) >= self.model.spec.image_vocab:
            raise IntegrityError(f"token {largest} is none of this model's")
        try:
            for actions in (before, future):
                if actions is not None:
                    encode_actions(actions)
        except NoTokenError as why:
            raise RefusedInput(Reason.LOG_RANGE, f"actions out of range: {why}") from None
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
        """The actions of the context, float32 [C, 16], and where they come from."""
        taken = self.task.settings.taken
        if self.task.source_kind != "pictures":
            return window.actions[:taken], "recorded"
        given = self.task.settings.actions.on_pictures(taken)
        if given is not None:
            return given, self.task.settings.actions.kind
        self.notes.append("what was done on the pictures is not known; they are taken as at rest")
        return np.zeros((taken, ACTION_SIZE), np.float32), "at rest"

    def _dream(self, batch: Sequence[_Start]) -> list[Dream]:
        try:
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
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise WhamDataError(
                f"{len(batch)} dreams at once do not fit into the GPU's memory: give a --batch-size "
                f"below {len(batch)}, a shorter --context or --dtype bf16"
            ) from error

    def _save(self, start: _Start, dreamt: Dream, seconds_per_frame: float) -> None:
        """Keep a dream."""
        taken = self.task.settings.taken
        before = _joint(self.model.spec, start.window.tokens[:taken], start.context)
        after = _joint(self.model.spec, dreamt.tokens, dreamt)
        steps = DreamtSteps(
            taken, np.concatenate([before, after]), start.window.tokens, start.window.pictures
        )
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
        """What `dream.json` says."""
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
            "actions": {"source": self.task.settings.actions.told, "clamped": dreamt.stats.clamped},
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


def _joint(
    spec: ModelSpec, images: NDArray[np.integer], acted: Context | Dream
) -> NDArray[np.int32]:
    """Steps in the joint vocabulary, int32 [n, N + 16]."""
    actions, _ = encode_actions(acted.actions)
    return np.concatenate([images, actions + spec.image_vocab], axis=1).astype(np.int32)
