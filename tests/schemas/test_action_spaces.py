"""Action spaces, the range check and the declared conversions."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wham_data.schemas.actions import ActionSpace, Dimension, clamp, load_space, space_names
from wham_data.schemas.conversion import (
    Conversion,
    Rule,
    converts_to,
    find_conversion,
    load_conversion,
)
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

WHAM16 = load_space("wham16")
XINPUT = load_space("xinput")
XINPUT16 = load_space("xinput16")
VIZDOOM = load_space("vizdoom")
KEYBOARD = load_space("keyboard_mouse")
DECLARED = [(source, target) for source in space_names() for target in converts_to(source)]


def action(space: ActionSpace, **values: float) -> np.ndarray:
    """One action, float32 [1, A]: at rest but for the named dimensions."""
    row = space.null()
    for name, value in values.items():
        row[space.index(name)] = value
    return row[None]


def said(space: ActionSpace, row: np.ndarray) -> dict[str, float]:
    """What is not at rest in one action [1, A]."""
    return {
        name: float(value) for name, value in zip(space.names, row[0], strict=True) if value != 0
    }


def random_actions(space: ActionSpace, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = space.ranges().T
    values = (low + (high - low) * rng.random((n, space.size))).astype(np.float32)
    buttons = space.of_kind("button")
    values[:, buttons] = rng.integers(0, 2, (n, len(buttons)))
    return values


# --- spaces -----------------------------------------------------------------------------------


def test_the_pads_and_the_keyboard_ship_with_the_package() -> None:
    assert {"keyboard_mouse", "vizdoom", "wham16", "xinput", "xinput16"} <= set(space_names())


@pytest.mark.parametrize("name", space_names())
def test_every_bundled_space_can_be_read_and_keeps_its_name(name: str) -> None:
    assert load_space(name).name == name


def test_actions_without_names_have_spaces_that_need_no_file() -> None:
    assert load_space("discrete3").names == ("action_0", "action_1", "action_2")
    assert {d.kind for d in load_space("discrete3").dimensions} == {"button"}
    assert load_space("vector2").ranges().tolist() == [[-1, 1], [-1, 1]]
    with pytest.raises(UsageError, match="no action space called 'discrete0'"):
        load_space("discrete0")


def test_wham16_has_twelve_unnamed_buttons_then_two_sticks_with_y_up() -> None:
    assert WHAM16.names == (
        *(f"button_{i}" for i in range(12)), "left_x", "left_y", "right_x", "right_y",
    )  # fmt: skip
    assert [d.sign for d in WHAM16.dimensions[12:]] == ["right", "up", "right", "up"]


def test_xinput16_has_its_sixteen_columns_with_y_down() -> None:
    assert XINPUT16.names == (
        "left_stick_x", "left_stick_y", "right_stick_x", "right_stick_y",
        "trigger_LT", "trigger_RT",
        "button_A", "button_B", "button_X", "button_Y",
        "dpad_up", "dpad_down", "dpad_left", "dpad_right", "skill_1", "skill_2",
    )  # fmt: skip
    assert [d.sign for d in XINPUT16.dimensions[:4]] == ["right", "down", "right", "down"]


def test_xinput_has_the_pads_buttons_in_the_order_of_its_bit_mask() -> None:
    assert XINPUT.names == (
        "up", "down", "left", "right", "start", "back", "left_thumb", "right_thumb",
        "left_shoulder", "right_shoulder", "guide", "a", "b", "x", "y",
        "left_trigger", "right_trigger", "left_x", "left_y", "right_x", "right_y",
    )  # fmt: skip
    assert XINPUT.of_kind("button").tolist() == list(range(15))
    assert XINPUT.of_kind("trigger", "axis").tolist() == list(range(15, 21))


def test_vizdoom_has_the_engines_buttons_then_turn_and_look_in_degrees() -> None:
    assert VIZDOOM.names == (
        "MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "ATTACK", "USE", "SPEED",
        "JUMP", "SELECT_NEXT_WEAPON", "TURN_LEFT_RIGHT_DELTA", "LOOK_UP_DOWN_DELTA",
    )  # fmt: skip
    turn, look = VIZDOOM.dimensions[-2:]
    assert (turn.kind, turn.unit, turn.sign) == ("delta", "degree", "right")
    assert (look.kind, look.unit, look.sign) == ("delta", "degree", "up")


def test_mouse_motion_is_in_counts_right_and_down() -> None:
    dx, dy = (KEYBOARD.dimensions[KEYBOARD.index(name)] for name in ("mouse_dx", "mouse_dy"))
    assert (dx.kind, dx.unit, dx.sign) == ("delta", "count", "right")
    assert (dy.kind, dy.unit, dy.sign) == ("delta", "count", "down")


@pytest.mark.parametrize("name", space_names())
def test_a_space_survives_its_way_through_json(name: str) -> None:
    space = load_space(name)
    again = ActionSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.to_dict() == space.to_dict()


@pytest.mark.parametrize("name", space_names())
def test_a_bundled_space_says_what_it_is_and_rests_at_zero(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.title
    assert space.source
    assert space.null().dtype == np.float32
    assert space.null().tolist() == [0.0] * space.size


def test_wording_does_not_make_two_spaces_differ_but_dimensions_do() -> None:
    reworded = ActionSpace("wham16", WHAM16.dimensions, title="other", source="words")
    assert reworded == WHAM16
    assert ActionSpace("wham16", WHAM16.dimensions[:-1]) != WHAM16


def test_a_misspelt_space_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UsageError, match=r"did you mean wham16\?.*keyboard_mouse.*xinput16"):
        load_space("wham61")


def test_a_misspelt_dimension_is_answered_with_the_nearest() -> None:
    assert WHAM16.index("left_y") == 13
    with pytest.raises(UsageError, match=r"did you mean left_y\?"):
        WHAM16.index("lefty")


PAD = """
name = "pad"
title = "My pad"
[[dimensions]]
names = ["fire", "jump"]
kind = "button"
[[dimensions]]
names = ["steer"]
kind = "axis"
unit = "degree"
sign = "right"
low = -90
high = 90
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_anyone_can_declare_a_space_in_a_file(tmp_path: Path) -> None:
    pad = load_space(str(write(tmp_path / "pad.toml", PAD)))
    assert pad == ActionSpace(
        "pad",
        (
            Dimension("fire", "button", 0.0, 1.0),
            Dimension("jump", "button", 0.0, 1.0),
            Dimension("steer", "axis", -90.0, 90.0, "degree", "right"),
        ),
    )


