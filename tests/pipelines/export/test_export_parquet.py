"""Export to Parquet: the real programs read the corpus' own numbers, with nothing from us."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from makers.corpora import TOKENIZER
from makers.exports import picture_corpus, picture_of

import wham_data
from wham_data.corpus.columns import dimension_columns
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.stats import with_hours
from wham_data.schemas.actions import ActionSpace, Dimension, load_space

EPISODES = {
    "e0": {"split": "train", "player": "ann", "match": "m", "license": "MIT", "game": "toy"},
    "e1": {"split": "val", "player": "bob", "map": "a map"},
    "e2": {"split": "train", "player": "ann", "n_steps": 9},
}
RICH = {"state_size": 3, "reward": True, "text": True, "tokenizer": TOKENIZER}
UNKNOWN = 2
"""The step of each episode whose action is not known."""
SPACES = ["wham16", "vpt", "csgo51", "discrete4"]


@pytest.fixture(params=SPACES)
def exported(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a corpus and its export."""
    corpus = picture_corpus(
        tmp_path / "corpus", request.param, EPISODES, unknown=(UNKNOWN,), **RICH
    )
    report = wham_data.export(corpus, to="parquet", out=tmp_path / "out")
    assert (report.written, report.steps, report.left_out_steps) == (3, 21, 0)
    return tmp_path


def steps_of(folder: Path, split: str | None = None) -> pl.DataFrame:
    """The corpus' own steps, in the order of the export."""
    steps = Corpus.open(folder / "corpus").scan().sort("split", "episode", "step").collect()
    return steps if split is None else steps.filter(split=split)


def space_of(folder: Path) -> ActionSpace:
    return Corpus.open(folder / "corpus").info.action_space


def same(found: Any, mine: pl.Series) -> bool:
    """Whether numbers of another program are these, and missing where these are null."""
    numbers = np.array([np.nan if each is None else each for each in found], np.float64)
    return np.array_equal(numbers, mine.cast(pl.Float64).fill_null(np.nan), equal_nan=True)


