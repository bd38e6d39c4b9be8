"""Logs of keys: columns time, key and event, and the names that libraries and browsers give keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.logs import SPACE, by_ms, column, read_log, sampled
from makers.video_clips import write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.kit.keys.names import is_key_code, key_in_log
from wham_data.pipelines.readers.video_log.controller_log import ControllerLog
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

KEYS = load_space("keyboard_mouse")


def held_ms(log: ControllerLog, key: str) -> dict[int, float]:
    """Time in ms -> whether a key is down, from the log's first event on."""
    values = log.track.values[:, log.track.space.index(key)]
    known = np.isfinite(log.track.values).all(axis=1)
    times = (log.track.times_ns[known] // 10**6).tolist()
    return dict(zip(times, values[known].tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "button"),
    [
        ("w", "key_w"), ("W", "key_w"), ("'w'", "key_w"), ("Key.space", "key_space"),
        (" ", "key_space"), ("Key.shift_l", "key_left_shift"), ("Key.shift", "key_left_shift"),
        ("Key.ctrl_r", "key_right_ctrl"), ("Key.alt_gr", "key_right_alt"), ("Key.up", "key_up"),
        ("Key.f5", "key_f5"), ("Key.esc", "key_escape"), ("Key.cmd", "key_left_super"),
        ("KeyW", "key_w"), ("Digit1", "key_1"), ("ArrowUp", "key_up"), ("Space", "key_space"),
        ("ShiftLeft", "key_left_shift"), ("ControlRight", "key_right_ctrl"),
        ("AltGraph", "key_right_alt"), ("Enter", "key_enter"), ("Numpad7", "key_numpad_7"),
        ("87", "key_w"), ("0x57", "key_w"), ("<87>", "key_w"), ("0xA0", "key_left_shift"),
        ("7", "key_7"), ("'7'", "key_7"), (r"'\x17'", "key_w"), ("Button.left", "mouse_left"),
        ("Button.x1", "mouse_back"), ("\"'\"", "key_quote"), ("?!", None), ("Key.nothing", None),
        ("255", None), ("Button.scroll", None), ("x" * 99, None),
    ],
)  # fmt: skip
def test_a_key_is_known_by_the_names_that_recorders_give_it(name: str, button: str | None) -> None:
    assert key_in_log(name) == button


@pytest.mark.parametrize(("text", "is_code"), [("87", 1), ("0x57", 1), ("7", 0), ("w", 0), ("", 0)])
def test_one_digit_is_a_key_and_no_code(text: str, is_code: int) -> None:
    assert is_key_code(text) == bool(is_code)


def lines(*rows: tuple[object, str, str], names: tuple[str, str, str]) -> str:
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("names", "key", "down", "up", "scale"),
    [
        (("t", "key", "event"), "Key.space", "press", "release", 1e-3),
        (("timestamp", "key", "action"), "space", "down", "up", 1e-3),
        (("timeStamp", "code", "type"), "Space", "keydown", "keyup", 1),
        (("time", "key", "type"), " ", "key_press", "key_release", 1e3),
        (("time_ms", "vk", "state"), "32", "1", "0", 1),
        (("ts", "keyCode", "pressed"), "0x20", "true", "false", 1e6),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "nested"])
def test_a_log_of_keys_is_read_by_its_columns(
    tmp_path: Path,
    names: tuple[str, str, str],
    key: str,
    down: str,
    up: str,
    scale: float,
    form: str,
) -> None:
    rows = [
        (round(ms * scale, 6), key, word) for ms, word in ((200, down), (900, up), (3000, down))
    ]
    made = [dict(zip(names, row, strict=True)) for row in rows]
    if form == "csv":
        text = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)])
    else:
        text = "".join(json.dumps(row) + "\n" for row in made)
        text = {"json": json.dumps(made), "nested": json.dumps({"v": 1, "log": made})}.get(
            form, text
        )
    name = {"nested": "log.json"}.get(form, f"log.{form}")
    log = read_log(tmp_path, text, name=name, space=None)
    assert log.track.space.name == "keyboard_mouse"
    assert held_ms(log, "key_space") == {200: 1, 900: 0, 3000: 1}
    assert log.track.times_ns[0] == 0, "it starts with the video"
    assert np.isnan(log.track.values[0]).all(), "and is not known until its first event"
    assert [note for note in log.notes if "a log of keys" in note]


