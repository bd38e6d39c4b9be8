"""Progress of a long run on stderr: a live block on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from wham_data.cli.console import say
from wham_data.pipelines.collect.account import CollectProgress, CollectWatch
from wham_data.pipelines.dream.report import DreamProgress, DreamWatch
from wham_data.pipelines.export.report import ExportProgress, ExportWatch
from wham_data.pipelines.ingest.report import IngestWatch, Progress
from wham_data.pipelines.run.progress import Pace
from wham_data.schemas.errors import printable

PLAIN_EVERY_SECONDS = 10.0
LIVE_EVERY_SECONDS = 0.2


P = TypeVar("P", Progress, DreamProgress, ExportProgress, CollectProgress)
Draw = Callable[[P], str]


@contextmanager
def shown(*, quiet: bool, verbose: bool) -> Iterator[IngestWatch]:
    """A watcher to hand to `ingest`: it draws what it is told until the block ends."""
    with _drawn(block, one_line, quiet=quiet, verbose=verbose) as watch:
        yield watch


@contextmanager
def dreams_shown(*, quiet: bool, verbose: bool) -> Iterator[DreamWatch]:
    """The same for `run_dreams`."""
    with _drawn(dream_block, dream_line, quiet=quiet, verbose=verbose) as watch:
        yield watch


@contextmanager
def exports_shown(*, quiet: bool, verbose: bool) -> Iterator[ExportWatch]:
    """The same for `export`."""
    with _drawn(export_block, export_line, quiet=quiet, verbose=verbose) as watch:
        yield watch


@contextmanager
def collecting_shown(*, quiet: bool, verbose: bool) -> Iterator[CollectWatch]:
    """The same for `run_collect`."""
    with _drawn(collect_block, collect_line, quiet=quiet, verbose=verbose) as watch:
        yield watch


@contextmanager
def _drawn(
    block: Draw[P], line: Draw[P], *, quiet: bool, verbose: bool
) -> Iterator[_Silent[P] | _Plain[P] | _Live[P]]:
    """A watcher that draws with these."""
    if quiet:
        yield _Silent[P]()
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            yield _Live(live, block, verbose)
    else:
        yield _Plain(line, verbose)


class _Silent(Generic[P]):
    def advanced(self, progress: P) -> None:
        pass

    def told(self, line: str, *, warning: bool) -> None:
        pass


class _Plain(Generic[P]):
    """One line now and then, for logs and pipes."""

    def __init__(self, line: Draw[P], verbose: bool) -> None:
        self._line: Draw[P] = line
        self._verbose = verbose
        self._next = time.monotonic() + PLAIN_EVERY_SECONDS

    def advanced(self, progress: P) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PLAIN_EVERY_SECONDS
            say(self._line(progress))

    def told(self, line: str, *, warning: bool) -> None:
        if warning or self._verbose:
            say(printable(line))


class _Live(Generic[P]):
    """A block that is redrawn in place; what is told scrolls above it."""

    def __init__(self, live: object, block: Draw[P], verbose: bool) -> None:
        from rich.live import Live

        assert isinstance(live, Live)
        self._live = live
        self._block: Draw[P] = block
        self._verbose = verbose
        self._next = 0.0

    def advanced(self, progress: P) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LIVE_EVERY_SECONDS
            self._live.update(self._block(progress), refresh=True)

    def told(self, line: str, *, warning: bool) -> None:
        if warning or self._verbose:
            from rich.text import Text

            self._live.console.print(
                Text(printable(line), style="yellow" if warning else "dim"), soft_wrap=True
            )


def block(progress: Progress) -> str:
    """The live block: a bar and the figures a person waits for."""
    return (
        f"{bar(progress)}\n"
        f"recordings {progress.done}/{progress.to_do}   quarantined {progress.quarantined}   "
        f"{progress.hours:.2f} h of play\n"
        f"{progress.frames_per_second:.0f} frames/s   {progress.tokens_per_second:,.0f} tokens/s"
    )


def one_line(progress: Progress) -> str:
    """The same as one line."""
    return (
        f"{progress.share:4.0%}  recordings {progress.done}/{progress.to_do}  "
        f"quarantined {progress.quarantined}  {progress.hours:.2f} h  "
        f"{progress.frames_per_second:.0f} frames/s  {progress.tokens_per_second:,.0f} tokens/s  "
        f"{eta(progress)}"
    )


def dream_block(progress: DreamProgress) -> str:
    """The live block of dreams."""
    return (
        f"{bar(progress)}\n"
        f"dreams {progress.done}/{progress.dreams}   failed {progress.failed}   "
        f"{progress.frames_per_second:.2f} frames/s"
    )


def dream_line(progress: DreamProgress) -> str:
    """The same as one line."""
    return (
        f"{progress.share:4.0%}  dreams {progress.done}/{progress.dreams}  failed {progress.failed}  "
        f"{progress.frames_per_second:.2f} frames/s  {eta(progress)}"
    )


def export_block(progress: ExportProgress) -> str:
    """The live block of an export."""
    return (
        f"{bar(progress)}\n"
        f"episodes {progress.done}/{progress.episodes}   failed {progress.failed}   "
        f"{progress.steps_per_second:.0f} steps/s"
    )


def export_line(progress: ExportProgress) -> str:
    """The same as one line."""
    return (
        f"{progress.share:4.0%}  episodes {progress.done}/{progress.episodes}  "
        f"failed {progress.failed}  {progress.steps_per_second:.0f} steps/s  {eta(progress)}"
    )


def collect_block(progress: CollectProgress) -> str:
    """The live block of recordings."""
    return (
        f"{bar(progress)}\n"
        f"recordings {progress.done}/{progress.recordings}   failed {progress.failed}   "
        f"{progress.seconds_done / 60:.1f} minutes of play, {progress.times_real:.1f} times real time"
    )


def collect_line(progress: CollectProgress) -> str:
    """The same as one line."""
    return (
        f"{progress.share:4.0%}  recordings {progress.done}/{progress.recordings}  "
        f"failed {progress.failed}  {progress.times_real:.1f} times real time  {eta(progress)}"
    )


def bar(progress: Pace) -> str:
    """How much is done, and how long the rest will take."""
    filled = round(progress.share * 40)
    return f"{'█' * filled}{'░' * (40 - filled)} {progress.share:4.0%}  {eta(progress)}"


def eta(progress: Pace) -> str:
    """Time left at the pace so far."""
    left = progress.seconds_left
    if left is None:
        return "starting"
    minutes, seconds = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"ETA {hours}:{minutes:02d}:{seconds:02d}" if hours else f"ETA {minutes}:{seconds:02d}"
