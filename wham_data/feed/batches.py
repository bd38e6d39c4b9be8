"""How windows are shared among ranks and workers, and how a reader's position is described.

The draws of an epoch are divided into global batches of G = batch size x number of ranks; the last
one may be smaller. Each rank gets an equal part of every global batch. The workers of a DataLoader
take turns: worker w of W makes the rank's batches w, w + W, w + 2 W, ... So the sequence of global
batches does not depend on ranks or workers, and a position in it is two numbers: the epoch, and how
many of its draws have been given out.

If reading continues with another number of ranks or another batch size, the rest of the epoch is
divided into batches again. If G stays the same, the global batches stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wham_data.feed.windows import Numbers
from wham_data.schemas.errors import UsageError


class Place(NamedTuple):
    """The position of a reader.

    epoch     number of the epoch, from 0
    consumed  draws of this epoch that all ranks together have got
    """

    epoch: int
    consumed: int


class Batches(NamedTuple):
    """K batches of one rank. Each field is int64 [K].

    epoch  epoch of the batch
    low    number of the first draw of the batch in its epoch
    high   number of the draw after the last one of the batch
    after  draws of the epoch that all ranks together have got after this batch
    """

    epoch: Numbers
    low: Numbers
    high: Numbers
    after: Numbers


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How the draws of an epoch are divided into batches and ranks.

    draws         number of draws in an epoch
    global_batch  G: draws in a batch of all ranks together
    rank          number of this rank, from 0
    ranks         number of ranks
    drop_last     leave out the last batch of an epoch if it is smaller than G

    Raises:
        UsageError: `rank` is not in [0, ranks).
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
        """Number of batches of this rank in the rest of an epoch.

        If the last global batch has fewer draws than there are ranks, some ranks have one batch less.

        Args:
            consumed: draws of the epoch that have already been given out.
        """
        whole, rest = divmod(self.draws - consumed, self.global_batch)
        low, high = self._part(np.int64(0), np.int64(rest))
        return whole + (not self.drop_last and bool(high > low))

    def batches(self, start: Place, numbers: Numbers) -> Batches:
        """Some of the rank's batches, chosen by their numbers.

        Args:
            start: the position of batch 0.
            numbers: int64 [K], at least 0; numbers past the end of the epoch go on in the next ones.
        """
        in_first_epoch, per_epoch = self.batches_left(start.consumed), max(1, self.batches_left())
        epochs_later, nth = np.divmod(numbers - in_first_epoch, per_epoch)
        is_first_epoch = numbers < in_first_epoch
        epoch = start.epoch + np.where(is_first_epoch, 0, epochs_later + 1)
        first = np.where(
            is_first_epoch, start.consumed + numbers * self.global_batch, nth * self.global_batch
        )
        after = np.minimum(first + self.global_batch, self.draws)
        low, high = self._part(first, after)
        return Batches(epoch, low, high, after)

    def after(self, start: Place, number: int) -> Place:
        """The position of a reader after it has got `number` batches, starting at `start`."""
        if not number:
            return start
        batch = self.batches(start, np.array([number - 1], np.int64))
        return self.normalized(Place(int(batch.epoch[0]), int(batch.after[0])))

    def normalized(self, place: Place) -> Place:
        """The same position; the end of an epoch is turned into the start of the next one."""
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
