"""Small Minecraft clips for tests of readers: numbered frames, and actions as MineRL writes them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from makers.readings import frames_of
from makers.video_clips import read_stamp, stamped
from wham_data.pipelines.video import write_video
from wham_data.schemas.recording import OpenRecording

SIZE = (96, 64)
BUTTONS = (
    "ESC", "back", "drop", "forward", *(f"hotbar.{n}" for n in range(1, 10)), "inventory", "jump",
    "left", "right", "sneak", "sprint", "swapHands", "attack", "use", "pickItem",
)  # fmt: skip


def clip(path: Path, count: int = 5, rate: int = 20) -> Path:
    """A video whose frame k shows the number k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (stamped(number, *SIZE) for number in range(count))
    write_video(path, frames, Fraction(rate), preset="ultrafast")
    return path


def minerl(camera: object = (0, 0), **pressed: int) -> dict[str, Any]:
    """One of MineRL's actions: at rest but for the camera and the named buttons."""
    return {**dict.fromkeys(BUTTONS, 0), "camera": camera, **pressed}


def shown(opened: OpenRecording) -> list[int]:
    """The numbers on all of its frames."""
    return [read_stamp(frame) for frame in frames_of(opened, SIZE)]


def done(opened: OpenRecording) -> list[dict[str, float] | None]:
    """What is not at rest in every row of its actions, by name; None where it is not known."""
    assert opened.actions is not None
    names = opened.actions.space.names
    return [
        None
        if row[0] != row[0]
        else {name: value for name, value in zip(names, row, strict=True) if value}
        for row in opened.actions.values.tolist()
    ]
