"""The snippets of docs/corpus.md for other programs give the corpus' own numbers."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from makers.exports import picture_corpus
from typer.testing import CliRunner

from wham_data.cli.main import app
from wham_data.corpus import Corpus
from wham_data.corpus.stats import corpus_stats
from wham_data.schemas.actions import load_space
from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.manifest import EpisodeRow

ROOT = Path(__file__).parents[2]
GRID = (18, 30)
EPISODES = {
    "e0": {"player": "ann"},
    "e1": {"player": "bob", "split": "val", "n_steps": 9},
    "e9": {"player": "ann", "n_steps": 50},
    "e2": {"player": "ann", "n_steps": 4},
}
NOT_NAMED = "e9"


def section(language: str) -> str:
    """The blocks of one language in the section about other programs."""
    page = (ROOT / "docs/corpus.md").read_text()
    text = page.partition("\n## Other programs\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A corpus of three episodes. Its shard also has a fourth one, which the manifest does not name."""
    monkeypatch.chdir(tmp_path)
    tokenizer = TokenizerInfo("tiny", "f", grid=GRID, vocab_size=4096, frame_size=(300, 180))
    whole = picture_corpus(
        Path("whole"), "xinput", EPISODES, unknown=(2,), tokenizer=tokenizer, frames="none"
    )
    corpus = Corpus.create("corpus", whole.info)
    shard = corpus.write_shard(map(whole.read_episode, EPISODES), "0" * 24)
    rows = whole.episodes.filter(pl.col("episode") != NOT_NAMED).drop("created").rows(named=True)
    places = {each.episode: each.start for each in shard.episodes}
    corpus.commit(
        [
            replace(
                EpisodeRow.from_record(row),
                shard=shard.name,
                shard_sha256=shard.sha256,
                row_start=places[row["episode"]],
            )
            for row in rows
        ]
    )
    return corpus


def hours_of(corpus: Corpus) -> dict[str, Any]:
    amounts = corpus_stats(corpus).by["player"]
    return {each.name: pytest.approx(each.hours, rel=1e-9) for each in amounts}


def share_of(corpus: Corpus, player: str | None = None) -> Any:
    """The share of the steps with a known action in which A is down."""
    names = load_space("xinput").names
    steps = corpus.scan().collect().join(corpus.episodes.select("episode", "player"), on="episode")
    chosen = steps.filter(player=player) if player else steps
    return pytest.approx(chosen["actions"].list.get(names.index("a")).mean(), rel=1e-6)


def tokens_of(corpus: Corpus) -> np.ndarray[Any, Any]:
    tokens = corpus.read_episode("e0").tokens
    assert tokens is not None
    return tokens.reshape(-1, *GRID)


def test_python_programs_get_hours_share_and_tokens(corpus: Corpus) -> None:
    found: dict[str, Any] = {}

    exec(section("python"), found)

    assert dict(found["hours"].rows()) == hours_of(corpus)
    assert found["pandas_hours"].to_dict() == hours_of(corpus)
    assert found["share"] == share_of(corpus)
    for player, hours, share in found["hours_and_share"]:
        assert (hours, share) == (hours_of(corpus)[player], share_of(corpus, player))
    for tokens in ("tokens", "pandas_tokens", "hugging_face_tokens"):
        np.testing.assert_array_equal(found[tokens], tokens_of(corpus))
    known = corpus.read_episode("e0").actions
    a = load_space("xinput").names.index("a")
    assert found["pandas_share"] == pytest.approx(np.nanmean(known[:, a]), rel=1e-6)


def test_datasets_cuts_the_bytes_of_shards_as_numpy_and_says_nothing(tmp_path: Path) -> None:
    """If this fails, datasets has mended it, and the warning in docs/corpus.md can go."""
    import datasets

    corpus = picture_corpus(tmp_path / "corpus", "discrete4", 1, frames="none")
    path = str(corpus.shard_path(corpus.episodes["shard"][0]))
    cache = str(tmp_path / "cache")
    data = datasets.load_dataset("parquet", data_files=[path], split="train", cache_dir=cache)

    whole = {len(row["actions"]) for row in data}
    cut = {len(each) for each in data.with_format("numpy")[:]["actions"]}

    assert whole == {16}
    assert min(cut) < 16


def test_javascript_gets_hours_share_and_tokens(corpus: Corpus, node_modules: Path) -> None:
    sql = "SELECT episode, shard, player, hours FROM episodes ORDER BY episode"
    done = CliRunner().invoke(app, ["query", "corpus", sql, "--json"])
    Path("episodes.json").write_text(done.stdout)
    Path("node_modules").symlink_to(node_modules)
    printed = "console.log(JSON.stringify({ hours, share, tokens: tokens.map(each => [...each]) }))"
    Path("block.mjs").write_text(section("javascript") + printed)

    run = subprocess.run(["node", "block.mjs"], capture_output=True, text=True, check=True)

    found = json.loads(run.stdout)
    assert found["hours"] == hours_of(corpus)
    known = pl.Series(corpus.read_episode("e0").actions[:, load_space("xinput").names.index("a")])
    assert found["share"] == pytest.approx(known.fill_nan(None).mean(), rel=1e-6)
    np.testing.assert_array_equal(np.reshape(found["tokens"], (-1, *GRID)), tokens_of(corpus))
