"""Pictures that are arrays already, brought to another size.

Every target pixel is the mean of the source area it covers, as videos are scaled; enlarging
repeats pixels. Pictures of the wanted size are passed on untouched.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.recording import Fit, Frames


def resize(frames: Frames, size: tuple[int, int], fit: Fit) -> Frames:
    """Frames of `size`.

    Args:
        frames: uint8 [B, H, W, 3].
        size: (width, height) in pixels.
        fit: stretch to the size, letterbox on black, or crop the middle (the last two keep the
            aspect).
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
    across = _area_weights(frames.shape[2], size[0])
    down = _area_weights(frames.shape[1], size[1])
    result = np.empty((len(frames), size[1], size[0], 3), np.uint8)
    for place, frame in enumerate(frames):
        rows = np.tensordot(down, frame.astype(np.float32), axes=(1, 0))
        result[place] = np.rint(np.matmul(across, rows))
    return result


@lru_cache(maxsize=8)
def _area_weights(source: int, target: int) -> NDArray[np.float32]:
    """Share of each source pixel in each target pixel, [target, source]; rows sum to 1."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0.0)
    shares: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
