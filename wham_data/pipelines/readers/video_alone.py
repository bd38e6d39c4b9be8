"""`video-alone`: a video without a log, for pictures without actions. Taken only if asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wham_data.files.found import VIDEO_ENDINGS, sniff
from wham_data.pipelines.readers.kit.open_recordings import VideoClip, VideoRecording, read_video
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata, read_metadata
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Recording


@dataclass(frozen=True, slots=True)
class VideoAlone:
    """Reader of videos that no other reader takes."""

    name: ClassVar[str] = "video-alone"
    about: ClassVar[str] = "a video without a log: every action is unknown"
    order: ClassVar[int] = 2000
    without_log: str = choice("refuse", "take", about="videos without a log")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every video, each with its metadata; none unless asked for."""
        if self.without_log != "take":
            return
        there = set(files)
        for path in files:
            if path.suffix.lower() in VIDEO_ENDINGS and sniff(path) == "video":
                said = path.with_suffix(".toml")
                metadata = (said,) if said in there else ()
                yield Recording(
                    path=path,
                    files=(path, *metadata),
                    format=self.name,
                    provenance=_read_or_nothing(metadata).provenance,
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Index the video."""
        metadata = _read(recording.files[1:])
        opened = VideoClip.whole(read_video(recording.path, limits)).opened(
            notes=("taken without a log: no action is known", *metadata.notes)
        )
        opened.masks = metadata.masks
        return opened


def _read(files: tuple[Path, ...]) -> LogMetadata:
    return read_metadata(files[0]) if files else LogMetadata()


def _read_or_nothing(files: tuple[Path, ...]) -> LogMetadata:
    """Metadata for the listing; an error in them is reported when the recording is opened."""
    try:
        return _read(files)
    except RefusedInput:
        return LogMetadata()
