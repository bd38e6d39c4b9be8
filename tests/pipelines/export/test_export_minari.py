"""Export to Minari: a data set per split, read by its own package and by our reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import exports as export_makers
from makers.exports import SIZE, actions_of, picture_corpus, picture_of
from makers.readings import frames_of, recordings_in

import wham_data
from wham_data.corpus.corpus import Corpus
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, UsageError

EPISODES = {"e0": {"split": "train"}, "e1": {"split": "val"}, "e2": {"split": "train"}}


def actions_in(corpus: Corpus, episode: str) -> np.ndarray[Any, Any]:
    return np.array(corpus.scan().collect().filter(episode=episode)["actions"].to_list())


@pytest.mark.parametrize(
    ("space", "back"), [("discrete5", "discrete5"), ("vector3", "vector3"), ("vpt", "numbers25")]
)
def test_frames_actions_states_and_rewards_come_back_but_for_the_last_action(
    tmp_path: Path, space: str, back: str
) -> None:
    corpus = picture_corpus(
        tmp_path / "corpus", space, EPISODES, state_size=2, reward=True, frames="png"
    )

    report = wham_data.export(corpus, to="minari", out=tmp_path / "out", options={"dataset": "toy"})

    assert (report.written, report.steps) == (3, 18)
    train = tmp_path / "out/toy/train-v0"
    assert len(recordings_in(tmp_path / "out/toy/val-v0")) == 1
    for number, opened in zip((0, 2), recordings_in(train).values(), strict=True):
        truth = [picture_of(number, step) for step in range(6)]
        np.testing.assert_array_equal(frames_of(opened, SIZE), truth)
        assert opened.actions is not None
        assert opened.actions.space.name == back
        wanted = actions_in(corpus, f"e{number}").astype(np.float32)
        np.testing.assert_array_equal(opened.actions.values[:5].astype(np.float32), wanted[:5])
        assert np.isnan(opened.actions.values[5]).all()
        assert opened.states is not None
        assert opened.states.tolist() == [[k, k] for k in range(6)]
        assert opened.rewards is not None
        assert opened.rewards.tolist() == [0, 0.25, 0.5, 0.75, 1, 0]


def test_jpegs_are_passed_on_as_the_corpus_keeps_them(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "discrete3", 1, frames="jpeg")

    wham_data.export(corpus, to="minari", out=tmp_path / "out")

    (opened,) = recordings_in(tmp_path / "out").values()
    off = frames_of(opened, SIZE).astype(int) - [picture_of(0, step) for step in range(6)]
    assert np.abs(off).mean() < 4
    said = json.loads((tmp_path / "out/wham-data/train-v0/data/metadata.json").read_text())
    assert said["jpeg_encoding"] is True


def test_two_numbered_actions_at_once_fail_the_episode_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_down = actions_of(load_space("discrete3"), 0, 6)
    two_down = np.array([[1, 1, 0]] * 6, np.float32)
    monkeypatch.setattr(
        export_makers, "actions_of", lambda _, number, *__: two_down if number else one_down
    )
    corpus = picture_corpus(tmp_path / "corpus", "discrete3", 2)

    report = wham_data.export(corpus, to="minari", out=tmp_path / "out")

    assert (report.written, report.exit_code) == (1, 3)
    assert [(each.episode, each.reason) for each in report.failed] == [("e1", Reason.LOG_RANGE)]
    assert len(recordings_in(tmp_path / "out")) == 1


def test_a_name_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "discrete3", 1)

    with pytest.raises(UsageError, match="expected 2 to 64 letters"):
        wham_data.export(corpus, to="minari", out=tmp_path / "out", options={"dataset": "../x"})


def test_minari_itself_reads_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    corpus = picture_corpus(tmp_path / "corpus", "discrete5", EPISODES, state_size=2, reward=True)
    wham_data.export(corpus, to="minari", out=tmp_path / "out")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))

    dataset = minari.load_dataset("wham-data/train-v0")

    assert (dataset.total_episodes, dataset.total_steps) == (2, 10)
    assert dataset.action_space.n == 5
    for number, episode in zip((0, 2), dataset.iterate_episodes(), strict=True):
        truth = [picture_of(number, step) for step in range(6)]
        np.testing.assert_array_equal(episode.observations["frame"], truth)
        wanted = actions_in(corpus, f"e{number}").argmax(axis=1)
        assert episode.actions.tolist() == wanted[:5].tolist()
        assert episode.rewards.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert (episode.truncations[-1], episode.terminations.any()) == (True, False)
        assert dataset.observation_space.contains(
            {"frame": episode.observations["frame"][0], "state": episode.observations["state"][0]}
        )
