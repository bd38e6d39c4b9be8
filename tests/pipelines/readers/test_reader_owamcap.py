"""The `owamcap` reader: messages on one clock, screens by their time in the video."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers.mcap_files import MAGIC, chunk, record, text
from makers.readings import frames_of, the_recording
from makers.video_clips import read_stamp, stamped, write_clip

from wham_data.files.mcap import read_messages
from wham_data.pipelines.readers import discover
from wham_data.pipelines.video import encode_png
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import OpenRecording

SPACE = load_space("desktop")
EPOCH = 1_751_018_792_000_000_000
MS = 1_000_000
W, A, SHIFT = 0x57, 0x41, 0xA0
Told = tuple[str, int, dict[str, Any]]
"""Schema, milliseconds, what it says."""


def mcap(path: Path, messages: list[Told], profile: str = "owa", codec: str = "zstd") -> Path:
    """Two messages in each chunk."""
    schemas = sorted({schema for schema, _, _ in messages})
    names = b"".join(
        record(3, struct.pack("<H", k) + text(schema) + text("jsonschema") + text("{}"))
        + record(4, struct.pack("<HH", k, k) + text(schema) + text("json") + text(""))
        for k, schema in enumerate(schemas, start=1)
    )
    bodies = [
        record(
            5,
            struct.pack("<HIQQ", schemas.index(s) + 1, 0, EPOCH + ms * MS, 0)
            + json.dumps(told).encode(),
        )
        for s, ms, told in messages
    ]
    pairs = [b"".join(bodies[k : k + 2]) for k in range(0, len(bodies), 2)]
    chunks = [chunk(names * (k == 0) + pair, codec) for k, pair in enumerate(pairs)]
    head = MAGIC + record(1, text(profile) + text("test"))
    path.write_bytes(head + b"".join(chunks) + record(15, bytes(4)) + record(2, bytes(20)) + MAGIC)
    return path


def screens(*pts_ms: int, uri: str = "a.mkv", late_ms: int = 7) -> list[Told]:
    """Screens that are logged a little after their time in the video."""
    return [
        ("desktop/ScreenCaptured", t + late_ms, {"media_ref": {"uri": uri, "pts_ns": t * MS}})
        for t in pts_ms
    ]


def key(ms: int, code: int, how: str = "press") -> Told:
    return ("desktop/KeyboardEvent", ms, {"event_type": how, "vk": code})


def held(opened: OpenRecording, name: str) -> list[tuple[float, float]]:
    """Milliseconds and state of a button, wherever it changes."""
    assert opened.actions is not None
    column = opened.actions.values[:, SPACE.index(name)].tolist()
    times = ((opened.actions.times_ns - EPOCH) / MS).round(3).tolist()
    changes = [k for k in range(len(column)) if k == 0 or column[k] != column[k - 1]]
    return [(times[k], column[k]) for k in changes]


def moved(opened: OpenRecording, name: str) -> list[tuple[float, float]]:
    """Milliseconds and value of a motion, wherever there is some."""
    assert opened.actions is not None
    column = opened.actions.values[:, SPACE.index(name)].tolist()
    times = ((opened.actions.times_ns - EPOCH) / MS).round(3).tolist()
    return [(t, v) for t, v in zip(times, column, strict=True) if v]


def test_a_screen_is_the_frame_at_its_time_in_the_video_and_comes_at_its_log_time(
    tmp_path: Path,
) -> None:
    write_clip(tmp_path / "a.mkv", [10, 43, 110, 143, 9000])
    mcap(tmp_path / "a.mcap", [*screens(10, 43, 143), key(150, W)])

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened)] == [0, 1, 2, 3]
    assert ((opened.frame_times_ns - EPOCH) // MS).tolist() == [17, 50, 117, 150]
    assert "1 frames timed by their neighbours" in opened.notes
    assert any(note.startswith("1 frames at the ends") for note in opened.notes)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("owa.env.gst.msg.ScreenEmitted", {"path": "b.mkv", "pts": 33 * MS}),
        ("desktop/ScreenCaptured", {"path": "b.mkv", "pts": 33 * MS, "original_shape": [2, 2]}),
        ("desktop/ScreenCaptured", {"media_ref": {"path": "b.mkv", "pts_ns": 33 * MS}}),
        ("desktop/ScreenCaptured", {"media_ref": {"uri": "C:\\rec\\b.mkv", "pts_ns": 33 * MS}}),
    ],
)
def test_every_generation_of_screens_is_read(
    tmp_path: Path, schema: str, told: dict[str, Any]
) -> None:
    write_clip(tmp_path / "b.mkv", [0, 33])
    mcap(tmp_path / "a.mcap", [(schema, 40, told), key(50, W)])

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened)] == [1]
    assert opened.frame_times_ns.tolist() == [EPOCH + 40 * MS]


@pytest.mark.parametrize("codec", ["zstd", "lz4", ""])
def test_pictures_may_lie_in_the_messages(tmp_path: Path, codec: str) -> None:
    coded = [base64.b64encode(encode_png(stamped(k))).decode() for k in range(4)]
    told = [{"media_ref": {"uri": f"data:image/png;base64,{data}"}} for data in coded]
    told[3] = {"media_ref": {"type": "embedded", "format": "png", "data": coded[3]}}
    shown = [("desktop/ScreenCaptured", 100 * k, each) for k, each in enumerate(told)]
    mcap(tmp_path / "a.mcap", [*shown, key(400, W)], codec=codec)

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened)] == [0, 1, 2, 3]
    assert [read_stamp(frame) for frame in frames_of(opened, picks=[1, 3])] == [1, 3]


def test_a_key_that_repeats_is_pressed_once_and_a_tap_survives(tmp_path: Path) -> None:
    events = [key(10, W), key(20, W), key(30, W), key(40, W, "release"), key(40, A)]
    mcap(tmp_path / "a.mcap", [*screens(0), *events, key(40, A, "release"), key(99, 7)])

    opened = the_recording(tmp_path)

    assert held(opened, "key_w") == [(7, 0), (10, 1), (40, 0)]
    assert [state for _, state in held(opened, "key_a")] == [0, 1, 0]
    assert any("1 presses of keys that have no place here: key 7" in n for n in opened.notes)


def test_states_tell_what_was_held_at_the_start_and_mend_a_lost_release(tmp_path: Path) -> None:
    states = [("desktop/KeyboardState", t, {"buttons": b}) for t, b in ((0, [W]), (1000, [A]))]
    mouse = ("desktop/MouseState", 1, {"x": 5, "y": 5, "buttons": ["left"]})
    mcap(tmp_path / "a.mcap", [states[0], mouse, key(990, SHIFT), states[1]])

    opened = the_recording(tmp_path)

    assert held(opened, "key_w")[-2:] == [(0, 1), (1000, 0)]
    assert held(opened, "key_left_shift") == [(0, 0), (990, 1)]  # it changed just before
    assert held(opened, "mouse_left") == [(0, 1)]


def test_the_raw_device_tells_motion_buttons_and_wheel(tmp_path: Path) -> None:
    def raw(ms: int, x: int = 0, y: int = 0, flags: int = 0, data: int = 0) -> Told:
        told = {"last_x": x, "last_y": y, "button_flags": flags, "button_data": data}
        return ("desktop/RawMouseEvent", ms, told)

    pointer = ("desktop/MouseEvent", 11, {"event_type": "move", "x": 300, "y": 1})
    click = ("desktop/MouseEvent", 12, {"event_type": "click", "button": "left", "pressed": True})
    events = [raw(10, 8, -3), pointer, click, raw(20, flags=4), raw(30, flags=0x408, data=65416)]
    mcap(tmp_path / "a.mcap", [*screens(0), *events])

    opened = the_recording(tmp_path)

    assert (moved(opened, "mouse_dx"), moved(opened, "mouse_dy")) == ([(10, 8)], [(10, -3)])
    assert held(opened, "mouse_right") == [(7, 0), (20, 1), (30, 0)]
    assert held(opened, "mouse_left") == [(7, 0)]
    assert [turned for _, turned in moved(opened, "wheel")] == [-1]


def test_without_a_raw_device_the_pointer_moves(tmp_path: Path) -> None:
    said = [
        {"event_type": "move", "x": 100, "y": 50},
        {"event_type": "move", "x": 103, "y": 48},
        {"event_type": "click", "x": 103, "y": 48, "button": "left", "pressed": True},
        {"event_type": "scroll", "x": 103, "y": 48, "dx": 0, "dy": 2},
    ]
    events = [("desktop/MouseEvent", 10 * k, told) for k, told in enumerate(said, start=1)]
    mcap(tmp_path / "a.mcap", [*screens(0), *events])

    opened = the_recording(tmp_path)

    assert moved(opened, "mouse_dx") == [(20, 3)]
    assert moved(opened, "mouse_dy") == [(20, -2)]
    assert moved(opened, "wheel") == [(40, 2)]
    assert held(opened, "mouse_left")[1:] == [(30, 1)]
    assert "mouse motion is the pointer's, in pixels" in opened.notes


def test_a_recording_whose_video_is_elsewhere_is_actions_without_pictures(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write_clip(tmp_path / "b.mkv", [0, 33])
    mcap(inner / "a.mcap", [*screens(0, 33, uri="../b.mkv"), key(50, W)])

    opened = the_recording(inner)

    assert opened.pictureless
    assert ((opened.frame_times_ns - EPOCH) // MS).tolist() == [7, 40]


def test_a_torn_file_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = mcap(tmp_path / "a.mcap", [key(10 * k, W + k) for k in range(6)])
    path.write_bytes(path.read_bytes()[:-120])

    assert len(list(read_messages(path))) == 4


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = mcap(tmp_path / "a.mcap", [key(10 * k, W) for k in range(6)], codec="")
    path.write_bytes(path.read_bytes().replace(b'"vk": 87', b'"vk": 88', 1))

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)
    assert refused.value.reason == Reason.CORRUPT


def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    bomb = chunk(bytes(1 << 20), "zstd").replace(struct.pack("<Q", 1 << 20), struct.pack("<Q", 9))
    path = tmp_path / "a.mcap"
    path.write_bytes(MAGIC + record(1, text("owa") + text("")) + bomb)

    with pytest.raises(RefusedInput, match="cannot be unpacked"):
        list(read_messages(path))


def test_an_mcap_of_another_profile_is_not_taken(tmp_path: Path) -> None:
    mcap(tmp_path / "a.mcap", [key(1, W)], profile="ros2")

    assert not discover([tmp_path], "owamcap").recordings
    assert [each.format for each in discover([tmp_path]).recordings] == ["mcap"]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(9)))
def test_messages_count_at_their_log_time_wherever_they_lie(
    tmp_path: Path, order: list[int]
) -> None:
    write_clip(tmp_path / "a.mkv", [0, 40, 80])
    raw = [
        ("desktop/RawMouseEvent", ms, {"last_x": ms, "last_y": 0, "us_flags": 0})
        for ms in (20, 60, 65)
    ]
    told = [*screens(0, 40, 80), key(30, W), key(70, W, "release"), *raw, key(75, A)]
    mcap(tmp_path / "a.mcap", [told[k] for k in order])

    opened = the_recording(tmp_path)

    assert ((opened.frame_times_ns - EPOCH) // MS).tolist() == [7, 47, 87]
    assert held(opened, "key_w")[-2:] == [(30, 1), (70, 0)]
    assert held(opened, "key_a")[-1] == (75, 1)
    assert moved(opened, "mouse_dx") == [(20, 20), (60, 60), (65, 65)]
    in_order = [told[k][1] for k in order] == sorted(told[k][1] for k in order)
    assert any("late in the file" in note for note in opened.notes) != in_order


@pytest.mark.parametrize(
    ("relative", "absolute", "with_pointer", "motion"),
    [
        (5, 0, True, 5.0),
        (5, 1, True, 5.0),
        (3, 3, True, 3.0),
        (1, 6, True, 200.0),
        (1, 6, False, 1.0),
        (0, 4, True, 200.0),
    ],
    ids=["all relative", "one absolute", "half", "most", "no pointer", "all absolute"],
)
def test_absolute_reports_are_left_out_and_do_not_switch_off_the_others(
    tmp_path: Path, relative: int, absolute: int, with_pointer: bool, motion: float
) -> None:
    kinds = [0] * relative + [1] * absolute
    reports = [
        ("desktop/RawMouseEvent", 10 * k, {"last_x": 9999 if flag else 1, "us_flags": flag})
        for k, flag in enumerate(kinds)
    ]
    pointer = [
        ("desktop/MouseEvent", 200 + k, {"event_type": "move", "x": 100 * k, "y": 0})
        for k in range(3)
    ]
    mcap(tmp_path / "a.mcap", [*reports, *(pointer if with_pointer else [])])

    opened = the_recording(tmp_path)

    assert sum(value for _, value in moved(opened, "mouse_dx")) == motion
    left_out = motion < 200 and absolute > 0
    assert any("absolute" in note for note in opened.notes) == left_out


@pytest.mark.parametrize(
    "told",
    [
        [("desktop/KeyboardState", 1000, {"buttons": [W]}), key(1500, W, "release")],
        [key(600, W, "release"), ("desktop/KeyboardState", 1000, {"buttons": []})],
        [("desktop/KeyboardState", 1000, {"buttons": [W]})],
        [key(600, W, "release")],
    ],
    ids=["snapshot", "release first", "never released", "no snapshot"],
)
def test_a_key_that_is_held_when_it_begins_is_held_from_then_on(
    tmp_path: Path, told: list[Told]
) -> None:
    mcap(tmp_path / "a.mcap", [key(0, SHIFT), key(1, A), *told, key(2000, A, "release")])

    opened = the_recording(tmp_path)

    assert held(opened, "key_w")[0] == (0, 1)
    assert held(opened, "key_a")[0][1] == 0
    assert any("key_w" in note for note in opened.notes)


@pytest.mark.parametrize("told", [[key(400, W)], [key(400, W), key(500, W, "release")]])
def test_a_key_that_goes_down_later_was_not_held_before(tmp_path: Path, told: list[Told]) -> None:
    state = ("desktop/KeyboardState", 410, {"buttons": [W]})
    mcap(tmp_path / "a.mcap", [key(0, A), *told, state, key(2000, A, "release")])

    assert held(the_recording(tmp_path), "key_w")[:2] == [(0, 0), (400, 1)]


def test_each_screen_is_in_the_video_that_it_names(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", [0, 33, 66])
    write_clip(tmp_path / "b.mkv", [0, 33], frames=(stamped(10 + k) for k in range(2)))
    later = [(kind, ms + 500, told) for kind, ms, told in screens(0, 33, uri="b.mkv")]
    mcap(tmp_path / "a.mcap", [*screens(0, 33, 66), *later, key(510, W)])

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened)] == [0, 1, 2, 10, 11]
    assert ((opened.frame_times_ns - EPOCH) // MS).tolist() == [7, 40, 73, 507, 540]
    assert "2 videos joined by log_time" in opened.notes


def test_screens_of_a_video_that_is_not_there_are_counted(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", [0, 33, 66])
    later = [(kind, ms + 500, told) for kind, ms, told in screens(0, 33, uri="b.mkv")]
    mcap(tmp_path / "a.mcap", [*screens(0, 33, 66), *later, key(510, W)])

    opened = the_recording(tmp_path)

    assert len(opened.frame_times_ns) == 3
    assert "2 screens are in b.mkv, which is not there: left out" in opened.notes
