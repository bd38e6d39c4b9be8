"""`oasis`: Minecraft clips as Open-Oasis reads them.

    <split>/<episode>.mp4                    H.264, a frame per step
    <split>/<episode>.one_hot_actions.pt     a float32 tensor (T, 25); row k acts after frame k

The two camera columns hold (bin - 40) / 40. A bin is half a degree wide, in 0..80; 40 is no motion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.minecraft.minerl import CAMERA
from wham_data.pipelines.readers.minecraft.open_oasis import (
    DEGREES_PER_BIN,
    MOST_DEGREES,
    ONE_HOT_ENDING,
)
from wham_data.pipelines.video import write_video
from wham_data.pipelines.writers.clips import crf_option
from wham_data.pipelines.writers.minecraft.way import VPT
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, one_each
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.pipelines.writers.torch_file import Tensor, write_torch_tensor
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.conversion import converts_to

OASIS: Final = load_space("oasis25")
USUAL_RATE: Final = Fraction(20)
USUAL_SIZE: Final = (640, 360)


@dataclass(frozen=True, slots=True)
class OasisWriter:
    """Writer of Open-Oasis' clips."""

    name: ClassVar[str] = "oasis"
    about: ClassVar[str] = (
        "Minecraft clips as Open-Oasis reads them: .mp4 beside .one_hot_actions.pt"
    )
    order: ClassVar[int] = 50
    demands: ClassVar[Demands] = Demands()
    crf: int = crf_option()

    def space(self, native: ActionSpace) -> ActionSpace:
        """`oasis25`, or a space such as `vpt` that has the same dimensions by name, or leads to it."""
        if set(OASIS.names) <= set(native.names):
            return native
        return VPT if VPT.name in converts_to(native.name) else OASIS

    def check(self, content: Content) -> Sequence[str]:
        """A note if rate or size differ from those of Open-Oasis."""
        if (content.rate, content.size) == (USUAL_RATE, USUAL_SIZE):
            return []
        width, height = content.size
        return [
            f"clips of {width}x{height} at {content.rate} Hz; Open-Oasis was made for 640x360 at "
            "20 Hz, and turns of at most 20 degrees a step"
        ]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A clip each."""
        return one_each(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one clip and the file of its actions."""
        del place
        (stretch,) = part.stretches
        rows, clamped = one_hot_rows(stretch.actions(), content.space)
        clip = folder / part.split / f"{part.name}.mp4"
        clip.parent.mkdir()
        write_video(clip, stretch.frames(), content.steady_rate, crf=self.crf, reproducible=True)
        write_torch_tensor(clip.with_name(part.name + ONE_HOT_ENDING), Tensor.of(rows))
        return {"clamped": clamped}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Does nothing: no file describes the whole export."""


def one_hot_rows(
    actions: NDArray[np.float32], space: ActionSpace
) -> tuple[NDArray[np.float32], int]:
    """Actions in the form of the files, and how many turns were limited to 20 degrees.

    Args:
        actions: float32 [T, A].
        space: the space of `actions`; it has the names of `oasis25`.
    """
    rows = actions[:, [space.index(name) for name in OASIS.names]]
    camera = [OASIS.index(name) for name in CAMERA]
    most = round(MOST_DEGREES / DEGREES_PER_BIN)
    bins = np.rint(rows[:, camera].astype(np.float64) / DEGREES_PER_BIN)
    rows[:, camera] = np.clip(bins, -most, most) / most
    return rows, int(np.count_nonzero(np.abs(bins) > most))
