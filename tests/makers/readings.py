"""Opening recordings in tests of readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wham_data.pipelines.readers import discover, open_recording
from wham_data.schemas.recording import Frames, OpenRecording


def the_recording(source: Path, format: str = "auto", **options: str) -> OpenRecording:
    """The only recording in a folder, open."""
    (opened,) = recordings_in(source, format, **options).values()
    return opened


def recordings_in(source: Path, format: str = "auto", **options: str) -> dict[str, OpenRecording]:
    """Every recording below a folder, open, by its name relative to the folder."""
    found = discover([source], format, options)
    assert not found.refused, found.refused
    return {
        recording.source.removeprefix(f"{source.resolve()}/"): open_recording(
            recording, options=options
        )
        for recording in found.recordings
    }


def frames_of(
    opened: OpenRecording, size: tuple[int, int] = (96, 96), picks: list[int] | None = None
) -> Frames:
    """All of its frames, or some, uint8 [N, H, W, 3]."""
    wanted = np.arange(len(opened.frame_times_ns)) if picks is None else np.array(picks, np.int64)
    batches = opened.frames(wanted, size, fit="stretch", batch=7, threads=1)
    return np.concatenate(list(batches))
