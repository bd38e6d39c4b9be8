"""Shards as they are, in other people's tools: each example of docs/feeding.md, run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from makers.corpora import small_corpus, steps

from wham_data.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("elsewhere") / "corpus")


@pytest.fixture
def ray() -> Iterator[None]:
    """A cluster of one core, behind a token of its own."""
    pytest.importorskip("pandas", reason="Ray Data needs it")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray")
def test_ray_data_reads_the_steps_as_tensors(corpus: Corpus) -> None:
    rows = corpus.to_ray("train").take_all()

    assert sorted((row["episode"], row["step"]) for row in rows) == [
        (name, step) for name in ("ann-0", "ann-1") for step in range(20)
    ]
    for row in rows:
        assert (row["tokens"] == steps(row["episode"]).tokens[row["step"]]).all()
        assert row["tokens"].dtype == np.uint16
        assert row["action_known"] == (row["step"] % 7 != 6)


def test_hugging_face_datasets_reads_the_shards(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    shards = [str(corpus.shard_path(name)) for name in corpus.episodes["shard"].unique()]

    data = datasets.load_dataset(
        "parquet", data_files=shards, split="train", cache_dir=str(tmp_path / "cache")
    )

    assert len(data) == 80
    row = data[0]
    tokens = np.frombuffer(row["tokens"], "<u2")
    assert (tokens == steps(row["episode"]).tokens[row["step"]]).all()


def test_polars_reads_the_steps_with_their_lists(corpus: Corpus) -> None:
    import polars as pl

    pressed = (
        corpus.scan()
        .filter(pl.col("split") == "train")
        .select(pl.col("actions").list.get(0).mean().alias("a"))
        .collect()
    )

    known = np.concatenate([steps(name).actions[:, 0] for name in ("ann-0", "ann-1")])
    assert pressed["a"][0] == pytest.approx(np.nanmean(known))


def test_plain_parquet_readers_read_the_shards(corpus: Corpus) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(corpus.shard_path(corpus.episodes["shard"][0]))

    actions = np.frombuffer(table.column("actions").combine_chunks().buffers()[1], "<f4")
    name = table.column("episode")[0].as_py()
    assert np.array_equal(actions.reshape(-1, 3)[:20], steps(name).actions, equal_nan=True)
