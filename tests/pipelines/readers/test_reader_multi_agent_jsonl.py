"""A line for each frame: the players of one match, Procgen's combinations, Atari's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, write_clip

from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput

SIZE = (192, 112)
COUNT = 6


def write(folder: Path, video: str, lines: Iterable[dict[str, Any]], count: int = COUNT) -> None:
    """Frame k shows number k, 20 frames a second."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / f"{video}.mp4", range(0, 50 * count, 50))
    name = "actions.jsonl" if video == "video" else f"{video}.actions.jsonl"
    text = "".join(json.dumps({"step": k} | line) + "\n" for k, line in enumerate(lines))
    (folder / name).write_text(text)


def both(move: int, turn: int) -> dict[str, Any]:
    return {
        "players": {
            "1": {"move": move, "turn": turn, "fireZap": 0},
            "2": {"move": 4, "turn": 0, "fireZap": 1},
        },
        "reward": {"1.REWARD": 1.0, "2.REWARD": -2.0},
    }


def test_an_agent_that_is_never_there_has_no_known_action(tmp_path: Path) -> None:
    write(tmp_path, "video", [both(1, 0) | {"alive": {"1": False, "2": False}}] * COUNT)

    for opened in recordings_in(tmp_path).values():
        assert opened.actions is not None
        assert np.isnan(opened.actions.values).all()


def test_players_are_recordings_of_one_match_with_the_same_frames(tmp_path: Path) -> None:
    write(tmp_path / "run", "episode_0", [both(k % 5, k % 3 - 1) for k in range(COUNT)])

    found = discover([tmp_path]).recordings
    opened = recordings_in(tmp_path)

    assert [r.provenance.match for r in found] == ["run/episode_0"] * 2
    assert [r.provenance.subject for r in found] == ["1", "2"]
    assert list(opened) == ["run/episode_0.mp4#player_1", "run/episode_0.mp4#player_2"]
    for each in opened.values():
        assert [read_stamp(frame) for frame in frames_of(each, SIZE)] == list(range(COUNT))


def test_each_player_has_its_own_actions_and_rewards(tmp_path: Path) -> None:
    write(tmp_path, "episode_0", [both(k % 5, k % 3 - 1) for k in range(COUNT)])

    one, two = recordings_in(tmp_path).values()

    assert one.actions is not None
    assert two.actions is not None
    assert one.actions.space.names == (*(f"move_is_{k}" for k in range(5)), "turn", "fireZap")
    assert one.actions.values[:, :5].argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 0]
    assert one.actions.values[:, 5].tolist() == [-1, 0, 1, -1, 0, 1]
    assert two.actions.values[0].tolist() == [0, 0, 0, 0, 1, 0, 1]
    assert two.rewards is not None
    assert two.rewards.tolist() == [-2.0] * COUNT


def test_a_player_who_is_not_in_a_line_and_a_line_that_is_not_there_are_not_known(
    tmp_path: Path,
) -> None:
    lines = [both(1, 0) for _ in range(COUNT - 1)]
    del lines[2]["players"]["1"]
    for k in (3, 4):
        lines[k]["step"] = k + 1
    write(tmp_path, "episode_0", lines)

    one, two = recordings_in(tmp_path).values()

    assert one.actions is not None
    assert two.actions is not None
    assert np.flatnonzero(np.isnan(one.actions.values[:, 0])).tolist() == [2, 3]
    assert np.flatnonzero(np.isnan(two.actions.values[:, 0])).tolist() == [3]


def test_procgens_numbers_are_combinations_and_a_reward_came_with_the_next_line(
    tmp_path: Path,
) -> None:
    lines = [{"action": 7, "combo": ["RIGHT"], "prev_reward": float(k)} for k in range(COUNT)]
    write(tmp_path, "video", lines)
    (tmp_path / "actions.csv").write_text("step,action\n0,7\n")

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.space.name == "procgen15"
    assert opened.actions.values.argmax(axis=1).tolist() == [7] * COUNT
    assert opened.actions.space.names[7] == "RIGHT"
    assert opened.rewards is not None
    assert opened.rewards.tolist() == [1, 2, 3, 4, 5, 0]


