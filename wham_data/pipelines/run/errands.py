"""Small work that finding items needs: threads here do it, and besides them a runner that has nodes.

Threads take what was asked for first, which is waited for next. What nodes do is answered when they have
done it; what they lose is done here. So nothing depends on them, and they come and go at any time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Final, Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

BEHIND_SECONDS: Final = 1.0
"""Nodes help when something has waited for so long, so a small run does not start a process for it."""
TAKEN_OVER_SECONDS: Final = 300.0
"""What a node has not answered for so long, an idle thread does too."""
POLL_SECONDS: Final = 1.0


class Errand(Generic[Asked, Answered]):
    """One piece of work.

    item       what it is about
    answer     the result, when it is there
    asked      when it was asked for, by the monotonic clock
    here_only  nodes have lost it once
    """

    __slots__ = ("answer", "asked", "here_only", "item")

    def __init__(self, item: Asked) -> None:
        self.item = item
        self.answer: Future[Answered] = Future()
        self.asked = time.monotonic()
        self.here_only = False

    def done(self, result: Answered) -> None:
        """Give the answer, if nobody has given one."""
        with suppress(InvalidStateError):
            self.answer.set_result(result)

    def run(self, do: Callable[[Asked], Answered]) -> None:
        """Do it, and give the answer or the error."""
        try:
            self.done(do(self.item))
        except BaseException as error:
            with suppress(InvalidStateError):
                self.answer.set_exception(error)


class Errands(Generic[Asked, Answered]):
    """Work of one kind.

    Args:
        here: does one errand in this process.
        there: does the same in another one; it pickles.
        threads: count of errands at once in this process.
        name: of what is done, for messages.
    """

    def __init__(
        self,
        here: Callable[[Asked], Answered],
        there: Callable[[Asked], Answered],
        threads: int,
        name: str,
    ) -> None:
        self.there = there
        self.name = name
        self.is_helped = False
        self._here = here
        self.threads = threads
        self._started = 0
        self._changed = threading.Condition()
        self._waiting: deque[Errand[Asked, Answered]] = deque()
        self._elsewhere: dict[Errand[Asked, Answered], float] = {}
        self._closed = False

    def ask(self, item: Asked) -> Future[Answered]:
        """Have something done."""
        errand: Errand[Asked, Answered] = Errand(item)
        with self._changed:
            if self._closed:
                errand.answer.cancel()
                return errand.answer
            self._waiting.append(errand)
            if self._started < self.threads:
                self._started += 1
                threading.Thread(target=self._run, name=self.name, daemon=True).start()
            self._changed.notify()
        return errand.answer

    def close(self) -> None:
        """Begin nothing more. What is not answered is cancelled."""
        with self._changed:
            self._closed = True
            for errand in (*self._waiting, *self._elsewhere):
                errand.answer.cancel()
            self._waiting.clear()
            self._elsewhere.clear()
            self._changed.notify_all()

    @contextmanager
    def helped(self) -> Iterator[None]:
        """During the block nodes take errands; what they have not answered at its end is done here."""
        self.is_helped = True
        try:
            yield
        finally:
            self.is_helped = False
            self.lost(list(self._elsewhere))

    def take(self, most: int) -> list[Errand[Asked, Answered]]:
        """What was asked for last, for a node to do; nothing while the threads here keep up."""
        taken: list[Errand[Asked, Answered]] = []
        with self._changed:
            if not self._waiting or time.monotonic() < self._waiting[0].asked + BEHIND_SECONDS:
                return taken
            while self._waiting and len(taken) < most and not self._waiting[-1].here_only:
                taken.append(self._waiting.pop())
                self._elsewhere[taken[-1]] = time.monotonic()
            self._changed.notify()  # a thread that waits for work looks after what is elsewhere
        return taken

    def answered(
        self, taken: Sequence[Errand[Asked, Answered]], results: Sequence[Answered]
    ) -> None:
        """Take what a node has done: the results of the first of them. The others wait again."""
        for errand, result in zip(taken, results, strict=False):
            errand.done(result)
        with self._changed:
            for errand in taken[: len(results)]:
                self._elsewhere.pop(errand, None)
            for errand in reversed(taken[len(results) :]):
                if self._elsewhere.pop(errand, None) is not None:
                    self._waiting.append(errand)
            self._changed.notify_all()

    def lost(self, taken: Sequence[Errand[Asked, Answered]]) -> None:
        """Have done here what a node did not do."""
        with self._changed:
            for errand in taken:
                errand.here_only = True
                if self._elsewhere.pop(errand, None) is not None:  # else a thread took it over
                    self._waiting.appendleft(errand)
            self._changed.notify_all()

    def _run(self) -> None:
        while (errand := self._next()) is not None:
            errand.run(self._here)

    def _next(self) -> Errand[Asked, Answered] | None:
        with self._changed:
            while not self._closed:
                if self._waiting:
                    return self._waiting.popleft()
                oldest = next(iter(self._elsewhere.items()), None)
                if oldest and time.monotonic() > oldest[1] + TAKEN_OVER_SECONDS:
                    del self._elsewhere[oldest[0]]
                    return oldest[0]
                self._changed.wait(POLL_SECONDS if oldest else None)
            return None