def test_the_code_of_a_browser_counts_not_the_letter(tmp_path: Path) -> None:
    """`key` depends on Shift and on the layout: a press of 1 would be released as !."""
    rows = [
        {"t": 0, "type": "keydown", "code": "Digit1", "key": "1", "repeat": False},
        {"t": 500, "type": "keydown", "code": "ShiftLeft", "key": "Shift", "repeat": False},
        {"t": 900, "type": "keyup", "code": "Digit1", "key": "!", "repeat": False},
        {"t": 3500, "type": "keyup", "code": "ShiftLeft", "key": "Shift", "repeat": False},
    ]
    log = read_log(tmp_path, json.dumps(rows), name="log.json", space=KEYS)
    assert held_ms(log, "key_1") == {0: 1, 500: 1, 900: 0, 3500: 0}
    assert [note for note in log.notes if "key, repeat" in note]


@pytest.mark.parametrize(("down", "repeat", "up"), [("1", "2", "0"), ("down", "repeat", "up")])
def test_a_key_that_repeats_is_held(tmp_path: Path, down: str, repeat: str, up: str) -> None:
    words = (down, repeat, repeat, up)
    lines = [f"{k * 1000},w,{word}" for k, word in enumerate(words)]
    log = read_log(tmp_path, "\n".join(["time_ms,key,value", *lines]), space=KEYS)
    assert held_ms(log, "key_w") == {0: 1, 1000: 1, 2000: 1, 3000: 0}


def test_rows_of_other_devices_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"t": 0, "type": "keydown", "code": "KeyW"},
        {"t": 100, "type": "mousemove", "x": 3, "y": 4},
        {"t": 200, "type": "mousemove", "x": 3, "y": 5},
        {"t": 3000, "type": "keyup", "code": "KeyW"},
    ]
    log = read_log(tmp_path, "\n".join(map(json.dumps, rows)), name="log.jsonl", space=KEYS)
    assert held_ms(log, "key_w") == {0: 1, 3000: 0}
    assert [note for note in log.notes if "2 rows whose code is empty left out" in note]


@pytest.mark.parametrize("others", ["mouse", "gamepad0"])
def test_keys_and_buttons_of_two_devices_are_one_log(tmp_path: Path, others: str) -> None:
    """They share no control, though the device changes from row to row."""
    rows = [
        {"t": 100 * k, "device": ("keyboard", others)[k % 2], "event": ("down", "up")[k // 2 % 2],
         "key": ("w", "Button.left")[k % 2]}
        for k in range(40)
    ]  # fmt: skip
    log = read_log(tmp_path, json.dumps(rows), name="log.json", space=KEYS)
    assert held_ms(log, "mouse_left")[100] == held_ms(log, "key_w")[0] == 1


@pytest.mark.parametrize("codes", [(17, 30), (87, 31), (57, 300)])
def test_numbers_that_are_no_virtual_key_codes_are_refused(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    """17 and 30 are W and A to a Linux kernel, and Ctrl and nothing to Windows."""
    text = "time_ms,key,event\n" + "".join(f"{k * 3000},{c},down\n" for k, c in enumerate(codes))
    with pytest.raises(RefusedInput, match="virtual-key codes") as caught:
        read_log(tmp_path, text, space=KEYS)
    assert caught.value.reason is Reason.LOG_COLUMN
    pairs = "".join(f'"{code}" = "key_{name}"\n' for code, name in zip(codes, "wa", strict=True))
    log = read_log(tmp_path, text, "[columns]\n" + pairs, space=KEYS)
    assert held_ms(log, "key_w")[0] == 1


def test_numbers_of_keys_are_said_to_be_codes(tmp_path: Path) -> None:
    text = "time_ms,key,event\n0,87,down\n3000,87,up\n"
    notes = read_log(tmp_path, text, space=KEYS).notes
    assert [note for note in notes if "virtual-key codes: 87 is key_w" in note]


@pytest.mark.parametrize("value", ["event", "action", "state"])
def test_words_in_another_column_than_value_make_events_of_a_pad_too(
    tmp_path: Path, value: str
) -> None:
    text = f"time_ms,control,{value}\n0,button_A,press\n400,button_A,release\n3000,button_B,up\n"
    log = read_log(tmp_path, text, 'actions = "xinput16"\n')
    assert by_ms(log, "button_A") == {0: 1, 400: 0, 3000: 0}
    assert not [note for note in log.notes if "keys" in note]


def test_a_pad_s_letters_are_no_keys(tmp_path: Path) -> None:
    rows = [{"t": 0, "button": "A", "event": "press"}, {"t": 3, "button": "A", "event": "release"}]
    with pytest.raises(RefusedInput):
        read_log(tmp_path, json.dumps(rows), name="log.json", space=None)


def test_a_sampled_log_may_have_such_columns(tmp_path: Path) -> None:
    text = sampled([0, 8, 16], button_A=[0, 1, 0], key=["w", "a", "d"], event=[1, 2, 3])
    for space in (SPACE, None):
        log = read_log(tmp_path, text, space=space)
        assert column(log, "button_A").tolist() == [0, 1, 0]


def test_numbered_buttons_of_a_pad_are_no_keys(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput) as caught:
        read_log(tmp_path, "time_ms,control,value\n0,1,1\n3000,1,0\n", space=None)
    assert caught.value.reason is Reason.LOG_COLUMN


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": [{"timestamp": 0.02, "key": "w", "action": "press"},'
        ' {"timestamp": 2.9, "key": "w", "action": "release"}]}',
        '[{"t": 0, "key": "w", "event": "down"}, {"t": 2.9, "key": "w", "event": "up"}]',
        '{"time_ms": 0, "key": "w", "event": "down"}\n{"time_ms": 2900, "key": "w", "event": "up"}',
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.JSON"])
def test_a_json_of_rows_is_the_log_of_a_video_that_has_no_other(
    tmp_path: Path, text: str, name: str
) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 3000, 200))
    (tmp_path / name).write_text(text)
    (recording,) = discover([tmp_path]).recordings
    assert [path.name for path in recording.files] == ["a.mp4", name]
    opened = open_recording(recording)
    assert [note for note in opened.notes if f"{name} is taken for the log" in note]
    actions = opened.actions
    assert actions is not None
    assert actions.space.name == "keyboard_mouse"


