"""The order of windows, computed from (seed, epoch, position); no list of windows is stored.

The order of an epoch is a permutation of 0..n-1 that depends on a key: a Feistel network over a x b
numbers, where a x b >= n and a and b are close to the square root of n. If a result is n or more
(about once in sqrt(n) cases), the network is applied again. Each position of each epoch is computed
alone, so resuming reads nothing and a million windows cost no memory. Every window has the same
probability at every position, and comes once per epoch.

A `pool` keeps reads close together, for disks and networks that need it. Windows are grouped into
blocks of neighbours, the blocks are shuffled, and then the windows of every `pool` / BLOCK blocks are
shuffled with each other.

With weights, a window may be drawn more or less than once per epoch. A run of n windows with weight w
has n w draws in an epoch, rounded up in some epochs and down in others. The draws cycle through the
windows of the run, and each epoch continues where the last one ended. In the long run all windows of
a run are drawn equally often.
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
"""Rounds of the Feistel network, one key each."""
BLOCK: Final = 1_024
"""Neighbouring windows that stay together when a pool is used."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Order:
    """The order of the n draws of each epoch.

    n        draws in an epoch
    seed     seed of the shuffle
    shuffle  False: the draws come in the order of their numbers
    pool     number of neighbouring draws that are shuffled together; None: all
    """

    n: int
    seed: int
    shuffle: bool = True
    pool: int | None = None

    def draws(self, epoch: int, places: Numbers) -> Numbers:
        """The draws at some positions of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            places: positions in the epoch, int64 [B] in [0, n).

        Returns:
            numbers of draws, int64 [B] in [0, n).
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
        pool_of_place = places // pool
        for number in np.unique(pool_of_place).tolist():
            in_pool = pool_of_place == number
            first = number * pool
            keys = _keys(self.seed, epoch, number)
            size = min(pool, self.n - first)
            draws[in_pool] = first + permuted(places[in_pool] - first, size, keys)
        keys = _keys(self.seed, epoch)
        # A short last block is not shuffled with the others. The final rotation, which differs from
        # epoch to epoch, makes other windows fall into it each time.
        blocks = self.n // BLOCK
        in_full_block = draws < blocks * BLOCK
        block, offset = np.divmod(draws[in_full_block], BLOCK)
        draws[in_full_block] = permuted(block, blocks, keys) * BLOCK + offset
        return (draws + int(keys[0] % np.uint64(self.n))) % self.n


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each window is drawn per epoch.

    windows  all windows, in R runs
    reached  draws per epoch from runs 0 to r together, float64 [R]; None: each window once
    """

    windows: Windows
    reached: NDArray[np.float64] | None = None

    @classmethod
    def weighted(cls, windows: Windows, weights: NDArray[np.float64]) -> Draws:
        """Draws with one weight per run.

        Args:
            windows: all windows, in R runs.
            weights: draws per window and epoch, float64 [R]; finite, at least 0, and not all 0.
        """
        reached = np.cumsum(windows.counts() * weights)
        # A whole number of draws, the same in every epoch.
        draws = max(1, round(reached[-1]))
        reached *= draws / reached[-1]
        reached[-1] = draws
        return cls(windows, reached)

    def __len__(self) -> int:
        """Number of draws in an epoch."""
        return len(self.windows) if self.reached is None else int(self.reached[-1])

    def in_epoch(self, epoch: int) -> EpochDraws:
        """The draws of one epoch, numbered from 0."""
        if self.reached is None:
            return EpochDraws(self.windows)
        # The shift decides which runs are rounded up; it differs from epoch to epoch.
        shift = epoch * _GOLDEN % 1.0
        ends = np.minimum(np.floor(self.reached + shift), len(self)).astype(np.int64)
        done = np.floor(np.diff(self.reached, prepend=0.0) * epoch).astype(np.int64)
        return EpochDraws(self.windows, ends, done)


@dataclass(frozen=True, slots=True)
class EpochDraws:
    """The draws of one epoch.

    windows  all windows, in R runs
    ends     number of draws from runs 0 to r together, int64 [R]; None: draw k is window k
    done     draws of each run in all earlier epochs, int64 [R]; None exactly if `ends` is
    """

    windows: Windows
    ends: Numbers | None = None
    done: Numbers | None = None

    def windows_at(self, draws: Numbers) -> Numbers:
        """The window of each draw.

        Args:
            draws: numbers of draws, int64 [B] in [0, draws in an epoch).

        Returns:
            numbers of windows, int64 [B].
        """
        if self.ends is None or self.done is None:
            return draws
        run = np.searchsorted(self.ends, draws, side="right")
        first = self.windows.ends[run - 1] * (run > 0)
        count = self.windows.ends[run] - first
        nth = draws - self.ends[run - 1] * (run > 0)
        windows: Numbers = first + (self.done[run] + nth) % count
        return windows


def permuted(values: Numbers, n: int, keys: NDArray[np.uint64]) -> Numbers:
    """Apply a permutation of 0..n-1 that depends on the keys.

    Args:
        values: int64 [B] in [0, n).
        n: size of the permutation, above 0.
        keys: uint64 [ROUNDS].

    Returns:
        int64 [B] in [0, n), a new array.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    result = _rounds(values, a, b, keys)
    while (outside := np.flatnonzero(result >= n)).size:
        result[outside] = _rounds(result[outside], a, b, keys)
    return result


def _rounds(values: Numbers, a: int, b: int, keys: NDArray[np.uint64]) -> Numbers:
    left, right = np.divmod(values.astype(np.uint64), np.uint64(b))
    for key in keys.reshape(-1, 2):
        left = _add_hash(left, right, key[0], a)
        right = _add_hash(right, left, key[1], b)
    return (left * np.uint64(b) + right).astype(np.int64)


def _add_hash(
    values: NDArray[np.uint64], hashed_values: NDArray[np.uint64], key: np.uint64, size: int
) -> NDArray[np.uint64]:
    """`values` plus a hash of `hashed_values`, modulo size < 2^32; uint64 [B]."""
    # The finalizer of MurmurHash3: every bit of the input changes every bit of the output.
    hashed = hashed_values ^ key
    hashed ^= hashed >> np.uint64(33)
    hashed *= np.uint64(0xFF51AFD7ED558CCD)
    hashed ^= hashed >> np.uint64(33)
    hashed *= np.uint64(0xC4CEB9FE1A85EC53)
    added = values + ((hashed >> np.uint64(32)) * np.uint64(size) >> np.uint64(32))
    return added - np.uint64(size) * (added >= size)


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int, pool: int | None = None) -> NDArray[np.uint64]:
    text = f"wham-data order 1: seed {seed}, epoch {epoch}, pool {pool}"
    digest = hashlib.shake_256(text.encode()).digest(8 * ROUNDS)
    return np.frombuffer(digest, "<u8").astype(np.uint64)