def test_a_file_may_not_give_a_bundled_name_to_other_dimensions(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", PAD.replace('"pad"', '"wham16"'))
    with pytest.raises(UsageError, match="bundled space wham16 has other dimensions"):
        load_space(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"name = ",
        b"name = 'a'\ndimensions = 3",
        b"name = 'a'\n[[dimensions]]\nname = 'x'\nkind = 'button'",
        b"[" * 100_000,
        b"#" * 1_000_001,
    ],
    ids=["empty", "binary", "broken", "no-tables", "no-names", "deep", "huge"],
)
def test_a_file_that_declares_no_space_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"odd\.toml"):
        load_space(str(path))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        load_space(str(tmp_path / "none.toml"))


BUTTON = {"name": "fire", "kind": "button", "low": 0.0, "high": 1.0, "unit": "", "sign": ""}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "wham16",
        {},
        {"name": "a"},
        {"name": "a", "dimensions": []},
        {"name": "a", "dimensions": [3]},
        {"name": "a", "dimensions": [BUTTON] * 2},
        {"name": "a", "dimensions": [BUTTON] * 2000},
        {"name": "a", "dimensions": [BUTTON], "title": "x" * 5000},
        {"name": "a", "dimensions": [BUTTON], "surprise": 1},
        {"name": "../a", "dimensions": [BUTTON]},
        {"name": 7, "dimensions": [BUTTON]},
        {"name": "a", "dimensions": [BUTTON | {"name": "a b"}]},
        {"name": "a", "dimensions": [BUTTON | {"name": "x" * 65}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "wish"}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": ["button"]}]},
        {"name": "a", "dimensions": [BUTTON | {"high": 2.0}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "low": 1.0, "high": 1.0}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "low": 1.0, "high": 2.0}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "low": -math.inf}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "high": math.nan}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "high": 10**400}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "high": True}]},
        {"name": "a", "dimensions": [BUTTON | {"kind": "axis", "high": "1"}]},
        {"name": "a", "dimensions": [{"name": "d", "kind": "delta"}]},
        {"name": "a", "dimensions": [BUTTON | {"unit": "\x1b[2J"}]},
        {"name": "a", "dimensions": [BUTTON | {"sign": "x" * 33}]},
    ],
)
def test_a_space_from_a_strangers_json_is_checked(data: Any) -> None:
    with pytest.raises(UsageError):
        ActionSpace.from_dict(data)


