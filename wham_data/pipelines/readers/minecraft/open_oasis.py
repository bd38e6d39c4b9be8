"""`open-oasis`: Minecraft clips as Open-Oasis reads them, cut from VPT's recordings.

    <id>.chunk_NNN.mp4                    640x360, 20 frames/s
    <id>.chunk_NNN.actions.pt             a list of MineRL's actions, the camera in bins
    <id>.chunk_NNN.one_hot_actions.pt     a float32 tensor [T, 25]

Either file of actions will do. Row k acts after frame k, as in VPT: it is Open-Oasis' model that
puts a row of zeros before them, so that its own row k leads to frame k.
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
from wham_data.files.torch_file import TorchFile
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import VideoRecording, read_video
from wham_data.pipelines.readers.minecraft.minerl import CAMERA, frames_with_rows, minerl_row
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording

BINNED_ENDING: Final = ".actions.pt"
ONE_HOT_ENDING: Final = ".one_hot_actions.pt"
REST_BIN, DEGREES_PER_BIN, MOST_DEGREES = 40, 0.5, 20.0
DECIMALS: Final = 4
"""Digits of a degree that a float32 share of 20 degrees holds."""

_SPACE: Final = load_space("oasis25")
_CAMERA: Final = [_SPACE.index(name) for name in CAMERA]
_NAME: Final = re.compile(r"(?P<alias>.+)-[0-9a-f]{12}-\d{8}-\d{6}\.chunk_\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class OpenOasis:
    """Reader of Open-Oasis' clips."""

    name: ClassVar[str] = "open-oasis"
    about: ClassVar[str] = "Open-Oasis' Minecraft clips: .mp4 beside .actions.pt"
    order: ClassVar[int] = 20

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every video with a file of actions of its stem."""
        present = set(files)
        for video in files:
            if video.suffix != ".mp4":
                continue
            labels = tuple(
                path
                for ending in (BINNED_ENDING, ONE_HOT_ENDING)
                if (path := video.with_suffix(ending)) in present
            )
            if labels and sniff(video) == "video":
                named = _NAME.fullmatch(video.stem)
                yield Recording(
                    path=video,
                    files=(video, *labels),
                    format=self.name,
                    provenance=Provenance(
                        game="Minecraft",
                        match=video.stem,
                        player=named["alias"] if named else None,
                        license="MIT",
                    ),
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read the actions and index the video."""
        tables = [read_actions(path) for path in recording.files[1:]]
        rows = tables[0]
        index = read_video(recording.path, limits)
        clip, count, notes = frames_with_rows(index, len(rows), "actions")
        if not np.array_equal(rows, tables[-1], equal_nan=True):
            notes += (f"the two files of actions differ: {recording.files[1].name} is taken",)
        track = per_frame_track(_SPACE, clip.times_ns, clip.end_ns, rows[:count])
        return clip.opened(FrameData(actions=track), notes=notes)


def read_actions(path: Path) -> NDArray[np.float64]:
    """The actions of a file, float64 [T, 25] in the space `oasis25`.

    Raises:
        RefusedInput: it asks for code, is damaged, or holds something else.
    """
    file = TorchFile.open(path)
    if isinstance(file.content, list):
        rows = _binned(file, path)
        camera = (rows[:, _CAMERA] - REST_BIN) * DEGREES_PER_BIN
    else:
        table = file.array(file.content, path.name)
        if table.ndim != 2 or table.shape[1] != _SPACE.size or table.dtype.kind not in "fiu":
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"{path.name} holds {table.dtype} {table.shape}, expected numbers (T, 25)",
            )
        rows = table.astype(np.float64)
        camera = np.round(rows[:, _CAMERA] * MOST_DEGREES, DECIMALS)
    rows[:, _CAMERA] = camera
    return rows


def _binned(file: TorchFile, path: Path) -> NDArray[np.float64]:
    """The rows of a list of actions, the camera still in bins, float64 [T, 25]."""
    assert isinstance(file.content, list)
    rows = np.empty((len(file.content), _SPACE.size))
    for number, said in enumerate(file.content):
        where = f"{path.name}, action {number}"
        if not isinstance(said, dict):
            raise RefusedInput(Reason.LOG_TYPE, f"{where}: no table of MineRL's buttons")
        camera = said.get("camera")
        if not isinstance(camera, list | tuple | None):
            camera = file.array(camera, f"{where}: camera").ravel()
        rows[number] = minerl_row(said | {"camera": camera}, _SPACE, where)
    return rows
