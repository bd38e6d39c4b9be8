"""`genie-coinrun`: videos of CoinRun that genie-bottle sampled, small and without actions.

    Coinrun/{train,val,test}/<seed>.mp4    64x64, MPEG-4 Part 2, 30 frames per second

The sampler gives RGB pictures to a video writer that expects BGR, so red and blue are exchanged in
the files. This reader exchanges them back. A random agent plays one level after another: the next
level begins in the next frame, and nothing in the file marks the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.files.elsewhere import size_of
from wham_data.files.found import open_regular, sniff
from wham_data.pipelines.readers.kit.open_recordings import (
    VideoClip,
    VideoRecording,
    open_clips,
    read_video,
)
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.kit.placement import Placement
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Frames, Provenance, Recording

SIDE: Final = 64
MOST_VIDEO_BYTES: Final = 64 << 20
END_BYTES: Final = 1 << 20
"""The index of an mp4 with a thousand frames is in the last few kilobytes of the file."""
SAMPLE_ENTRY: Final = b"mp4v"
SIZE_AT: Final = 28
"""Bytes from the name of a sample entry to its width and height, each of two bytes."""

_NAME: Final = re.compile(r"\d{4,9}\.mp4", re.ASCII)


@dataclass(frozen=True, slots=True)
class GenieCoinrun:
    """Reader of genie-bottle's CoinRun videos."""

    name: ClassVar[str] = "genie-coinrun"
    about: ClassVar[str] = "CoinRun videos of genie-bottle, without actions"
    order: ClassVar[int] = 110
    colours: str = choice(
        "true", "stored", about="red and blue exchanged back, or as the files have them"
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every numbered video of 64x64 pixels in MPEG-4 Part 2 that has no log beside it."""
        together: dict[Path, int] = {}
        for path in files:
            stem = path.parent / path.name.partition(".")[0]
            together[stem] = together.get(stem, 0) + 1
        for path in files:
            if (
                _NAME.fullmatch(path.name)
                and together[path.with_suffix("")] == 1
                and _is_ours(path)
            ):
                yield Recording(
                    path=path,
                    files=(path,),
                    format=self.name,
                    provenance=Provenance(game="CoinRun", map=path.stem, license="MIT"),
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Index the video."""
        return open_clips(
            (VideoClip.whole(read_video(recording.path, limits)),),
            notes=("no actions; levels may change inside the file, without a mark",),
            retouch=_exchange if self.colours == "true" else None,
        )


def _exchange(frames: Frames, picks: Index, placement: Placement) -> None:
    """Exchange red and blue."""
    del picks, placement
    frames[...] = np.ascontiguousarray(frames[..., ::-1])


def _is_ours(path: Path) -> bool:
    """Whether the first and last bytes show a small video of 64x64 pixels in MPEG-4 Part 2."""
    if sniff(path) != "video":
        return False
    try:
        with open_regular(path) as file:
            size = size_of(file)
            if size > MOST_VIDEO_BYTES:
                return False
            ends = file.read(END_BYTES)
            file.seek(max(len(ends), size - END_BYTES))
            ends += file.read(END_BYTES)
    except RefusedInput:
        return False
    at = ends.find(SAMPLE_ENTRY)
    side = SIDE.to_bytes(2, "big")
    return at >= 0 and ends[at + SIZE_AT : at + SIZE_AT + 4] == side * 2
