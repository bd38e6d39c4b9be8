"""Make dreams from episodes: the whole job.

    find the episodes, and the dreams that are there already        sources.py, files.py
    for every batch of episodes, in the process where it runs:      batches.py
      claim   those that no other command has                       run/claims.py
      read    a window of each, in the model's tokens               sources.py
      act     choose recorded or other actions                      actions.py
      dream   all of them together                                  inference/dream.py
      save    each dream completely                                 files.py
    wait      for dreams that other commands make in this folder; make those that they leave
    report    the result for every episode                          report.py

A dream depends on what it starts from, on the settings, and on the seed with the episode's own name:
not on the batch, nor on what else is dreamt. So a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from wham_data.inference.session import DreamStats
from wham_data.inference.world_model import WorldModel
from wham_data.pipelines.dream.batches import (
    Batch,
    CompleteDreams,
    DreamBatches,
    Dreamt,
    DreamTask,
    Incomplete,
    failure_of,
    tokenizer_of,
)
from wham_data.pipelines.dream.files import DreamFolder
from wham_data.pipelines.dream.model_steps import ModelSteps, check_kinds, is_wham
from wham_data.pipelines.dream.report import DreamProgress, DreamReport, FileKind
from wham_data.pipelines.dream.settings import DreamSettings
from wham_data.pipelines.dream.sources import DreamSource, Episode
from wham_data.pipelines.run.claims import Claims
from wham_data.pipelines.run.progress import Event, Failed, ProgressListener, Silent
from wham_data.pipelines.run.runner import LocalRunner, Outcome, Runner, Service, Stage, Work
from wham_data.pipelines.video import SMALLEST_SIDE
from wham_data.schemas.errors import (
    IntegrityError,
    MismatchError,
    RefusedInput,
    UsageError,
    printable,
)

MOST_BATCH: Final = 16
WAIT_SECONDS: Final = 0.5
BATCH_BYTES: Final = 2 << 30
"""Default batch: as many dreams as fit their keys and values in this many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DreamWorkers:
    """Workers outside this process that dream.

    runner  runs the work on them
    open    opens the world model on a device; it is sent to each worker, which calls it once
    count   number of workers
    device  device of the model: "auto", "cpu" or "cuda"
    """

    runner: Runner
    open: Callable[[str], WorldModel]
    count: int
    device: str = "auto"


def run_dreams(
    source: DreamSource,
    out: str | Path,
    model: WorldModel,
    settings: DreamSettings,
    *,
    save: Sequence[FileKind] | None = None,
    batch_size: int | None = None,
    speculate: bool = True,
    workers: DreamWorkers | None = None,
    watch: ProgressListener | None = None,
) -> DreamReport:
    """Dream from every episode of a source. Running it again makes only what is missing.

    Several runs may work into one folder: they share the dreams, and each ends when all are there.

    Args:
        source: see `sources.open_dream_source`.
        out: folder of the dreams; see `files`.
        model: with its tokenizer.
        settings: see `DreamChoices.settle`.
        save: kinds of files; None: `usual_files`.
        batch_size: dreams that are made together; None: as many as fit `BATCH_BYTES`, at most `MOST_BATCH`.
        speculate: guess ahead, which changes nothing but the time.
        workers: who dreams; None: this process. The dreams are the same.
        watch: is shown how far the run is.

    Raises:
        UsageError: the model has no tokenizer, its action space is not declared or does not fit the
            files to save, `out` lies in the source, or no such batch size.
        MismatchError: the corpus has other tokens, or actions that no declared conversion takes to
            the model's space; or `out` holds dreams of other settings or of
            another episode.
        WhamDataError: the disk fails, or the batch is too large for the GPU.
    """
    tokenizer = tokenizer_of(model)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch size {batch_size}: expected at least 1")
    started = time.monotonic()
    space = ModelSteps.of(model).space
    save = save or usual_files(model)
    check_kinds(space, save, model.name)
    if settings.look.interpolate and min(tokenizer.frame_size) < SMALLEST_SIDE:
        raise UsageError(f"--interpolate: the model's pictures are below {SMALLEST_SIDE} pixels")
    fingerprint = model.fingerprint()
    task = DreamTask(
        root=Path(out),
        agreed={
            "model": fingerprint,
            "tokenizer": tokenizer.fingerprint,
            "dtype": model.dtype,
            **settings.agreement(),
        },
        settings=settings,
        save=tuple(save),
        fingerprint=fingerprint,
        source_kind=source.kind,
        space=(source.space or space).name,
        speculate=speculate,
    )
    folder = task.folder(model)
    _check_apart(source, folder)
    folder.check(save)
    folder.sweep()
    watch = watch or Silent()
    for note in source.check(tokenizer, space):
        watch.message(note, warning=True)
    if model.unexpected:
        some = ", ".join(model.unexpected[:3])
        line = f"{model.name}: left out {len(model.unexpected)} unexpected keys, as {some}"
        watch.message(line, warning=True)
    run = _Run(source, folder, model, task, workers, watch)
    most = batch_size or usual_batch(model, settings.context)
    waiting: Sequence[Episode] = source.episodes
    while waiting:
        run.sort_out(waiting)
        run.complete()
        run.dream_all(most)
        waiting = run.not_with_others()
    return run.report(str(out), time.monotonic() - started)


