"""`wham-data filter`: what it says, what it changes, and that it can be undone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.commands import Run
from makers.corpora import PAD, info, rows_for

from wham_data.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.schemas.clock import Grid
from wham_data.schemas.steps import EpisodeSteps


@pytest.fixture
def rested(tmp_path: Path) -> str:
    """A minute of play without pictures: for twenty seconds of it nobody touches the pad."""
    about = info(tokenizer=None)
    actions = np.zeros((600, PAD.size), np.float32)
    actions[:, 0] = np.arange(600) % 2
    actions[200:400] = 0
    corpus = Corpus.create(tmp_path / "corpus", about)
    steps = EpisodeSteps(
        "ann-0", Grid(0, 600, about.rate).edges_ns()[:-1], actions, ~np.isnan(actions[:, 0])
    )
    shard = corpus.write_shard([steps], shard_id({"a"}, about.settings_hash))
    corpus.commit(rows_for(shard, [steps], about))
    return corpus.location


def test_nothing_changes_without_apply(rested: str, cli: Run) -> None:
    told = cli("filter", rested)

    assert told.returncode == 0
    assert "idle          0.006 h  left out" in told.stdout
    assert "menu          0.017 h  not judged, so kept" in told.stdout
    assert "nothing was changed" in told.stdout
    assert Corpus.open(rested).version == 1


def test_what_is_left_out_is_counted_and_comes_back(rested: str, cli: Run) -> None:
    applied = json.loads(cli("filter", rested, "--apply", "--json").stdout)
    stats = cli("stats", rested).stdout

    assert applied["episodes"][0]["parts"] == [[200, 401, "idle"]]
    assert next(iter(Corpus.open(rested).episodes["keep"])).to_list() == [
        {"start": 0, "end": 200},
        {"start": 401, "end": 600},
    ]
    assert "0.02 h, of which 0.01 h play: 0.01 idle" in stats
    assert "not judged: black in 0.02 h" in stats

    assert cli("filter", rested, "--undo").returncode == 0
    assert len(next(iter(Corpus.open(rested).episodes["keep"]))) == 1
    assert "of which" not in cli("stats", rested).stdout


def test_rules_of_ones_own_start_from_the_bundled_ones(
    rested: str, cli: Run, tmp_path: Path
) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text(cli("filter", rested, "--print-rules").stdout)
    same = cli("filter", rested, "--rules", str(rules))
    rules.write_text("[idle]\nlonger_than_s = 30\n")

    assert "idle" in same.stdout
    assert "left out" not in cli("filter", rested, "--rules", str(rules)).stdout


def test_wrong_rules_are_one_line(rested: str, cli: Run, tmp_path: Path) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text("[idel]\n")

    refused = cli("filter", rested, "--rules", str(rules))

    assert refused.returncode == 2
    assert "did you mean idle?" in refused.stderr
