"""Masks: rectangles that are blackened in every picture, to hide names, chat or faces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wham_data.schemas.errors import Reason, RefusedInput, UsageError

MOST_MASKS: Final = 64
NUMBER: Final = re.compile(r"\d{1,6}(\.\d{0,9})?|\.\d{1,9}", re.ASCII)
EXPECTED: Final = (
    "expected X,Y,WIDTH,HEIGHT: whole numbers are pixels of the upright source picture, "
    "numbers with a point are shares of its size, from 0 to 1"
)


@dataclass(frozen=True, slots=True, order=True)
class Mask:
    """The rectangle [x, x + width) x [y, y + height) of an upright source picture.

    The origin is the top left corner.

    x, y, width, height  in square pixels; with `shares`, parts of the picture's width and height
    shares               the unit of the four numbers

    Raises:
        UsageError: the rectangle is empty or lies outside the picture.
    """

    x: float
    y: float
    width: float
    height: float
    shares: bool

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0 or min(self.x, self.y) < 0:
            raise UsageError(f"mask {self}: an empty rectangle, {EXPECTED}")
        if self.shares and max(self.x + self.width, self.y + self.height) > 1 + 1e-9:
            raise UsageError(f"mask {self}: reaches outside the picture, {EXPECTED}")

    @classmethod
    def parse(cls, text: str) -> Mask:
        """The mask in a text X,Y,WIDTH,HEIGHT; a point in any number means shares.

        Raises:
            UsageError: the text is not a mask.
        """
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 4 or not all(NUMBER.fullmatch(part) for part in parts):
            raise UsageError(f"mask {text[:80]!r}: {EXPECTED}")
        x, y, width, height = map(float, parts)
        return cls(x, y, width, height, shares="." in text)

    def __str__(self) -> str:
        numbers = (self.x, self.y, self.width, self.height)
        return ",".join(str(number) if self.shares else f"{number:g}" for number in numbers)

    def box(self, picture_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the mask in a picture, in pixels.

        Args:
            picture_size: (width, height) in pixels.

        Raises:
            RefusedInput: MASK_OUTSIDE, the mask reaches outside this picture, so it was meant for a
                larger one.
        """
        width, height = picture_size
        x_unit, y_unit = picture_size if self.shares else (1, 1)
        right, bottom = (self.x + self.width) * x_unit, (self.y + self.height) * y_unit
        if not self.shares and (right > width or bottom > height):
            raise RefusedInput(
                Reason.MASK_OUTSIDE,
                f"mask {self} leads out of the picture of {width}x{height} pixels, so it was "
                "measured in another one; say it for this recording in its .toml, or in shares",
            )
        return self.x * x_unit, self.y * y_unit, right, bottom


def parse_masks(texts: Iterable[str]) -> tuple[Mask, ...]:
    """The masks in some texts, sorted, without duplicates.

    Raises:
        UsageError: a text is not a mask, or there are too many.
    """
    masks = tuple(sorted({Mask.parse(text) for text in texts}))
    if len(masks) > MOST_MASKS:
        raise UsageError(f"{len(masks)} masks, expected at most {MOST_MASKS}")
    return masks


def masks_text(masks: Iterable[Mask]) -> str:
    """The masks as one text, separated by spaces; settings are compared by it."""
    return " ".join(map(str, masks))