# --- range check ------------------------------------------------------------------------------

SMALL = ActionSpace(
    "small",
    (
        Dimension("fire", "button", 0.0, 1.0),
        Dimension("stick", "axis", -1.0, 1.0),
        Dimension("trigger", "trigger", 0.0, 1.0),
        Dimension("turn", "delta", -360.0, 360.0),
    ),
)


def test_a_small_overshoot_is_clamped_and_counted() -> None:
    values = np.array([[1, 1.02, -0.01, 12.5], [0, -1.0, 1.0, 400]])
    clamped, count = clamp(SMALL, values)
    assert clamped.tolist() == [[1, 1.0, 0.0, 12.5], [0, -1.0, 1.0, 360]]
    assert count == 3
    assert values[0, 1] == 1.02  # what came in is left as it was


def test_nan_stays_and_infinity_becomes_missing() -> None:
    clamped, count = clamp(SMALL, np.array([[np.nan, np.inf, -np.inf, np.nan]]))
    assert np.isnan(clamped).all()
    assert count == 0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("stick", 20000.0, r"stick is 20000 in row 2 .*expected -1 to 1; is it in another unit\?"),
        ("stick", -3.01, "stick is -3.01 in row 2"),
        ("trigger", 255.0, "trigger is 255 in row 2 .*expected 0 to 1"),
        ("turn", 1081.0, "turn is 1081 in row 2"),
        ("fire", 2.0, "fire is 2 in row 2 .*a button is 0 or 1"),
        ("fire", -1.0, "a button is 0 or 1"),
        ("fire", 0.5, "a button is 0 or 1"),
    ],
)
def test_a_value_far_out_is_refused_by_dimension_row_and_range(
    column: str, value: float, message: str
) -> None:
    values = np.zeros((4, SMALL.size))
    values[2, SMALL.index(column)] = value
    with pytest.raises(RefusedInput, match=message) as refused:
        clamp(SMALL, values)
    assert refused.value.reason is Reason.LOG_RANGE


def test_a_log_without_rows_is_in_range() -> None:
    clamped, count = clamp(SMALL, np.zeros((0, SMALL.size)))
    assert clamped.shape == (0, SMALL.size)
    assert count == 0


def clamp_slowly(space: ActionSpace, values: np.ndarray) -> tuple[list[list[float]], int] | None:
    rows, count = [], 0
    for row in values:
        out = []
        for dimension, value in zip(space.dimensions, row, strict=True):
            width = dimension.high - dimension.low
            if not math.isfinite(value):
                out.append(math.nan)
                continue
            if dimension.kind == "button" and value not in (0, 1):
                return None
            if not dimension.low - width <= value <= dimension.high + width:
                return None
            kept = min(max(value, dimension.low), dimension.high)
            count += kept != value
            out.append(kept)
        rows.append(out)
    return rows, count


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -3.0, 3.5, 1e9, math.nan, math.inf])


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=NUMBERS))
def test_the_range_check_equals_its_slow_twin(values: np.ndarray) -> None:
    expected = clamp_slowly(SMALL, values)
    if expected is None:
        with pytest.raises(RefusedInput):
            clamp(SMALL, values)
        return
    clamped, count = clamp(SMALL, values)
    np.testing.assert_array_equal(clamped, np.array(expected[0]).reshape(values.shape))
    assert count == expected[1]


# --- conversions ------------------------------------------------------------------------------


def test_the_declared_conversions_never_turn_keys_into_a_pad() -> None:
    pads = {"nitrogen21", "wham16", "xinput", "xinput16"}

    assert ("xinput", "wham16") in DECLARED
    assert [pair for pair in DECLARED if len(pads.intersection(pair)) == 1] == []


