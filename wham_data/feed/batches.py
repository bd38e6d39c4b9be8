"""Which rank and worker gets which windows: global batches, their parts, and a reader's place.

The draws of an epoch are cut into global batches of G = batch size x ranks; the last one may be
short. A rank gets an equal part of each, and of rank's batches a DataLoader's workers take turns, in
which order it asks them. So the sequence of global batches knows nothing of ranks and workers, and a
place in it is two numbers: the epoch, and how many of its draws have been handed out.

When reading goes on with other ranks or another batch size, the rest of the epoch is cut into
batches anew. With the same G the global batches stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wham_data.feed.windows import Numbers
from wham_data.schemas.errors import UsageError


class Place(NamedTuple):
    """Where a reader stands: in which epoch, and after how many of its draws (of all ranks)."""

    epoch: int
    consumed: int


class Batches(NamedTuple):
    """Some of a rank's batches; int64 [K] each.

    epoch  number of the epoch that the batch belongs to
    low    the rank's draws of the epoch are low to high
    after  draws of the epoch that all ranks together have got once this batch is read
    """

    epoch: Numbers
    low: Numbers
    high: Numbers
    after: Numbers


@dataclass(frozen=True, slots=True)
class Plan:
    """How the draws of an epoch go to ranks.

    draws         in an epoch
    global_batch  G, of all ranks together
    drop_last     leave out the short batch at the end of an epoch
    """

    draws: int
    global_batch: int
    rank: int = 0
    ranks: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.ranks < 1 or not 0 <= self.rank < self.ranks:
            raise UsageError(f"rank {self.rank} of {self.ranks}: ranks count from 0")

    def batches_left(self, consumed: int = 0) -> int:
        """Batches of this rank in the rest of an epoch.

        When the last batch has fewer draws than there are ranks, some ranks have one batch less.
        """
        whole, rest = divmod(self.draws - consumed, self.global_batch)
        low, high = self._part(np.int64(0), np.int64(rest))
        return whole + (not self.drop_last and bool(high > low))

    def batches(self, start: Place, numbers: Numbers) -> Batches:
        """The rank's batches that come `numbers` after the first one from `start` on.

        Args:
            numbers: int64 [K], 0 for the first one.
        """
        left, each = self.batches_left(start.consumed), max(1, self.batches_left())
        later, nth = np.divmod(numbers - left, each)
        here = numbers < left
        epoch = start.epoch + np.where(here, 0, later + 1)
        first = np.where(
            here, start.consumed + numbers * self.global_batch, nth * self.global_batch
        )
        after = np.minimum(first + self.global_batch, self.draws)
        low, high = self._part(first, after)
        return Batches(epoch, low, high, after)

    def after(self, start: Place, number: int) -> Place:
        """Where a reader stands that began at `start` and has got `number` batches."""
        if not number:
            return start
        batch = self.batches(start, np.array([number - 1], np.int64))
        return self.settled(Place(int(batch.epoch[0]), int(batch.after[0])))

    def settled(self, place: Place) -> Place:
        """The same place; the end of an epoch is given as the start of the next one."""
        left = self.draws - place.consumed
        over = left < self.global_batch if self.drop_last else left == 0
        return Place(place.epoch + 1, 0) if over else place

    def _part(
        self, first: NDArray[np.int64] | np.int64, after: NDArray[np.int64] | np.int64
    ) -> tuple[Numbers, Numbers]:
        size = after - first
        low = first + size * self.rank // self.ranks
        high = first + size * (self.rank + 1) // self.ranks
        return np.asarray(low), np.asarray(high)
