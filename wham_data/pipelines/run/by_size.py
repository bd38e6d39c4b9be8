"""Runs a stage in this process, and the rest of it on Ray if so much is left that Ray's start pays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Generic

from wham_data.pipelines.run.errands import Errands
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.runner import (
    Advance,
    In,
    LocalRunner,
    Out,
    Outcome,
    Runner,
    Stage,
    errands_of,
    left_of,
)

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
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`. The item at hand when Ray is started is begun again."""
        rest = _Rest(items)
        frames = 0
        started: float | None = None

        def counted(count: int) -> None:
            nonlocal frames, started
            started = started or time.monotonic()
            frames += count
            advance(count)
            if self._pays(rest, started):
                raise _LeaveError

        try:
            for outcome in LocalRunner().run(stage, rest, counted):
                started = started or time.monotonic()
                frames = 0
                rest.ended()
                yield outcome
                if self._pays(rest, started):
                    break
            else:
                return
        except _LeaveError:
            if frames:
                advance(-frames)
        yield from self._rest().run(stage, rest, advance)

    def _pays(self, rest: _Rest[Any], started: float) -> bool:
        """Whether Ray would be sooner done, twice its start included; if so, say it."""
        left = rest.left
        each = (time.monotonic() - started) / max(rest.done, 1)
        saved = each * left * (1 - 1 / max(1, min(self._cores, left)))
        if saved <= 2 * self._start_seconds:
            return False
        at_least = "" if rest.all_known else "at least "
        self._watch.message(
            f"{at_least}{left} inputs are left, about {each * left / 60:.0f} minutes in this process: Ray "
            f"is started for them, with {min(self._cores, left)} at a time (--workers 0: never)",
            warning=True,
        )
        return True


class _Rest(Generic[In]):
    """The items that are not done; iterating again begins with the one at hand."""

    def __init__(self, items: Iterable[In]) -> None:
        self._items = items
        self._waiting = iter(items)
        self._at_hand: list[In] = []
        self._taken = 0
        self.done = 0

    def __iter__(self) -> Iterator[In]:
        yield from self._at_hand
        for item in self._waiting:
            self._taken += 1
            self._at_hand = [item]
            yield item

    def ended(self) -> None:
        """The item at hand is done."""
        self._at_hand.clear()
        self.done += 1

    @property
    def left(self) -> int:
        """See `Growing`; with the one at hand."""
        left = left_of(self._items)[0]
        return left + len(self._at_hand) - (self._taken if isinstance(self._items, Sized) else 0)

    @property
    def all_known(self) -> bool:
        """See `Growing`."""
        return left_of(self._items)[1]

    @property
    def errands(self) -> Errands[Any, Any] | None:
        """See `Growing`."""
        return errands_of(self._items)
