"""A refusal for its columns, or for want of a log, comes with what to write or how to name a file."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.logs import SPACE, read_log
from makers.recordings import PLAIN, Cut, cut

from wham_data.pipelines.ingest.log_in_space import project
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.kit.column_guesses import (
    columns_block,
    columns_line,
    guessed_columns,
    nearest_space,
)
from wham_data.pipelines.readers.video_log.column_roles import assign_columns, match_controls
from wham_data.schemas.actions import load_space, space_names
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import ActionTrack

SPACES = [load_space(name) for name in space_names()]


@pytest.mark.parametrize(
    ("space", "pairs"),
    [
        (
            "xinput",
            "LX=left_x LY=left_y RX=right_x RY=right_y LT=left_trigger RT=right_trigger LB=left_shoulder "
            "A=a B=b X=x Y=y DPadUp=up Start=start Back=back",
        ),
        (
            "xinput",
            "ABS_X=left_x ABS_Y=left_y ABS_RX=right_x ABS_RY=right_y ABS_Z=left_trigger "
            "ABS_RZ=right_trigger BTN_SOUTH=a BTN_EAST=b BTN_TL=left_shoulder BTN_SELECT=back",
        ),
        (
            "xinput",
            "leftStickX=left_x leftStickY=left_y rightStickX=right_x rightStickY=right_y "
            "buttonA=a buttonB=b L1=left_shoulder R1=right_shoulder L2=left_trigger R2=right_trigger "
            "L3=left_thumb dpad_left=left",
        ),
        (
            "xinput",
            "pad.lx=left_x pad.ly=left_y pad.cross=a pad.circle=b pad.square=x pad.triangle=y "
            "pad.share=back pad.options=start pad.ps=guide",
        ),
        (
            "keyboard_mouse",
            "W=key_w A=key_a S=key_s D=key_d Space=key_space LMB=mouse_left dx=mouse_dx",
        ),
        (
            "keyboard_mouse",
            "KeyW=key_w KeyA=key_a KeyS=key_s KeyD=key_d ShiftLeft=key_left_shift Digit1=key_1 "
            "mouse_x=mouse_dx mouse_y=mouse_dy scroll=wheel",
        ),
    ],
)
def test_usual_names_of_controls_are_known(space: str, pairs: str) -> None:
    expected = dict(reversed(pair.split("=")) for pair in pairs.split())

    near, guesses = nearest_space(["time_ms", *expected.values(), "mood"], SPACES)

    assert near.name == space
    assert guesses == expected


def test_two_columns_that_may_be_one_control_are_not_guessed() -> None:
    guesses = guessed_columns(["lx", "left_stick_x", "ly"], load_space("xinput"))

    assert guesses == {"left_y": "ly"}


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=70), unique=True, max_size=12))
def test_whatever_the_names_a_block_can_be_pasted(columns: list[str]) -> None:
    _, guesses = nearest_space(columns, SPACES)

    assert len(set(guesses.values())) == len(guesses)
    expected = {column: name for name, column in guesses.items() if name != column}
    block = tomllib.loads("\n".join(columns_block(guesses, ["left over"])))
    assert block == {"columns": expected}
    assert tomllib.loads(columns_line(guesses)) == ({"columns": expected} if expected else {})


def refusal_of(columns: str, actions: str | None = None, **mapping: str) -> str:
    space = None if actions is None else load_space(actions)
    with pytest.raises(RefusedInput) as refused:
        assign_columns(tuple(columns.split()), mapping, space)
    return refused.value.message


def test_missing_columns_come_with_a_line_to_paste() -> None:
    said = refusal_of(
        "time_s LX LY RX RY A B X Y LB RB LS RS LT RT Start Back Guide up down left right"
    )

    assert "the columns fit no bundled action space; nearest is xinput" in said
    line = said.partition("by the names, ")[2].partition("; `wham-data")[0]
    pairs = tomllib.loads(line)["columns"]
    roles, space = assign_columns(
        ("time_s", *pairs, "up", "down", "left", "right"), pairs, load_space("xinput")
    )
    assert space is not None
    assert len(roles.dimensions) == space.size


def test_what_no_name_is_like_is_said_and_what_is_paired_stays() -> None:
    said = refusal_of("time_s lx ly rx ry hop", "wham16", hop="button_0")

    assert "no column for button_1, button_2" in said
    assert 'hop = "button_0", lx = "left_x", ly = "left_y"' in said
    assert "no name is like button_1, button_2" in said


def test_names_that_are_like_nothing_get_no_guess() -> None:
    said = refusal_of("time_s mood weather")

    assert "the columns fit no bundled action space; the log has time_s, mood, weather" in said
    assert "map the names under [columns]" in said
    assert "nearest" not in said


def test_columns_of_another_space_name_the_mapping_that_is_shipped() -> None:
    said = refusal_of("time_s w a s d space mouse_dx mouse_dy mouse_left", "wham16")

    assert "its columns are rather those of keyboard_mouse" in said
    assert (
        "wham-data schema mapping keyboard_mouse-to-wham16 > keyboard_mouse-to-wham16.toml" in said
    )


@pytest.mark.parametrize(
    ("source", "mapping"),
    [
        ("keyboard_mouse", "keyboard_mouse-to-wham16"),
        ("desktop", "keyboard_mouse-to-wham16"),
        ("vpt", "vpt-to-wham16"),
        ("atari18", ""),
    ],
)
def test_a_space_without_a_conversion_names_the_mapping_that_is_shipped(
    source: str, mapping: str
) -> None:
    space = load_space(source)
    track = ActionTrack(space, np.arange(2), np.zeros((2, space.size)), 2)

    for chosen in (PLAIN, replace(PLAIN, actions="wham16")):
        with pytest.raises(RefusedInput) as refused:
            project(track, load_space("wham16"), chosen)
        assert bool(mapping) == ("schema mapping" in refused.value.message)
        assert mapping in refused.value.message


def test_controls_of_an_event_log_are_guessed_too() -> None:
    with pytest.raises(RefusedInput, match='LX = "left_x", LY = "left_y"'):
        match_controls(("LX", "LY", "A"), {}, None)
    with pytest.raises(RefusedInput, match=r'no control is one of wham16.*LX = "left_x"'):
        match_controls(("LX", "LY"), {}, load_space("wham16"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["inputs.csv"], "if inputs.csv is its log, name it play.csv"),
        (["inputs.csv", "notes.txt"], "name it play.csv (the folder also has notes.txt)"),
        (["Keys.JSONL.gz"], "if Keys.JSONL.gz is its log, name it play.jsonl.gz"),
        (
            ["input.json", "meta.txt"],
            "in its folder: input.json, meta.txt, in no form that is read",
        ),
        (["other.csv", "other.mp4"], "nothing else in its folder looks like one"),
        (["picture.png"], "nothing else in its folder looks like one"),
        (
            [f"log{n}.csv" for n in range(9)],
            "(the folder also has log1.csv, log2.csv, log3.csv, log4.csv)",
        ),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_video_without_a_log_says_what_may_be_it(
    tmp_path: Path, files: list[str], said: str, alone: bool
) -> None:
    video = cut(tmp_path, "play", Cut("coinrun", 0, 1))
    for ending in (".csv", ".toml"):
        video.with_suffix(ending).unlink()
    for name in files:
        (tmp_path / name).write_bytes(video.read_bytes() if name.endswith("mp4") else b"a,b\n")

    refused = dict(discover([video if alone else tmp_path]).refused)

    assert said in refused[video].message


# --- dimensions without a column


def partial_log(*names: str) -> str:
    """A log of these columns only, in which the first is 1 in the second row."""
    return f"time_ms,{','.join(names)}\n0{',0' * len(names)}\n500,1{',0' * (len(names) - 1)}\n"


@pytest.mark.parametrize(
    ("names", "toml"),
    [
        (SPACE.names[1:], "at_rest = true"),
        (SPACE.names[:-3], f"at_rest = {json.dumps(SPACE.names[-3:])}"),
        (("button_A",), "at_rest = true"),
        ((*SPACE.names[:5], "frame_time_ms"), "at_rest = true"),
    ],
)
def test_dimensions_without_a_column_are_at_rest_where_that_is_said(
    tmp_path: Path, names: tuple[str, ...], toml: str
) -> None:
    log = read_log(tmp_path, partial_log(*names), toml)

    moved = np.flatnonzero(log.track.values[1])
    assert [SPACE.names[place] for place in moved] == [names[0]]
    lacking = [name for name in SPACE.names if name not in names]
    assert any(
        note.startswith("without a column and declared to be at rest: ") and lacking[0] in note
        for note in log.notes
    )


@pytest.mark.parametrize(
    ("names", "toml", "said"),
    [
        (SPACE.names[1:], "", f"at_rest = true if {SPACE.names[0]} were never"),
        (SPACE.names[2:], f'at_rest = ["{SPACE.names[0]}"]', f"no column for {SPACE.names[1]}"),
        (("mood",), "at_rest = true", "no column for"),
        (SPACE.names, "at_rest = 3", "at_rest must be true, or a list"),
    ],
)
def test_they_are_refused_where_it_is_not_said(
    tmp_path: Path, names: tuple[str, ...], toml: str, said: str
) -> None:
    with pytest.raises(RefusedInput, match=said):
        read_log(tmp_path, partial_log(*names), toml)
