"""Sticks and triggers on other scales: brought to the space's where it is certain, else refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.logs import column, events, read_log, sampled
from numpy.typing import NDArray

from wham_data.schemas.errors import Reason, RefusedInput

ROWS = 200
TIMES_MS = [8 * k for k in range(ROWS)]
STICKS = ("left_stick_x", "left_stick_y", "right_stick_x", "right_stick_y")
Column = NDArray[np.float64]


def pulls() -> Column:
    """A trigger at rest, pulled all the way, let go."""
    return np.interp(np.arange(ROWS), [60, 90, 120, 150], [0, 1, 1, 0])


def tilts() -> dict[str, Column]:
    """Two sticks that rest, and go round now and then."""
    turn = np.linspace(0, 4 * np.pi, ROWS)
    moving = (np.arange(ROWS) % 100) > 40
    return {
        name: np.where(moving, wave, 0.0)
        for name, wave in zip(
            STICKS, (np.sin(turn), np.cos(turn), np.sin(2 * turn), np.cos(2 * turn)), strict=True
        )
    }


@pytest.mark.parametrize(
    ("low", "high", "whole"),
    [(-1, 1, False), (0, 255, True), (0, 1023, True), (0, 32767, True), (-32768, 32767, True)],
)
def test_triggers_on_a_common_scale_are_brought_to_0_to_1(
    tmp_path: Path, low: float, high: float, whole: bool
) -> None:
    raw = low + pulls() * (high - low)
    raw = np.rint(raw).astype(int) if whole else raw
    log = read_log(tmp_path, sampled(TIMES_MS, trigger_LT=raw, trigger_RT=[low] * ROWS))

    assert np.allclose(column(log, "trigger_LT"), pulls(), atol=0.003)
    assert (column(log, "trigger_RT") == 0).all()
    assert log.track.clamped == 0
    assert [note for note in log.notes if "trigger_LT" in note and "scale" in note]


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(0, 1, False), (0, 255, True), (-32768, 32767, True)]
)
def test_sticks_on_a_common_scale_are_brought_to_minus_1_to_1(
    tmp_path: Path, low: float, high: float, whole: bool
) -> None:
    raw = {name: low + (wave + 1) / 2 * (high - low) for name, wave in tilts().items()}
    if whole:
        raw = {name: np.rint(wave).astype(int) for name, wave in raw.items()}
    log = read_log(tmp_path, sampled(TIMES_MS, **raw))

    for name, wave in tilts().items():
        assert np.allclose(column(log, name), wave, atol=0.005)
    assert [note for note in log.notes if "scale" in note]


@pytest.mark.parametrize(
    ("low", "high", "rest"), [(-1, 1, -1), (0, 1, 0.5), (0, 255, 127.5), (-32768, 32767, -0.5)]
)
def test_events_on_another_scale_are_brought_to_the_space_s_own(
    tmp_path: Path, low: float, high: float, rest: float
) -> None:
    names = ("trigger_LT", "trigger_RT") if rest == low else ("left_stick_x", "left_stick_y")
    whole = high > 1
    lines = [f"0,{name},{rest:.0f}" if whole else f"0,{name},{rest}" for name in names]
    ends = [(600, high), (700, low), (900, rest), (1000, high), (3990, rest)]
    lines += [f"{at},{names[0]},{value:.0f}" if whole else f"{at},{names[0]},{value}"
              for at, value in ends]  # fmt: skip
    log = read_log(tmp_path, events(*lines))
    bottom = 0.0 if rest == low else -1.0
    assert np.allclose(column(log, names[0]), [0, 1, bottom, 0, 1, 0], atol=0.005)


def test_a_trigger_that_is_0_until_it_is_touched_is_not_half_pulled(tmp_path: Path) -> None:
    raw = 2 * pulls() - 1
    raw[:50] = 0.0
    log = read_log(tmp_path, sampled(TIMES_MS, trigger_LT=raw, trigger_RT=[0] * ROWS))

    assert np.isnan(column(log, "trigger_LT")[:50]).all()
    assert np.allclose(column(log, "trigger_LT")[50:], pulls()[50:])
    assert (column(log, "trigger_RT") == 0).all(), "never touched in the whole log"


@pytest.mark.parametrize(
    "columns",
    [
        {**tilts(), "trigger_LT": pulls()},
        {"left_stick_x": np.full(ROWS, 0.8), "right_stick_y": -tilts()["right_stick_y"]},
        {"left_stick_x": np.where(np.arange(ROWS) > 90, 1.0, 0.0)},
        {"left_stick_x": 1.004 * tilts()["left_stick_x"], "trigger_LT": pulls() - 0.004},
    ],
)
def test_sound_values_are_left_as_they_are(tmp_path: Path, columns: dict[str, Column]) -> None:
    log = read_log(tmp_path, sampled(TIMES_MS, **columns))
    for name, values in columns.items():
        assert np.allclose(column(log, name), values, atol=0.005)
    assert not [note for note in log.notes if "scale" in note]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"trigger_LT": 100 * pulls()}, ("trigger_LT", "0 to 100", "range = [0, 100]")),
        ({"trigger_LT": -pulls()}, ("trigger_LT", "-1 to 0", "rests at 0", "[0, -1]")),
        ({"left_stick_x": 1.5 * tilts()["left_stick_x"]}, ("left_stick_x", "[columns]")),
        ({"left_stick_x": [-25356] + [0] * (ROWS - 1)}, ("left_stick_x", "-25356")),
        ({"trigger_RT": pulls() - 0.04}, ("trigger_RT", "-0.04")),
        ({"trigger_LT": 180 * pulls()}, ("trigger_LT", "0 to 180")),
        ({"trigger_LT": np.rint(180 * pulls())}, ("range = [0, 255]",)),
        ({"trigger_LT": np.rint(700 * pulls())}, ("range = [0, 1023]",)),
        ({name: np.rint(128 + 25 * w) for name, w in tilts().items()}, ("range = [0, 255]",)),
        ({name: np.rint(16384 * w) for name, w in tilts().items()}, ("range = [-32768, 32767]",)),
        ({name: 0.5 + 0.15 * w for name, w in tilts().items()}, ("range = [0, 1]",)),
        ({name: np.full(ROWS, 0.5) for name in tilts()}, ("range = [0, 1]",)),
        ({name: np.full(ROWS, 128) for name in tilts()}, ("range = [0, 255]",)),
        ({name: np.rint(100 * w) for name, w in tilts().items()}, ("range = [-100, 100]",)),
        ({name: 1.3 * w for name, w in tilts().items()}, ("left_stick_x", "range = [?, ?]")),
        ({"trigger_LT": tilts()["left_stick_x"]}, ("two triggers", "a column of its own")),
        ({"trigger_LT": 1 - 1.8 * pulls()}, ("range = [-1, 1], invert = true",)),
    ],
)
def test_what_is_neither_a_known_scale_nor_a_small_overshoot_is_refused(
    tmp_path: Path, columns: dict[str, Column], words: tuple[str, ...]
) -> None:
    with pytest.raises(RefusedInput) as caught:
        read_log(tmp_path, sampled(TIMES_MS, **columns))
    assert caught.value.reason is Reason.LOG_RANGE
    assert all(word in caught.value.message for word in words), caught.value.message


def squeezes() -> dict[str, Column]:
    """Two triggers at rest, pulled in turn."""
    return {"trigger_LT": pulls(), "trigger_RT": np.roll(pulls(), 40)}


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(0, 1, False), (-1, 1, False), (0, 255, True), (0, 1023, True)]
)
def test_triggers_that_rest_where_they_are_pulled_are_refused_with_the_lines_to_write(
    tmp_path: Path, low: float, high: float, whole: bool
) -> None:
    raw = {name: high - w * (high - low) for name, w in squeezes().items()}
    text = sampled(TIMES_MS, **{n: np.rint(w).astype(int) if whole else w for n, w in raw.items()})
    with pytest.raises(RefusedInput) as caught:
        read_log(tmp_path, text)
    lines = [f"{name} = {{ range = [{low}, {high}], invert = true }}" for name in squeezes()]
    assert all(line in caught.value.message for line in lines), caught.value.message

    for toml in ("\n".join(lines), "\n".join(f"{n} = {{ invert = true }}" for n in squeezes())):
        log = read_log(tmp_path, text, f"[columns]\n{toml}\n")
        for name, wave in squeezes().items():
            assert np.allclose(column(log, name), wave, atol=0.003)


@pytest.mark.parametrize("held", [pulls() * 0, np.full(ROWS, 1.0), pulls()])
def test_one_trigger_may_be_held_as_a_car_is_driven(tmp_path: Path, held: Column) -> None:
    log = read_log(
        tmp_path, sampled(TIMES_MS, trigger_RT=1 - pulls() / 2, trigger_LT=held * pulls())
    )
    assert np.allclose(column(log, "trigger_RT"), 1 - pulls() / 2)


@pytest.mark.parametrize("turned", [("left_stick_y",), ("left_stick_y", "right_stick_y"), STICKS])
@pytest.mark.parametrize(
    ("low", "high", "whole"),
    [(0, 1, False), (0, 255, True), (-128, 127, True), (-32768, 32767, True), (-1, 1, False)],
)
def test_a_control_declared_to_grow_the_other_way_is_still_brought_to_scale(
    tmp_path: Path, low: float, high: float, whole: bool, turned: tuple[str, ...]
) -> None:
    raw = {}
    for name, wave in tilts().items():
        raw[name] = low + ((-wave if name in turned else wave) + 1) / 2 * (high - low)
        raw[name] = np.rint(raw[name]).astype(int) if whole else raw[name]
    toml = "[columns]\n" + "".join(f"{name} = {{ invert = true }}\n" for name in turned)
    log = read_log(tmp_path, sampled(TIMES_MS, **raw), toml)
    for name, wave in tilts().items():
        assert np.allclose(column(log, name), wave, atol=0.009)


@pytest.mark.parametrize("held", ["left_stick_x", "left_stick_y", "right_stick_y"])
@pytest.mark.parametrize("at", [1.0, -0.5, 0.7])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255)])
def test_one_stick_that_is_held_does_not_hide_the_scale_of_the_others(
    tmp_path: Path, low: float, high: float, held: str, at: float
) -> None:
    moves = tilts() | {held: np.full(ROWS, at)}
    raw = {name: low + (wave + 1) / 2 * (high - low) for name, wave in moves.items()}
    raw = {name: np.rint(wave) if high > 1 else wave for name, wave in raw.items()}
    log = read_log(tmp_path, sampled(TIMES_MS, **raw))
    for name, wave in moves.items():
        assert np.allclose(column(log, name), wave, atol=0.005)


@pytest.mark.parametrize("rest", [127, 128])
def test_a_byte_stick_rests_at_both_numbers_in_the_middle(tmp_path: Path, rest: int) -> None:
    lines = [f"0,left_stick_x,{rest}", "300,left_stick_y,255", "400,left_stick_y,0"]
    lines += [f"500,left_stick_y,{rest}", f"900,right_stick_x,{rest}", f"3990,left_stick_x,{rest}"]
    log = read_log(tmp_path, events(*lines))
    assert column(log, "left_stick_y").tolist() == [0, 1, -1, 0, 0, 0]
    assert np.isnan(column(log, "right_stick_x")[:4]).all(), "it came to rest, so it was elsewhere"


@pytest.mark.parametrize(
    ("rule", "raw", "value"),
    [
        ("trigger_LT = { range = [0, 100] }", 25, 0.25),
        ("trigger_LT = { range = [-1, 1], invert = true }", -1, 1.0),
        ("trigger_LT = { scale = 0.01, offset = 0.5 }", 25, 0.75),
        ("left_stick_y = { invert = true }", 0.25, -0.25),
        ("left_stick_y = { range = [255, 0] }", 255, -1.0),
        ("button_A = { range = [0, 255] }", 255, 1.0),
    ],
)
def test_a_declared_scale_is_taken_at_its_word(
    tmp_path: Path, rule: str, raw: float, value: float
) -> None:
    name = rule.split()[0]
    log = read_log(tmp_path, sampled(TIMES_MS, **{name: [raw] * ROWS}), f"[columns]\n{rule}\n")
    assert np.allclose(column(log, name), value)


def test_a_scale_may_be_declared_for_a_column_of_another_name(tmp_path: Path) -> None:
    text = sampled(TIMES_MS, trigger_LT=100 * pulls()).replace("trigger_LT", "lt", 1)
    for rule in ('lt = { is = "trigger_LT", range = [0, 100] }',
                 'trigger_LT = { column = "lt", range = [0, 100] }'):  # fmt: skip
        log = read_log(tmp_path, text, f"[columns]\n{rule}\n")
        assert np.allclose(column(log, "trigger_LT"), pulls())


@pytest.mark.parametrize(
    "rule", ["{ range = [1, 1] }", "{ range = 3 }", "{ scale = 0 }", "{ zero = 1 }",
             "{ range = [0, 1], scale = 2 }", "{ invert = 1 }", "{ offset = nan }", "3"],
)  # fmt: skip
def test_a_scale_that_makes_no_sense_is_refused(tmp_path: Path, rule: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        read_log(tmp_path, sampled(TIMES_MS), f"[columns]\ntrigger_LT = {rule}\n")
    assert caught.value.reason is Reason.METADATA
