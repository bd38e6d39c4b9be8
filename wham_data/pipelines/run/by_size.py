"""Runs a stage in this process, and the rest of it on Ray if so much is left that Ray's start pays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.runner import Advance, In, LocalRunner, Out, Outcome, Runner, Stage

START_SECONDS = 16.0
"""What the start of Ray and of its workers takes, by benchmarks/ingest.py on two busy cores."""


class _LeaveError(BaseException):
    """The item at hand is to be given up here; no `except Exception` of the work may hold it."""


class BySize:
    """Chooses by the size of the job, which shows after some seconds of work.

    Args:
        rest: makes the runner for what is left. Called at most once per run.
        watch: is told of the change.
        cores: count of items that the other runner works on at once; None: cores of this machine.
        start_seconds: what its start takes.
    """

    def __init__(
        self,
        rest: Callable[[], Runner],
        watch: ProgressListener,
        *,
        cores: int | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._rest = rest
        self._watch = watch
        self._cores = cores or os.cpu_count() or 1
        self._start_seconds = start_seconds

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`. The item at hand when Ray is started is begun again."""
        done = frames = 0
        started: float | None = None

        def counted(count: int) -> None:
            nonlocal frames, started
            started = started or time.monotonic()
            frames += count
            advance(count)
            if self._pays(done, len(items) - done, started):
                raise _LeaveError

        try:
            for outcome in LocalRunner().run(stage, items, counted):
                started = started or time.monotonic()
                done, frames = done + 1, 0
                yield outcome
                if self._pays(done, len(items) - done, started):
                    break
            else:
                return
        except _LeaveError:
            if frames:
                advance(-frames)
        yield from self._rest().run(stage, items[done:], advance)

    def _pays(self, done: int, left: int, started: float) -> bool:
        """Whether Ray would be sooner done, twice its start included; if so, say it."""
        each = (time.monotonic() - started) / max(done, 1)
        saved = each * left * (1 - 1 / max(1, min(self._cores, left)))
        if saved <= 2 * self._start_seconds:
            return False
        self._watch.message(
            f"{left} inputs are left, about {each * left / 60:.0f} minutes in this process: Ray is started "
            f"for them, with {min(self._cores, left)} at a time (--workers 0: never)",
            warning=True,
        )
        return True
