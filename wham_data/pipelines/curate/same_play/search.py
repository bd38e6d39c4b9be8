"""Find the same play in two episodes, from the hashes of their pictures. Arrays in, ranges out.

Some steps of all episodes, the anchors, are put into a table by quarters of their hashes. Steps of another
episode that have a quarter in common vote for an offset between the two; offsets with enough votes are then
compared step by step. Memory: 8 bytes for each step, and about 50 for each anchor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.same_play.hashes import Hashes, apart
from wham_data.schemas.clock import runs_of

NEAR: Final = 10
"""Bits in which hashes of pictures up to half a step apart may differ; of others they differ in 17 and more."""
ANCHOR_EVERY: Final = 5
QUARTERS: Final = 4
COMMON: Final = 64
"""A quarter that more anchors have says nothing: a menu, a wall, the dark."""
VOTES: Final = 4
SURE: Final = 0.55
"""Share of the steps of the same play that must be near, in any stretch of SMOOTH steps."""
SMOOTH: Final = 20
VARIED: Final = 0.1
"""The same play has at least this many different hashes per step: still pictures prove nothing."""


@dataclass(frozen=True, slots=True)
class Same:
    """The same play, in steps of two episodes.

    first, second    numbers of the episodes, first < second
    start, stop      range in `first`
    start_in_second  where it begins in `second`; it is as long there
    near             share of its steps whose hashes are near, 0 to 1
    """

    first: int
    second: int
    start: int
    stop: int
    start_in_second: int
    near: float


def same_play(episodes: Sequence[Hashes], least: int, groups: Sequence[str]) -> Iterator[Same]:
    """Find all stretches that two episodes have in common.

    Args:
        episodes: the hashes of each episode's steps, uint64 [T].
        least: steps of the shortest stretch that is reported.
        groups: of each episode; those of one group are not compared (parts of one recording).
    """
    table = _Anchors.of(episodes)
    for second, hashes in enumerate(episodes):
        votes: Counter[tuple[int, int]] = Counter()
        for first, offset in table.votes(hashes, second):
            votes[first, offset] += 1
        tried: set[tuple[int, int]] = set()
        for (first, offset), _ in votes.most_common():
            count = sum(votes[first, offset + by] for by in (-1, 0, 1))
            near_one = any((first, offset + by) in tried for by in (-2, -1, 0, 1, 2))
            if count < VOTES or near_one or groups[first] == groups[second]:
                continue
            found = [*_stretches(episodes[first], hashes, offset, least)]
            for start, stop, near in found:
                yield Same(first, second, start, stop, start + offset, near)
            if found:
                tried.add((first, offset))


def _stretches(
    one: Hashes, other: Hashes, offset: int, least: int
) -> Iterator[tuple[int, int, float]]:
    """Ranges of `one` whose steps are as those of `other`, `offset` steps later there."""
    low, high = max(0, -offset), min(len(one), len(other) - offset)
    if high - low < least:
        return
    mine = one[low:high]
    near = _least_apart(mine, other, low + offset) <= NEAR
    window = np.ones(SMOOTH)
    counted = np.convolve(np.ones(len(near)), window, "same")
    sure = np.convolve(near, window, "same") >= SURE * counted
    for start, stop in runs_of(sure):
        if not near[start:stop].any():
            continue
        inside = start + np.flatnonzero(near[start:stop])
        start, stop = int(inside[0]), int(inside[-1]) + 1
        varied = len(np.unique(mine[start:stop])) >= VARIED * (stop - start)
        if stop - start >= least and varied:
            yield low + start, low + stop, float(near[start:stop].mean())


def _least_apart(mine: Hashes, other: Hashes, at: int) -> NDArray[np.int64]:
    """Bits in which `mine` differs from `other` from step `at` on, or a step earlier or later there.

    The grids of two recordings of the same play are up to half a step apart.
    """
    places = at + np.arange(len(mine))
    shifted = (np.clip(places + by, 0, len(other) - 1) for by in (-1, 0, 1))
    return np.asarray(np.min([apart(mine, other[each]) for each in shifted], axis=0), np.int64)


@dataclass(frozen=True, slots=True)
class _Anchors:
    """Sorted quarters of the anchors' hashes.

    keys     uint16 [QUARTERS, n]  sorted along n
    episode  int32  [QUARTERS, n]  of each key
    step     int32  [QUARTERS, n]
    """

    keys: NDArray[np.uint16]
    episode: NDArray[np.int32]
    step: NDArray[np.int32]

    @classmethod
    def of(cls, episodes: Sequence[Hashes]) -> _Anchors:
        steps = [np.arange(0, len(each), ANCHOR_EVERY, dtype=np.int32) for each in episodes]
        empty = [np.empty(0, np.uint16)]
        step = np.concatenate([np.empty(0, np.int32), *steps])
        owner = np.repeat(np.arange(len(steps), dtype=np.int32), [len(each) for each in steps])
        quarters = [each[at].view(np.uint16) for each, at in zip(episodes, steps, strict=True)]
        keys = np.concatenate([*empty, *quarters]).reshape(-1, QUARTERS).T
        order = np.argsort(keys, axis=1, kind="stable")
        return cls(np.take_along_axis(keys, order, 1), owner[order], step[order])

    def votes(self, hashes: Hashes, second: int) -> Iterator[tuple[int, int]]:
        """(earlier episode, offset) for each anchor that has a quarter in common with a step."""
        ours = np.ascontiguousarray(hashes).view(np.uint16).reshape(-1, QUARTERS)
        for quarter in range(QUARTERS):
            keys = self.keys[quarter]
            low = np.searchsorted(keys, ours[:, quarter])
            high = np.searchsorted(keys, ours[:, quarter], side="right")
            for step in np.flatnonzero((low < high) & (high - low <= COMMON)).tolist():
                found = slice(low[step], high[step])
                pairs = zip(self.episode[quarter, found], self.step[quarter, found], strict=True)
                yield from ((int(e), step - int(at)) for e, at in pairs if e < second)
