"""`micro-world`: Micro-World's Minecraft scenes, with a caption for every 81 frames.

    <root>/video/scene_N.mp4
    <root>/metadata-detection/scene_N.json     GF-Minecraft's table, and results of its detection
    <root>/video_captions_v0.csv               captions, one for each 81 frames; or annotation.csv
    <root>/clips/scene_N_<first frame>.npz     the same actions, cut into clips: not read

A variant of GF-Minecraft: entry i led to frame i, and entry 0 has no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from wham_data.files.found import Listing
from wham_data.pipelines.readers.kit.open_recordings import VideoRecording
from wham_data.pipelines.readers.minecraft.gf_minecraft import (
    METADATA_FOLDERS,
    clips_in,
    open_clip,
    recordings_option,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.recording import Recording

LICENSE: Final = "openrail"
_SCENE: Final = re.compile(r"scene_\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class MicroWorld:
    """Reader of Micro-World's scenes."""

    name: ClassVar[str] = "micro-world"
    about: ClassVar[str] = "Micro-World's Minecraft: video and metadata-detection of scene_N"
    order: ClassVar[int] = 150
    recordings: str = recordings_option()

    def spans(self, folder: Path, listing: Listing) -> bool:  # noqa: ARG002  by the names alone
        """Whether there is a folder of tables beside those of the videos."""
        return not set(METADATA_FOLDERS).isdisjoint(listing.folders)

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every video of a scene whose table has data on collisions."""
        for clip in clips_in(files):
            if _SCENE.fullmatch(clip.video.stem) and b'"collision"' in clip.head:
                yield from clip.recordings(self.name, self.recordings, LICENSE)

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read the actions and captions, and index the video."""
        return open_clip(recording, limits)