def test_ataris_numbers_get_their_names_from_an_option(tmp_path: Path) -> None:
    write(tmp_path, "video", [{"action": k % 4, "reward": 1.0} for k in range(COUNT)])

    plain = the_recording(tmp_path).actions
    named = the_recording(tmp_path, action_names="NOOP,FIRE,RIGHT,LEFT").actions

    assert plain is not None
    assert named is not None
    assert plain.space.name == "discrete18"
    assert plain.values.argmax(axis=1).tolist() == [0, 1, 2, 3, 0, 1]
    pressed = [named.space.names[place] for place in named.values.argmax(axis=1)]
    assert pressed[:4] == ["NOOP", "FIRE", "RIGHT", "LEFT"]


def test_other_lines_beside_a_video_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "video", [{"time_s": k / 20, "jump": 1} for k in range(COUNT)])

    assert recordings_in(tmp_path, "multi-agent-jsonl") == {}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([{"action": 18}] * COUNT, Reason.LOG_RANGE),
        ([{"action": 0.5}] * COUNT, Reason.LOG_TYPE),
        ([{"action": 0}, *[{"action": "up"}] * (COUNT - 1)], Reason.LOG_TYPE),
        ([{"action": 0}, *[{"action": 0, "step": 0}] * (COUNT - 1)], Reason.LOG_CLOCK),
        ([{"action": 0}] * 2, Reason.LOG_COVERAGE),
        ([both(5, 0)] * COUNT, Reason.LOG_RANGE),
        ([{"players": {"1": {}}}] * COUNT, Reason.LOG_COLUMN),
    ],
)
def test_lines_that_make_no_sense_are_refused(
    tmp_path: Path, lines: list[dict[str, Any]], reason: Reason
) -> None:
    write(tmp_path, "video", lines)

    with pytest.raises(RefusedInput) as refused:
        recordings_in(tmp_path)

    assert refused.value.reason is reason


def known_of(folder: Path) -> dict[str, list[bool]]:
    """In which frames the actions of each player are known."""
    return {
        name.rpartition("_")[2]: (~np.isnan(opened.actions.values).any(axis=1)).tolist()
        for name, opened in recordings_in(folder).items()
        if opened.actions is not None
    }


def alone(**players: Any) -> dict[str, Any]:
    return {"players": {name[1:]: said for name, said in players.items()}}


HERE = {"move": 1, "turn": 0}


@pytest.mark.parametrize(
    "lines",
    [
        [alone(p1=HERE)] * 2 + [alone(p1=HERE, p2=HERE)] * 4,
        [alone(p1=HERE, p2=None)] * 2 + [alone(p1=HERE, p2=HERE)] * 4,
        [alone(p1=HERE, p2=HERE | {"alive": False})] * 2 + [alone(p1=HERE, p2=HERE)] * 4,
        [alone(p1=HERE, p2=HERE) | {"alive": {"1": 1, "2": 0}}] * 2 + [alone(p1=HERE, p2=HERE)] * 4,
        [alone(p1=HERE, p2=HERE) | {"alive": ["1"]}] * 2 + [alone(p1=HERE, p2=HERE)] * 4,
    ],
    ids=["not in the line", "null", "alive in the player", "alive by name", "those alive"],
)
def test_who_joins_late_is_a_recording_and_known_from_then_on(
    tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    write(tmp_path, "match", lines)

    assert known_of(tmp_path) == {"1": [True] * 6, "2": [False] * 2 + [True] * 4}


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("zap", [0, 1, 0, 0, 1, 0], "button"),
        ("fireClean", [0, 0, 0, 0, 0, 0], "button"),
        ("claim_land", [0, 0, 1, 0, 0, 0], "button"),
        ("turn", [0, 0, 1, 0, 0, 0], "axis"),
        ("speed", [0, 1, 3, 0, 0, 0], "axis"),
    ],
)
def test_what_is_done_or_not_in_a_step_is_a_button(
    tmp_path: Path, name: str, values: list[int], kind: str
) -> None:
    write(tmp_path, "match", [alone(p1={"move": 0, name: value}) for value in values])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    space = opened.actions.space
    assert opened.actions.values[:, space.index(name)].tolist() == values
    assert (space.dimensions[space.index(name)].kind == "button") == (kind == "button")
