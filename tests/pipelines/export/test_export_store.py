"""Exports to an object store: the same bytes as in a folder, whatever stopped an earlier run."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from makers.exports import picture_corpus
from makers.object_stores import Bucket

import wham_data
from wham_data.schemas.errors import MismatchError, UsageError

EPISODES = {"a": {"split": "val"}, "b": {"license": "MIT"}, "c": {"n_steps": 9}}
FORMATS = ["parquet", "lerobot", "wham-npz", "diamond"]


def content(bucket: Bucket) -> dict[str, bytes]:
    """Every object of the export and its bytes."""
    return {name: bytes(obstore.get(bucket.raw, name).bytes()) for name in bucket.names()}


def files(folder: Path) -> dict[str, bytes]:
    """Every file of an export in a folder but its lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    picture_corpus(tmp_path / "corpus", "wham16", EPISODES, size=(300, 180))
    return tmp_path / "corpus"


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_holds_the_same_files_as_a_folder(
    bucket: Bucket, corpus: Path, tmp_path: Path, format: str
) -> None:
    here = wham_data.export(corpus, to=format, out=tmp_path / "out")
    there = wham_data.export(corpus, to=format, out=bucket.location)

    assert (there.written, there.steps, there.files, there.bytes) == (
        here.written,
        here.steps,
        here.files,
        here.bytes,
    )
    assert there.out == bucket.location
    assert content(bucket) == files(tmp_path / "out")


def test_a_second_run_writes_nothing_and_one_after_a_stop_the_rest(
    bucket: Bucket, corpus: Path
) -> None:
    wham_data.export(corpus, to="parquet", out=bucket.location)
    before = content(bucket)

    again = wham_data.export(corpus, to="parquet", out=bucket.location)
    assert (again.written, again.already_there, content(bucket)) == (0, 3, before)

    obstore.delete(bucket.raw, ".export/train-00000.json")  # stopped before its record
    obstore.put(bucket.raw, "train/train-00000.parquet", b"of another release")
    rest = wham_data.export(corpus, to="parquet", out=bucket.location)
    assert (rest.written, rest.already_there, content(bucket)) == (2, 1, before)


def test_episodes_are_added_where_the_format_can(bucket: Bucket, corpus: Path) -> None:
    wham_data.export(corpus, to="wham-npz", out=bucket.location, episodes=1)

    report = wham_data.export(corpus, to="wham-npz", out=bucket.location)

    assert (report.written, report.already_there) == (2, 1)
    assert {"val/a.npz", "train/b.npz", "train/c.npz"} <= set(bucket.names())


def test_another_choice_or_format_is_refused(bucket: Bucket, corpus: Path) -> None:
    wham_data.export(corpus, to="parquet", out=bucket.location, episodes=1)
    before = content(bucket)

    for format in ("parquet", "wham-npz"):
        with pytest.raises(MismatchError, match="holds an export with other settings"):
            wham_data.export(corpus, to=format, out=bucket.location)

    assert content(bucket) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train/train-00000.parquet", "holds train and no export"),
        ("README.md", r"holds README\.md and no export"),
    ],
)
def test_what_others_put_there_is_left_alone(
    bucket: Bucket, corpus: Path, name: str, message: str
) -> None:
    obstore.put(bucket.raw, name, b"theirs")

    for _ in range(2):
        with pytest.raises(UsageError, match=message):
            wham_data.export(corpus, to="parquet", out=bucket.location)

    assert content(bucket) == {name: b"theirs"}


def test_a_corpus_on_a_store_is_exported_beside_it_and_not_into_it(bucket: Bucket) -> None:
    picture_corpus(Path(f"{bucket.location}/corpus"), "vector2", 1, frames="none")
    corpus = f"{bucket.location}/corpus"

    for out in (corpus, f"{corpus}/", f"{corpus}/out", bucket.location):
        with pytest.raises(UsageError, match="this is the folder of the corpus"):
            wham_data.export(corpus, to="parquet", out=out)
    report = wham_data.export(corpus, to="parquet", out=f"{corpus}-out")

    assert report.written == 1
    assert "corpus-out/train/train-00000.parquet" in bucket.names()


def test_machines_of_a_cluster_need_a_folder_that_they_share(corpus: Path) -> None:
    with pytest.raises(UsageError, match="leave out --ray-address"):
        wham_data.export(corpus, to="parquet", out="s3://bucket/out", ray_address="10.0.0.1:6379")