@pytest.mark.parametrize(
    "text", ['{"streams": [{"codec": "h264"}]}', '[{"t": "x", "a": 1}]', '{"a": [{}], "b": [{}]}']
)
def test_a_json_of_other_rows_is_named_in_the_refusal(tmp_path: Path, text: str) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 1000, 200))
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RefusedInput, match=r"a\.json, taken for the log"):
        open_recording(discover([tmp_path]).recordings[0])


def test_a_json_of_settings_is_no_log_and_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 1000, 200))
    (tmp_path / "a.json").write_text('{"game": "x", "fps": 60}')
    ((path, why),) = discover([tmp_path]).refused
    assert (path.name, why.reason) == ("a.mp4", Reason.LOG_MISSING)
    assert "a.json holds no list of rows" in why.message


def key_rows(*rows: tuple[int, str, int]) -> str:
    """A log of keys in pynput's form: ms, name, whether it goes down."""
    made = [[ms, name, "press" if down else "release"] for ms, name, down in rows]
    return json.dumps([dict(zip(("time_ms", "key", "event"), row, strict=True)) for row in made])


@pytest.mark.parametrize(
    ("pressed", "modifier", "released"),
    [
        ("'1'", "Key.shift", "'!'"),  # US
        ("2", "Shift", "@"),
        ("/", "ShiftLeft", "?"),
        ("'2'", "Key.shift_r", "'\"'"),  # German
        ("'7'", "Key.shift", "'/'"),
        ("'q'", "Key.alt_gr", "'@'"),
        ("'&'", "Key.shift", "'1'"),  # French
        ("'\u00e9'", "Key.shift", "'2'"),
        ("'3'", "Key.shift", "'\u00a7'"),
    ],
)
def test_a_key_comes_up_under_the_sign_that_shift_made_of_it(
    tmp_path: Path, pressed: str, modifier: str, released: str
) -> None:
    rows = key_rows(
        (0, "w", 1), (100, "w", 0), (300, pressed, 1), (500, modifier, 1), (700, released, 0),
        (900, modifier, 0), (2900, "w", 1), (3000, "w", 0),
    )  # fmt: skip
    log = read_log(tmp_path, rows, name="log.json", space=load_space("desktop"))
    assert held_names(log, 800) <= shift_names()
    assert held_names(log, 950) == set()


def held_names(log: ControllerLog, ms: int) -> set[str]:
    row = int(np.flatnonzero(log.track.times_ns <= ms * 10**6)[-1])
    names = np.array(log.track.space.names)
    return set(names[log.track.values[row] == 1].tolist())


def shift_names() -> set[str]:
    return {"key_left_shift", "key_right_shift", "key_right_alt"}


@pytest.mark.parametrize("first", [("'1'", "'2'"), ("'7'", "'8'")])
def test_a_sign_that_may_be_of_two_keys_is_refused(tmp_path: Path, first: tuple[str, str]) -> None:
    a, b = first
    rows = key_rows(
        (0, a, 1), (10, b, 1), (20, "Key.shift", 1), (700, "'\u00a7'", 0), (2900, "Key.shift", 0)
    )
    with pytest.raises(RefusedInput, match="Shift may have changed the sign") as caught:
        read_log(tmp_path, rows, name="log.json", space=KEYS)
    assert caught.value.reason is Reason.LOG_COLUMN


