"""FLV, as streams and old recorders write it, is read like any other container."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.video_clips import write_clip

from wham_data.pipelines.video import index_video


@pytest.mark.parametrize("times", [[0, 33, 67, 100], [0, 40, 200, 240], [500, 533, 567]])
def test_frames_of_an_flv_come_at_their_times(tmp_path: Path, times: list[int]) -> None:
    path = write_clip(tmp_path / "a.flv", times, options={"bf": "0"})

    assert (index_video(path).times_ns // 1_000_000).tolist() == times
