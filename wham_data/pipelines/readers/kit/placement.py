"""Where a source picture lies in a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from wham_data.pipelines.video import inner_size
from wham_data.schemas.recording import Fit, Frames

COLOUR_REACH: Final = 2
"""Videos store one colour for 2 x 2 pixels, so a pixel's colour may extend this far beyond it."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a source picture in a frame: x becomes left + scale_x * x, and y likewise."""

    scale_x: float
    scale_y: float
    left: int
    top: int

    @classmethod
    def of(cls, shown: tuple[int, int], size: tuple[int, int], fit: Fit) -> Placement:
        """The placement of a picture of `shown` (width, height) in a frame of `size`."""
        inner = size if fit == "stretch" else inner_size(shown, size, fit)
        return cls(
            inner[0] / shown[0],
            inner[1] / shown[1],
            (size[0] - inner[0]) // 2,
            (size[1] - inner[1]) // 2,
        )

    def black_out(self, frames: Frames, box: tuple[float, float, float, float]) -> None:
        """Blacken every pixel of the frames that a pixel of the box was scaled into.

        Args:
            frames: uint8 [B, H, W, 3], changed in place.
            box: left, top, right and bottom in pixels of the source picture.
        """
        left = self.left + math.floor((box[0] - COLOUR_REACH) * self.scale_x)
        top = self.top + math.floor((box[1] - COLOUR_REACH) * self.scale_y)
        right = self.left + math.ceil((box[2] + COLOUR_REACH) * self.scale_x)
        bottom = self.top + math.ceil((box[3] + COLOUR_REACH) * self.scale_y)
        frames[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 0