def test_letters_and_keys_that_come_up_by_their_own_name_are_left_alone(tmp_path: Path) -> None:
    rows = key_rows(
        (0, "w", 1), (100, "Key.shift", 1), (200, "e", 0), (300, "W", 0), (400, "1", 1),
        (500, "Key.shift", 0), (3000, "1", 0),
    )  # fmt: skip
    log = read_log(tmp_path, rows, name="log.json", space=KEYS)
    assert held_names(log, 150) == {"key_w", "key_e", "key_left_shift"}
    assert held_names(log, 350) == {"key_left_shift"}
    assert held_names(log, 600) == {"key_1"}


@pytest.mark.parametrize(
    ("name", "button"),
    [
        ("KEY_LEFTSHIFT", "key_left_shift"), ("KEY_KP1", "key_numpad_1"),
        ("KEY_LEFTBRACE", "key_left_bracket"), ("BTN_SIDE", "mouse_back"), ("BTN_A", None),
        ("VK_LSHIFT", "key_left_shift"), ("VK_MENU", "key_left_alt"), ("VK_OEM_4", "key_left_bracket"),
        ("LSHIFT", "key_left_shift"), ("LShiftKey", "key_left_shift"), ("LMenu", "key_left_alt"),
        ("OemMinus", "key_minus"), ("D0", "key_0"), ("Back", "key_backspace"), ("Next", "key_page_down"),
        ("Alpha0", "key_0"), ("Keypad1", "key_numpad_1"), ("LeftMouseButton", "mouse_left"),
        ("XButton2", "mouse_forward"), ("PgUp", "key_page_up"), ("NumpadAdd", "key_numpad_add"),
        ("GLFW_KEY_LEFT_CONTROL", "key_left_ctrl"), ("SDL_SCANCODE_LGUI", "key_left_super"),
        ("SDLK_w", "key_w"), ("K_SPACE", "key_space"), ("DIK_RMENU", "key_right_alt"),
        ("Qt.Key_PageUp", "key_page_up"), ("key.keyboard.left.shift", "key_left_shift"),
        ("key.mouse.middle", "mouse_middle"), ("Left GUI", "key_left_super"), ("Super_L", "key_left_super"),
        ("ISO_Level3_Shift", "key_right_alt"), ("KP_Add", "key_numpad_add"), ("!", "key_1"),
        ("'\\\\'", "key_backslash"), ("Open Bracket", "key_left_bracket"), ("right shift", "key_right_shift"),
    ],
)  # fmt: skip
def test_keys_are_known_by_the_names_of_systems_and_engines(name: str, button: str | None) -> None:
    assert key_in_log(name) == button


@pytest.mark.parametrize("name", ["TurboKey", "Macro 1", "GLFW_MOUSE_BUTTON_7", "WheelUp"])
def test_a_key_that_nobody_knows_refuses_the_log_until_it_is_ignored(
    tmp_path: Path, name: str
) -> None:
    rows = key_rows((0, "w", 1), (100, name, 1), (200, name, 0), (3000, "w", 0))
    with pytest.raises(RefusedInput, match=rf'no key is known as {name}.*ignore = \["{name}"\]'):
        read_log(tmp_path, rows, name="log.json", space=KEYS)
    log = read_log(tmp_path, rows, f'ignore = ["{name}"]\n', name="log.json", space=KEYS)
    assert held_ms(log, "key_w")[0] == 1


@pytest.mark.parametrize(
    "name", ["Key.media_next", "None", "F13", "\u00fc", "AudioVolumeUp", "KEY_102ND"]
)
def test_keys_that_no_space_has_are_left_out_with_a_note(tmp_path: Path, name: str) -> None:
    rows = key_rows((0, "w", 1), (100, name, 1), (200, name, 0), (3000, "w", 0))
    notes = read_log(tmp_path, rows, name="log.json", space=KEYS).notes
    assert [note for note in notes if f"ignored: {name}" in note]


