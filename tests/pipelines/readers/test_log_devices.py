"""Logs that hold several devices, and devices that go and come back."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.logs import SPACE, by_ms, column, events, read_log, sampled
from makers.video_clips import write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.controller_log import ControllerLog
from wham_data.pipelines.readers.video_log.devices import may_name_devices
from wham_data.schemas.errors import Reason, RefusedInput

ROWS = 200
TIMES_MS = [8 * k for k in range(ROWS)]


def in_turn(names: Sequence[object]) -> tuple[list[object], list[float]]:
    """Which device each row is of, and its stick: device number n holds it at n / 10."""
    turn = [k % len(names) for k in range(ROWS)]
    return [names[t] for t in turn], [t / 10 for t in turn]


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("pad", [0, 1]),
        ("device", ["xbox", "dual sense", "old"]),
        ("player", ["p1", "p2"]),
        ("controller_id", [3, 7]),
        ("JoystickInstanceID", [12, 13, 14, 15]),
        ("user_index", [0, 1]),
    ],
)
def test_devices_in_turn_are_never_mixed(tmp_path: Path, name: str, devices: list[object]) -> None:
    which, stick = in_turn(devices)
    text = sampled(TIMES_MS, left_stick_x=stick, **{name: which})

    with pytest.raises(RefusedInput) as caught:
        read_log(tmp_path, text)
    assert caught.value.reason is Reason.LOG_COLUMN
    assert all(str(word) in caught.value.message for word in (name, "only", *devices))
    for number, device in enumerate(devices):
        part = f"{name}_{device}".replace(" ", "-")
        assert set(column(read_log(tmp_path, text, part=part), "left_stick_x")) == {number / 10}
        chosen = read_log(tmp_path, text, f'only = {{ {name} = "{device}" }}\n')
        assert set(column(chosen, "left_stick_x")) == {number / 10}
    whole = read_log(tmp_path, text, f'ignore = ["{name}"]\n')
    assert len(whole.track.times_ns) == ROWS


@pytest.mark.parametrize(
    ("ending", "text", "named"),
    [
        (".csv", b"time_ms,pad,a\n0,1,1\n", True),
        (".csv", b"time_ms,a\n0,1\n", False),
        (".jsonl", b'{"time_ms": 0, "event": {"which": 1}, "a": 0}\n', True),
        (".csv.gz", gzip.compress(b"time_ms,controller_id,a\n", mtime=0), True),
        (".csv.gz", gzip.compress(b"time_ms,controller_id,a\n", mtime=0)[:-12], False),
        (".csv", "time_ms,player,a\n".encode("utf-16"), True),
    ],
)
def test_a_glance_shows_whether_a_log_may_name_devices(
    tmp_path: Path, ending: str, text: bytes, named: bool
) -> None:
    (tmp_path / f"log{ending}").write_bytes(text)
    assert may_name_devices(tmp_path / f"log{ending}") is named


@pytest.mark.parametrize("which", [[0] * ROWS, [0] * 100 + [1] * 100, ["a"] * 10 + ["b"] * 190])
def test_one_device_after_the_other_is_one_log(tmp_path: Path, which: list[object]) -> None:
    log = read_log(tmp_path, sampled(TIMES_MS, left_stick_x=[0.5] * ROWS, pad=which))
    assert (column(log, "left_stick_x") == 0.5).all()


def test_a_pad_that_is_replaced_holds_nothing_until_the_next_one_is_there(tmp_path: Path) -> None:
    times_ms = [8 * k + (500 if k >= 100 else 0) for k in range(ROWS)]
    which = [0] * 100 + [1] * 100
    log = read_log(tmp_path, sampled(times_ms, left_stick_x=[0.5] * ROWS, pad=which))
    assert log.track.times_ns[np.isnan(log.track.values).any(axis=1)].tolist() == [800_000_000]


@pytest.mark.parametrize("names", [["x", "y"], [4, 9], ["l", "m", "r"]])
def test_a_column_of_any_name_that_splits_the_rows_is_not_ignored(
    tmp_path: Path, names: list[object]
) -> None:
    which, stick = in_turn(names)
    text = sampled(TIMES_MS, left_stick_x=[5 * s - 0.5 for s in stick], comment=which)
    with pytest.raises(RefusedInput, match="comment"):
        read_log(tmp_path, text)
    assert read_log(tmp_path, text, 'ignore = ["comment"]\n').sampled
    even = sampled(TIMES_MS, left_stick_x=[0.5] * ROWS, comment=which)
    assert read_log(tmp_path, even).sampled, "the hands do not care about the column"


def test_each_device_becomes_a_recording_of_one_match(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 1600, 40))
    which, stick = in_turn([0, 1])
    (tmp_path / "a.csv").write_text(sampled(TIMES_MS, left_stick_x=stick, pad=which))
    found = discover([tmp_path]).recordings

    assert [recording.part for recording in found] == ["pad_0", "pad_1"]
    assert len({recording.provenance.match for recording in found}) == 1
    for number, recording in enumerate(found):
        track = open_recording(recording).actions
        assert track is not None
        assert set(track.values[:, track.space.index("left_stick_x")]) == {number / 10}


def test_devices_in_a_parquet_log_are_told_apart_too(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 1600, 40))
    which, stick = in_turn([0, 1])
    table = {"time_ms": TIMES_MS} | {name: [0.0] * ROWS for name in SPACE.names}
    pq.write_table(pa.table({**table, "left_stick_x": stick, "pad": which}), tmp_path / "a.parquet")
    assert [found.part for found in discover([tmp_path]).recordings] == ["pad_0", "pad_1"]


# --- events ----------------------------------------------------------------------------------

HEAD = "time_ms,device,control,value"


def test_events_of_two_pads_are_two_logs_over_one_span(tmp_path: Path) -> None:
    text = events(
        "0,0,left_stick_x,0", "100,1,button_A,1", "200,0,button_A,1", "300,1,button_A,0",
        "3990,0,button_A,0", head=HEAD,
    )  # fmt: skip
    with pytest.raises(RefusedInput, match="device"):
        read_log(tmp_path, text)
    first, second = (read_log(tmp_path, text, part=f"device_{n}") for n in (0, 1))
    assert by_ms(first, "button_A") == {0: 0, 200: 1, 3990: 0}
    assert by_ms(second, "button_A") == {0: 0, 100: 1, 300: 0}
    assert first.track.end_ns == second.track.end_ns == 3_990_000_000


def test_keyboard_and_mouse_that_share_no_control_are_one_log(tmp_path: Path) -> None:
    log = read_log(tmp_path, events(
        "0,keyboard,button_A,0", "100,keyboard,button_A,1", "200,mouse,button_B,1",
        "300,keyboard,button_A,0", "3990,mouse,button_B,0", head=HEAD,
    ))  # fmt: skip
    assert by_ms(log, "button_A") == {0: 0, 100: 1, 200: 1, 300: 0, 3990: 0}


def unknown(log: ControllerLog) -> list[bool]:
    return [bool(row.all()) for row in np.isnan(log.track.values)]


@pytest.mark.parametrize("devices", [(0, 1), ("a1", "b2"), (5, 3)])
def test_a_pad_that_comes_back_under_a_new_number_holds_nothing(
    tmp_path: Path, devices: tuple[object, object]
) -> None:
    old, new = devices
    log = read_log(tmp_path, events(
        f"0,{old},left_stick_x,0", f"500,{old},button_A,1",
        f"1500,{new},left_stick_x,-0.5", f"1700,{new},button_B,1", f"3990,{new},button_B,0",
        head=HEAD,
    ))  # fmt: skip
    assert column(log, "button_A")[[0, 2, 3, 4]].tolist() == [0, 0, 0, 0]
    assert unknown(log) == [False, True, False, False, False]
    assert [note for note in log.notes if "replaced" in note and "1.500 s" in note]


def test_a_pad_at_rest_that_is_replaced_leaves_nothing_unknown(tmp_path: Path) -> None:
    log = read_log(tmp_path, events(
        "0,0,button_A,1", "500,0,button_A,0", "1500,1,button_A,1", "3990,1,button_A,0", head=HEAD
    ))  # fmt: skip
    assert unknown(log) == [False] * 4


@pytest.mark.parametrize(
    ("gone", "back"),
    [("disconnected,1", "connected,1"), ("JOYDEVICEREMOVED,0", "JOYDEVICEADDED,1"),
     ("connected,0", "connected,1"), ("unplugged,1", "left_stick_x,0"),
     ("SDL_EVENT_GAMEPAD_REMOVED,0", "SDL_EVENT_GAMEPAD_ADDED,0"), ("pad1_lost,1", "pad1_attached,0"),
     ("SDL_CONTROLLERDEVICEREMOVED,0", "SDL_CONTROLLERDEVICEADDED,0"),
     ("joystick removed,1", "joystick_plugged_in,1"), ("controller_connected,0", "controller_connected,1")],
)  # fmt: skip
def test_an_unplugged_pad_holds_nothing(tmp_path: Path, gone: str, back: str) -> None:
    log = read_log(tmp_path, events(
        "0,button_B,0", "500,button_A,1", f"800,{gone}", f"1500,{back}", "3000,button_B,1",
        "3990,button_B,0",
    ))  # fmt: skip
    assert by_ms(log, "button_A")[500] == 1
    assert unknown(log) == [False, False, True, False, False, False]
    assert by_ms(log, "button_A")[1500] == 0
