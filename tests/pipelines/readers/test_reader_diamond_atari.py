"""DIAMOND's Atari episodes: what torch saved comes out, and nothing in it is run."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.readings import frames_of, recordings_in, the_recording
from makers.recordings import ingest_here
from makers.video_clips import read_stamp, stamped

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

ACTIONS = [3, 0, 1, 2, 2]
SIZE = (96, 64)


def episode(actions: list[int] = ACTIONS, first: int = 0, **changes: Any) -> dict[str, Any]:
    """As DIAMOND's collector saves one: frame k shows number first + k."""
    count = len(actions)
    frames = np.stack([stamped(first + k, *SIZE) for k in range(count)])
    return {
        "obs": torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
        "act": torch.tensor(actions),
        "rew": torch.arange(count, dtype=torch.float32),
        "end": torch.zeros(count, dtype=torch.uint8),
        "trunc": torch.zeros(count, dtype=torch.uint8),
        "info": {"final_observation": torch.zeros(3, 64, 64)},
        **changes,
    }


def saved(content: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("permuted", [False, True])
def test_frames_actions_and_rewards_come_out_as_saved(tmp_path: Path, permuted: bool) -> None:
    made = episode()
    if permuted:  # saved as a view of pictures whose channels are last
        made["obs"] = made["obs"].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert not made["obs"].is_contiguous()
    saved(made, tmp_path / "000/00/0/0.pt")

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1, 2, 3, 4]
    assert (frames_of(opened, SIZE, [3])[0] == stamped(3, *SIZE)).all()
    assert opened.actions is not None
    assert opened.actions.space.name == "discrete18"
    assert opened.actions.values.argmax(axis=1).tolist() == ACTIONS
    assert (opened.actions.values.sum(axis=1) == 1).all()
    assert opened.rewards is not None
    assert opened.rewards.tolist() == [0, 1, 2, 3, 4]
    assert opened.frame_times_ns[1] == 66_666_667, "15 frames a second"


def test_action_names_give_each_action_its_place_on_the_joystick(tmp_path: Path) -> None:
    saved(episode(), tmp_path / "0.pt")

    opened = the_recording(tmp_path, action_names="NOOP,FIRE,RIGHT,LEFT")

    assert opened.actions is not None
    names = opened.actions.space.names
    pressed = [names[place] for place in opened.actions.values.argmax(axis=1)]
    assert pressed == ["LEFT", "NOOP", "FIRE", "RIGHT", "RIGHT"]


def test_a_corpus_keeps_the_rewards_and_the_settings_its_options(tmp_path: Path) -> None:
    saved(episode(), tmp_path / "in/0.pt")
    saved(episode([0, 1, 0], first=50), tmp_path / "in/1.pt")
    options = (("action_names", "NOOP,FIRE,RIGHT,LEFT"),)
    settings = IngestSettings(rate=None, size=SIZE, tokenizer=None, options=options)

    report = ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    assert (report.ingested, report.steps) == (2, 8)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.info.action_space.name == "atari18"
    assert dict(corpus.info.settings)["option.action_names"] == "('NOOP', 'FIRE', 'RIGHT', 'LEFT')"
    rewards = corpus.scan().sort("episode", "step").collect()["reward"].to_list()
    assert sorted(rewards) == [0, 0, 1, 1, 2, 2, 3, 4]
    assert corpus.verify().ok


def test_rewards_of_a_coarser_grid_are_summed(tmp_path: Path) -> None:
    saved(episode([0] * 6), tmp_path / "in/0.pt")
    settings = IngestSettings(rate=Fraction(5), size=SIZE, tokenizer=None)

    ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    rewards = Corpus.open(tmp_path / "corpus").scan().collect()["reward"].to_list()
    assert rewards == [0 + 1 + 2, 3 + 4 + 5]


def test_files_of_torch_that_are_no_episodes_are_left_alone(tmp_path: Path) -> None:
    saved({"start_idx": np.array([0]), "num_steps": 5}, tmp_path / "info.pt")
    saved({"weights": torch.zeros(3)}, tmp_path / "model.pt")
    of_floats = episode(act=torch.zeros(5, 51, dtype=torch.float64))
    saved(of_floats, tmp_path / "csgo.pt")

    assert recordings_in(tmp_path, "diamond-atari") == {}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch /tmp/never",)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    saved(episode(info=Bomb()), tmp_path / "0.pt")

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.PICKLED_OBJECTS


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = saved(episode(), tmp_path / "0.pt")
    path.write_bytes(path.read_bytes()[:-100])

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"act": torch.tensor([0, 1, 2, 3])}, Reason.LOG_COVERAGE),
        ({"act": torch.tensor([0, 1, 2, 3, 18])}, Reason.LOG_RANGE),
        ({"act": torch.tensor([0.0, 1, 2, 3, 4])}, Reason.LOG_TYPE),
        ({"obs": torch.zeros(5, 1, 8, 8, dtype=torch.uint8)}, Reason.NOT_A_VIDEO),
    ],
)
def test_an_episode_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    saved(episode(**changes), tmp_path / "0.pt")

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is reason


def test_an_action_that_ale_does_not_know_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--option action_names=NOOP,JUMP: expected names"):
        discover([tmp_path], options={"action_names": "NOOP,JUMP"})
