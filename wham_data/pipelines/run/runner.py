"""Where a stage runs: here, or on Ray (`ray_jobs.py`). Both yield the same outcomes.

A stage is a function from one item to one result that tells how far it is while it works:

    def double(n: int, advance: Advance) -> int:
        advance(1)
        return 2 * n

    LocalRunner().run(Stage("double", setup=lambda encoder: double), [1, 2, 3], advance)

What a stage raises as `RefusedInput` is that item's outcome and the rest goes on: one bad recording
must not sink a job. Anything else is a bug or a broken machine and ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Frames

In = TypeVar("In")
Out = TypeVar("Out")
Tokens = NDArray[np.uint16]


Advance = Callable[[int], None]
"""Told, by whoever works, how many more frames are done."""
Work = Callable[[In, Advance], Out]


class Encoder(Protocol):
    """Turns a stream of frame batches into a stream of token batches, in order."""

    def stream(self, batches: Iterator[Frames]) -> Iterator[Tokens]:
        """uint8 [B, H, W, 3] in, uint16 [B, N] out, one for one; reads a few batches ahead at most."""
        ...


@dataclass(frozen=True, slots=True)
class Stage(Generic[In, Out]):
    """One kind of work.

    name       for messages
    setup      called once per worker with the encoder (None where the stage has no tokenizer)
    tokenizer  reference of the tokenizer that the stage encodes with, or None
    device     where the tokenizer runs: "auto", "cpu" or "cuda"
    """

    name: str
    setup: Callable[[Encoder | None], Work[In, Out]]
    tokenizer: str | None = None
    device: str = "auto"


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


class InlineEncoder:
    """An encoder in this process."""

    def __init__(self, tokenizer: str, device: str) -> None:
        from wham_data.inference.tokenizer import load_tokenizer

        self._tokenizer = load_tokenizer(tokenizer, device)

    def stream(self, batches: Iterator[Frames]) -> Iterator[Tokens]:
        """See `Encoder.stream`."""
        return map(self._tokenizer.encode, batches)


class LocalRunner:
    """One item after the other in this process."""

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`."""
        encoder = InlineEncoder(stage.tokenizer, stage.device) if stage.tokenizer else None
        work = stage.setup(encoder)
        for item in items:
            try:
                result: Out | RefusedInput = work(item, advance)
            except RefusedInput as refusal:
                result = refusal
            yield Outcome(item, result)
