"""A picture in 64 bits: alike pictures have hashes that differ in few of them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.motion import grey_of
from wham_data.pipelines.curate.small import COLUMNS, ROWS, Small

DOWN: Final = 8
ACROSS: Final = 9

Hashes = NDArray[np.uint64]


def difference_hashes(small: Small) -> Hashes:
    """For each of 8 x 8 places: whether it is brighter than the place on its right.

    Args:
        small: uint8 [n, ROWS, COLUMNS, 3].

    Returns:
        uint64 [n].
    """
    tops, lefts = np.arange(DOWN) * ROWS // DOWN, np.arange(ACROSS) * COLUMNS // ACROSS
    sums = np.add.reduceat(np.add.reduceat(grey_of(small), tops, axis=1), lefts, axis=2)
    widths = np.diff(lefts, append=COLUMNS)
    means = sums / widths
    bits = (means[..., :-1] > means[..., 1:]).reshape(len(small), -1)
    return np.asarray(np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64))


def apart(one: Hashes, other: Hashes) -> NDArray[np.int64]:
    """In how many bits hashes differ, int64 [n], 0 to 64."""
    different = np.ascontiguousarray(one ^ other).view(np.uint8).reshape(-1, 8)
    return np.asarray(np.unpackbits(different, axis=1).sum(axis=1), np.int64)
