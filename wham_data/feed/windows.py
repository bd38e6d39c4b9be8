"""The list of all windows, computed from row numbers.

A window of L steps may begin at a row if all its rows lie in one segment: rows of one episode and of
one of its `keep` ranges. The windows of a segment start `stride` rows apart, counted from the first
row of the segment. Windows with an unknown action are removed without moving the others.

There is no object per episode or per window. A run of windows is three numbers, and a binary search
finds the k-th window.
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
    """The shape of a window.

    length            L: number of steps, each with an observation and an action
    stride            rows from the start of one window to the start of the next
    next_observation  the window has one more observation at the end: the result of its last action

    Raises:
        UsageError: `length` or `stride` is below 1.
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
        """Number of rows that a window reads."""
        return self.length + self.next_observation


@dataclass(frozen=True, slots=True)
class Starts:
    """Rows at which windows may begin: I intervals [low, high) of shard rows. Each field is int64 [I].

    shard    number of the shard
    low      first row at which a window may begin
    high     row after the last one at which a window may begin; at or below `low`: no window
    origin   first row of the segment; windows start at whole multiples of the stride from here
    episode  number of the episode; the caller chooses the numbers
    """

    shard: Numbers
    low: Numbers
    high: Numbers
    origin: Numbers
    episode: Numbers

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, which: slice) -> Starts:
        """The selected intervals."""
        return Starts(*(getattr(self, name)[which] for name in self.__slots__))

    @staticmethod
    def joined(parts: Sequence[Starts]) -> Starts:
        """The intervals of all parts in order, the parts one after another."""
        names = Starts.__slots__
        return Starts(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def starts_within(
    shard: Numbers, first: Numbers, after: Numbers, episode: Numbers, shape: Shape
) -> Starts:
    """The rows at which windows may begin in I segments.

    Args:
        shard: shard of each segment, int64 [I].
        first: first row of each segment, int64 [I].
        after: row after the last one of each segment, int64 [I].
        episode: episode of each segment, int64 [I].
        shape: length and stride of the windows.
    """
    return Starts(shard, first, after - shape.observations + 1, first, episode)


def without_rows(starts: Starts, rows: Numbers, length: int) -> Starts:
    """Remove the windows that have any of `rows` among their first `length` rows.

    Args:
        starts: intervals of one shard, sorted by row; their segments do not overlap.
        rows: row numbers in the same shard, sorted, int64 [K].
        length: number of rows to check in each window.

    Returns:
        I + K intervals or fewer, sorted; some may be empty.
    """
    interval = np.searchsorted(starts.origin, rows, side="right") - 1
    matters = (interval >= 0) & (rows < starts.high[interval] + length - 1)
    interval, rows = interval[matters], rows[matters]
    # Between two removed rows u < v, a window starts after u and ends before v.
    all_intervals = np.concatenate([np.arange(len(starts)), interval])
    low = np.concatenate([starts.low, rows + 1])
    high = np.concatenate([starts.high, rows - length + 1])
    by_low, by_high = np.lexsort((low, all_intervals)), np.lexsort((high, all_intervals))
    all_intervals = all_intervals[by_low]
    shard, origin, episode = (
        starts.shard[all_intervals],
        starts.origin[all_intervals],
        starts.episode[all_intervals],
    )
    return Starts(shard, low[by_low], high[by_high], origin, episode)


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows, in R runs. Run r holds the windows ends[r - 1] to ends[r] (half-open).

    shard   int32 [R]  number of the shard
    first   int64 [R]  first row of the run's first window; the next windows are `stride` rows apart
    ends    int64 [R]  number of windows in runs 0 to r together
    stride  rows from the start of one window to the start of the next
    """

    shard: NDArray[np.int32]
    first: Numbers
    ends: Numbers
    stride: int

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def counts(self, low: int = 0, high: int | None = None) -> Numbers:
        """Number of windows in each of the runs [low, high), int64 [high - low]. Default: all runs."""
        return np.diff(self.ends[low:high], prepend=self.ends[low - 1] if low else np.int64(0))

    def locate(self, windows: Numbers) -> tuple[NDArray[np.int32], Numbers]:
        """Find the shard and the first row of each window.

        Args:
            windows: numbers of windows, int64 [B] in [0, len(self)); not checked.

        Returns:
            shard numbers, int32 [B], and row numbers, int64 [B].
        """
        run = np.searchsorted(self.ends, windows, side="right")
        # `before` is the number of windows in all earlier runs; 0 for the first run.
        before = self.ends[run - 1] * (run > 0)
        return self.shard[run], self.first[run] + (windows - before) * self.stride


def windows_at(starts: Starts, stride: int, at_most: int | None = None) -> tuple[Windows, Numbers]:
    """All windows that begin at `starts`, in the same order.

    Args:
        starts: I intervals of rows.
        stride: rows from the start of one window to the start of the next.
        at_most: largest number of windows in a run; longer runs are split. None: no limit.

    Returns:
        the windows, and for each run the number of its interval in `starts`, int64 [R].
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