def convert(source: ActionSpace, target: ActionSpace, **values: float) -> dict[str, float]:
    return said(target, find_conversion(source, target).apply(action(source, **values)))


def test_pushing_the_stick_forward_is_up_in_xinput_and_minus_in_xinput16() -> None:
    assert convert(XINPUT, XINPUT16, left_y=1.0) == {"left_stick_y": -1.0}
    assert convert(XINPUT16, XINPUT, right_stick_y=-0.5) == {"right_y": 0.5}
    assert convert(XINPUT, WHAM16, left_y=0.25) == {"left_y": 0.25}
    assert convert(WHAM16, XINPUT16, left_y=0.25, left_x=0.5) == {
        "left_stick_y": -0.25,
        "left_stick_x": 0.5,
    }


def test_a_flipped_stick_at_rest_is_plain_zero() -> None:
    flipped = find_conversion(XINPUT, XINPUT16).apply(action(XINPUT))
    assert not np.signbit(flipped).any()


def test_the_twelve_buttons_of_wham16_are_filled_in_our_order() -> None:
    ours = (
        "a", "b", "x", "y", "left_shoulder", "right_shoulder", "left_trigger", "right_trigger",
        "up", "down", "left", "right",
    )  # fmt: skip
    for i, name in enumerate(ours):
        assert convert(XINPUT, WHAM16, **{name: 1.0}) == {f"button_{i}": 1.0}
        assert convert(WHAM16, XINPUT, **{f"button_{i}": 1.0}) == {name: 1.0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_trigger_becomes_a_button_from_half_way_on(dtype: type) -> None:
    pulls = np.concatenate([action(XINPUT, left_trigger=v) for v in (0.0, 0.4999, 0.5, 1.0)])
    buttons = find_conversion(XINPUT, WHAM16).apply(pulls.astype(dtype))
    assert buttons.dtype == dtype
    assert buttons[:, 6].tolist() == [0, 0, 1, 1]


def test_a_conversion_says_exactly_what_is_lost() -> None:
    dropped = "start, back, left_thumb, right_thumb and guide are dropped."
    assert find_conversion(XINPUT, XINPUT16).lost == (dropped,)
    assert find_conversion(XINPUT, WHAM16).lost == (
        dropped,
        "left_trigger keeps only whether 0.5 is reached, as button_6.",
        "right_trigger keeps only whether 0.5 is reached, as button_7.",
    )
    assert find_conversion(WHAM16, XINPUT).lost == ()
    assert find_conversion(XINPUT16, XINPUT).lost == ()


def test_a_conversion_says_what_it_cannot_fill() -> None:
    assert find_conversion(WHAM16, XINPUT).unfilled == (
        "start", "back", "left_thumb", "right_thumb", "guide",
    )  # fmt: skip
    assert find_conversion(WHAM16, XINPUT16).unfilled == ()


def test_guesses_are_called_guesses() -> None:
    assert any("guess" in note for note in find_conversion(XINPUT, XINPUT16).notes)
    assert any("order" in note and "ours" in note for note in find_conversion(XINPUT, WHAM16).notes)


@pytest.mark.parametrize("name", space_names())
def test_a_space_converts_to_itself_unchanged(name: str) -> None:
    space = load_space(name)
    identity = find_conversion(space, space)
    values = random_actions(space, 50, seed=0)
    assert np.array_equal(identity.apply(values), values)
    assert identity.lost == identity.unfilled == identity.notes == ()


@pytest.mark.parametrize(
    ("start", "through"), [("wham16", "xinput"), ("wham16", "xinput16"), ("xinput16", "xinput")]
)
def test_there_and_back_again_changes_nothing_where_nothing_is_lost(
    start: str, through: str
) -> None:
    here, there = load_space(start), load_space(through)
    values = random_actions(here, 200, seed=1)
    back = find_conversion(there, here).apply(find_conversion(here, there).apply(values))
    assert np.array_equal(back, values)


def test_the_way_through_xinput16_to_wham16_ends_where_the_direct_way_does() -> None:
    values = random_actions(XINPUT, 200, seed=2)
    direct = find_conversion(XINPUT, WHAM16).apply(values)
    detour = find_conversion(XINPUT16, WHAM16).apply(
        find_conversion(XINPUT, XINPUT16).apply(values)
    )
    assert np.array_equal(direct, detour)


@pytest.mark.parametrize(("source", "target"), DECLARED)
def test_rest_stays_rest_and_every_value_stays_in_range(source: str, target: str) -> None:
    here, there = load_space(source), load_space(target)
    conversion = find_conversion(here, there)
    assert conversion.apply(here.null()[None])[0].tolist() == there.null().tolist()
    converted = conversion.apply(random_actions(here, 100, seed=3)).astype(np.float64)
    assert clamp(there, converted)[1] == 0


@pytest.mark.parametrize(("source", "target"), DECLARED)
def test_a_missing_action_stays_missing_as_a_whole(source: str, target: str) -> None:
    here, there = load_space(source), load_space(target)
    values = np.tile(here.null(), (3, 1))
    values[1, 0] = np.nan
    known = ~np.isnan(find_conversion(here, there).apply(values))
    assert known.tolist() == [[True] * there.size, [False] * there.size, [True] * there.size]


@pytest.mark.parametrize("source", [VIZDOOM, KEYBOARD])
def test_what_has_no_honest_image_on_a_pad_is_refused_with_the_way_out(source: ActionSpace) -> None:
    with pytest.raises(UsageError, match=r"converts to nothing.*--mapping FILE\.toml"):
        find_conversion(source, WHAM16)


def test_an_undeclared_conversion_names_those_that_are() -> None:
    with pytest.raises(UsageError, match="xinput converts to wham16, xinput16"):
        find_conversion(XINPUT, VIZDOOM)


def test_a_conversion_does_not_serve_a_space_of_the_same_name_with_other_dimensions() -> None:
    impostor = ActionSpace("xinput", XINPUT.dimensions[::-1])
    with pytest.raises(UsageError, match="no conversion from xinput to wham16"):
        find_conversion(impostor, WHAM16)


def test_actions_of_another_width_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shape \(3, 5\): xinput needs \[T, 21\]"):
        find_conversion(XINPUT, WHAM16).apply(np.zeros((3, 5), np.float32))


# --- declaring one -----------------------------------------------------------------------------

KEYS = """
source = "keyboard_mouse"
target = "wham16"
notes = ["Walking only."]
[rules]
left_x = { from = ["key_d", "key_a"], scale = [1, -1], combine = "sum" }
left_y = { from = ["key_w", "key_s"], scale = [1, -1], combine = "sum" }
button_0 = { from = ["key_space", "key_left_ctrl"], combine = "max" }
"""


def test_a_mapping_file_turns_keys_into_a_stick(tmp_path: Path) -> None:
    conversion = load_conversion(write(tmp_path / "keys.toml", KEYS))
    pressed = [{"key_w": 1.0}, {"key_s": 1.0, "key_d": 1.0}, {"key_w": 1.0, "key_s": 1.0}]
    assert [said(WHAM16, conversion.apply(action(KEYBOARD, **keys))) for keys in pressed] == [
        {"left_y": 1.0},
        {"left_y": -1.0, "left_x": 1.0},
        {},
    ]
    assert conversion.notes == ("Walking only.",)
    assert "key_d and key_a cannot be told apart: their sum is left_x." in conversion.lost
    assert "mouse_dx, mouse_dy and wheel are dropped." in conversion.lost[0]


def test_a_mapping_file_may_name_a_space_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "pad.toml", PAD)
    rule = 'left_x = { from = "steer", scale = 0.1 }'
    text = f'source = "pad.toml"\ntarget = "wham16"\n[rules]\n{rule}\n'
    conversion = load_conversion(write(tmp_path / "map.toml", text))
    steered = conversion.apply(action(conversion.source, steer=45.0))
    assert said(WHAM16, steered) == {"left_x": 1.0}
    assert "steer is cut where left_x ends, at -1 and 1." in conversion.lost


