"""What commands take out of `keep`, and why: an entry for each command in the column `left_out`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from wham_data.schemas.clock import runs_of
from wham_data.schemas.errors import UsageError

FILTER: Final = "filter"
"""The command that leaves out what is not play."""
Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of steps, in order."""
Parts = tuple[tuple[int, int, str], ...]
"""(start, end, reason) each, in order; none overlap."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What one command has taken out of `keep`.

    by        the command, such as "filter"
    rules     hash of the rules it went by
    made      when, UTC
    before    `keep` without any command's work: ranges [start, end), so that it can be undone
    parts     (start, end, reason) of what is left out, in order; none overlap
    unjudged  kinds of reasons that could not be judged, such as "menu"

    Raises:
        UsageError: the parts are out of order.
    """

    by: str
    rules: str
    made: datetime
    before: Ranges
    parts: Parts = ()
    unjudged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        last = 0
        for start, end, reason in self.parts:
            if not last <= start < end or not reason:
                raise UsageError(f"left out by {self.by}: part [{start}, {end}) is out of order")
            last = end

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LeftOut:
        """What a manifest record says."""
        before = tuple((each["start"], each["end"]) for each in record["before"])
        parts = tuple((each["start"], each["end"], each["reason"]) for each in record["parts"])
        unjudged = tuple(record["unjudged"])
        return cls(**{**record, "before": before, "parts": parts, "unjudged": unjudged})

    def to_record(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        parts = [{"start": start, "end": end, "reason": why} for start, end, why in self.parts]
        return {
            **asdict(self),
            "before": range_records(self.before),
            "parts": parts,
            "unjudged": [*self.unjudged],
        }


def keep_after(before: Ranges, left_out: Iterable[LeftOut]) -> Ranges:
    """What is kept of some ranges. Two that touch stay two, so no window crosses their border."""
    end = max((stop for _, stop in before), default=0)
    out = np.zeros(end, np.bool_)
    for each in left_out:
        for start, stop, _ in each.parts:
            out[start:stop] = True
    pieces = ((start, ~out[start:stop]) for start, stop in before)
    return tuple((start + a, start + b) for start, kept in pieces for a, b in runs_of(kept))


def steps_by_reason(left_out: Sequence[LeftOut], n_steps: int) -> dict[str, int]:
    """How many steps are left out, by reason; a step counts once, for the first entry that has it."""
    free, counts = np.ones(n_steps, np.bool_), dict[str, int]()
    for each in left_out:
        for start, stop, reason in each.parts:
            counts[reason] = counts.get(reason, 0) + int(free[start:stop].sum())
            free[start:stop] = False
    return counts


def range_records(ranges: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    """Ranges as the manifest stores them."""
    return [{"start": start, "end": end} for start, end in ranges]
