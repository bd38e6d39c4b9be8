"""A canvas with its own units: smooth shapes, and pictures and text in full sharpness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from wham_data.pipelines.media.picture import font
from wham_data.schemas.recording import Frames

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge."""
Colour = tuple[int, int, int]


HATCH_STEP = 7
"""From one hatching line to the next, in units along either side of a box."""


class Canvas:
    """A canvas of `width` x `height` units, each `scale` pixels wide.

    Shapes are drawn at a higher resolution and then reduced, so their edges are smooth. Shapes are
    always at the bottom, pictures above them and text on top, in any order of the calls.
    """

    def __init__(self, width: int, height: int, scale: int, paper: Colour) -> None:
        """Make an empty canvas with the background colour `paper`."""
        self._scale = scale
        self._oversampling = 3 if scale == 1 else 2 if scale <= 4 else 1
        fine = scale * self._oversampling
        self._shapes = Image.new("RGB", (width * fine, height * fine), paper)
        self._draw = ImageDraw.Draw(self._shapes)
        self._pictures: list[tuple[Point, Frames]] = []
        self._texts: list[tuple[Point, str, Colour, float, str]] = []

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a line through `points` with rounded corners; `width` in units."""
        fine = [(self._fine(x), self._fine(y)) for x, y in points]
        self._draw.line(fine, colour, max(1, round(self._fine(width))), joint="curve")

    def disc(
        self, centre: Point, radius: float, colour: Colour, *, ring: Colour | None = None
    ) -> None:
        """Draw a disc; with `ring` it gets a rim of this colour, one unit wide."""
        (x, y), width = centre, round(self._fine(1)) if ring else 0
        box = [self._fine(edge) for edge in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, colour, ring, width)

    def panel(
        self, box: Box, colour: Colour, *, rim: Colour | None = None, radius: float = 3
    ) -> None:
        """Draw a box with rounded corners; with `rim` it gets a rim of this colour, one unit wide."""
        width = round(self._fine(1)) if rim else 0
        fine = [self._fine(edge) for edge in box]
        self._draw.rounded_rectangle(fine, self._fine(radius), colour, rim, width)

    def hatch(self, box: Box, colour: Colour) -> None:
        """Draw slanting lines, one unit wide, over a box: what it shows is not known."""
        left, top, right, bottom = box
        height = bottom - top
        start = math.ceil((left + top) / HATCH_STEP) * HATCH_STEP
        for total in np.arange(start, right + top + height, HATCH_STEP):
            low, high = max(left, total - bottom), min(right, total - top)
            if low < high:
                self.line([(low, total - low), (high, total - high)], colour, 1)

    def picture(self, centre: Point, frame: Frames) -> None:
        """Add a picture, uint8 [h, w, 3] RGB, without scaling."""
        self._pictures.append((centre, frame))

    def text(
        self, at: Point, words: str, colour: Colour, *, size: float = 11.0, anchor: str = "lm"
    ) -> None:
        """Add text, each line `size` units high; `anchor` names its point at `at`, as in Pillow."""
        self._texts.append((at, words, colour, size, anchor))

    def pixels(self) -> Frames:
        """The finished canvas, uint8 [height * scale, width * scale, 3] RGB."""
        sheet = self._shapes.reduce(self._oversampling)
        for (x, y), frame in self._pictures:
            height, width = frame.shape[:2]
            corner = round(x * self._scale - width / 2), round(y * self._scale - height / 2)
            sheet.paste(Image.fromarray(frame), corner)
        draw = ImageDraw.Draw(sheet)
        for (x, y), words, colour, size, anchor in self._texts:
            at = x * self._scale, y * self._scale
            draw.text(at, words, colour, font(size * self._scale), anchor=anchor, align="center")
        return np.asarray(sheet)

    def _fine(self, units: float) -> float:
        return units * self._scale * self._oversampling
