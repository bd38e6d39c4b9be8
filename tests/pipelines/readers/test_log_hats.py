"""A d-pad given as one number is read where it is declared, by its values or by the form that is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.logs import SPACE, read_log, sampled

from wham_data.pipelines.readers.kit.hats import DIRECTIONS, HAT_FORMS, hat_buttons, hat_form
from wham_data.pipelines.readers.video_log.column_roles import assign_columns, way_of
from wham_data.pipelines.readers.video_log.controller_log import (
    ControllerLog,
    read_controller_log,
)
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import RefusedInput

WAYS = ("up", "up right", "right", "down right", "down", "down left", "left", "up left", "")
WRITTEN = {
    "eighths": (0, 1, 2, 3, 4, 5, 6, 7, 8),
    "bits": (1, 3, 2, 6, 4, 12, 8, 9, 0),
    "degrees": (0, 45, 90, 135, 180, 225, 270, 315, -1),
    "hundredths": (0, 4500, 9000, 13500, 18000, 22500, 27000, 31500, 65535),
}
HAT = 'actions = "xinput16"\n[columns]\nPOV = "hat"\n'


def ways_held(held: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[str]:
    return [
        " ".join(d for d, on in zip(DIRECTIONS, row, strict=True) if on) for row in held.tolist()
    ]


def in_order(way: str) -> str:
    return " ".join(d for d in DIRECTIONS if d in way.split())


@pytest.mark.parametrize("form", WRITTEN)
def test_every_way_of_every_form_is_known(form: str) -> None:
    values = np.array([WRITTEN[form][-1]] * 9 + [*WRITTEN[form]], np.float64)

    found = hat_form(values)

    assert found == form
    assert ways_held(hat_buttons(values, found))[9:] == [in_order(way) for way in WAYS]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(WRITTEN)),
    st.lists(st.integers(0, 8), min_size=1, max_size=40),
)
def test_a_form_is_only_taken_where_it_gives_what_was_pushed(form: str, pushed: list[int]) -> None:
    values = np.array([WRITTEN[form][8]] * (len(pushed) + 1) + [WRITTEN[form][p] for p in pushed])

    found = hat_form(values.astype(np.float64))

    if found is not None:  # resting more than half of the time, as it does in play
        held = hat_buttons(values.astype(np.float64), found)[len(pushed) + 1 :]
        assert ways_held(held) == [in_order(WAYS[p]) for p in pushed]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([8, 8, 8, 2, 4, 8], "eighths"),  # 2 is right, 8 is rest
        ([0, 0, 0, 2, 4, 0], "bits"),  # 2 is right, 0 is rest
        ([0, 2, 4, 8, 1], None),  # who can say
        ([-1, 0, 2], "eighths"),
        ([0, 0, 12], "bits"),
        ([0, 0, 0], "bits"),  # never touched
        ([8, 8, 8], "eighths"),  # never touched
        ([-1, -1], "eighths"),  # never touched, in whatever form
        ([np.nan, np.nan], "bits"),
        ([4294967295, 9000], "hundredths"),
    ],
)
def test_the_form_is_taken_from_the_values_where_they_are_certain(
    values: list[float], form: str | None
) -> None:
    assert hat_form(np.array(values, np.float64)) == form


@pytest.mark.parametrize("values", [[0, 10], [3, 4500], [0.5], [7, 12], [1e18]])
def test_numbers_that_are_no_hat_are_refused(values: list[float]) -> None:
    with pytest.raises(RefusedInput, match="is no way of a hat"):
        hat_form(np.array(values, np.float64))


@pytest.mark.parametrize("form", HAT_FORMS)
def test_a_declared_form_is_held_to(form: str) -> None:
    with pytest.raises(RefusedInput, match=f"no way of a hat in {form}"):
        hat_buttons(np.array([WRITTEN[form][0], 77.0]), form)  # type: ignore[arg-type]


def held(log: ControllerLog) -> list[str]:
    """Which way the d-pad is pushed, row by row."""
    columns = {way_of(name): SPACE.index(name) for name in SPACE.names if way_of(name)}
    return ways_held(log.track.values[:, [columns[way] for way in DIRECTIONS]])


def without_dpad(text: str) -> str:
    """A log without the columns of the d-pad."""
    lines = [line.split(",") for line in text.splitlines()]
    kept = [at for at, name in enumerate(lines[0]) if way_of(name) is None]
    return "\n".join(",".join(line[at] for at in kept) for line in lines) + "\n"


def test_a_hat_of_a_sampled_log_is_four_buttons(tmp_path: Path) -> None:
    pov = [65535] * 6 + [0, 4500, 27000, 65535]
    text = without_dpad(sampled(range(0, 1000, 100), button_A=[0, 1] * 5, POV=pov))

    log = read_log(tmp_path, text, HAT)

    assert held(log) == [""] * 6 + ["up", "up right", "left", ""]
    assert log.track.values[:, SPACE.index("button_A")].tolist() == [0, 1] * 5
    assert "POV is a d-pad in hundredths (as its values show)" in log.notes


def test_an_unclear_hat_is_refused_with_the_line_to_write(tmp_path: Path) -> None:
    text = without_dpad(sampled(range(0, 500, 100), POV=[0, 1, 2, 4, 8]))

    with pytest.raises(RefusedInput, match=r'POV = \{ is = "hat", form = "bits" \}'):
        read_log(tmp_path, text, HAT)
    declared = HAT.replace('"hat"', '{ is = "hat", form = "bits" }')

    assert held(read_log(tmp_path, text, declared)) == ["", "up", "right", "down", "left"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('{ is = "hat", form = "clock" }', "form of POV is one of eighths, bits"),
        ('{ is = "button_A", form = "bits" }', "form is of a hat"),
        ('{ is = "hat", form = "bits", invert = true }', "form is of a hat"),
    ],
)
def test_a_wrong_form_is_said(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(RefusedInput, match=said):
        read_log(tmp_path, "time_s,POV\n0,0\n", f"[columns]\nPOV = {rule}\n")


def test_words_are_no_hat(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="the hat, holds words"):
        read_log(tmp_path, without_dpad(sampled([0, 1], POV=["up", "down"])), HAT)


def test_a_hat_of_an_event_log_changes_its_directions(tmp_path: Path) -> None:
    events = "0,button_A,0\n100,POV,2\n200,POV,3\n300,POV,8\n400,POV,8\n500,button_A,1\n"

    log = read_log(tmp_path, f"time_ms,control,value\n{events}", HAT)

    by_ms = dict(zip((log.track.times_ns // 10**6).tolist(), held(log), strict=True))
    assert by_ms == {0: "", 100: "right", 200: "right down", 300: "", 500: ""}


def test_a_hat_needs_a_space_with_a_dpad_in_an_event_log(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time_ms,control,value\n0,POV,8\n9,POV,2\n")
    metadata = LogMetadata(columns={"POV": "hat"})

    with pytest.raises(RefusedInput, match="needs a space with a d-pad"):
        read_controller_log(
            tmp_path / "log.csv", metadata, load_space("wham16"), np.arange(9) * 10**8, 10**9
        )


def test_a_hat_that_is_ignored_is_said(tmp_path: Path) -> None:
    log = read_log(tmp_path, sampled(range(5), hat=[8] * 5))

    assert any("hat is ignored and looks like a d-pad" in note for note in log.notes)


def test_missing_directions_and_a_hat_come_with_the_line_to_paste() -> None:
    names = [name for name in load_space("xinput").names if way_of(name) is None]

    with pytest.raises(RefusedInput, match=r'columns = \{ POV = "hat" \}'):
        assign_columns(("time_s", *names, "POV"), {}, load_space("xinput"))
    roles, _ = assign_columns(("time_s", *names, "POV"), {"POV": "hat"}, None)
    assert roles.hat == "POV"
