"""What moves in the picture: numbers for each time between two frames, from small grey pictures.

A shift is found by phase correlation. Each row of a picture is differentiated, windowed and transformed;
the spectra of two frames are divided into a cross-spectrum whose phases tell the shift. Every row counts
by how much it changes, so that rows of a status bar, which stand still, count little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.recording import Frames

SIZE: Final = (160, 90)
"""Width and height of the pictures that are measured."""
GRID: Final = (3, 4)
"""Rows and columns of cells in which change is measured."""
FARTHEST: Final = 1 / 3
"""The longest shift, as a share of the width (or height) that it is measured over."""
LEAST_CHANGE: Final = 0.25
"""Mean change of a row's pixels (of 255) below which it is noise of the encoder."""

STILL: Final = 8.0
"""Change of two neighbouring pixels, of 255 each, at which they count half: a status bar, a weapon and
other things that stand still on the screen would pull the shift to 0."""

Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Motion:
    """How the picture changes from frame i to frame i + 1, for N frames.

    right    float32 [N - 1]      shift of the content to the right, pixels of a picture of SIZE
    down     float32 [N - 1]      shift of the content down
    wider    float32 [N - 1]      shift of the right half minus that of the left half: walking forward
                                  makes it grow
    sure     float32 [N - 1, 3]   how far the peak of each of the three stands out; 0: nothing changed
    change   float32 [N - 1, C]   mean absolute difference in each cell of GRID, of 255
    """

    right: NDArray[np.float32]
    down: NDArray[np.float32]
    wider: NDArray[np.float32]
    sure: NDArray[np.float32]
    change: NDArray[np.float32]

    def __len__(self) -> int:
        """The count of pairs of frames."""
        return len(self.right)

    def only(self, good: NDArray[np.bool_]) -> Motion:
        """The pairs for which `good`, bool [N - 1], is True."""
        return Motion(*(getattr(self, name)[good] for name in Motion.__slots__))


def motion_of(batches: Iterable[Frames]) -> Motion:
    """Measure frames that come in batches, so that only one batch is in memory.

    Args:
        batches: uint8 [B, H, W, 3] RGB, consecutive frames.
    """
    parts: list[Motion] = []
    last: Grey | None = None
    for batch in batches:
        grey = grey_of(batch)
        whole = grey if last is None else np.concatenate([last, grey])
        if len(whole) > 1:
            parts.append(between(whole))
        last = grey[-1:]
    return joined(parts)


def joined(parts: list[Motion]) -> Motion:
    """Motions of consecutive pairs of frames, in one."""
    cells = GRID[0] * GRID[1]
    empty = (np.zeros((0, *shape), np.float32) for shape in ((), (), (), (3,), (cells,)))
    return Motion(
        *(
            np.concatenate([first, *(getattr(part, name) for part in parts)])
            for name, first in zip(Motion.__slots__, empty, strict=True)
        )
    )


def grey_of(frames: Frames) -> Grey:
    """The brightness of pictures, float32 [B, H, W], 0 to 255, of uint8 [B, H, W, 3] RGB."""
    return frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def between(grey: Grey) -> Motion:
    """The motion between each two consecutive pictures, float32 [N, H, W]."""
    changed = np.abs(np.diff(grey, axis=0))
    middle = grey.shape[2] // 2
    right, sure_right = shifts(grey, changed)
    upright = np.ascontiguousarray(grey.transpose(0, 2, 1))
    down, sure_down = shifts(upright, changed.transpose(0, 2, 1))
    left_half, sure_left = shifts(grey[:, :, :middle], changed[:, :, :middle])
    right_half, sure_other = shifts(grey[:, :, middle:], changed[:, :, middle:])
    sure = np.stack([sure_right, sure_down, np.minimum(sure_left, sure_other)], axis=1)
    return Motion(right, down, right_half - left_half, sure, in_cells(changed))


def in_cells(changed: Grey) -> Grey:
    """The mean over each cell of GRID, float32 [N, C], row by row."""
    rows = np.array_split(changed, GRID[0], axis=1)
    cells = [cell for row in rows for cell in np.array_split(row, GRID[1], axis=2)]
    return np.stack([cell.mean(axis=(1, 2)) for cell in cells], axis=1)


def shifts(grey: Grey, changed: Grey) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far the content moves along the last axis from each picture to the next.

    Args:
        grey: float32 [N, H, W].
        changed: float32 [N - 1, H, W], the absolute differences of the pictures.

    Returns:
        The shift in pixels, float32 [N - 1], positive towards larger indices; and by how many standard
        deviations its peak stands out, float32 [N - 1]. Both are 0 where no row changes.
    """
    window = np.hanning(grey.shape[2] - 1).astype(np.float32)
    slopes, moving = np.diff(grey, axis=2), changed[:, :, 1:] + changed[:, :, :-1]
    window = window * (moving / (moving + STILL))
    earlier, later = (np.fft.rfft(each * window, axis=2) for each in (slopes[:-1], slopes[1:]))
    cross = later * earlier.conj()
    cross /= np.abs(cross) + 1e-3
    weights = np.maximum(changed.mean(axis=2) - LEAST_CHANGE, 0.0)
    summed = np.einsum("nh,nhf->nf", weights, cross) / (weights.sum(axis=1) + 1e-6)[:, None]
    width = grey.shape[2] - 1
    heights = np.fft.irfft(summed, n=width, axis=1)
    reach = int(width * FARTHEST)
    near = np.concatenate([heights[:, -reach:], heights[:, : reach + 1]], axis=1)
    top, offset = peaks(near)
    spread = heights.std(axis=1)
    sure = np.where(weights.any(axis=1), top / np.maximum(spread, 1e-9), 0.0)
    shift = np.where(sure > 0, offset - reach, 0.0)
    return shift.astype(np.float32), sure.astype(np.float32)


def peaks(curves: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The height and the place of the highest point of each curve, float64 [N, P], between its points.

    The place is refined by a parabola through the highest point and its neighbours.
    """
    best = np.clip(curves.argmax(axis=1), 1, curves.shape[1] - 2)
    rows = np.arange(len(curves))
    before, top, after = (curves[rows, best + step] for step in (-1, 0, 1))
    bend = before - 2 * top + after
    step = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
    return top, best + np.clip(step, -1, 1)
