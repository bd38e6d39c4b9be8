"""Videos that start between refresh points, or before zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.video_clips import cut_off, read_stamp, write_clip

from wham_data.pipelines.video import VideoIndex, decode_frames, index_video

STEADY = [round(k * 1000 / 30) for k in range(120)]
REFRESHED = "intra-refresh=1:keyint=30:scenecut=0:bframes="


def stamps(index: VideoIndex) -> list[int]:
    every = decode_frames(index, np.arange(len(index.times_ns)), (192, 112))
    return [read_stamp(frame) for batch in every for frame in batch]


@pytest.mark.parametrize(("b_frames", "lost"), [(0, 5), (0, 20), (2, 11), (2, 45)])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_stream_refreshed_in_stripes_is_read_from_its_first_whole_picture(
    tmp_path: Path, b_frames: int, lost: int, ending: str
) -> None:
    whole = write_clip(
        tmp_path / "whole.mkv", STEADY, options={"x264-params": f"{REFRESHED}{b_frames}"}
    )
    index = index_video(cut_off(whole, tmp_path / f"a.{ending}", lost))

    shown = stamps(index)

    assert lost < shown[0] < lost + 65, "a refresh takes a second"
    assert shown == list(range(shown[0], 120)), "and none is half-refreshed"
    assert any("are lost" in note for note in index.notes)


@pytest.mark.parametrize("at", [0.2, 0.35, 0.5])
def test_a_transport_stream_joined_late_is_read_from_its_first_whole_picture(
    tmp_path: Path, at: float
) -> None:
    whole = write_clip(
        tmp_path / "whole.ts", STEADY, options={"x264-params": f"{REFRESHED}0"}
    ).read_bytes()
    (tmp_path / "a.ts").write_bytes(whole[round(len(whole) // 188 * at) * 188 :])

    shown = stamps(index_video(tmp_path / "a.ts"))

    assert shown == list(range(shown[0], 120))


@pytest.mark.parametrize(
    "options", [{"x264-params": "open-gop=1:keyint=30:bframes=2"}, {"g": "30", "bf": "0"}]
)
def test_a_start_between_key_frames_that_no_index_marks_is_found(
    tmp_path: Path, options: dict[str, str]
) -> None:
    whole = write_clip(tmp_path / "whole.mkv", STEADY, options={**options, "sc_threshold": "0"})

    assert stamps(index_video(cut_off(whole, tmp_path / "a.mkv", 10))) == list(range(30, 120))


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "2"}),
        ("libx264", {"bf": "0"}),
        ("libx265", {"x265-params": "bframes=2:log-level=none"}),
        ("libvpx", {}),
    ],
)
@pytest.mark.parametrize("start", [-33, -200, -400])
def test_times_below_zero_in_matroska_are_those_of_the_file(
    tmp_path: Path, codec: str, options: dict[str, str], start: int
) -> None:
    times = range(start, 500, 33)
    muxer = {"avoid_negative_ts": "disabled"}
    path = write_clip(tmp_path / "a.mkv", times, codec=codec, options=options, muxer=muxer)

    index = index_video(path)

    assert (index.times_ns // 1_000_000).tolist() == list(times)
    assert stamps(index) == list(range(len(times)))


@pytest.mark.parametrize(
    ("codec", "b_frames"), [("libx264", "2"), ("libx264", "0"), ("mpeg4", "2")]
)
def test_pictures_before_zero_in_an_mp4_are_hidden_as_a_player_does(
    tmp_path: Path, codec: str, b_frames: str
) -> None:
    """Its edit list says that play begins at zero."""
    path = write_clip(
        tmp_path / "a.mp4",
        range(-200, 800, 40),
        codec=codec,
        options={"bf": b_frames},
        muxer={"avoid_negative_ts": "disabled"},
    )

    index = index_video(path)

    assert index.times_ns[0] == 0
    assert stamps(index) == list(range(5, 25))
