"""Progress of a long run, for the person or the program that watches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wham_data.cli.progress import drawn
from wham_data.pipelines.run.progress import ProgressListener, Silent


@contextmanager
def shown(*, quiet: bool, verbose: bool) -> Iterator[ProgressListener]:
    """A listener to hand to any job: it draws what it hears until the block ends.

    Args:
        quiet: draw nothing.
        verbose: show every message, not warnings alone.
    """
    if quiet:
        yield Silent()
    else:
        with drawn.drawn(verbose=verbose) as listener:
            yield listener