def usual_files(model: WorldModel) -> tuple[FileKind, ...]:
    """Kinds of files for a dream's numbers: csv, and for a model with `wham16` WHAM's npz too."""
    return ("csv", "npz") if is_wham(ModelSteps.of(model).space) else ("csv",)


def usual_batch(model: WorldModel, context: int) -> int:
    """The number of dreams whose memory fits `BATCH_BYTES`, at least 1 and at most `MOST_BATCH`."""
    return max(1, min(MOST_BATCH, BATCH_BYTES // model.dream_bytes(context)))


def open_same(open: Callable[[str], WorldModel], fingerprint: str, device: str) -> WorldModel:
    """Open the world model in a worker.

    Raises:
        MismatchError: it is not the model of the run.
    """
    model = open(device)
    if (found := model.fingerprint()) != fingerprint:
        raise MismatchError(
            f"{model.name}: a worker has loaded another model ({found[:12]}, not {fingerprint[:12]}). "
            "Use a path that is the same file on every machine"
        )
    return model


@dataclass(slots=True)
class _Run:
    """The state of one run in the driver: the dreams to make, and the results."""

    source: DreamSource
    folder: DreamFolder
    model: WorldModel
    task: DreamTask
    workers: DreamWorkers | None
    watch: ProgressListener
    to_dream: list[Episode] = field(default_factory=list)
    to_complete: list[Incomplete] = field(default_factory=list)
    with_others: list[Episode] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    made: int = 0
    completed: int = 0
    stats: list[DreamStats] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)
    dreaming_seconds: float = 0.0
    progress: DreamProgress = field(init=False)
    claims: Claims = field(init=False)

    def __post_init__(self) -> None:
        self.progress = DreamProgress(0, self.task.settings.steps)
        self.claims = Claims(self.folder.root)

    def sort_out(self, episodes: Sequence[Episode]) -> None:
        """Sort the dreams of these episodes: complete, without some files, or not made yet.

        Raises:
            MismatchError: an existing dream has another context.
        """
        self.to_dream, self.to_complete = [], []
        for episode in episodes:
            saved = self.folder.saved(episode.name)
            if saved is None:
                self.to_dream.append(episode)
                continue
            try:
                identity = episode.identity()
            except (RefusedInput, IntegrityError) as why:
                self._fail(failure_of(episode, why))
                continue
            if saved.identity != identity:
                raise MismatchError(
                    f"{self.folder.path(episode.name, 'json')}: a dream of another {episode.name} "
                    f"(from {saved.source}, or as that was then). Use another --out"
                )
            if missing := self.folder.missing(episode.name, self.task.save):
                self.to_complete.append(Incomplete(episode, saved.start, missing))
            else:
                self.there.append(episode.name)

    def complete(self) -> None:
        """Make missing files of dreams from their tokens; dreams without tokens are made again."""
        stage = self._stage("complete", CompleteDreams(self.task, self.claims.dead))
        outcome: Outcome[Incomplete, bool | None]
        for outcome in self._runner.run(stage, self.to_complete, self._advance):
            item, result = outcome.item, outcome.result
            if isinstance(result, RefusedInput):
                self._fail(failure_of(item.episode, result))
            elif result is None:
                self.with_others.append(item.episode)
            elif result:
                self.there.append(item.episode.name)
                self.completed += 1
                line = f"{item.episode.name}: {', '.join(item.missing)} added"
                event = Event(name="done", item=item.episode.name)
                self.watch.message(line, warning=False, event=event)
            else:
                self.to_dream.append(item.episode)

    def dream_all(self, most: int) -> None:
        """Make the missing dreams, in batches of at most `most` episodes."""
        if not self.progress.frames:
            self.progress.started = time.monotonic()
        self.progress.dreams += len(self.to_dream)
        self.watch.progressed(self.progress)
        shares = self.workers.count if self.workers else 1
        size = max(1, min(most, -(-len(self.to_dream) // shares)))
        stage = self._stage("dream", DreamBatches(self.task, self.claims.dead))
        batches = [
            tuple(self.to_dream[first : first + size])
            for first in range(0, len(self.to_dream), size)
        ]
        outcome: Outcome[Batch, Dreamt]
        for outcome in self._runner.run(stage, batches, self._advance):
            self._take(outcome)

    def _take(self, outcome: Outcome[Batch, Dreamt]) -> None:
        """Record the outcome of one batch."""
        result = outcome.result
        if isinstance(result, RefusedInput):
            failed = tuple(failure_of(episode, result) for episode in outcome.item)
            result = Dreamt((), (), failed, (), 0.0)
        for note in result.notes:
            self._warn(note)
        for each in result.failed:
            self.progress.dreams -= 1
            self._fail(each)
        self.progress.dreams -= len(result.left)
        self.with_others += [each for each in outcome.item if each.name in result.left]
        self.stats += result.stats
        self.dreaming_seconds += result.seconds
        for name in result.made:
            self.there.append(name)
            self.made += 1
            self.progress.done += 1
            self.watch.progressed(self.progress)
            event = Event(name="done", item=name, facts={"frames": self.task.settings.steps})
            self.watch.message(f"{name}: dreamt", warning=False, event=event)

    def not_with_others(self) -> list[Episode]:
        """The dreams that other commands had and have no more: they made them, failed, or died.

        Waits until there is one. Returns none when no other command has any.
        """
        while self.with_others:
            holders = [self.claims.holder(episode.name) for episode in self.with_others]
            both = list(zip(self.with_others, holders, strict=True))
            if free := [episode for episode, holder in both if holder is None]:
                self.with_others = [episode for episode, holder in both if holder is not None]
                return free
            names = ", ".join(sorted({str(holder) for holder in holders}))
            self._warn(f"waiting for dreams that another command makes in this folder: {names}")
            self.watch.progressed(self.progress)
            time.sleep(WAIT_SECONDS)
        return []

    def report(self, out: str, seconds: float) -> DreamReport:
        """The report, which counts every episode."""
        frames = self.made * self.task.settings.steps
        return DreamReport(
            out=out,
            source=printable(self.source.description),
            model=self.model.name,
            mode=self.task.settings.mode,
            actions=self.task.settings.actions.description,
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

    @property
    def _runner(self) -> Runner:
        return self.workers.runner if self.workers else LocalRunner()

    def _stage(self, name: str, setup: Callable[[WorldModel], Work[Any, Any]]) -> Stage[Any, Any]:
        """A stage in which each worker has its own world model."""
        if self.workers is None:
            service = Service("world model", lambda _: self.model)
        else:
            same = partial(open_same, self.workers.open, self.task.fingerprint)
            service = Service("world model", same, self.workers.device, per_gpu=1)
        return Stage(name, setup, service, owns=True)

    def _advance(self, steps: int) -> None:
        self.progress.frames += steps
        self.watch.progressed(self.progress)

    def _fail(self, failed: Failed) -> None:
        self.failed.append(failed)
        self.progress.reasons[failed.reason] += 1
        self.watch.message(failed.line, warning=False, event=failed.event)

    def _warn(self, line: str) -> None:
        """Show a line, once."""
        if line not in self.warned:
            self.warned.add(line)
            self.watch.message(line, warning=True)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _check_apart(source: DreamSource, folder: DreamFolder) -> None:
    """Refuse to write into the source of the dreams, or over one of its files."""
    out = Path(os.path.realpath(folder.root))
    if source.root is not None and out.is_relative_to(source.root):
        raise UsageError(
            f"--out {out}: is inside {source.root}, the source of the dreams. Use another --out"
        )
    for episode in source.episodes:
        made = folder.path(episode.name, "npz")
        if os.path.realpath(made) == os.path.realpath(episode.source):
            raise UsageError(
                f"--out {out}: {episode.source} would be overwritten. Use another --out"
            )
