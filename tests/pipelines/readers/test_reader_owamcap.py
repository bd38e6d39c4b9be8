"""The `owamcap` reader: messages on one clock, screens by their time in the video."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
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
MAGIC = b"\x89MCAP0\r\n"
W, A, SHIFT = 0x57, 0x41, 0xA0
Told = tuple[str, int, dict[str, Any]]
"""Schema, milliseconds, what it says."""


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def chunk(records: bytes, codec: str) -> bytes:
    packed = pa.compress(records, codec, asbytes=True) if codec else records
    head = struct.pack("<QQQI", 0, 0, len(records), zlib.crc32(records))
    return record(6, head + text(codec) + struct.pack("<Q", len(packed)) + packed)


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
    assert held(opened, "mouse_left")[-1] == (1, 1)


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

    assert not discover([tmp_path]).recordings