def test_a_stick_can_press_a_button_in_either_direction() -> None:
    rules = (
        Rule("dpad_right", ("left_x",), (1.0,), pressed_at=0.5),
        Rule("dpad_left", ("left_x",), (-1.0,), pressed_at=0.5),
    )
    conversion = Conversion(WHAM16, XINPUT16, rules)
    assert said(XINPUT16, conversion.apply(action(WHAM16, left_x=-0.7))) == {"dpad_left": 1.0}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("left_x", ("mouse_dx",), (1.0,)), "needs a rate"),
        (Rule("button_0", ("wheel",), (1.0,), pressed_at=1.0), "needs a rate"),
        (Rule("left_x", ("key_w", "mouse_dx"), (1.0, 1.0), "sum"), "needs a rate"),
        (Rule("left_x", (), ()), "at least one source"),
        (Rule("left_x", ("key_w",), (1.0, 1.0)), "one scale for each"),
        (Rule("left_x", ("key_w",), (0.0,)), "and not 0"),
        (Rule("left_x", ("key_w",), (math.nan,)), "finite"),
        (Rule("left_x", ("key_w",), (1.0,), "mean"), "max, sum"),  # type: ignore[arg-type]
        (Rule("left_x", ("key_w",), (1.0,), pressed_at=0.5), "makes a button"),
        (Rule("button_0", ("key_w",), (1.0,), pressed_at=0.0), "above 0"),
        (Rule("button_0", ("key_w",), (0.5,)), "pressed_at"),
        (Rule("button_0", ("key_www",), (1.0,)), "did you mean key_w"),
        (Rule("buton_0", ("key_w",), (1.0,)), "did you mean button_0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Conversion(KEYBOARD, WHAM16, (rule,))


def test_a_stick_does_not_become_a_button_without_saying_from_where_on() -> None:
    with pytest.raises(UsageError, match="the value at and above which the button is down"):
        Conversion(XINPUT, WHAM16, (Rule("button_0", ("left_trigger",), (1.0,)),))


def test_a_dimension_is_filled_once() -> None:
    rule = Rule("button_0", ("key_w",), (1.0,))
    with pytest.raises(UsageError, match="button_0 has two rules"):
        Conversion(KEYBOARD, WHAM16, (rule, rule))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'source = "xinput"\ntarget = "wham16"',
        'source = "xinput"\ntarget = "wham16"\nrules = 3',
        'source = "xinput"\ntarget = "wham16"\n[rules]',
        'source = "nothing"\ntarget = "wham16"\n[rules]\nbutton_0 = "a"',
        'source = 7\ntarget = "wham16"\n[rules]\nbutton_0 = "a"',
        'source = "xinput"\ntarget = "wham16"\n[rules]\nbutton_0 = 1',
        'source = "xinput"\ntarget = "wham16"\n[rules]\nbutton_0 = { from = "a", how = 1 }',
        'source = "xinput"\ntarget = "wham16"\n[rules]\nbutton_0 = { from = [1] }',
        'source = "xinput"\ntarget = "wham16"\n[rules]\nbutton_0 = { from = ["a", "b"] }',
        'source = "xinput"\ntarget = "wham16"\n[rules]\nleft_x = { from = "a", scale = "2" }',
        'source = "xinput"\ntarget = "wham16"\nnotes = "n"\n[rules]\nbutton_0 = "a"',
        'source = "xinput"\ntarget = "wham16"\nwhy = 1\n[rules]\nbutton_0 = "a"',
    ],
)
def test_a_mapping_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"odd\.toml"):
        load_conversion(write(tmp_path / "odd.toml", text))


