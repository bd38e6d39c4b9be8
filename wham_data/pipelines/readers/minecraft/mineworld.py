"""`mineworld`: MineWorld's validation clips, a video beside lines that look like Python.

    clip_N.mp4      384x224
    clip_N.jsonl    {'ESC': 0, 'back': 0, ..., 'camera': array([-7.12, 3.93]), ...}

A line is MineRL's action as Python prints it, which is no JSON. MineWorld evaluates it; here a
pattern takes out names and numbers, and whatever else a line holds is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import sniff
from wham_data.files.json_lines import text_lines
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import VideoRecording, read_video
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.minecraft.minerl import frames_with_rows, minerl_row
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording

MOST_LINE_BYTES: Final = 16 << 10
MOST_LINES: Final = 500_000

_SPACE: Final = load_space("vpt")
_NUMBER: Final = (
    r"(?:[+-]?(?:\d{1,32}(?:\.\d{0,32})?|\.\d{1,32})(?:[eE][+-]?\d{1,3})?|nan|[+-]?inf|True|False)"
)
_ENTRY: Final = re.compile(
    r"\s*(?P<quote>['\"])(?P<name>[\w.]{1,64})(?P=quote)\s*:\s*"
    r"(?P<made>(?:np\.|numpy\.)?(?:array|bool_?|u?int\d{1,2}|float\d{2})\(\s*)?"
    rf"(?:(?P<number>{_NUMBER})|[\[(]\s*(?P<pair>{_NUMBER}\s*,\s*{_NUMBER})\s*,?\s*[\])])"
    r"(?(made)\s*(?:,\s*dtype=[\w.]{1,32}\s*)?\))\s*(?:,|$)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class MineWorld:
    """Reader of MineWorld's clips."""

    name: ClassVar[str] = "mineworld"
    about: ClassVar[str] = "MineWorld's clips: .mp4 beside lines of Python literals"
    order: ClassVar[int] = 140
    timing: str = choice(
        "leads", "after", about="line k led to frame k, or was done after it was seen"
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every video beside lines of which the first is one of MineRL's actions."""
        present = set(files)
        for video in files:
            log = video.with_suffix(".jsonl")
            if video.suffix == ".mp4" and log in present and _begins_with_action(log):
                if sniff(video) != "video":
                    continue
                yield Recording(
                    path=video,
                    files=(video, log),
                    format=self.name,
                    provenance=Provenance(game="Minecraft", match=video.stem, license="MIT"),
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read the lines and index the video."""
        rows = read_actions(recording.files[1])
        index = read_video(recording.path, limits)
        clip, count, notes = frames_with_rows(index, len(rows), "lines")
        track = per_frame_track(
            _SPACE, clip.times_ns, clip.end_ns, rows[:count], leads=self.timing == "leads"
        )
        return clip.opened(FrameData(actions=track), notes=notes)


def _begins_with_action(log: Path) -> bool:
    try:
        _, line = next(text_lines(log), ("", b""))
        minerl_row(read_literal(line, log.name), _SPACE, log.name)
    except RefusedInput:
        return False
    return True


def read_actions(path: Path) -> NDArray[np.float64]:
    """The actions of a file in the space `vpt`, float64 [T, 25]; a torn last line is left out.

    Raises:
        RefusedInput: it is too large, or a line holds something else.
    """
    rows: list[NDArray[np.float64]] = []
    for where, line in text_lines(path):
        if len(rows) >= MOST_LINES:
            raise RefusedInput(Reason.TOO_LARGE, f"{path.name}: over {MOST_LINES} lines")
        if line.endswith(b"\n") or line.rstrip().endswith(b"}"):
            rows.append(minerl_row(read_literal(line, where), _SPACE, where))
    return np.array(rows).reshape(-1, _SPACE.size)


def read_literal(line: bytes, where: str) -> dict[str, object]:
    """The numbers, and pairs of them, that a dict printed by Python holds.

    Args:
        line: such as `{'jump': 0, 'camera': array([1.5, -2.])}`; nothing in it is evaluated.
        where: for messages.

    Raises:
        RefusedInput: LOG_SYNTAX, it is longer than 16 kB or anything else.
    """
    text = line.strip().decode("ascii", "replace")
    said: dict[str, object] = {}
    if len(line) <= MOST_LINE_BYTES and text[:1] == "{" and text[-1:] == "}":
        place, end = 1, len(text) - 1
        while found := _ENTRY.match(text, place, end):
            pair = found["pair"]
            said[found["name"]] = (
                [_value(part.strip()) for part in pair.split(",")]
                if pair
                else _value(found["number"])
            )
            place = found.end()
        if not text[place:end].strip():
            return said
        text = text[place:end]
    raise RefusedInput(
        Reason.LOG_SYNTAX, f"{where}: no table of numbers as Python prints it, at {text[:40]!r}"
    )


def _value(text: str) -> float:
    words = {"True": 1.0, "False": 0.0}
    return words[text] if text in words else float(text)
