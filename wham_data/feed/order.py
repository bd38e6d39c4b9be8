"""In which order windows come: arithmetic from (seed, epoch, place) to a window, nothing held.

The order of an epoch is a keyed bijection of 0..n-1: a Feistel network over a x b >= n numbers, with
a and b next to the square root of n, that walks on where it lands on n or above (once in sqrt(n)).
Any place of any epoch is computed by itself, so resuming reads nothing and a million windows cost
no memory. Every window comes at every place with the same probability, and once per epoch.

With a `pool` the reads stay close together, for disks and networks that need it: windows are cut into
blocks of neighbours, the blocks are shuffled, and then all windows of each `pool` windows' worth of
blocks.

Weighted, a window is drawn more or less often than once. A run of n windows with weight w has n w
draws in an epoch, rounded up in some epochs and down in others; they go round the run, each epoch
beginning where the last one ended, so that in the long run every window of it comes equally often.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.feed.windows import Numbers, Windows

ROUNDS: Final = 10
BLOCK: Final = 1_024
"""Neighbouring windows that stay together when there is a pool."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Order:
    """The order of n draws in each epoch.

    shuffle  False: as they are numbered
    pool     draws that are shuffled together; None: all
    """

    n: int
    seed: int
    shuffle: bool = True
    pool: int | None = None

    def draws(self, epoch: int, places: Numbers) -> Numbers:
        """What comes at some places of an epoch.

        Args:
            places: int64 [B] from 0 to n - 1.

        Returns:
            int64 [B] from 0 to n - 1.
        """
        if not self.shuffle:
            return places
        if self.pool is None or max(self.pool, BLOCK) >= self.n:
            return permuted(places, self.n, _keys(self.seed, epoch))
        return self._pooled(epoch, places)

    def _pooled(self, epoch: int, places: Numbers) -> Numbers:
        assert self.pool is not None
        pool = max(1, self.pool // BLOCK) * BLOCK
        draws = np.empty_like(places)
        number = places // pool
        for one in np.unique(number).tolist():
            mine = number == one
            first = one * pool
            keys = _keys(self.seed, epoch, one)
            draws[mine] = first + permuted(places[mine] - first, min(pool, self.n - first), keys)
        keys = _keys(self.seed, epoch)
        # Places of the last, short block stay; all is turned, so that it is another one each epoch.
        blocks = self.n // BLOCK
        whole = draws < blocks * BLOCK
        block, at = np.divmod(draws[whole], BLOCK)
        draws[whole] = permuted(block, blocks, keys) * BLOCK + at
        return (draws + int(keys[0] % np.uint64(self.n))) % self.n


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each window is drawn.

    reached  draws per epoch up to and including run r, float64 [R]; None: each window once
    """

    windows: Windows
    reached: NDArray[np.float64] | None = None

    @classmethod
    def weighted(cls, windows: Windows, weights: NDArray[np.float64]) -> Draws:
        """Draws with a weight per run, float64 [R], finite, none below 0 and not all 0."""
        reached = np.cumsum(windows.counts() * weights)
        # A whole number of draws, the same in every epoch.
        draws = max(1, round(reached[-1]))
        reached *= draws / reached[-1]
        reached[-1] = draws
        return cls(windows, reached)

    def __len__(self) -> int:
        """Draws in an epoch."""
        return len(self.windows) if self.reached is None else int(self.reached[-1])

    def in_epoch(self, epoch: int) -> EpochDraws:
        """Which window is drawn when."""
        if self.reached is None:
            return EpochDraws(self.windows)
        # Who rounds up changes from epoch to epoch.
        shift = epoch * _GOLDEN % 1.0
        ends = np.minimum(np.floor(self.reached + shift), len(self)).astype(np.int64)
        done = np.floor(np.diff(self.reached, prepend=0.0) * epoch).astype(np.int64)
        return EpochDraws(self.windows, ends, done)


@dataclass(frozen=True, slots=True)
class EpochDraws:
    """The draws of one epoch.

    ends  draws up to and including run r, int64 [R]; None: draw k is window k
    done  draws of each run in the epochs before, int64 [R]
    """

    windows: Windows
    ends: Numbers | None = None
    done: Numbers | None = None

    def windows_at(self, draws: Numbers) -> Numbers:
        """The number of the window that each draw is, int64 [B]."""
        if self.ends is None or self.done is None:
            return draws
        run = np.searchsorted(self.ends, draws, side="right")
        first = self.windows.ends[run - 1] * (run > 0)
        count = self.windows.ends[run] - first
        nth = draws - self.ends[run - 1] * (run > 0)
        windows: Numbers = first + (self.done[run] + nth) % count
        return windows


def permuted(values: Numbers, n: int, keys: NDArray[np.uint64]) -> Numbers:
    """A bijection of 0..n-1, another one for other keys.

    Args:
        values: int64 [B] from 0 to n - 1, n > 0.
        keys: uint64 [ROUNDS].
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    found = _rounds(values, a, b, keys)
    while (outside := np.flatnonzero(found >= n)).size:
        found[outside] = _rounds(found[outside], a, b, keys)
    return found


def _rounds(values: Numbers, a: int, b: int, keys: NDArray[np.uint64]) -> Numbers:
    left, right = np.divmod(values.astype(np.uint64), np.uint64(b))
    for key in keys.reshape(-1, 2):
        left = _added(left, right, key[0], a)
        right = _added(right, left, key[1], b)
    return (left * np.uint64(b) + right).astype(np.int64)


def _added(
    to: NDArray[np.uint64], of: NDArray[np.uint64], key: np.uint64, size: int
) -> NDArray[np.uint64]:
    """`to` plus a hash of `of`, modulo size < 2^32."""
    # The finalizer of MurmurHash3: every bit of the input changes every bit of the output.
    hashed = of ^ key
    hashed ^= hashed >> np.uint64(33)
    hashed *= np.uint64(0xFF51AFD7ED558CCD)
    hashed ^= hashed >> np.uint64(33)
    hashed *= np.uint64(0xC4CEB9FE1A85EC53)
    added = to + ((hashed >> np.uint64(32)) * np.uint64(size) >> np.uint64(32))
    return added - np.uint64(size) * (added >= size)


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int, pool: int | None = None) -> NDArray[np.uint64]:
    text = f"wham-data order 1: seed {seed}, epoch {epoch}, pool {pool}"
    digest = hashlib.shake_256(text.encode()).digest(8 * ROUNDS)
    return np.frombuffer(digest, "<u8").astype(np.uint64)
