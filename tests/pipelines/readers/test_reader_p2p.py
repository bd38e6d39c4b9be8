"""The `p2p` reader, the wire format under it, and the names of keys."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.readings import frames_of, the_recording
from makers.video_clips import read_stamp, write_clip

from wham_data.files.messages.protobuf import Message
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.kit.keys.names import key_named, key_of_code
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

SPACE = load_space("p2p")


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def action(*keys: str, dx: int = 0, dy: int = 0, known: bool = True, pad: bytes = b"") -> bytes:
    keyboard = b"".join(field(1, key) for key in keys)
    mouse = field(3, field(1, dx) + field(2, dy)) + field(9, "1")
    return field(2, keyboard) + field(3, int(known)) + field(4, mouse) + field(5, pad)


def session(folder: Path, frames: list[bytes], shown: int | None = None) -> Path:
    """Annotations of frames, beside a video of so many frames; as many unless told, 0: none."""
    folder.mkdir(exist_ok=True)
    metadata = field(3, "someone") + field(5, 20.0) + field(6, field(1, "roblox"))
    told = field(2, metadata) + b"".join(field(3, frame) for frame in frames)
    (folder / "annotation.proto").write_bytes(told)
    if count := len(frames) if shown is None else shown:
        write_clip(folder / "192x192.mp4", [50 * k for k in range(count)])
    return folder


def test_what_acts_after_a_frame_is_the_annotation_of_the_next_one(tmp_path: Path) -> None:
    session(tmp_path, [field(1, action("w", dx=-k, dy=k)) for k in range(4)])

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened)] == [0, 1, 2, 3]
    assert opened.actions is not None
    values = opened.actions.values
    assert values[:3, SPACE.index("mouse_dx")].tolist() == [-1, -2, -3]
    assert values[:3, SPACE.index("mouse_dy")].tolist() == [1, 2, 3]
    assert values[:3, SPACE.index("key_w")].tolist() == [1, 1, 1]
    assert values[:3, SPACE.index("mouse_right")].tolist() == [1, 1, 1]
    assert np.isnan(values[3]).all()


def test_the_system_overrides_the_user_and_unknown_is_not_rest(tmp_path: Path) -> None:
    user, system = action("a"), action("d")
    frames = [b"", field(1, user) + field(6, system), field(1, user), b"", field(1, user)]
    session(tmp_path, frames)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    pressed = opened.actions.values[:, [SPACE.index("key_a"), SPACE.index("key_d")]]
    assert pressed[[0, 1, 3]].tolist() == [[0, 1], [1, 0], [1, 0]]
    assert np.isnan(pressed[2]).all()
    assert opened.notes == (
        "2 frames without a known action",
        "1 actions by the system, not the user",
    )


def test_the_pad_and_the_instruction_are_kept(tmp_path: Path) -> None:
    stick = field(1, 0.5) + field(2, -0.25) + field(3, 1)
    pad = field(1, field(1, 1) + field(12, 1)) + field(2, stick) + field(5, 0.75)
    said = field(7, field(1, "go north") + field(3, 0.1))
    session(tmp_path, [b"", field(1, action(pad=pad)) + said, b"", b""])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    row = dict(zip(SPACE.names, opened.actions.values[0].tolist(), strict=True))
    assert (row["pad_south"], row["pad_right_bumper"], row["pad_north"]) == (1, 1, 0)
    assert (row["pad_left_x"], row["pad_left_y"], row["pad_left_thumb"]) == (0.5, -0.25, 1)
    assert (row["pad_left_trigger"], row["pad_right_trigger"]) == (0, 0.75)
    assert opened.texts == [None, "go north", "go north", None]


def test_more_annotations_than_frames_are_told_and_far_more_refused(tmp_path: Path) -> None:
    few = session(tmp_path / "few", [field(1, action("w"))] * 4, shown=3)
    assert "4 annotations for 3 frames: counted from the first" in the_recording(few).notes

    many = session(tmp_path / "many", [field(1, action("w"))] * 9, shown=3)
    with pytest.raises(RefusedInput) as refused:
        the_recording(many)
    assert refused.value.reason == Reason.LOG_COVERAGE


def test_annotations_without_a_video_are_actions_without_pictures(tmp_path: Path) -> None:
    opened = the_recording(session(tmp_path, [field(1, action("w"))] * 3, shown=0))

    assert opened.pictureless
    assert opened.frame_times_ns.tolist() == [0, 50_000_000, 100_000_000]


def test_a_schema_written_as_text_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "video_annotation.proto").write_text('syntax = "proto3";\n')

    assert not discover([tmp_path]).recordings


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (field(3, b"12345678")[:-3], Reason.LOG_SYNTAX),
        (b"\x1a", Reason.LOG_SYNTAX),
        (b"\x1b", Reason.LOG_SYNTAX),
        (b"\x00\x00", Reason.LOG_SYNTAX),
        (b"\x18" + b"\xff" * 11, Reason.LOG_SYNTAX),
        (field(3, b"") * (1 << 19) + field(3, b""), Reason.TOO_LARGE),
    ],
)
def test_damage_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(RefusedInput) as refused:
        Message.parse(data)
    assert refused.value.reason == reason


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        Message.parse(data)
    except RefusedInput:
        return


def test_messages_that_are_there_twice_are_one_and_the_last_number_counts() -> None:
    message = Message.parse(field(1, field(1, 5)) + field(1, field(1, -7) + field(2, "x")))

    assert (message.message(1).integer(1), message.message(1).text(2)) == (-7, "x")
    assert (message.message(9).integer(1), message.text(9), message.real(9)) == (0, "", 0.0)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("w", "w"), ("W", "w"), ("KeyW", "w"), ("7", "7"), ("Digit7", "7"), ("F11", "f11"),
        ("Space", "space"), (" ", "space"), ("LeftShift", "left_shift"), ("ShiftLeft", "left_shift"),
        ("shift_r", "right_shift"), ("LControl", "left_ctrl"), ("Ctrl", "left_ctrl"),
        ("ControlRight", "right_ctrl"), ("UpArrow", "up"), ("ArrowLeft", "left"), ("Left", "left"),
        ("Escape", "escape"), ("Return", "enter"), ("CapsLock", "caps_lock"), ("PageUp", "page_up"),
        (";", "semicolon"), ("Backquote", "grave"), ("Nonsense", None), ("", None),
    ],
)  # fmt: skip
def test_keys_are_known_in_the_usual_spellings(text: str, key: str | None) -> None:
    assert key_named(text) == (f"key_{key}" if key else None)


def test_every_key_of_windows_that_we_name_has_a_place() -> None:
    names = {name for code in range(256) if (name := key_of_code(code))}

    assert names <= set(load_space("desktop").names)
    assert (key_of_code(0x57), key_of_code(0x7A), key_of_code(0xA0)) == (
        "key_w",
        "key_f11",
        "key_left_shift",
    )
    assert key_of_code(7) is None