def test_polars_reads_the_same_steps_with_a_column_for_each_dimension(exported: Path) -> None:
    mine = steps_of(exported)

    found = pl.read_parquet(exported / "out/*/*.parquet").sort("split", "episode", "step")

    same_names = ["episode", "split", "step", "time_ns", "tokens", "actions", "state", "reward"]
    assert found.select(same_names).equals(mine.select(same_names))
    assert found["text"].equals(mine["text"])
    assert found["frame"].struct.field("bytes").equals(mine["frame"])
    assert found["action_known"].to_list() == mine["actions"].is_not_null().to_list()
    for number, name in enumerate(space_of(exported).names):
        assert found[name].equals(mine["actions"].list.get(number).alias(name)), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hugging_face_reads_splits_pictures_and_numbers_also_as_numpy(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset(str(exported / "out"), cache_dir=str(exported / "cache"))

    assert {name: len(rows) for name, rows in found.items()} == {"train": 15, "val": 6}
    assert isinstance(found["val"].features["frame"], datasets.Image)
    mine = steps_of(exported, "val")
    rows = found["val"].with_format("numpy")[:]
    assert rows["tokens"].tolist() == mine["tokens"].to_list()
    assert rows["state"].tolist() == mine["state"].to_list()
    assert rows["time_ns"].tolist() == mine["time_ns"].to_list()
    for number, name in enumerate(space_of(exported).names):
        assert same(rows[name], mine["actions"].list.get(number)), name
    for step, actions in enumerate(rows["actions"]):
        wanted = mine["actions"][step]
        assert actions is None if wanted is None else actions.tolist() == wanted.to_list()
        np.testing.assert_array_equal(rows["frame"][step], picture_of(1, step))


def test_duckdb_counts_as_the_corpus_does(exported: Path) -> None:
    mine, (first, *_, last) = steps_of(exported), space_of(exported).names
    corpus = Corpus.open(exported / "corpus")

    found = duckdb.sql(
        f'SELECT player, SUM(hours), AVG("{first}"), AVG("{last}"), SUM(tokens[1]), COUNT(*) '
        f"FROM '{exported}/out/*/*.parquet' GROUP BY player ORDER BY player"
    ).fetchall()

    hours = dict(with_hours(corpus).group_by("player").agg(pl.col("hours").sum()).iter_rows())
    players = mine.join(corpus.episodes.select("episode", "player"), on="episode")
    for player, sum_hours, mean_first, mean_last, tokens, steps in found:
        own = players.filter(player=player)
        assert sum_hours == pytest.approx(hours[player], rel=1e-12)
        assert mean_first == pytest.approx(own["actions"].list.get(0).mean(), rel=1e-6)
        assert mean_last == pytest.approx(own["actions"].list.get(-1).mean(), rel=1e-6)
        assert (tokens, steps) == (own["tokens"].list.get(0).sum(), len(own))


def test_pandas_reads_a_folder_as_a_split(exported: Path) -> None:
    mine = steps_of(exported, "train")

    found = pd.read_parquet(exported / "out/train")

    assert found["episode"].tolist() == mine["episode"].to_list()
    assert [each.tolist() for each in found["tokens"]] == mine["tokens"].to_list()
    for number, name in enumerate(space_of(exported).names):
        assert same(found[name], mine["actions"].list.get(number)), name
    assert found["frame"][0]["bytes"] == mine["frame"][0]
    assert found["frame"][0]["path"] == "e0/000000.png"


JAVASCRIPT = """
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
const file = await asyncBufferFromFile(process.argv[2])
const rows = await parquetReadObjects({ file, utf8: false })
const plain = (_, each) => typeof each === 'bigint' ? Number(each)
  : each instanceof Uint8Array ? Buffer.from(each).toString('hex') : each
console.log(JSON.stringify(rows, plain))
"""


def test_hyparquet_reads_the_same_rows_in_javascript(exported: Path, node_modules: Path) -> None:
    (exported / "node_modules").symlink_to(node_modules)
    (exported / "read.mjs").write_text(JAVASCRIPT)

    read = ["node", "read.mjs", "out/val/val-00000.parquet"]
    done = subprocess.run(read, cwd=exported, capture_output=True, text=True, check=True)

    mine = pl.read_parquet(exported / "out/val/val-00000.parquet")
    for row, wanted in zip(json.loads(done.stdout), mine.iter_rows(named=True), strict=True):
        wanted["frame"]["bytes"] = wanted["frame"]["bytes"].hex()
        assert row == wanted


@pytest.mark.parametrize(
    ("rate", "source_fps", "wanted"),
    [(Fraction(10), 60.0, 10.0), (Fraction(30000, 1001), 60.0, 30000 / 1001), ("native", 35.0, 35)],
)
def test_the_rate_is_that_of_the_steps(
    tmp_path: Path, rate: Fraction | str, source_fps: float, wanted: float
) -> None:
    episodes = {"e0": {"source_fps": source_fps}}
    picture_corpus(tmp_path / "corpus", "vector2", episodes, rate=rate, frames="none")

    wham_data.export(tmp_path / "corpus", to="parquet", out=tmp_path / "out")

    found = pl.read_parquet(tmp_path / "out/train/train-00000.parquet")
    assert found["rate"].to_list() == [wanted] * 6
    assert found["hours"].sum() == pytest.approx(6 / wanted / 3600)


def test_a_rate_that_is_not_known_is_null(tmp_path: Path) -> None:
    episodes = {"e0": {"source_fps": 0.0}}
    picture_corpus(tmp_path / "corpus", "vector2", episodes, rate="native", frames="none")

    wham_data.export(tmp_path / "corpus", to="parquet", out=tmp_path / "out")

    found = pl.read_parquet(tmp_path / "out/train/train-00000.parquet")
    assert found["rate"].to_list() == found["hours"].to_list() == [None] * 6


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("a", "x"), ("a", "x")),
        (("a", "A"), ("a", "action_A")),
        (("step", "action_step"), ("action_step", "action_action_step")),
        (("Reward", "map", "hotbar.1"), ("action_Reward", "action_map", "hotbar.1")),
    ],
)
def test_no_column_has_the_name_of_another_in_any_case(
    names: tuple[str, ...], columns: tuple[str, ...], tmp_path: Path
) -> None:
    space = ActionSpace("mine", tuple(Dimension(name, "button", 0, 1) for name in names))
    picture_corpus(tmp_path / "corpus", space, 1, frames="none")

    report = wham_data.export(tmp_path / "corpus", to="parquet", out=tmp_path / "out")

    found = pl.read_parquet(tmp_path / "out/train/train-00000.parquet")
    assert dimension_columns(space) == columns
    assert set(columns) <= set(found.columns)
    assert found["action_known"].all()
    renamed = [
        f"dimension {a} is column {b}" for a, b in zip(names, columns, strict=True) if a != b
    ]
    assert [note.partition(":")[0] for note in report.notes if "column" in note] == renamed
    for number, name in enumerate(columns):
        assert found[name].to_list() == found["actions"].list.get(number).to_list()


def test_the_largest_space_and_its_metadata_fit(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", "vector1024", 1, frames="none")

    wham_data.export(tmp_path / "corpus", to="parquet", out=tmp_path / "out")

    footer = pq.read_metadata(tmp_path / "out/train/train-00000.parquet")
    told = json.loads(footer.metadata[b"wham_data.export"])
    assert ActionSpace.from_dict(told["action_space"]) == load_space("vector1024")
    assert told["columns"] == list(load_space("vector1024").names)


def test_the_same_corpus_gives_the_same_bytes(exported: Path) -> None:
    wham_data.export(exported / "corpus", to="parquet", out=exported / "again")

    for path in sorted((exported / "out").rglob("*.parquet")):
        assert (
            path.read_bytes()
            == (exported / "again" / path.relative_to(exported / "out")).read_bytes()
        )


def test_the_card_names_the_splits_that_are_there_and_every_dimension(exported: Path) -> None:
    card = (exported / "out/README.md").read_text()

    assert "  - split: train\n    path: train/*.parquet\n  - split: val\n" in card
    assert "split: test" not in card
    assert "15 in `train`, 6 in `val`" in card
    assert all(f"\n| `{name}` |" in card for name in space_of(exported).names)
    assert "a grid of 2 rows and 3 columns" in card


def test_row_groups_hold_few_pictures(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", "vector2", 2, n_steps=150)

    wham_data.export(tmp_path / "corpus", to="parquet", out=tmp_path / "out")

    footer = pq.read_metadata(tmp_path / "out/train/train-00000.parquet")
    groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    assert groups == [200, 100]