@pytest.mark.parametrize(
    ("column", "codes", "buttons"),
    [
        ("vk", ("1", "2"), ("mouse_left", "mouse_right")),
        ("keyCode", ("9", "8"), ("key_tab", "key_backspace")),
        ("key", ("87", "1"), ("key_w", "mouse_left")),
        ("key", ("1", "2"), ("key_1", "key_2")),
        ("key", ("w", "1"), ("key_w", "key_1")),
        ("key", ("119", "1073742049"), ("key_w", "key_left_shift")),
        ("key", ("9", "1073741906"), ("key_tab", "key_up")),
        ("vk", ("112", "113"), ("key_f1", "key_f2")),
        ("vk", ("13", "49"), ("key_enter", "key_1")),
        ("keyCode", ("97", "13"), ("key_numpad_1", "key_enter")),
        ("key", ("32", "27"), ("key_space", "key_escape")),
        ("key", ("13", "38"), ("key_enter", "key_up")),
        ("key", ("112", "160"), ("key_f1", "key_left_shift")),
        ("key", ("Mouse0", "Mouse1"), ("mouse_left", "mouse_right")),
    ],
)
def test_numbers_mean_what_all_of_them_can_mean(
    tmp_path: Path, column: str, codes: tuple[str, str], buttons: tuple[str, str]
) -> None:
    rows = [f"{k * 1000},{code},{word}" for k, code in enumerate(codes) for word in ("press",)]
    text = "\n".join([f"time_ms,{column},event", *rows, f"3000,{codes[0]},release"])
    log = read_log(tmp_path, text, space=load_space("desktop"))
    assert held_names(log, 500) == {buttons[0]}
    assert held_names(log, 1500) == set(buttons)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (("119", "32"), "may be Windows virtual-key codes"),
        (("97", "100"), "may be Windows virtual-key codes"),
        (("13", "49"), "or those of another system"),  # W and the space bar of macOS
        (("17", "57"), "or those of another system"),  # the same of Linux
        (("17", "32"), "or those of another system"),  # W and D of Linux
        (("87", "16777217"), "no Windows virtual-key codes"),
        (("87", "3"), "no Windows virtual-key codes"),
        (("w", "300"), "no Windows virtual-key codes"),
        (("Mouse1", "Mouse2"), "no key is known as Mouse1"),
    ],
)
def test_numbers_that_may_mean_two_keys_are_refused(
    tmp_path: Path, codes: tuple[str, str], words: str
) -> None:
    text = "time_ms,key,event\n" + "".join(f"{k * 3000},{c},press\n" for k, c in enumerate(codes))
    with pytest.raises(RefusedInput, match=words) as caught:
        read_log(tmp_path, text, space=KEYS)
    assert caught.value.reason is Reason.LOG_COLUMN


@pytest.mark.parametrize(
    ("controls", "target"),
    [
        (("key_w", "mouse_dx"), "keyboard_mouse"), (("key_w", "mouse_dx"), "desktop"),
        (("key_w", "KeyA", "Key.space"), "keyboard_mouse"), (("key_a", "VK_LSHIFT"), "desktop"),
        (("button_A", "JOYDEVICEREMOVED"), "xinput16"), (("button_A", "pad_lost"), "xinput16"),
    ],
)  # fmt: skip
def test_events_that_fit_several_spaces_are_read_in_the_one_asked_for(
    tmp_path: Path, controls: tuple[str, ...], target: str
) -> None:
    rows = [f"{k * 100},{name},1" for k, name in enumerate(controls)]
    text = "\n".join(["time_ms,control,value", *rows, f"3000,{controls[0]},0"])
    log = read_log(tmp_path, text, space=None, target=load_space(target))
    assert log.track.space.name == target
    assert not [note for note in log.notes if "ignored" in note]


@pytest.mark.parametrize(
    ("target", "found"),
    [("desktop", "desktop"), ("keyboard_mouse", "keyboard_mouse"), ("xinput16", "keyboard_mouse")],
)
def test_keys_are_read_in_the_space_asked_for_if_it_has_them(
    tmp_path: Path, target: str, found: str
) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 3000, 200))
    (tmp_path / "a.json").write_text(key_rows((0, "w", 1), (2900, "w", 0)))
    opened = open_recording(discover([tmp_path]).recordings[0], target=load_space(target))
    assert opened.actions is not None
    assert opened.actions.space.name == found


@pytest.mark.parametrize("column", ["scancode", "scan_code"])
def test_scan_codes_are_read_in_pairs_only(tmp_path: Path, column: str) -> None:
    text = f"time_ms,{column},event\n0,0x11,press\n3000,0x11,release\n"
    with pytest.raises(RefusedInput, match='"0x11" = "key_w"'):
        read_log(tmp_path, text, space=None)
    log = read_log(tmp_path, text, '[columns]\n"0x11" = "key_w"\n', space=None)
    assert held_names(log, 10) == {"key_w"}
