"""Rectangles that are blackened in every picture: names, chat, faces."""

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
    "numbers with a point shares of it from 0 to 1"
)


@dataclass(frozen=True, slots=True, order=True)
class Mask:
    """The rectangle [x, x + width) x [y, y + height) of a source picture as a person sees it.

    Upright, in square pixels, counted from the top left; or, if `shares`, in parts of its width
    and height.
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
            raise UsageError(f"mask {self}: leads out of the picture, {EXPECTED}")

    @classmethod
    def parse(cls, text: str) -> Mask:
        """The mask that a text means.

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

    def box(self, shown: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in a picture of `shown` (width, height) pixels.

        Raises:
            RefusedInput: MASK_OUTSIDE, the picture is smaller than the one it was measured in.
        """
        across, down = shown if self.shares else (1, 1)
        right, bottom = (self.x + self.width) * across, (self.y + self.height) * down
        if not self.shares and (right > shown[0] or bottom > shown[1]):
            raise RefusedInput(
                Reason.MASK_OUTSIDE,
                f"mask {self} leads out of the picture of {shown[0]}x{shown[1]} pixels, so it was "
                "measured in another one; say it for this recording in its .toml, or in shares",
            )
        return self.x * across, self.y * down, right, bottom


def parse_masks(texts: Iterable[str]) -> tuple[Mask, ...]:
    """The masks that some texts mean, sorted, each once.

    Raises:
        UsageError: a text is not a mask, or there are too many.
    """
    masks = tuple(sorted({Mask.parse(text) for text in texts}))
    if len(masks) > MOST_MASKS:
        raise UsageError(f"{len(masks)} masks, expected at most {MOST_MASKS}")
    return masks


def masks_said(masks: Iterable[Mask]) -> str:
    """One text for all of them, by which settings are compared."""
    return " ".join(map(str, masks))
