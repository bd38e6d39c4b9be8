"""The mark on a dreamt picture: white text with a thin dark outline, lower right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wham_data.pipelines.media.picture import font
from wham_data.schemas.recording import Frames

ROWS = 180
"""Rows of a picture for which the sizes below are meant; they grow and shrink with it."""
PROMINENT, DISCREET = (12.5, 1.0), (11.0, 0.88)
"""Size of the letters and how much of the picture they cover."""
MARGIN = 10.0
"""From the letters to the right edge and from their baseline to the lower edge."""
OUTLINE = 0.8
SMALLEST = 8.0


@dataclass(frozen=True, slots=True)
class Watermark:
    """A text made ready for pictures of one size: they become `picture * keep + light` in its box.

    rows, columns  the box, the only part of a picture that changes
    keep           float32 [h, w, 1] in [0, 1]
    light          float32 [h, w, 1] in [0, 255]
    """

    rows: slice
    columns: slice
    keep: NDArray[np.float32]
    light: NDArray[np.float32]

    @classmethod
    def of(cls, text: str, height: int, width: int, *, prominent: bool) -> Self:
        """Set `text` for pictures of this size: as large as meant, or as large as fits."""
        scale = height / ROWS
        size, cover = PROMINENT if prominent else DISCREET
        size = max(size * scale, SMALLEST)
        margin = MARGIN * scale
        size = max(1.0, size * min(1.0, (width - 2 * margin) / font(size).getlength(text)))
        letters, outlined = (
            _mask(text, (width, height), (width - margin, height - margin), size, stroke)
            for stroke in (0, max(1, round(size / 14)))
        )
        left, top, right, bottom = outlined.getbbox() or (0, 0, 1, 1)
        box = slice(top, bottom), slice(left, right)
        fill, shade = (
            np.asarray(mask, np.float32)[box][..., None] * np.float32(part / 255)
            for mask, part in ((letters, cover), (outlined, OUTLINE))
        )
        return cls(*box, keep=(1 - fill) * (1 - shade), light=255 * fill)

    def on(self, picture: Frames) -> Frames:
        """`picture`, uint8 [H, W, 3] of the size this is for, with the mark on it; a copy."""
        marked = picture.copy()
        under = marked[self.rows, self.columns]
        marked[self.rows, self.columns] = np.rint(under * self.keep + self.light)
        return marked


def _mask(
    text: str, size: tuple[int, int], end: tuple[float, float], letters: float, stroke: int
) -> Image.Image:
    """Where the text covers a picture of `size`; its baseline ends at `end`."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    draw.text(end, text, 255, font(letters), anchor="rs", stroke_width=stroke)
    return mask
