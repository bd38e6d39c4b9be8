"""A part of an export is written: the work that a runner shares out.

Each part is written into a private folder of its own; the job puts it in place. Nothing here knows
where it runs. An episode that cannot be written is left out of its part, which is then written again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.run.progress import Failed
from wham_data.pipelines.run.runner import Advance, Hosted, Service, Work
from wham_data.pipelines.writers import Content, Part, Place, Writer
from wham_data.pipelines.writers.stretches import Stretch, Unfit
from wham_data.schemas.errors import Reason, RefusedInput, printable
from wham_data.schemas.recording import Frames


@dataclass(frozen=True, slots=True)
class PartToWrite:
    """A part, what lies before it, and the private folder for its files."""

    part: Part
    place: Place
    folder: Path


@dataclass(frozen=True, slots=True)
class WrittenPart:
    """What lies in the folder of a part.

    episodes  names of the episodes in it
    steps     of each of them
    facts     what the writer noted
    failed    the episodes that are not in it
    """

    episodes: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteParts:
    """Set-up of the stage: travels to the workers."""

    writer: Writer
    content: Content

    def __call__(
        self, decoder: Hosted[NDArray[np.uint16], Frames] | None
    ) -> Work[PartToWrite, WrittenPart]:
        """The work on one part.

        Args:
            decoder: makes pictures of tokens, where none are stored.
        """

        def work(item: PartToWrite, advance: Advance) -> WrittenPart:
            counted = _Counted(advance)
            stretches = tuple(
                replace(each, source=replace(each.source, decoder=decoder, advance=counted.advance))
                for each in item.part.stretches
            )
            result = self._write(
                replace(item, part=replace(item.part, stretches=stretches)), counted
            )
            counted.reach(item.part.n_steps)
            return result

        return work

    def _write(self, item: PartToWrite, counted: _Counted) -> WrittenPart:
        """Write a part, without those of its episodes that cannot be."""
        left, failed = list(item.part.stretches), list[Failed]()
        while left:
            shutil.rmtree(item.folder, ignore_errors=True)
            item.folder.mkdir(parents=True)
            part = replace(item.part, stretches=tuple(left))
            try:
                self._check_steady(part)
                facts = self.writer.write(part, item.place, self.content, item.folder)
            except Unfit as unfit:
                left.remove(unfit.stretch)
                failed.append(failure_of(unfit.stretch, unfit.why))
                counted.reach(0)
                continue
            names, steps = tuple(each.name for each in left), tuple(each.n_steps for each in left)
            return WrittenPart(names, steps, facts, tuple(failed))
        shutil.rmtree(item.folder, ignore_errors=True)
        return WrittenPart(failed=tuple(failed))

    def _check_steady(self, part: Part) -> None:
        if (rate := self.content.rate) and self.writer.demands.steady:
            for stretch in part.stretches:
                stretch.check_steady(rate)


def failure_of(stretch: Stretch, why: Exception) -> Failed:
    """What the report says of an episode that is not written."""
    reason = why.reason if isinstance(why, RefusedInput) else Reason.CORRUPT
    return Failed(stretch.name, printable(stretch.row.source), str(reason), printable(str(why)))


def decoder_service(tokenizer: str, device: str) -> Service:
    """The tokenizer's decoder as a service.

    Each request is decoded alone: pictures must not depend on what else waits.
    """
    return Service("tokenizer", partial(_decode_with, tokenizer), device)


def _decode_with(tokenizer: str, device: str) -> Callable[[NDArray[np.uint16]], Frames]:
    from wham_data.inference.tokenizer import load_tokenizer

    return load_tokenizer(tokenizer, device).decode


@dataclass(slots=True)
class _Counted:
    """Passes on how many steps of a part are done, and keeps their sum."""

    listener: Advance
    steps: int = 0

    def advance(self, steps: int) -> None:
        """So many more steps are read."""
        self.steps += steps
        self.listener(steps)

    def reach(self, steps: int) -> None:
        """Bring the sum that was passed on to this."""
        if self.steps != steps:
            self.advance(steps - self.steps)
