"""Progress of a long run on stderr: a live block on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wham_data.cli.console import say
from wham_data.pipelines.run.progress import Event, Progress, ProgressListener
from wham_data.schemas.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

LIVE_EVERY_SECONDS = 0.2
BAR_WIDTH = 40


@contextmanager
def for_a_person(*, verbose: bool, every: float) -> Iterator[ProgressListener]:
    """A listener that draws what it hears until the block ends.

    Args:
        verbose: show every message, not warnings alone.
        every: shortest time between two plain lines of progress, in seconds.
    """
    if sys.stderr.isatty():
        with _bars() as bars:
            yield _Live(bars, verbose)
    else:
        yield _Plain(verbose, every)


class Due:
    """Whether it is time again. The first time is one period from now.

    Args:
        every: the period in seconds.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = time.monotonic() + every

    def __call__(self) -> bool:
        """True if a period has passed since it was last true."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every
        return True


class _Plain:
    """One line now and then, for logs and pipes."""

    def __init__(self, verbose: bool, every: float) -> None:
        self._verbose = verbose
        self._due = Due(every)

    def progressed(self, progress: Progress) -> None:
        """See `ProgressListener.progressed`."""
        if self._due():
            say(one_line(progress))

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:  # noqa: ARG002
        """See `ProgressListener.message`."""
        if text and (warning or self._verbose):
            say(printable(text))


class _Live:
    """A block that is redrawn in place; messages scroll above it."""

    def __init__(self, bars: Bars, verbose: bool) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=1.0, visible=False)
        self._verbose = verbose
        self._next = 0.0

    def progressed(self, progress: Progress) -> None:
        """See `ProgressListener.progressed`."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LIVE_EVERY_SECONDS
            self._bars.update(
                self._task,
                completed=progress.share,
                visible=True,
                eta=eta(progress),
                figures=figures(progress, "   "),
                refresh=True,
            )

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:  # noqa: ARG002
        """See `ProgressListener.message`."""
        if text and (warning or self._verbose):
            from rich.text import Text

            style = "yellow" if warning else "dim"
            self._bars.console.print(Text(printable(text), style=style), soft_wrap=True)


def _bars() -> Bars:
    """A bar, the share and the time left on one line; the figures on the next."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Block(Bars):
        def get_renderables(self) -> Iterable[RenderableType]:
            for task in (each for each in self.tasks if each.visible):
                yield self.make_tasks_table([task])
                yield Text(task.fields["figures"])

    return Block(
        BarColumn(BAR_WIDTH),
        TaskProgressColumn(),
        TextColumn("{task.fields[eta]}"),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )


def one_line(progress: Progress) -> str:
    """All that is shown of a job, as one line."""
    return f"{progress.share:4.0%}  {figures(progress, '  ')}  {eta(progress)}"


def figures(progress: Progress, gap: str) -> str:
    """The count and the other figures, with a gap between two."""
    done, total = progress.counts
    pairs = ((progress.unit, f"{done}/{total}"), *progress.figures)
    return gap.join(f"{label} {text}".strip() for label, text in pairs)


def eta(progress: Progress) -> str:
    """Time left at the pace so far."""
    left = progress.seconds_left
    if left is None:
        return "starting"
    minutes, seconds = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"ETA {hours}:{minutes:02d}:{seconds:02d}" if hours else f"ETA {minutes}:{seconds:02d}"
