"""Draws the mouse cursor of menus, which some recorders leave out of the video."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.placement import Placement
from wham_data.schemas.recording import Frames

_ARROW: Final = """
#...............
##..............
#o#.............
#oo#............
#ooo#...........
#oooo#..........
#ooooo#.........
#oooooo#........
#ooooooo#.......
#oooooooo#......
#ooooo####......
#oo#oo#.........
#o#.#oo#........
##..#oo#........
#....#oo#.......
.....###........
"""
_ROWS: Final = _ARROW.split()
OPAQUE: Final = np.array([[cell != "." for cell in row] for row in _ROWS], np.float64)
WHITE: Final = np.array([[cell == "o" for cell in row] for row in _ROWS], np.float64)


def draw_cursor(frame: Frames, x: int, y: int, placement: Placement) -> None:
    """Draw a white arrow of 16x16 source pixels with a black edge and its tip at (x, y).

    Args:
        frame: uint8 [H, W, 3], changed in place.
        x, y: the tip, in pixels of the source picture. Parts outside the frame are not drawn.
        placement: the placement of the source picture in the frame.
    """
    height, width = frame.shape[:2]
    rows, down = _coverage(placement.top + placement.scale_y * y, placement.scale_y, height)
    columns, across = _coverage(placement.left + placement.scale_x * x, placement.scale_x, width)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    opaque = down @ OPAQUE @ across.T
    white = down @ WHITE @ across.T
    under = frame[rows, columns] * (1.0 - opaque)[..., None]
    frame[rows, columns] = np.rint(under + 255.0 * white[..., None]).clip(0, 255)


def _coverage(start: float, scale: float, length: int) -> tuple[slice, NDArray[np.float64]]:
    """How much of each pixel of a frame each of the arrow's 16 pixels covers, along one axis.

    Args:
        start: the position in the frame at which the arrow's first pixel begins.
        scale: the length of an arrow's pixel, in pixels of the frame.
        length: number of pixels of the frame.

    Returns:
        The pixels of the frame that the arrow touches, and their shares, float64 [touched, 16].
    """
    edges = start + scale * np.arange(len(_ROWS) + 1)
    first = max(0, int(np.floor(edges[0])))
    stop = max(first, min(length, int(np.ceil(edges[-1]))))
    pixels = np.arange(first, stop)[:, None]
    shares = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return slice(first, stop), np.maximum(shares, 0.0)