@pytest.mark.parametrize(
    ("rule", "values", "results"),
    [
        ("left_trigger = { from = 'lever', range = [-1, 1] }", (-1, 0, 1), (0, 0.5, 1)),
        (
            "left_trigger = { from = 'lever', scale = 0.5, offset = 0.5 }",
            (-1, 0.5, 1),
            (0, 0.75, 1),
        ),
        ("left_trigger = { from = 'lever', range = [-1, 1], invert = true }", (-1, 1), (1, 0)),
        ("left_x = { from = 'lever', invert = true }", (-1, 0.25), (1, -0.25)),
        ("left_x = { from = 'lever', range = [0, 1] }", (0, 0.5, 1), (-1, 0, 1)),
        ("a = { from = 'lever', range = [-1, 1], pressed_at = 0.75 }", (0.4, 0.5), (0, 1)),
    ],
)
def test_a_source_on_another_scale_is_declared_by_its_ends_or_its_line(
    tmp_path: Path, rule: str, values: tuple[float, ...], results: tuple[float, ...]
) -> None:
    write(
        tmp_path / "lever.toml",
        'name = "lever"\n[[dimensions]]\nnames = ["lever"]\nkind = "axis"\n',
    )
    text = f'source = "lever.toml"\ntarget = "xinput"\n[rules]\n{rule}\n'
    conversion = load_conversion(write(tmp_path / "map.toml", text))
    made = conversion.apply(np.array(values, np.float64)[:, None])
    assert np.allclose(made[:, conversion.target.index(rule.split()[0])], results)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{ from = 'a', range = [1, 1] }", "two different ends"),
        ("{ from = 'a', range = [1] }", "two numbers"),
        ("{ from = 'a', range = [0, 1], scale = 2 }", "without scale"),
        ("{ from = ['a', 'b'], combine = 'max', range = [0, 1] }", "one source"),
        ("{ from = 'a', offset = 'x' }", "offset must be"),
        ("{ from = 'a', invert = 1 }", "true or false"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(tmp_path: Path, rule: str, message: str) -> None:
    text = f'source = "xinput"\ntarget = "xinput16"\n[rules]\nleft_stick_x = {rule}\n'
    with pytest.raises(UsageError, match=message):
        load_conversion(write(tmp_path / "map.toml", text))


def test_deltas_add_up_and_are_scaled_but_not_cut() -> None:
    engine = ActionSpace("engine", (Dimension("yaw", "delta", -1.0, 1.0, "radian", "right"),))
    conversion = Conversion(VIZDOOM, engine, (Rule("yaw", ("TURN_LEFT_RIGHT_DELTA",), (0.1,)),))
    assert conversion.apply(action(VIZDOOM, TURN_LEFT_RIGHT_DELTA=50.0)).tolist() == [[5.0]]


def apply_slowly(conversion: Conversion, row: np.ndarray) -> list[float]:
    if any(math.isnan(value) for value in row):
        return [math.nan] * conversion.target.size
    out = [0.0] * conversion.target.size
    for rule in conversion.rules:
        parts = [
            float(row[conversion.source.index(name)]) * scale
            for name, scale in zip(rule.sources, rule.scales, strict=True)
        ]
        value = (max(parts) if rule.combine == "max" else sum(parts)) + rule.offset
        goal = conversion.target.dimensions[conversion.target.index(rule.target)]
        if rule.pressed_at is not None:
            value = float(value >= rule.pressed_at)
        out[conversion.target.index(rule.target)] = min(max(value, goal.low), goal.high)
    return out


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.just(4)),
        elements=st.one_of(st.floats(-1, 1, width=32), st.just(math.nan)),
    ),
    st.sampled_from(["max", "sum"]),
    st.sampled_from([0.25, -2.0, 1.0]),
)
def test_applying_a_conversion_equals_its_slow_twin(
    sticks: np.ndarray, combine: Any, scale: float
) -> None:
    rules = (
        Rule("left_stick_x", ("left_x", "right_x"), (scale, 1.0), combine),
        Rule("left_stick_y", ("left_y",), (scale,)),
        Rule("dpad_up", ("right_y", "left_y"), (scale, 0.5), combine, pressed_at=0.5),
    )
    conversion = Conversion(WHAM16, XINPUT16, rules)
    values = np.zeros((len(sticks), WHAM16.size), np.float32)
    values[:, 12:] = sticks
    expected = np.array([apply_slowly(conversion, row) for row in values], np.float32)
    np.testing.assert_array_equal(conversion.apply(values), expected.reshape(-1, XINPUT16.size))


def test_the_examples_of_the_documentation_load(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "action-spaces.md").read_text("utf-8")
    examples = re.findall(r"```toml\n# (\S+)\n(.*?)```", text, re.DOTALL)
    paths = {name: write(tmp_path / name, content) for name, content in examples}
    assert load_space(str(paths["arcade.toml"])).size == 6
    conversion = load_conversion(paths["arcade-to-wham16.toml"])
    assert conversion.unfilled
    assert conversion.lost
