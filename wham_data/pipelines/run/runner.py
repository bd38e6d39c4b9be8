"""Where a stage runs: here, or on Ray (`ray_jobs.py`). Both yield the same outcomes.

A stage is a function from one item to one result that tells how far it is while it works:

    def double(n: int, advance: Advance) -> int:
        advance(1)
        return 2 * n

    LocalRunner().run(Stage("double", setup=lambda service: double), [1, 2, 3], advance)

What a stage raises as `RefusedInput` is that item's outcome and the rest goes on: one bad recording
must not sink a job. Anything else is a bug or a broken machine and ends the run.

A stage that needs something heavy (a tokenizer, a metric network, a world model) names it as its
`Service`. The runner opens it, on an accelerator where there is one, and does not know what it does.
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
"""Called by whoever works, with how many more frames are done; negative when some are done again."""
Work = Callable[[In, Advance], Out]


@dataclass(frozen=True, slots=True)
class Service:
    """Something heavy that a stage needs and a runner hosts. It travels to workers, so it pickles.

    name           for messages
    open           opens it on a device; a service that is shared is then called with one request
                   after the other
    device         where it shall run: "auto", "cpu" or "cuda"
    rows_together  requests and answers are arrays, and those that wait may be joined along their
                   first axis up to this many rows; 0: each request is answered alone
    per_gpu        how many of it share a GPU
    """

    name: str
    open: Callable[[str], Any]
    device: str = "auto"
    rows_together: int = 0
    per_gpu: int = 2


class Hosted(Protocol[Request, Answer]):
    """A shared service, as a stage sees it."""

    def ask(self, request: Request) -> Answer:
        """The answer to one request."""
        ...

    def stream(self, requests: Iterator[Request]) -> Iterator[Answer]:
        """The answers in order, one for one; reads a few requests ahead at most."""
        ...


@dataclass(frozen=True, slots=True)
class Stage(Generic[In, Out]):
    """One kind of work.

    name     for messages
    setup    called in every worker before its items, with the service as a `Hosted`; None where
             the stage has none
    service  what the stage needs
    owns     every worker opens the service for itself, and `setup` is called with what `open`
             returned: for a stage whose work is the service's. Else workers share it
    """

    name: str
    setup: Callable[[Any], Work[In, Out]]
    service: Service | None = None
    owns: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(Generic[In, Out]):
    """What came of one item: its result, or the reason it was refused."""

    item: In
    result: Out | RefusedInput


class Runner(Protocol):
    """Runs a stage over items, in any order."""

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """Yield one outcome for every item; `advance` is called in between, in this process."""
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
