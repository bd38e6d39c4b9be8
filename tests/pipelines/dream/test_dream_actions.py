"""What can be done in a dream, and how it is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.dreams import (
    GREEDY,
    REST,
    WHAM16,
    arrays_of,
    dream,
    small_checkpoint,
    wham_episode,
    write_npz,
)

from wham_data.pipelines.dream.actions import Random, read_actions
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import UsageError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two of WHAM's files, one in a folder of its own."""
    write_npz(tmp_path / "data" / "a.npz", wham_episode(seed=1))
    write_npz(tmp_path / "data" / "sub" / "b.npz", wham_episode(seed=2))
    return tmp_path / "data"


def test_what_one_dream_did_can_be_given_to_another(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (data / "a.npz", "--model", checkpoint, "--context", 3, "--steps", 3)
    dream(*arguments, "--out", tmp_path / "one", "--actions", "random", "--save", "csv,npz")
    done = tmp_path / "one/a/actions.csv"
    run = dream(*arguments, "--out", tmp_path / "two", "--actions", done, "--save", "npz")

    assert run.code == 0, run.error
    one, two = ((tmp_path / f"{name}/a.npz").read_bytes() for name in ("one", "two"))
    assert one == two
    assert json.loads((tmp_path / "two/a/dream.json").read_text())["actions"]["source"].startswith(
        "file:"
    )


def test_a_fixed_action_is_held_throughout(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    said = "fixed:right_x=-1,button_3=1"
    run = dream(
        data / "a.npz", "--model", checkpoint, "--out", tmp_path, *GREEDY, "--actions", said
    )

    assert run.code == 0, run.error
    done = arrays_of(tmp_path / "a.npz")["all_actions"][3:]
    assert done[:, 3].tolist() == [1, 1]
    assert done[:, 12:].tolist() == [[5, 5, 0, 5]] * 2


def test_a_longer_random_dream_begins_like_a_shorter_one() -> None:
    short, long = (Random(4, load_space("wham16")).future(steps, index=9) for steps in (5, 8))

    assert np.array_equal(short, long[:5])
    assert not np.array_equal(short, Random(4, load_space("wham16")).future(5, index=10))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("sideways", "expected recorded, model"),
        ("fixed:right_z=1", "did you mean right_y"),
        ("fixed:button_0=0.5", "expected 0 or 1"),
        ("fixed:left_x=2", "expected -1 to 1"),
        ("fixed:left_x=nan", "expected -1 to 1"),
        ("fixed:left_x=0,left_x=1", "twice"),
        ("nosuch.csv", "No such file"),
    ],
)
def test_actions_that_make_no_sense_are_refused(
    data: Path, checkpoint: Path, tmp_path: Path, said: str, told: str
) -> None:
    run = dream(data, "--model", checkpoint, "--out", tmp_path, *GREEDY, "--actions", said)

    assert run.code == 2
    assert told in run.error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("step,left_x\n0,1\n", "no column button_0"),
        (f"{WHAM16}\n{REST}\n{REST[:-1]}\n", "row 2: right_y is missing"),
        (f"{WHAM16}\n0,0\n", "fewer columns"),
        (f"{WHAM16}\n{REST[:-1]}9\n", "expected -1 to 1"),
        (f"step,{WHAM16}\n0,{REST}\n2,{REST}\n", "increase by one"),
        (f"step,{WHAM16}\n3,{REST}\n", "increase by one"),
    ],
)
def test_a_file_of_actions_is_read_with_care(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "moves.csv").write_text(text)

    with pytest.raises(UsageError, match=told):
        read_actions(tmp_path / "moves.csv", load_space("wham16"))


def test_a_file_of_actions_that_is_too_short_says_how_many_steps_it_has(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "moves.csv").write_text(f"{WHAM16}\n{REST}\n")
    arguments = ("--model", checkpoint, "--out", tmp_path / "out", "--context", 3)

    run = dream(data, *arguments, "--steps", 2, "--actions", tmp_path / "moves.csv")

    assert run.code == 2
    assert "for 1 steps from step 0 on, but the dream has 2 steps" in run.error
