"""Runners run a stage: in this process, or on Ray (`ray_jobs.py`). Both yield the same outcomes.

A stage is a function from one item to one result. It reports its progress while it works:

    def double(n: int, advance: Advance) -> int:
        advance(1)
        return 2 * n

    LocalRunner().run(Stage("double", setup=lambda service: double), [1, 2, 3], advance)

If a stage raises `RefusedInput`, this is the outcome of that item, and the run continues: one bad
recording must not stop a job. Any other exception is a bug or a broken machine, and ends the run.

A stage that needs something heavy (a tokenizer, a metric network, a world model) names it as its
`Service`. The runner opens the service, on an accelerator if there is one, and knows nothing else
about it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from wham_data.pipelines.run.errands import Errands
from wham_data.schemas.errors import RefusedInput

In = TypeVar("In")
Out = TypeVar("Out")
Request = TypeVar("Request", contravariant=True)
Answer = TypeVar("Answer", covariant=True)


Advance = Callable[[int], None]
"""Called by the work with the number of frames done since the last call. Negative if frames must be
done again."""
Work = Callable[[In, Advance], Out]
AHEAD = 4
"""Requests per thread that are made before the first of them is answered."""


@dataclass(frozen=True, slots=True)
class Service:
    """Something heavy that a stage needs and a runner hosts. It is sent to workers, so it pickles.

    name           its name in messages
    open           opens it on a device. A shared service is then called with one request after the
                   other
    device         where it runs: "auto", "cpu", "cuda" or "cuda:N"
    rows_together  requests and answers are arrays, and waiting requests may be joined along their
                   first axis, up to this many rows; 0: each request is answered alone
    per_gpu        number of instances that share a GPU
    at_once        requests that one instance answers at the same time, in threads. The job then has
                   only this instance, which can keep to a limit. 0: one request after the other
    """

    name: str
    open: Callable[[str], Any]
    device: str = "auto"
    rows_together: int = 0
    per_gpu: int = 2
    at_once: int = 0


class Hosted(Protocol[Request, Answer]):
    """A shared service, for use in a stage."""

    def ask(self, request: Request) -> Answer:
        """The answer to one request."""
        ...

    def stream(self, requests: Iterator[Request]) -> Iterator[Answer]:
        """One answer for each request, in order. Reads only a few requests ahead."""
        ...


@dataclass(frozen=True, slots=True)
class Stage(Generic[In, Out]):
    """One kind of work.

    name     its name in messages
    setup    called once in every worker before its items, with the service as a `Hosted`, or with None
             if the stage has no service
    service  the service that the stage needs
    owns     True: every worker opens the service for itself, and `setup` is called with the result
             of `open`, for a stage that mostly uses its service. False: workers share the service
    check    makes what is needed to check other machines, and yields the check. It is called on every
             machine before that gets work, and raises `WhamDataError` if it cannot do the work
    """

    name: str
    setup: Callable[[Any], Work[In, Out]]
    service: Service | None = None
    owns: bool = False
    check: Callable[[], AbstractContextManager[Callable[[], None]]] | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[In, Out]):
    """The outcome of one item: its result, or the reason of its refusal."""

    item: In
    result: Out | RefusedInput


@runtime_checkable
class Growing(Protocol):
    """Items of which more may come while the first are in work."""

    @property
    def left(self) -> int:
        """How many are known and not given out yet."""

    @property
    def all_known(self) -> bool:
        """Whether no more will come."""

    @property
    def errands(self) -> Errands[Any, Any] | None:
        """What has to be done to know more of them; None: nothing."""


def left_of(items: Iterable[Any]) -> tuple[int, bool]:
    """How many items are left at least, and whether that is all. Of a collection: all it has."""
    if isinstance(items, Growing):
        return items.left, items.all_known
    return (len(items), True) if isinstance(items, Sized) else (0, False)


def errands_of(items: Iterable[Any]) -> Errands[Any, Any] | None:
    """See `Growing.errands`."""
    return items.errands if isinstance(items, Growing) else None


class Runner(Protocol):
    """Runs a stage over items, in any order."""

    def run(
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """Yield one outcome for every item. `advance` is called in this process in the meantime.

        Args:
            stage: the work.
            items: what to work on. They may come one by one, and be waited for: see `Growing`.
            advance: is told of progress.
        """
        ...


class InProcess(Generic[Request, Answer]):
    """A service in this process."""

    def __init__(self, call: Callable[[Request], Answer], at_once: int = 0) -> None:
        self._call, self._at_once = call, at_once

    def ask(self, request: Request) -> Answer:
        """See `Hosted.ask`."""
        return self._call(request)

    def stream(self, requests: Iterator[Request]) -> Iterator[Answer]:
        """See `Hosted.stream`."""
        if not self._at_once:
            return map(self._call, requests)
        return in_threads(self._call, requests, self._at_once)


def _result(future: Future[Answer]) -> Answer:
    """The result when it is there. A wait without an end might not see a signal."""
    while not future.done():
        wait((future,), timeout=0.2)
    return future.result()


def in_threads(
    call: Callable[[Request], Answer], requests: Iterator[Request], threads: int
) -> Iterator[Answer]:
    """One answer for each request, in order, with so many calls at the same time.

    If the caller ends early, calls under way are left alone: the program does not wait for them.
    """
    waiting: queue.SimpleQueue[tuple[Request, Future[Answer]] | None] = queue.SimpleQueue()

    def answer_them() -> None:
        while (item := waiting.get()) is not None:
            request, future = item
            try:
                future.set_result(call(request))
            except BaseException as error:
                future.set_exception(error)

    sent: deque[Future[Answer]] = deque()
    try:
        for _ in range(threads):
            threading.Thread(target=answer_them, daemon=True).start()
        for request in requests:
            sent.append(Future())
            waiting.put((request, sent[-1]))
            # So that a slow answer does not keep the other threads idle.
            if len(sent) >= AHEAD * threads:
                yield _result(sent.popleft())
        while sent:
            yield _result(sent.popleft())
    finally:
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        for _ in range(threads):
            waiting.put(None)


class LocalRunner:
    """One item after the other in this process."""

    def run(
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`."""
        work = stage.setup(_opened(stage))
        for item in items:
            yield Outcome(item, result_of(work, item, advance))


def result_of(work: Work[In, Out], item: In, advance: Advance) -> Out | RefusedInput:
    """The result of the work on one item, or its refusal."""
    try:
        return work(item, advance)
    except RefusedInput as refusal:
        return refusal


def _opened(stage: Stage[In, Out]) -> Any:
    """The stage's service, in this process."""
    if stage.service is None:
        return None
    opened = stage.service.open(stage.service.device)
    return opened if stage.owns else InProcess(opened, stage.service.at_once)
