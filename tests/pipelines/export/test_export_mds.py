"""Export to MDS: shards as MosaicML's streaming writes them, and its own package reads them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from makers.corpora import info, rows_for, steps
from makers.exports import picture_corpus, picture_of

import wham_data
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.pipelines.video import decode_image
from wham_data.pipelines.writers import mds

EPISODES = {"e0": {"split": "train"}, "e1": {"split": "val"}, "e2": {"split": "train"}}
RICH = {"state_size": 3, "reward": True, "text": True}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder with a corpus of three episodes, of each of which one action is not known."""
    corpus = picture_corpus(tmp_path / "corpus", "vpt", EPISODES, unknown=(2,), **RICH)
    report = wham_data.export(corpus, to="mds", out=tmp_path / "out")
    assert (report.written, report.steps, report.left_out_steps) == (3, 18, 0)
    return tmp_path


def rows_of(shard: Path, columns: dict[str, str]) -> list[dict[str, bytes]]:
    """The samples of a shard, each column as its bytes, read as the format is described."""
    data = shard.read_bytes()
    (count,) = np.frombuffer(data, "<u4", 1)
    starts = np.frombuffer(data, "<u4", int(count) + 1, 4)
    found = []
    for start, stop in pairwise(starts.tolist()):
        sample, row = data[start:stop], {}
        sizes = [mds._size_of(encoding) for encoding in columns.values()]
        free = np.frombuffer(sample, "<u4", sizes.count(None)).tolist()
        at = 4 * len(free)
        for name, size in zip(columns, sizes, strict=True):
            length = free.pop(0) if size is None else size
            row[name] = sample[at : at + length]
            at += length
        assert at == len(sample)
        found.append(row)
    return found


def test_the_index_of_each_split_names_its_shards(exported: Path) -> None:
    index = json.loads((exported / "out/train/index.json").read_text())

    (shard,) = index["shards"]
    path = exported / "out/train" / shard["raw_data"]["basename"]
    assert (index["version"], shard["format"], shard["samples"]) == (2, "mds", 12)
    assert shard["raw_data"]["bytes"] == path.stat().st_size
    assert (exported / "out/val/index.json").is_file()


def test_a_sample_is_a_step_bit_for_bit(exported: Path) -> None:
    (shard,) = json.loads((exported / "out/val/index.json").read_text())["shards"]
    columns = dict(zip(shard["column_names"], shard["column_encodings"], strict=True))

    rows = rows_of(exported / "out/val" / shard["raw_data"]["basename"], columns)

    wanted = Corpus.open(exported / "corpus").scan().collect().filter(episode="e1")
    assert len(rows) == 6
    for k, row in enumerate(rows):
        np.testing.assert_array_equal(decode_image(row["frame"]), picture_of(1, k))
        assert (row["episode"], row["text"]) == (b"e1", wanted["text"][k].encode())
        assert np.frombuffer(row["time_ns"], "<i8")[0] == wanted["time_ns"][k]
        assert np.frombuffer(row["state"], "<f4").tolist() == wanted["state"][k].to_list()
        actions = np.frombuffer(row["actions"], "<f4")
        assert row["action_known"] == (b"\0" if k == 2 else b"\1")
        assert np.isnan(actions).all() if k == 2 else actions.tolist() == [*wanted["actions"][k]]


def test_shards_end_where_they_would_grow_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes=2)
    monkeypatch.setattr(mds, "MOST_SAMPLES", 5)

    wham_data.export(corpus, to="mds", out=tmp_path / "out")

    shards = json.loads((tmp_path / "out/train/index.json").read_text())["shards"]
    assert [shard["samples"] for shard in shards] == [5, 5, 2]


def test_tokens_keep_their_grid(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    made = steps("a-0", 8)
    shard = corpus.write_shard([made], shard_id({"a"}, corpus.info.settings_hash))
    corpus.commit(rows_for(shard, [made], corpus.info))

    wham_data.export(corpus, to="mds", out=tmp_path / "out")

    (shard,) = json.loads((tmp_path / "out/train/index.json").read_text())["shards"]
    columns = dict(zip(shard["column_names"], shard["column_encodings"], strict=True))
    assert columns["tokens"] == "ndarray:uint16:2,3"
    assert "frame" not in columns
    rows = rows_of(tmp_path / "out/train" / shard["raw_data"]["basename"], columns)
    assert made.tokens is not None
    assert [np.frombuffer(row["tokens"], "<u2").tolist() for row in rows] == made.tokens.tolist()


def test_the_formats_own_library_reads_what_was_written(exported: Path) -> None:
    streaming = pytest.importorskip("streaming")
    dataset = streaming.StreamingDataset(
        local=str(exported / "out"), split="train", shuffle=False, batch_size=1
    )

    samples = [dataset[k] for k in range(len(dataset))]

    steps = Corpus.open(exported / "corpus").scan().collect()
    assert [(sample["episode"], sample["step"]) for sample in samples] == [
        (name, step) for name in ("e0", "e2") for step in range(6)
    ]
    for sample in samples:
        number, k = int(sample["episode"][1:]), int(sample["step"])
        row = steps.filter(episode=sample["episode"]).row(k, named=True)
        np.testing.assert_array_equal(np.asarray(sample["frame"]), picture_of(number, k))
        assert (sample["time_ns"], sample["reward"]) == (row["time_ns"], row["reward"])
        assert (sample["text"], sample["state"].tolist()) == (row["text"], row["state"])
        assert (sample["action_known"] == 1) == (k != 2)
        if k != 2:
            assert sample["actions"].tolist() == row["actions"]
