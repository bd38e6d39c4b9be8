"""Code that readers of Minecraft data share: MineRL's actions, and rows that belong to frames.

MineRL's action is a table of 23 buttons, each 0 or 1, and `camera`, a pair [pitch, yaw]. Several
datasets made from VPT's recordings use it, each in a file format of its own.
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


def minerl_row(action: Mapping[str, object], space: ActionSpace, where: str) -> NDArray[np.float64]:
    """One action in the order of `space`, float64 [A]; the camera in the unit of the source.

    Args:
        action: numbers by name, and `camera`, a pair of numbers. Names that are not in `space` are
            ignored.
        space: has MineRL's buttons, `camera_pitch` and `camera_yaw`.
        where: the place in the file, for messages.

    Raises:
        RefusedInput: LOG_COLUMN, a value is missing; LOG_TYPE, a value is not a number.
    """
    camera = action.get("camera")
    if not isinstance(camera, Sequence | np.ndarray) or isinstance(camera, str) or len(camera) != 2:
        raise RefusedInput(Reason.LOG_COLUMN, f"{where}: no camera of two numbers")
    row = np.empty(space.size)
    for place, name in enumerate(space.names):
        if name not in CAMERA and name not in action:
            raise RefusedInput(Reason.LOG_COLUMN, f"{where}: no {name}")
        row[place] = _number(camera[CAMERA[name]] if name in CAMERA else action[name], name, where)
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
    """The frames that have a row. Row i belongs to frame i; surplus frames or rows are left out.

    Args:
        index: the index of the video.
        rows: number of rows.
        what: the name of the rows in messages.

    Returns:
        The frames, their number, and notes.

    Raises:
        RefusedInput: LOG_EMPTY; LOG_COVERAGE, one has less than half the number of the other.
    """
    frames = len(index.times_ns)
    counts = f"{rows} {what} for {frames} frames"
    if not rows:
        raise RefusedInput(Reason.LOG_EMPTY, f"no {what}")
    count = min(frames, rows)
    if count < MIN_COVERAGE * max(frames, rows):
        raise RefusedInput(Reason.LOG_COVERAGE, f"{counts}: do they belong together?")
    notes = () if rows == frames else (f"{counts}: the first {count} of each are taken",)
    return VideoClip.numbered(index, 0, count), count, notes
