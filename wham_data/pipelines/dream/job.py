"""Episodes become dreams: the whole job.

    what there is to dream from, and what of it is there already    sources.py, files.py
    for every batch of episodes:
      read    a window of each, in the model's tokens               sources.py
      act     recorded actions, or others                           actions.py
      dream   all of them side by side                              inference/dream.py
      save    each one whole                                        files.py
    account   for every episode                                     report.py

A dream depends on what it starts from, on the settings, and on the seed with the episode's own name:
not on the batch, nor on what else is dreamt. So a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.session import DreamStats, ModelSpec
from wham_data.inference.tokenizer import Tokenizer
from wham_data.inference.world_model import WorldModel
from wham_data.pipelines.dream.actions import RECORDED, Actions
from wham_data.pipelines.dream.files import DreamFolder, DreamtSteps
from wham_data.pipelines.dream.pictures import Provenance
from wham_data.pipelines.dream.report import (
    DreamProgress,
    DreamReport,
    DreamWatch,
    Kind,
)
from wham_data.pipelines.dream.settings import DreamSettings
from wham_data.pipelines.dream.sources import Episode, Source
from wham_data.pipelines.dream.window import Window
from wham_data.pipelines.run.progress import Failed, Silent
from wham_data.pipelines.video import SMALLEST_SIDE
from wham_data.schemas.errors import (
    IntegrityError,
    MismatchError,
    Reason,
    RefusedInput,
    UsageError,
    WhamDataError,
    printable,
)
from wham_data.schemas.wham_tokens import ACTION_SIZE, NoTokenError, encode_actions

MOST_BATCH: Final = 16
BATCH_BYTES: Final = 2 << 30
"""Unless said, so many dreams share a batch as have their keys and values in this."""


def run_dreams(
    source: Source,
    out: str | Path,
    model: WorldModel,
    settings: DreamSettings,
    *,
    save: Sequence[Kind] = ("csv", "npz"),
    batch_size: int | None = None,
    speculate: bool = True,
    watch: DreamWatch | None = None,
) -> DreamReport:
    """Dream from every episode of a source. Running it again makes only what is missing.

    Args:
        source: see `dream_sources.open_source`.
        out: where the dreams are kept; see `dream_files`.
        model: with its tokenizer.
        settings: see `Asked.settle`.
        save: kinds of files.
        batch_size: dreams side by side; None: as many as fit `BATCH_BYTES`, at most `MOST_BATCH`.
        speculate: guess ahead, which changes nothing but the time.
        watch: is told how far the run is.

    Raises:
        UsageError: the model has no tokenizer, `out` lies in the source, or no such batch size.
        MismatchError: the corpus has other tokens; or `out` holds dreams of other settings or of
            another episode.
        WhamDataError: the disk fails, or the batch is too large for the GPU.
    """
    if model.tokenizer is None:
        raise UsageError(f"{model.name}: has no tokenizer, so it can't read or show pictures")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch size {batch_size}: expected at least 1")
    started = time.monotonic()
    if settings.look.interpolate and min(model.tokenizer.frame_size) < SMALLEST_SIDE:
        raise UsageError(f"--interpolate: the model's pictures are below {SMALLEST_SIDE} pixels")
    fingerprint = model.fingerprint()
    folder = DreamFolder(
        Path(out),
        model.tokenizer,
        settings={
            "model": fingerprint,
            "tokenizer": model.tokenizer.fingerprint,
            "dtype": model.dtype,
            **settings.agreement(),
        },
        look=settings.look,
    )
    _check_apart(source, folder)
    folder.check(save)
    folder.sweep()
    watch = watch or Silent()
    for note in source.check(model.tokenizer):
        watch.told(note, warning=True)
    if model.unexpected:
        some = ", ".join(model.unexpected[:3])
        line = f"{model.name}: left out {len(model.unexpected)} unexpected keys, as {some}"
        watch.told(line, warning=True)
    run = _Run(
        source, folder, model, model.tokenizer, fingerprint, settings, save, watch, speculate
    )
    run.sort_out()
    run.complete()
    run.dream_all(batch_size or usual_batch(model, settings.context))
    return run.report(str(out), time.monotonic() - started)


def usual_batch(model: WorldModel, context: int) -> int:
    """Dreams whose working memory fits `BATCH_BYTES`, at least 1 and at most `MOST_BATCH`."""
    return max(1, min(MOST_BATCH, BATCH_BYTES // model.dream_bytes(context)))


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
class _Run:
    """One run: what is still to do, and what came of it."""

    source: Source
    folder: DreamFolder
    model: WorldModel
    tokenizer: Tokenizer
    fingerprint: str
    settings: DreamSettings
    save: Sequence[Kind]
    watch: DreamWatch
    speculate: bool
    to_dream: list[Episode] = field(default_factory=list)
    to_complete: list[tuple[Episode, int, tuple[Kind, ...]]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    made: int = 0
    completed: int = 0
    stats: list[DreamStats] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)
    dreaming_seconds: float = 0.0
    progress: DreamProgress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = DreamProgress(0, self.settings.steps)

    def sort_out(self) -> None:
        """Which dreams are there, lack a file, or are to be dreamt.

        Raises:
            MismatchError: one that is there started from something else.
        """
        for episode in self.source.episodes:
            account = self.folder.account(episode.name)
            if account is None:
                self.to_dream.append(episode)
                continue
            try:
                identity = episode.identity()
            except (RefusedInput, IntegrityError) as why:
                self._fail(episode, why)
                continue
            if account.identity != identity:
                raise MismatchError(
                    f"{self.folder.path(episode.name, 'json')}: a dream of another {episode.name} "
                    f"(from {account.source}, or as that was then). Use another --out"
                )
            if missing := self.folder.missing(episode.name, self.save):
                self.to_complete.append((episode, account.start, missing))
            else:
                self.there.append(episode.name)

    def complete(self) -> None:
        """Make the files that dreams lack, from their tokens; those without are dreamt again."""
        spec = self.model.spec
        shape = (self.settings.taken + self.settings.steps, spec.tokens_per_step)
        for episode, start, missing in self.to_complete:
            tokens = self.folder.tokens(episode.name, shape)
            if tokens is None:
                self.to_dream.append(episode)
                continue
            need = replace(self.settings.need(missing), start=start)
            try:
                window = episode.read(need, self.tokenizer)
            except (RefusedInput, IntegrityError) as why:
                self._fail(episode, why)
                continue
            dreamt = DreamtSteps(self.settings.taken, tokens, window.tokens, window.pictures)
            self.folder.save(episode.name, dreamt, missing, self._provenance(episode), account=None)
            self.there.append(episode.name)
            self.completed += 1
            self.watch.told(f"{episode.name}: {', '.join(missing)} added", warning=False)

    def dream_all(self, batch_size: int) -> None:
        """Dream what is to be dreamt, batch by batch."""
        self.progress = DreamProgress(
            len(self.to_dream), self.settings.steps, failed=len(self.failed)
        )
        starts = self._starts()
        while batch := list(islice(starts, batch_size)):
            began = time.monotonic()
            dreams = self._dream(batch)
            seconds = time.monotonic() - began
            self.dreaming_seconds += seconds
            for start, dreamt in zip(batch, dreams, strict=True):
                self._save(start, dreamt, seconds / (len(batch) * self.settings.steps))

    def report(self, out: str, seconds: float) -> DreamReport:
        """The account, in which every episode is somewhere."""
        frames = self.made * self.settings.steps
        return DreamReport(
            out=out,
            source=printable(self.source.told),
            model=self.model.name,
            mode=self.settings.mode,
            actions=self.settings.actions.told,
            found=len(self.source.episodes),
            made=self.made,
            completed=self.completed,
            already_there=len(self.there) - self.made - self.completed,
            failed=tuple(self.failed),
            dreams=tuple(sorted(self.there)),
            frames=frames,
            ms_per_frame=round(1000 * self.dreaming_seconds / frames, 3) if frames else 0.0,
            acceptance=_share(
                sum(s.accepted for s in self.stats), sum(s.guessed for s in self.stats)
            ),
            tokens_per_pass=_share(
                sum(s.generated for s in self.stats), sum(s.passes for s in self.stats)
            ),
            seconds=round(seconds, 3),
        )

    def _starts(self) -> Iterator[_Start]:
        """The dreams that can begin; the others have failed."""
        for episode in self.to_dream:
            try:
                yield self._start(episode)
            except (RefusedInput, IntegrityError) as why:
                self.progress.dreams -= 1
                self._fail(episode, why)

    def _start(self, episode: Episode) -> _Start:
        settings, taken = self.settings, self.settings.taken
        identity = episode.identity()
        window = episode.read(settings.need(self.save), self.tokenizer)
        before, told = self._before(window)
        future = settings.actions.future(settings.steps, chance_index(episode.title))
        if settings.actions is RECORDED:
            future = window.actions[taken:]
        if window.size not in (None, self.tokenizer.frame_size):
            (width, height), (to_width, to_height) = window.size, self.tokenizer.frame_size
            self._warn(f"pictures of {width}x{height} are brought to {to_width}x{to_height}")
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
            context_actions=told,
            future=future,
            frames=window.tokens[taken:] if settings.mode == "policy" else None,
        )

    def _before(self, window: Window) -> tuple[Actions, str]:
        """The actions of the context, float32 [C, 16], and where they come from."""
        taken = self.settings.taken
        if self.source.kind != "pictures":
            return window.actions[:taken], "recorded"
        given = self.settings.actions.on_pictures(taken)
        if given is not None:
            return given, self.settings.actions.kind
        self._warn("what was done on the pictures is not known; they are taken as at rest")
        return np.zeros((taken, ACTION_SIZE), np.float32), "at rest"

    def _dream(self, batch: Sequence[_Start]) -> list[Dream]:
        def advance(steps: int) -> None:
            self.progress.frames += steps
            self.watch.advanced(self.progress)

        try:
            return dream_batch(
                self.model,
                [start.context for start in batch],
                steps=self.settings.steps,
                mode=self.settings.mode,
                actions=[s.future for s in batch if s.future is not None] or None,
                frames=[s.frames for s in batch if s.frames is not None] or None,
                sampling=self.settings.sampling,
                seed=self.settings.seed,
                indices=[chance_index(start.episode.title) for start in batch],
                context_steps=self.settings.context,
                speculate=self.speculate,
                advance=advance,
            )
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise WhamDataError(
                f"{len(batch)} dreams at once do not fit into the GPU's memory: give a --batch-size "
                f"below {len(batch)}, a shorter --context or --dtype bf16"
            ) from error

    def _save(self, start: _Start, dreamt: Dream, seconds_per_frame: float) -> None:
        """Keep a dream, and count it."""
        before = _joint(self.model.spec, start.window.tokens[: self.settings.taken], start.context)
        after = _joint(self.model.spec, dreamt.tokens, dreamt)
        steps = DreamtSteps(
            self.settings.taken,
            np.concatenate([before, after]),
            start.window.tokens,
            start.window.pictures,
        )
        self.folder.save(
            start.episode.name,
            steps,
            self.save,
            self._provenance(start.episode),
            self._account(start, dreamt, seconds_per_frame),
        )
        self.stats.append(dreamt.stats)
        self.there.append(start.episode.name)
        self.made += 1
        self.progress.done += 1
        self.watch.advanced(self.progress)
        self.watch.told(f"{start.episode.name}: dreamt", warning=False)

    def _account(self, start: _Start, dreamt: Dream, seconds_per_frame: float) -> dict[str, object]:
        """What `dream.json` says."""
        info = self.tokenizer.info
        decoded = start.window.pictures is None
        return {
            "episode": start.episode.title,
            "source": start.episode.source,
            "identity": start.identity,
            "model": {
                "name": self.model.name,
                "fingerprint": self.fingerprint,
                "tokenizer": {"name": info.name, "fingerprint": info.fingerprint},
                "wham": self.model.wham,
                "dtype": self.model.dtype,
                "device": self.model.device,
            },
            "mode": self.settings.mode,
            "context": {
                "start": start.window.start,
                "steps": self.settings.taken,
                "most_seen": dreamt.stats.context_steps,
                "tokens": "encoded" if start.window.encoded else "of the corpus",
                "pictures": "decoded" if decoded else "recorded",
                "picture_size": start.window.size,
                "actions": start.context_actions,
                "action_space": self.source.space,
            },
            "steps": self.settings.steps,
            "actions": {"source": self.settings.actions.told, "clamped": dreamt.stats.clamped},
            "sampling": asdict(self.settings.sampling),
            "seed": self.settings.seed,
            "index": chance_index(start.episode.title),
            "stats": {
                **asdict(dreamt.stats),
                "acceptance": round(dreamt.stats.acceptance, 4),
                "tokens_per_pass": round(dreamt.stats.tokens_per_pass, 3),
                "ms_per_frame": round(1000 * seconds_per_frame, 3),
            },
        }

    def _provenance(self, episode: Episode) -> Provenance:
        return Provenance(
            model=self.model.name,
            fingerprint=self.fingerprint,
            wham=self.model.wham,
            seed=self.settings.seed,
            mode=self.settings.mode,
            source=episode.title,
        )

    def _fail(self, episode: Episode, why: RefusedInput | IntegrityError) -> None:
        reason = why.reason if isinstance(why, RefusedInput) else Reason.CORRUPT
        told = printable(episode.title), printable(episode.source), str(reason), str(why)
        self.failed.append(Failed(*told))
        self.progress.failed += 1
        self.watch.told("{} ({}) failed [{}]: {}".format(*told), warning=False)

    def _warn(self, line: str) -> None:
        """Tell a person, once."""
        if line not in self.warned:
            self.warned.add(line)
            self.watch.told(line, warning=True)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _joint(
    spec: ModelSpec, images: NDArray[np.integer], acted: Context | Dream
) -> NDArray[np.int32]:
    """Steps in the joint vocabulary, int32 [n, N + 16]."""
    actions, _ = encode_actions(acted.actions)
    return np.concatenate([images, actions + spec.image_vocab], axis=1).astype(np.int32)


def _check_apart(source: Source, folder: DreamFolder) -> None:
    """Refuse to write among, or over, what is dreamt from."""
    out = Path(os.path.realpath(folder.root))
    if source.root is not None and out.is_relative_to(source.root):
        raise UsageError(f"--out {out}: lies in {source.root}, which is dreamt from. Go elsewhere")
    for episode in source.episodes:
        if os.path.realpath(folder.path(episode.name, "npz")) == episode.source:
            raise UsageError(f"--out {out}: {episode.source} would be overwritten. Go elsewhere")
