"""Which windows there are: plain arithmetic on row numbers.

A window of L steps may begin at a row if all its rows lie in one stretch: rows of one episode, in
one of its `keep` ranges. Starts of a stretch are `stride` rows apart, counted from its beginning;
leaving out windows with an unknown action leaves the others where they are.

Nothing here holds an object per episode or per window: a run of starts is three numbers, and the
k-th window of all is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import UsageError

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a window is.

    length            L, steps with an observation and an action
    stride            rows from one start to the next
    next_observation  one more observation at the end, the one that the last action led to
    """

    length: int
    stride: int = 1
    next_observation: bool = False

    def __post_init__(self) -> None:
        if self.length < 1 or self.stride < 1:
            raise UsageError(
                f"windows of {self.length} steps every {self.stride} steps: expected 1 or more"
            )

    @property
    def observations(self) -> int:
        """Rows that a window touches."""
        return self.length + self.next_observation


@dataclass(frozen=True, slots=True)
class Starts:
    """Rows at which windows may begin, as intervals [low, high) of the rows of a shard; int64 [I].

    origin   where the stretch of the interval begins: starts are a whole number of strides from it
    episode  whose rows they are, any number
    """

    shard: Numbers
    low: Numbers
    high: Numbers
    origin: Numbers
    episode: Numbers

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, which: slice) -> Starts:
        """Some of the intervals."""
        return Starts(*(getattr(self, name)[which] for name in self.__slots__))

    @staticmethod
    def joined(parts: Sequence[Starts]) -> Starts:
        """The intervals of all parts, one part after another."""
        names = Starts.__slots__
        return Starts(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def starts_within(
    shard: Numbers, first: Numbers, after: Numbers, episode: Numbers, shape: Shape
) -> Starts:
    """Where windows may begin in stretches of rows [first, after) of shards; int64 [I] each."""
    return Starts(shard, first, after - shape.observations + 1, first, episode)


def without_rows(starts: Starts, rows: Numbers, length: int) -> Starts:
    """The starts of those windows whose first `length` rows hold none of `rows`.

    Args:
        starts: intervals of one shard in order of their rows, the stretches not overlapping.
        rows: of that shard, sorted.
    """
    owner = np.searchsorted(starts.origin, rows, side="right") - 1
    reached = (owner >= 0) & (rows < starts.high[owner] + length - 1)
    owner, rows = owner[reached], rows[reached]
    # A start between two such rows u < v lies behind u and at least `length` before v.
    owners = np.concatenate([np.arange(len(starts)), owner])
    low = np.concatenate([starts.low, rows + 1])
    high = np.concatenate([starts.high, rows - length + 1])
    by_low, by_high = np.lexsort((low, owners)), np.lexsort((high, owners))
    owners = owners[by_low]
    shard, origin, episode = starts.shard[owners], starts.origin[owners], starts.episode[owners]
    return Starts(shard, low[by_low], high[by_high], origin, episode)


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows, in runs; run r holds windows ends[r - 1] to ends[r].

    shard  int32 [R]  number of the shard
    first  int64 [R]  row at which its first window begins; the others follow `stride` apart
    ends   int64 [R]  windows up to and including run r
    """

    shard: NDArray[np.int32]
    first: Numbers
    ends: Numbers
    stride: int

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def counts(self, low: int = 0, high: int | None = None) -> Numbers:
        """Windows of each run, or of runs low to high; int64."""
        return np.diff(self.ends[low:high], prepend=self.ends[low - 1] if low else np.int64(0))

    def locate(self, windows: Numbers) -> tuple[NDArray[np.int32], Numbers]:
        """Shard and first row of each window.

        Args:
            windows: int64 [B], from 0 to the number of windows - 1.
        """
        run = np.searchsorted(self.ends, windows, side="right")
        # The first window of a run is the end of the run before, and 0 for the first run.
        before = self.ends[run - 1] * (run > 0)
        return self.shard[run], self.first[run] + (windows - before) * self.stride


def windows_at(starts: Starts, stride: int, at_most: int | None = None) -> tuple[Windows, Numbers]:
    """The windows at some starts, in this order.

    Args:
        at_most: cut longer runs into several, of so many windows.

    Returns:
        the windows, and the interval that each run is of, int64 [R].
    """
    first = starts.low + (starts.origin - starts.low) % stride
    count = np.maximum(0, -((first - starts.high) // stride))
    interval = np.flatnonzero(count)
    first, count = first[interval], count[interval]
    if at_most is not None:
        pieces = -(-count // at_most)
        interval = np.repeat(interval, pieces)
        nth = np.arange(len(interval)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = np.repeat(first, pieces) + nth * at_most * stride
        count = np.minimum(np.repeat(count, pieces) - nth * at_most, at_most)
    shard = starts.shard[interval].astype(np.int32)
    return Windows(shard, first, np.cumsum(count, dtype=np.int64), stride), interval
