"""A sheet to draw on in units of its own: smooth shapes, and pictures and words as sharp as they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from wham_data.pipelines.media.picture import font
from wham_data.schemas.recording import Frames

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Colour = tuple[int, int, int]


class Canvas:
    """A sheet of `width` x `height` units, each `scale` pixels wide.

    Shapes are drawn finer than that and smoothed; pictures, then words, go on top of them, whatever
    the order of the calls.
    """

    def __init__(self, width: int, height: int, scale: int, paper: Colour) -> None:
        self._scale = scale
        self._finer = 3 if scale == 1 else 2 if scale <= 4 else 1
        fine = scale * self._finer
        self._shapes = Image.new("RGB", (width * fine, height * fine), paper)
        self._draw = ImageDraw.Draw(self._shapes)
        self._pictures: list[tuple[Point, Frames]] = []
        self._words: list[tuple[Point, str, Colour, float, str]] = []

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line through `points` with round bends."""
        fine = [(self._fine(x), self._fine(y)) for x, y in points]
        self._draw.line(fine, colour, max(1, round(self._fine(width))), joint="curve")

    def disc(
        self, centre: Point, radius: float, colour: Colour, *, ring: Colour | None = None
    ) -> None:
        """A disc, with a rim one unit wide in the colour `ring`."""
        (x, y), width = centre, round(self._fine(1)) if ring else 0
        box = [self._fine(edge) for edge in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, colour, ring, width)

    def panel(
        self, box: Box, colour: Colour, *, rim: Colour | None = None, radius: float = 3
    ) -> None:
        """A box with round corners."""
        width = round(self._fine(1)) if rim else 0
        fine = [self._fine(edge) for edge in box]
        self._draw.rounded_rectangle(fine, self._fine(radius), colour, rim, width)

    def picture(self, centre: Point, frame: Frames) -> None:
        """A picture, uint8 [h, w, 3], pixel by pixel."""
        self._pictures.append((centre, frame))

    def text(
        self, at: Point, words: str, colour: Colour, *, size: float = 11.0, anchor: str = "lm"
    ) -> None:
        """Words on one line; `anchor` says which point of them is `at`, as Pillow names it."""
        self._words.append((at, words, colour, size, anchor))

    def pixels(self) -> Frames:
        """All of it, uint8 [height * scale, width * scale, 3]."""
        sheet = self._shapes.reduce(self._finer)
        for (x, y), frame in self._pictures:
            height, width = frame.shape[:2]
            corner = round(x * self._scale - width / 2), round(y * self._scale - height / 2)
            sheet.paste(Image.fromarray(frame), corner)
        draw = ImageDraw.Draw(sheet)
        for (x, y), words, colour, size, anchor in self._words:
            at = x * self._scale, y * self._scale
            draw.text(at, words, colour, font(size * self._scale), anchor=anchor)
        return np.asarray(sheet)

    def _fine(self, units: float) -> float:
        return units * self._scale * self._finer
