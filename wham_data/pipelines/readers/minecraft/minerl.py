"""What readers of Minecraft data share: actions as MineRL writes them, and rows beside a video.

MineRL's action is a table of 23 buttons, each 0 or 1, and `camera`, a pair [pitch, yaw]. Several
datasets that come from VPT's recordings keep it, each in a file format of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.open_recordings import VideoClip
from wham_data.pipelines.video import VideoIndex
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import Reason, RefusedInput

CAMERA: Final = {"camera_pitch": 0, "camera_yaw": 1}
MIN_COVERAGE: Final = 0.5


def minerl_row(said: Mapping[str, object], space: ActionSpace, where: str) -> NDArray[np.float64]:
    """One action in the order of `space`, float64 [A]; the camera in the unit of the source.

    Args:
        said: numbers by name, and `camera`, a pair of them. What `space` does not have is left out.
        space: has MineRL's buttons, `camera_pitch` and `camera_yaw`.
        where: for messages.

    Raises:
        RefusedInput: LOG_COLUMN, something is missing; LOG_TYPE, something is no number.
    """
    camera = said.get("camera")
    if not isinstance(camera, Sequence | np.ndarray) or isinstance(camera, str) or len(camera) != 2:
        raise RefusedInput(Reason.LOG_COLUMN, f"{where}: no camera of two numbers")
    row = np.empty(space.size)
    for place, name in enumerate(space.names):
        if name not in CAMERA and name not in said:
            raise RefusedInput(Reason.LOG_COLUMN, f"{where}: no {name}")
        row[place] = _number(camera[CAMERA[name]] if name in CAMERA else said[name], name, where)
    return row


def _number(value: object, name: str, where: str) -> float:
    try:
        if isinstance(value, bool | int | float | np.number):
            return float(value)
    except OverflowError:
        pass
    raise RefusedInput(Reason.LOG_TYPE, f"{where}: {name} is {str(value)[:40]}, no number")


def frames_with_rows(
    index: VideoIndex, rows: int, what: str
) -> tuple[VideoClip, int, tuple[str, ...]]:
    """The frames that have a row, where row i belongs to frame i and the shorter of both decides.

    Args:
        index: of the video.
        rows: how many there are.
        what: what to call them.

    Returns:
        The frames, how many they are, and notes.

    Raises:
        RefusedInput: LOG_EMPTY, or LOG_COVERAGE where one is less than half of the other.
    """
    frames = len(index.times_ns)
    told = f"{rows} {what} for {frames} frames"
    if not rows:
        raise RefusedInput(Reason.LOG_EMPTY, f"no {what}")
    count = min(frames, rows)
    if count < MIN_COVERAGE * max(frames, rows):
        raise RefusedInput(Reason.LOG_COVERAGE, f"{told}: do they belong together?")
    notes = () if rows == frames else (f"{told}: the first {count} of each are taken",)
    return VideoClip.numbered(index, 0, count), count, notes
