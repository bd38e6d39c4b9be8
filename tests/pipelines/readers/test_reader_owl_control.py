"""The `owl-control` reader: events on the video's clock, keyboard and mouse or a pad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.readings import frames_of, the_recording
from makers.video_clips import read_stamp, write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import OpenRecording

BEGAN = 1_760_000_000
Row = tuple[float, str, str]
"""Seconds from the video's start, the event, its arguments."""


def session(
    folder: Path, rows: list[Row], *, quoted: bool = True, marks: bool = True, ending: str = "\n"
) -> Path:
    """A video of ten frames, 0.1 s each, and a log that starts 0.5 s before it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / "recording.mp4", range(0, 1000, 100))
    video = [(0.0, "VIDEO_START", ""), (1.0, "VIDEO_END", "")] if marks else []
    everything = sorted(
        [(-0.5, "START", ""), *video, *rows, (1.2, "END", "")], key=lambda row: row[0]
    )
    mark = '"' if quoted else ""
    lines = [f"{BEGAN + t:.6f},{kind},{mark}[{args}]{mark}" for t, kind, args in everything]
    text = "\n".join(["timestamp,event_type,event_args", *lines]) + ending
    (folder / "inputs.csv").write_text(text)
    return folder


def changes(opened: OpenRecording, name: str) -> list[tuple[float, float]]:
    """Seconds and value, wherever a dimension changes."""
    assert opened.actions is not None
    column = opened.actions.values[:, opened.actions.space.index(name)]
    times = (opened.actions.times_ns / 1e9).round(3)
    at = [k for k in range(len(column)) if k == 0 or column[k] != column[k - 1]]
    return [(float(times[k]), round(float(column[k]), 3)) for k in at]


@pytest.mark.parametrize("quoted", [True, False])
def test_events_are_on_the_clock_of_the_video(tmp_path: Path, quoted: bool) -> None:
    rows = [(0.25, "KEYBOARD", "87,true"), (0.45, "KEYBOARD", "87, false")]
    session(tmp_path, rows, quoted=quoted)

    opened = the_recording(tmp_path)

    assert discover([tmp_path]).recordings[0].format == "owl-control"
    assert changes(opened, "key_w") == [(-0.5, 0), (0.25, 1), (0.45, 0)]
    assert [read_stamp(frame) for frame in frames_of(opened)] == list(range(10))
    assert opened.actions is not None
    assert opened.actions.end_ns == 1_200_000_000


@pytest.mark.parametrize(("text", "pressed_s"), [("180", 0.07), ("-62.5", 0.312), ("0", 0.25)])
def test_an_offset_that_a_person_found_corrects_the_clock(
    tmp_path: Path, text: str, pressed_s: float
) -> None:
    session(tmp_path, [(0.25, "KEYBOARD", "87,true"), (0.45, "KEYBOARD", "87,false")])
    options = {"offset_ms": text}
    (recording,) = discover([tmp_path], "owl-control", options).recordings

    opened = open_recording(recording, options=options)
    assert changes(opened, "key_w")[1] == (pytest.approx(pressed_s, abs=1e-3), 1)


@pytest.mark.parametrize("text", ["soon", "nan", "60001", "1/0"])
def test_an_offset_that_is_no_time_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="expected milliseconds"):
        discover([tmp_path], "owl-control", {"offset_ms": text})


@pytest.mark.parametrize(
    ("event", "down", "up", "name"),
    [
        ("KEYBOARD", "65,true", "65,false", "key_a"),
        ("KEYBOARD", "16,true", "16,false", "key_left_shift"),
        ("KEYBOARD", "112,1", "112,0", "key_f1"),
        ("MOUSE_BUTTON", "1,true", "1,false", "mouse_left"),
        ("MOUSE_BUTTON", "2,True", "2,False", "mouse_right"),
        ("MOUSE_BUTTON", "4,true", "4,false", "mouse_middle"),
        ("MOUSE_BUTTON", "6,true", "6,false", "mouse_forward"),
        ("GAMEPAD_BUTTON", "1,true", "1,false", "a"),
        ("GAMEPAD_BUTTON", "4,true", "4,false", "y"),
        ("GAMEPAD_BUTTON", "5,true", "5,false", "x"),
        ("GAMEPAD_BUTTON", "7,true", "7,false", "left_shoulder"),
        ("GAMEPAD_BUTTON", "13,true", "13,false", "guide"),
        ("GAMEPAD_BUTTON", "17,true", "17,false", "down"),
        ("GAMEPAD_BUTTON", "10,true", "10,false", "right_trigger"),
        ("GAMEPAD_BUTTON_VALUE", "9,0.25", "9,0", "left_trigger"),
        ("GAMEPAD_AXIS", "1,-0.5", "1,0", "left_x"),
        ("GAMEPAD_AXIS", "2,1.0", "2,0.0", "left_y"),
        ("GAMEPAD_AXIS", "5,-1", "5,0", "right_y"),
        ("GAMEPAD_AXIS", "8,1.0", "8,0.0", "up"),
    ],
)
def test_numbers_are_windows_virtual_keys_and_those_of_gilrs(
    tmp_path: Path, event: str, down: str, up: str, name: str
) -> None:
    session(tmp_path, [(0.3, event, down), (0.6, event, up)])

    value = float(down.split(",")[1]) if "." in down or "-1" in down else 1.0
    assert changes(the_recording(tmp_path), name) == [(-0.5, 0), (0.3, value), (0.6, 0)]


def test_motion_is_relative_and_a_notch_of_the_wheel_is_120(tmp_path: Path) -> None:
    rows = [(0.1, "MOUSE_MOVE", "5,-3"), (0.2, "MOUSE_MOVE", "-1,0"), (0.3, "SCROLL", "-240")]
    session(tmp_path, rows)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    space, values = opened.actions.space, opened.actions.values
    assert values[:, space.index("mouse_dx")].sum() == 4
    assert values[:, space.index("mouse_dy")].sum() == -3
    assert values[:, space.index("wheel")].sum() == -2


def test_how_far_a_trigger_is_pulled_beats_its_click(tmp_path: Path) -> None:
    rows = [(0.1, "GAMEPAD_BUTTON_VALUE", "9,0.4"), (0.2, "GAMEPAD_BUTTON", "9,true")]
    session(tmp_path, rows)

    assert changes(the_recording(tmp_path), "left_trigger") == [(-0.5, 0), (0.1, 0.4)]


@pytest.mark.parametrize("event", ["KEYBOARD", "GAMEPAD_BUTTON"])
def test_what_is_first_released_was_held_from_the_start(tmp_path: Path, event: str) -> None:
    session(tmp_path, [(0.3, event, "16,false")])

    opened = the_recording(tmp_path)

    name = "up" if event == "GAMEPAD_BUTTON" else "key_left_shift"
    assert changes(opened, name) == [(-0.5, 1), (0.3, 0)]
    assert f"held when it began: {name}" in opened.notes


def test_while_another_window_has_the_input_nothing_is_known(tmp_path: Path) -> None:
    rows = [(0.2, "KEYBOARD", "87,true"), (0.4, "UNFOCUS", ""), (0.5, "KEYBOARD", "65,true"),
            (0.7, "FOCUS", "")]  # fmt: skip
    session(tmp_path, rows)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    known = ~np.isnan(opened.actions.values).any(axis=1)
    times_ns = opened.actions.times_ns
    assert known.tolist() == [not 400_000_000 <= t < 700_000_000 for t in times_ns.tolist()]
    assert any("0.3 s: actions not known" in note for note in opened.notes)


@pytest.mark.parametrize(("device", "space"), [("auto", "xinput"), ("keyboard_mouse", "desktop")])
def test_of_two_devices_the_one_in_use_for_longer_is_taken_and_said(
    tmp_path: Path, device: str, space: str
) -> None:
    pad = [(k / 10, "GAMEPAD_AXIS", f"1,{k / 10}") for k in range(8)]
    session(tmp_path, [*pad, (0.25, "KEYBOARD", "87,true")])

    opened = the_recording(tmp_path, "owl-control", device=device)

    assert opened.actions is not None
    assert opened.actions.space.name == space
    assert any("--option device=" in note for note in opened.notes)


def test_without_video_start_the_start_is_a_guess_that_is_said(tmp_path: Path) -> None:
    session(tmp_path, [(0.0, "KEYBOARD", "87,true")], marks=False)

    opened = the_recording(tmp_path)

    assert changes(opened, "key_w") == [(0, 0), (0.5, 1)]
    assert any("a guess" in note for note in opened.notes)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1760000000.5,KEYBOARD,87", Reason.LOG_SYNTAX),
        ('1760000000.5,KEYBOARD,"[w,true]"', Reason.LOG_TYPE),
        ('1760000000.5,KEYBOARD,"[87]"', Reason.LOG_TYPE),
        ('soon,KEYBOARD,"[87,true]"', Reason.LOG_TYPE),
        ('1759999990,KEYBOARD,"[87,true]"', Reason.LOG_CLOCK),
        ('1760000003,VIDEO_START,"[]"', Reason.LOG_CLOCK),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(tmp_path: Path, line: str, reason: Reason) -> None:
    log = session(tmp_path, []) / "inputs.csv"
    log.write_text(log.read_text() + line + "\n")

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)
    assert refused.value.reason is reason


def test_a_log_of_a_video_of_another_length_is_refused(tmp_path: Path) -> None:
    log = session(tmp_path, [], marks=False) / "inputs.csv"
    rows = [f"{BEGAN + t},{kind},[]" for t, kind in ((2, "VIDEO_START"), (9, "VIDEO_END"))]
    log.write_text("\n".join([log.read_text().strip(), *rows, ""]))

    with pytest.raises(RefusedInput, match=r"7\.00 s, the video lasts 1\.00 s") as refused:
        the_recording(tmp_path)
    assert refused.value.reason is Reason.LOG_CLOCK


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    session(tmp_path, [(0.3, "KEYBOARD", "87,true")], ending="\n1760000001.3,KEYB")

    assert any("is torn" in note for note in the_recording(tmp_path).notes)


def test_metadata_tell_game_session_and_player(tmp_path: Path) -> None:
    said = {"game_exe": "game.exe", "session_id": "s-1", "hardware_id": "h-2", "duration": 1.0}
    (session(tmp_path, []) / "metadata.json").write_text(json.dumps(said))

    (found,) = discover([tmp_path]).recordings

    told = found.provenance
    assert (told.game, told.match, told.player) == ("game", "s-1", "h-2")


def test_another_csv_of_that_name_is_not_taken(tmp_path: Path) -> None:
    session(tmp_path, [])
    (tmp_path / "inputs.csv").write_text("time_s,button_A\n0,1\n")

    assert "owl-control" not in [each.format for each in discover([tmp_path]).recordings]
