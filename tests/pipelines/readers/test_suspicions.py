"""What is legal and yet looks wrong is said in a note; what people really do is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.logs import read_log, sampled
from makers.readings import the_recording
from makers.recordings import DEMO, PLAIN, Cut, cut
from numpy.typing import ArrayLike

from wham_data.pipelines.ingest.log_in_space import project
from wham_data.pipelines.readers.kit.suspicions import suspicious
from wham_data.schemas.actions import load_space
from wham_data.schemas.conversion import Conversion, Rule
from wham_data.schemas.recording import ActionTrack

ROWS = 400
TIMES_NS = np.arange(ROWS) * 25_000_000
RANDOM = np.random.default_rng(7)
WALK = np.clip(np.cumsum(RANDOM.normal(0, 0.2, ROWS)), -1, 1)
PLAYED = np.where(np.arange(ROWS) % 100 < 40, 0.0, WALK)
"""A stick that rests now and then."""


def notes_on(space: str, declared: tuple[str, ...] = (), **columns: ArrayLike) -> list[str]:
    named = load_space(space)
    values = np.zeros((ROWS, named.size))
    for name, column in columns.items():
        values[:, named.index(name)] = column
    return suspicious(ActionTrack(named, TIMES_NS, values, 10**10), declared)


@pytest.mark.parametrize(
    "column",
    [
        np.where(np.arange(ROWS) % 40 < 20, 1.0, -1.0),
        np.where(np.arange(ROWS) % 90 < 30, 0.7, np.where(np.arange(ROWS) % 90 < 60, -1.0, 1.0)),
        np.where(np.arange(ROWS) % 40 < 10, 0.13, 0.9),
    ],
    ids=["keys", "digital and analogue", "a worn stick"],
)
def test_a_stick_that_goes_from_end_to_end_or_rests_beside_0_is_as_it_should_be(
    column: ArrayLike,
) -> None:
    assert not [note for note in notes_on("xinput", right_x=column) if "never rests" in note]


@pytest.mark.parametrize(
    ("space", "name", "column", "said"),
    [
        ("xinput", "right_x", np.ones(ROWS), "right_x is at its end (1) in 100% of the time"),
        ("xinput", "left_y", -np.ones(ROWS), "left_y is at its end (-1) in 100% of the time"),
        ("xinput", "left_trigger", np.ones(ROWS), "left_trigger is at its end (1)"),
        ("xinput", "left_x", np.full(ROWS, 0.5), "left_x never rests: it is between 0.5 and 0.5"),
        (
            "xinput",
            "right_y",
            0.3 + 0.2 * PLAYED**2,
            "right_y never rests: it is between 0.3 and 0.5",
        ),
        (
            "xinput",
            "right_trigger",
            np.where((np.arange(ROWS) + 50) % 100 > 30, 1.0, 0.0),
            "right_trigger is pulled all the way in",
        ),
        ("keyboard_mouse", "mouse_dx", 640 + 300 * WALK, "mouse_dx looks like a position"),
        ("desktop", "mouse_dy", 360 + 200 * WALK, "mouse_dy looks like a position on the screen"),
        ("xinput", "left_y", -np.abs(PLAYED), "if it grows downwards in the log"),
        ("xinput16", "left_stick_y", np.abs(PLAYED), "if it grows upwards in the log"),
        ("nitrogen21", "j_left_y", np.abs(PLAYED), "j_left_y is pulled back in"),
    ],
)
def test_it_is_suspicious(space: str, name: str, column: ArrayLike, said: str) -> None:
    (note,) = notes_on(space, **{name: column})

    assert note.startswith("suspicious: ")
    assert said in note


@pytest.mark.parametrize(
    ("space", "name", "column"),
    [
        ("xinput", "left_x", PLAYED),
        ("xinput", "left_y", np.abs(PLAYED)),
        ("xinput", "right_y", -np.abs(PLAYED)),  # who looks down all the time may do so
        ("xinput", "left_trigger", np.where(np.arange(ROWS) % 10 < 9, 1.0, 0.0)),  # a race
        ("xinput", "left_x", np.zeros(ROWS)),
        ("xinput", "a", np.ones(ROWS)),
        ("keyboard_mouse", "mouse_dx", RANDOM.normal(0, 40, ROWS)),
        (
            "keyboard_mouse",
            "mouse_dx",
            np.abs(RANDOM.normal(0, 60, ROWS)) * (RANDOM.random(ROWS) < 0.5),
        ),
        ("keyboard_mouse", "mouse_dy", np.zeros(ROWS)),
        ("xinput", "left_x", np.full(ROWS, np.nan)),
    ],
)
def test_it_is_how_people_play(space: str, name: str, column: ArrayLike) -> None:
    assert notes_on(space, **{name: column}) == []


def test_a_declared_axis_is_not_questioned_again() -> None:
    assert notes_on("xinput", ("left_y",), left_y=-np.abs(PLAYED)) == []


def test_a_few_rows_say_nothing() -> None:
    track = ActionTrack(load_space("xinput"), TIMES_NS[:40], np.ones((40, 21)), 10**9)

    assert suspicious(track) == []


def test_rows_count_by_how_long_they_last() -> None:
    """An event log has many rows while a stick moves, and none while it rests."""
    values = np.zeros((ROWS, 21))
    values[:-1, load_space("xinput").index("left_x")] = 1.0
    times_ns = np.append(np.arange(ROWS - 1) * 1_000_000, 400_000_000)

    assert suspicious(ActionTrack(load_space("xinput"), times_ns, values, 10**9)) == []


@pytest.mark.parametrize("game", ["doom", "miniworld", "coinrun"])
def test_the_recordings_that_ship_are_not_suspicious(game: str) -> None:
    track = the_recording(DEMO / f"{game}.mp4").actions

    assert track is not None
    assert [note for note in suspicious(track) if "position" in note or "grows" in note] == []


def test_the_reader_says_it_with_the_recording(tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "play", Cut("doom", 0, 4))
    log = video.with_suffix(".csv")
    head, *rows = log.read_text().splitlines()
    at = head.split(",").index("right_x")
    cells = [row.split(",") for row in rows]
    log.write_text(
        "\n".join([head, *(",".join([*c[:at], "1", *c[at + 1 :]]) for c in cells)]) + "\n"
    )

    notes = the_recording(tmp_path / "in").notes

    assert any("suspicious: right_x is at its end (1) in 100%" in note for note in notes)


MOUSE = load_space("keyboard_mouse")
AIM = Conversion(
    MOUSE,
    load_space("wham16"),
    (
        Rule("right_x", ("mouse_dx",), (1.0,), full_at=1000.0),
        Rule("left_x", ("key_d", "key_a"), (2.0, -1.0), combine="sum"),
        Rule("button_0", ("key_space",), (1.0,)),
    ),
)


def test_what_a_mapping_cuts_off_is_counted() -> None:
    values = np.zeros((ROWS, MOUSE.size))
    values[:100, MOUSE.index("key_d")] = 1.0
    values[:, MOUSE.index("mouse_dx")] = np.where(np.arange(ROWS) < 300, 500.0, 1.0)
    track = ActionTrack(MOUSE, TIMES_NS, values, 10**10)
    edges_ns = np.arange(0, 10**10 + 1, 10**8)

    log = project(track, AIM.target, replace(PLAIN, mapping=AIM))
    assert log is not None

    assert log.cut_notes([edges_ns]) == [
        "the mapping cut left_x off in 100 of 400 rows",
        "suspicious: the mapping cut right_x off in 75 of 100 steps: is full_at too low, or is the "
        "motion no motion?",
    ]


def test_a_mapping_that_cuts_nothing_off_says_nothing() -> None:
    values = np.zeros((ROWS, MOUSE.size))
    values[::7, MOUSE.index("key_a")] = 1.0
    track = ActionTrack(MOUSE, TIMES_NS, values, 10**10)

    log = project(track, AIM.target, replace(PLAIN, mapping=AIM))
    assert log is not None

    assert log.cut_notes([np.arange(0, 10**10 + 1, 10**8)]) == []


def test_a_log_that_is_only_read_has_no_notes_for_its_shape(tmp_path: Path) -> None:
    assert read_log(tmp_path, sampled(range(0, 4000, 10))).notes == ()
