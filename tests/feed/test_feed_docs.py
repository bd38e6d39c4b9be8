"""docs/feeding.md is run as it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.corpora import TOKENIZER, recording_of, rows_for

from wham_data.corpus import Corpus, shard_id
from wham_data.schemas.actions import load_space
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.steps import EpisodeSteps

PAGE = Path(__file__).parents[2] / "docs/feeding.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def play(name: str, n_steps: int = 60) -> EpisodeSteps:
    """A picture that turns by one token a step, and a button pressed now and then."""
    turning = (np.arange(TOKENIZER.n_tokens) + np.arange(n_steps)[:, None]) % 16
    actions = np.zeros((n_steps, 16), np.float32)
    actions[::7, 3] = 1
    known = np.ones(n_steps, bool)
    times = np.arange(n_steps) * 100_000_000
    return EpisodeSteps(name, times, actions, known, turning.astype(np.uint16))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the corpora that the page speaks of."""
    info = CorpusInfo(action_space=load_space("wham16"), tokenizer=TOKENIZER, size=(30, 20))
    for location, names in (("corpus", ("ann-0", "bob-0")), ("other", ("cem-0",))):
        corpus = Corpus.create(tmp_path / location, info)
        recordings = {recording_of(name) for name in names}
        episodes = [play(name) for name in names]
        shard = corpus.write_shard(episodes, shard_id(recordings, info.settings_hash))
        rows = rows_for(shard, episodes, info)
        corpus.commit([replace(row, player=row.episode) for row in rows])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def run(blocks: list[str]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks:
        if "import datasets" in block:
            pytest.importorskip("datasets")
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def training() -> str:
    return next(block for block in BLOCKS if "optimizer.step()" in block)


@pytest.mark.usefixtures("here")
def test_every_block_of_the_page_runs() -> None:
    names = run(BLOCKS)

    assert names["batch"]["tokens"].shape[1:] == (4, TOKENIZER.n_tokens)
    assert names["resumed"].epoch == 0
    assert len(names["tokens"]) == TOKENIZER.n_tokens


@pytest.mark.usefixtures("here")
def test_the_training_loop_learns() -> None:
    losses = run([training()])["losses"]

    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.usefixtures("here")
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not() -> None:
    straight = run([training()])
    Path("checkpoint.pt").unlink()
    run([training().replace("BATCH, STEPS = 4, 8, 60", "BATCH, STEPS = 4, 8, 29")])

    resumed = run([training()])

    # It was stopped at 29, and the last checkpoint was at 20.
    assert len(resumed["losses"]) == 40
    assert resumed["losses"] == pytest.approx(straight["losses"][20:], rel=1e-4)
