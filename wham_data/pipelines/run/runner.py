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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from wham_data.schemas.errors import RefusedInput

In = TypeVar("In")
Out = TypeVar("Out")
Request = TypeVar("Request", contravariant=True)
Answer = TypeVar("Answer", covariant=True)


Advance = Callable[[int], None]
"""Called by the work with the number of frames done since the last call. Negative if frames must be
done again."""
Work = Callable[[In, Advance], Out]


@dataclass(frozen=True, slots=True)
class Service:
    """Something heavy that a stage needs and a runner hosts. It is sent to workers, so it pickles.

    name           its name in messages
    open           opens it on a device. A shared service is then called with one request after the
                   other
    device         where it runs: "auto", "cpu" or "cuda"
    rows_together  requests and answers are arrays, and waiting requests may be joined along their
                   first axis, up to this many rows; 0: each request is answered alone
    per_gpu        number of instances that share a GPU
    """

    name: str
    open: Callable[[str], Any]
    device: str = "auto"
    rows_together: int = 0
    per_gpu: int = 2


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
    setup    called in every worker before its items, with the service as a `Hosted`, or with None
             if the stage has no service
    service  the service that the stage needs
    owns     True: every worker opens the service for itself, and `setup` is called with the result
             of `open`, for a stage that mostly uses its service. False: workers share the service
    """

    name: str
    setup: Callable[[Any], Work[In, Out]]
    service: Service | None = None
    owns: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(Generic[In, Out]):
    """The outcome of one item: its result, or the reason of its refusal."""

    item: In
    result: Out | RefusedInput


class Runner(Protocol):
    """Runs a stage over items, in any order."""

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """Yield one outcome for every item. `advance` is called in this process in the meantime."""
        ...


class InProcess(Generic[Request, Answer]):
    """A service in this process."""

    def __init__(self, call: Callable[[Request], Answer]) -> None:
        self._call = call

    def ask(self, request: Request) -> Answer:
        """See `Hosted.ask`."""
        return self._call(request)

    def stream(self, requests: Iterator[Request]) -> Iterator[Answer]:
        """See `Hosted.stream`."""
        return map(self._call, requests)


class LocalRunner:
    """One item after the other in this process."""

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
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
    return opened if stage.owns else InProcess(opened)
