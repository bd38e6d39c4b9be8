"""`matrix-game`: clips of Matrix-Game and its GameWorld benchmark, 65 frames for one of 76 actions.

    <index>_<action>.mp4                 1280x720, 16 frames/s
    Bench76/test_<action>.jsonl          labels: MineRL's actions, one JSON object a line
    <index>_<action>.conditions.npz      conditions: keyboard_condition [T, 6], mouse_condition [T, 2]

Row i led to frame i: the generator used it to make that frame. Both kinds store the camera's motion
as [pitch, yaw], but looking up is -5 (degrees) in labels and +0.05 in conditions. So each has its own
action space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import Listing, sniff
from wham_data.files.json_lines import json_lines
from wham_data.files.npz import array_shapes, opened_npz, read_numbers
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import VideoRecording, read_video
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.minecraft.minerl import frames_with_rows, minerl_row
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording

LABELS: Final = "Bench76"
CONDITIONS_ENDING: Final = ".conditions.npz"
CONDITIONS: Final = {"keyboard_condition": 6, "mouse_condition": 2}
MOST_ROWS: Final = 100_000

_NAME: Final = re.compile(r"\d{1,8}_(?P<action>\w{1,100})", re.ASCII)


@dataclass(frozen=True, slots=True)
class MatrixGame:
    """Reader of Matrix-Game's clips."""

    name: ClassVar[str] = "matrix-game"
    about: ClassVar[str] = "Matrix-Game's clips: .mp4 with labels of Bench76 or conditions"
    order: ClassVar[int] = 170
    actions: str = choice(
        "labels", "conditions", about="which of them is taken where a clip has both"
    )

    def spans(self, folder: Path, listing: Listing) -> bool:  # noqa: ARG002  by the names alone
        """Whether there is a folder of labels beside the videos or their folder."""
        return LABELS in listing.folders

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every numbered video that has the labels of its action, or its own conditions."""
        present = set(files)
        for video in files:
            named = _NAME.fullmatch(video.stem)
            if named is None or video.suffix != ".mp4":
                continue
            labels = f"test_{named['action']}.jsonl"
            candidates = [
                video.parent / LABELS / labels,
                video.parent.parent / LABELS / labels,
                video.with_name(labels),
            ]
            logs = [path for path in candidates if path in present][:1]
            logs += [path for path in (video.with_suffix(CONDITIONS_ENDING),) if path in present]
            if self.actions == "conditions":
                logs.reverse()
            if logs and sniff(video) == "video":
                yield Recording(
                    path=video,
                    files=(video, logs[0]),
                    format=self.name,
                    provenance=Provenance(game="Minecraft", match=video.stem, license="MIT"),
                    companions=tuple(logs[1:]),
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read the actions and index the video."""
        log = recording.files[1]
        space, rows = (
            read_conditions(log) if log.name.endswith(CONDITIONS_ENDING) else read_labels(log)
        )
        index = read_video(recording.path, limits)
        clip, count, notes = frames_with_rows(index, len(rows), "actions")
        track = per_frame_track(space, clip.times_ns, clip.end_ns, rows[:count], leads=True)
        return clip.opened(FrameData(actions=track), notes=notes)


def read_labels(path: Path) -> tuple[ActionSpace, NDArray[np.float64]]:
    """The rows of a file of labels, in the space `vpt`, float64 [T, 25].

    Raises:
        RefusedInput: a line is damaged or lacks a button.
    """
    space = load_space("vpt")
    rows = []
    for number, line in enumerate(json_lines(path)):
        if number >= MOST_ROWS:
            raise RefusedInput(Reason.TOO_LARGE, f"{path.name}: over {MOST_ROWS} lines")
        rows.append(minerl_row(line, space, f"{path.name}, action {number}"))
    return space, np.array(rows).reshape(-1, space.size)


def read_conditions(path: Path) -> tuple[ActionSpace, NDArray[np.float64]]:
    """The rows of a file of conditions, in the space `matrixgame8`, float64 [T, 8].

    Raises:
        RefusedInput: the file is damaged, or an array is missing or of another shape.
    """
    shapes = {name: shape for name, (shape, _) in array_shapes(path).items()}
    count = (shapes.get("keyboard_condition") or (0,))[0]
    wrong = [name for name, width in CONDITIONS.items() if shapes.get(name) != (count, width)]
    if wrong or count > MOST_ROWS:
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"{path.name}: {wrong[0] if wrong else 'keyboard_condition'} is "
            f"{shapes.get(wrong[0]) if wrong else (count, 6)}, expected a row for each frame, "
            "of 6 keys and of [pitch, yaw]",
        )
    with opened_npz(path) as archive:
        columns = [
            read_numbers(archive, f"{name}.npy", count, width) for name, width in CONDITIONS.items()
        ]
    return load_space("matrixgame8"), np.hstack(columns).astype(np.float64)
