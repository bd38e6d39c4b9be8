"""Scales pictures that are arrays.

Every target pixel is the mean of the source area that it covers, as for videos. Enlarging repeats
pixels. Pictures that already have the target size are returned unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import Index
from wham_data.schemas.recording import Fit, Frames

ROWS_AT_ONCE: Final = 16
"""Number of target rows computed together, so that their data stays in the processor's cache."""


def resize(frames: Frames, size: tuple[int, int], fit: Fit) -> Frames:
    """The frames scaled to `size`.

    Args:
        frames: uint8 [B, H, W, 3].
        size: (width, height) in pixels.
        fit: stretch to the size, letterbox on black, or crop the middle (the last two keep the
            aspect ratio).
    """
    height, width = frames.shape[1:3]
    if (width, height) == size:
        return frames
    if fit == "crop":
        scale = min(width / size[0], height / size[1])
        inner = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        frames = frames[:, top : top + inner[1], left : left + inner[0]]
        return _scaled(frames, size)
    if fit == "letterbox":
        scale = min(size[0] / width, size[1] / height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        boxed = np.zeros((len(frames), size[1], size[0], 3), np.uint8)
        boxed[:, top : top + inner[1], left : left + inner[0]] = _scaled(frames, inner)
        return boxed
    return _scaled(frames, size)


def _scaled(frames: Frames, size: tuple[int, int]) -> Frames:
    height, width = frames.shape[1:3]
    down, across = _cover(height, size[1]), _cover(width, size[0], channels=3)
    result = np.empty((len(frames), size[1], size[0], 3), np.uint8)
    lines = np.ascontiguousarray(frames).reshape(-1, height, width * 3)
    for frame, scaled in zip(lines, result, strict=True):
        for top in range(0, size[1], ROWS_AT_ONCE):
            some = slice(top, top + ROWS_AT_ONCE)
            rows = _sums(frame, down.places[:, some], down.weights[:, some, None], axis=0)
            sums = _sums(rows, across.places, across.weights, axis=1)
            sums /= down.whole * across.whole
            scaled[some] = np.rint(sums, out=sums).reshape(-1, size[0], 3)
    return result


def _sums(
    values: NDArray[Any], places: Index, weights: NDArray[np.float32], *, axis: int
) -> NDArray[np.float32]:
    """Weighted sums of [rows, columns] along an axis."""
    total: NDArray[np.float32] = values.take(places[0], axis) * weights[0]
    for place, weight in zip(places[1:], weights[1:], strict=True):
        total += values.take(place, axis) * weight
    return total


@dataclass(frozen=True, slots=True)
class _Cover:
    """The source pixels that each target pixel covers, and how much of each.

    Weights are whole numbers, so that sums below 2**24 are exact. All target pixels have the same
    number of taps (source pixels); a tap that a target pixel does not need has weight 0.

    places   int64   [taps, target]  positions of source pixels
    weights  float32 [taps, target]  the weights of one target pixel add up to `whole`
    """

    places: Index
    weights: NDArray[np.float32]
    whole: int


@lru_cache(maxsize=8)
def _cover(source: int, target: int, channels: int = 1) -> _Cover:
    """The cover of a line of pixels with interleaved channels.

    Lengths are in a unit in which a source pixel has length `each` and a target pixel `whole`.
    """
    unit = math.gcd(source, target)
    each, whole = target // unit, source // unit
    starts = np.arange(target) * whole
    stops = starts + whole
    first = starts // each
    taps = int((-(-stops // each) - first).max())
    places = first + np.arange(taps)[:, None]
    weights = np.minimum(stops, (places + 1) * each) - np.maximum(starts, places * each)
    places = np.minimum(places, source - 1)[:, :, None] * channels + np.arange(channels)
    return _Cover(
        places.reshape(taps, -1),
        np.maximum(weights, 0).astype(np.float32).repeat(channels, axis=1),
        whole,
    )
