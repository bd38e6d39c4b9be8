"""A row `video_start` of an event log says where the video begins; no metadata are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.logs import by_ms, events, read_log
from makers.video_clips import write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.controller_log import read_controller_log
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.schemas.errors import Reason, RefusedInput

A_FROM_5200_TO_5700 = ("4000,left_stick_x,0", "5200,button_A,1", "5700,button_A,0")
END = "9000,left_stick_x,0"


@pytest.mark.parametrize("name", ["video_start", "VIDEO_START", "VideoStart", "video-start"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_times_count_from_the_marker_wherever_it_stands(
    tmp_path: Path, name: str, place: int
) -> None:
    lines = [*A_FROM_5200_TO_5700, END]
    lines.insert(place, f"5000,{name},1")

    log = read_log(tmp_path, events(*lines))

    held = by_ms(log, "button_A")
    assert held == {-1000.0: 0, 200.0: 1, 700.0: 0, 4000.0: 0}
    assert log.track.end_ns == 4_000_000_000
    assert "the video starts at the log's row video_start, 5.000 s" in log.notes
    assert not any("ignored" in note for note in log.notes)


def test_an_offset_in_the_metadata_counts_from_the_marker(tmp_path: Path) -> None:
    text = events("5000,video_start,1", *A_FROM_5200_TO_5700, END)

    log = read_log(tmp_path, text, 'actions = "xinput16"\noffset_ms = 150\n')

    assert by_ms(log, "button_A")[50.0] == 1


def test_the_marker_is_of_the_first_frame_and_not_of_a_zero_hours_before(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(events("5000,video_start,1", *A_FROM_5200_TO_5700, END))
    frames_ns = 3600 * 10**9 + np.arange(100) * 40_000_000

    log = read_controller_log(
        tmp_path / "log.csv", LogMetadata(), None, frames_ns, int(frames_ns[-1]) + 40_000_000
    )

    assert log.track.times_ns[1] == 3600 * 10**9 + 200_000_000


def test_a_counter_that_wraps_before_the_marker_is_counted_on(tmp_path: Path) -> None:
    wrap = 1 << 32
    lines = [f"{wrap - 500},left_stick_x,0", "100,video_start,1", "300,button_A,1"]

    log = read_log(tmp_path, events(*lines, "800,button_A,0", "4100,left_stick_x,0"))

    assert by_ms(log, "button_A") == {-600.0: 0, 200.0: 1, 700.0: 0, 4000.0: 0}


@pytest.mark.parametrize(
    "others", [("7000,video_start,1",), ("1,VIDEO_START,0", "2,video_start,1")]
)
def test_a_log_with_several_starts_is_refused(tmp_path: Path, others: tuple[str, ...]) -> None:
    text = events("5000,video_start,1", *A_FROM_5200_TO_5700, END, *others)

    with pytest.raises(RefusedInput, match="a log is of one video") as refused:
        read_log(tmp_path, text)

    assert refused.value.reason is Reason.LOG_CLOCK


def test_keys_and_mouse_are_in_the_smaller_of_two_spaces_that_hold_them_alike(
    tmp_path: Path,
) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 2000, 100))
    lines = ["0,mouse_dx,0", "1000,video_start,1", "1500,key_w,1", "1900,key_w,0", "3100,wheel,0"]
    (tmp_path / "a.csv").write_text(events(*lines))

    (recording,) = discover([tmp_path]).recordings
    track = open_recording(recording).actions

    assert track is not None
    assert track.space.name == "keyboard_mouse"
    (down,) = np.flatnonzero(track.values[:, track.space.index("key_w")])
    assert track.times_ns[down] == 500_000_000


@pytest.mark.parametrize("controls", [("left_x", "left_y"), ("forward", "camera_yaw")])
def test_controls_of_several_spaces_that_differ_are_still_refused(
    tmp_path: Path, controls: tuple[str, ...]
) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 2000, 100))
    (tmp_path / "a.csv").write_text(
        events(*(f"{k * 100},{name},0" for k, name in enumerate(controls)), f"2000,{controls[0]},0")
    )
    (recording,) = discover([tmp_path]).recordings

    with pytest.raises(RefusedInput, match="say which space is meant"):
        open_recording(recording)


def test_a_start_in_the_metadata_overrules_the_marker(tmp_path: Path) -> None:
    zero_ms = 1_767_225_600_000  # 2026-01-01 00:00:00 UTC
    rows = (
        (1000, "left_stick_x", 0),
        (1500, "video_start", 1),
        (2200, "button_A", 1),
        (2700, "button_A", 0),
    )
    text = events(*(f"{zero_ms + ms},{name},{value}" for ms, name, value in rows))

    log = read_log(tmp_path, text, 'actions = "xinput16"\nstart = "2026-01-01T00:00:02Z"\n')

    assert by_ms(log, "button_A") == {-1000.0: 0, 200.0: 1, 700.0: 0}
    assert "row video_start left aside: start in the metadata counts" in log.notes
