"""When a container says that it was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.video_clips import write_clip

from wham_data.pipelines.video import VideoLimits
from wham_data.pipelines.video.created import created_ns


@pytest.mark.parametrize(
    ("ending", "tags", "ns"),
    [
        (".mp4", {"creation_time": "2026-03-01T12:00:05Z"}, 1_772_366_405_000_000_000),
        (".mov", {"creation_time": "2026-03-01T12:00:05+01:00"}, 1_772_362_805_000_000_000),
        (".mkv", {"creation_time": "2026-03-01T12:00:05Z"}, 1_772_366_405_000_000_000),
        (".mkv", {}, None),
        (".mp4", {"creation_time": "1904-01-01T00:00:00Z"}, None),
        (".mkv", {"date": "yesterday"}, None),
    ],
)
def test_the_time_of_creation_is_read_where_there_is_one(
    tmp_path: Path, ending: str, tags: dict[str, str], ns: int | None
) -> None:
    clip = write_clip(tmp_path / f"a{ending}", [0, 100], tags=tags)
    assert created_ns(clip, VideoLimits()) == ns


def test_a_file_that_is_no_video_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    assert created_ns(tmp_path / "a.mp4", VideoLimits()) is None
