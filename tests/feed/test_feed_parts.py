"""A shard on a store of which few rows are read is downloaded in parts, and these are checked."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.corpora import add_shard, info
from makers.fault_proxy import Fault, FaultProxy
from makers.object_stores import Bucket
from test_feed_store import size_of, windows

from wham_data import WindowDataset
from wham_data.corpus import Corpus
from wham_data.corpus.shards import ROWS_PER_GROUP
from wham_data.feed.shard_parts import (
    FOOTER_BYTES,
    GAP,
    REQUEST_BYTES,
    SMALL,
    bytes_of_parts,
)
from wham_data.feed.windows import Windows
from wham_data.schemas.errors import IntegrityError, UsageError

STEPS = 400_000
FIRST = 1_000
"""First step of the second episode that is used."""
SETTINGS: dict[str, Any] = {
    "length": 5,
    "batch_size": 256,
    "unknown_actions": "keep",
    "split": "val",
}
MATRICES = {"tokens": 12, "actions": 12}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """One shard with a long episode in train, and a part of a second one in val, in two row groups."""
    corpus = Corpus.create(tmp_path_factory.mktemp("here") / "corpus", info())
    ann, bob = add_shard(corpus, "ann-0", "bob-0", n_steps=STEPS // 2)
    corpus.commit([ann, replace(bob, split="val", keep=((FIRST, FIRST + 4_200),))])
    return corpus


@pytest.fixture
def there(faulty: FaultProxy, bucket: Bucket, here: Corpus) -> Corpus:
    corpus = Corpus.open(bucket.put(Path(here.location)))
    faulty.seen.clear()
    return corpus


def cached(folder: Path) -> int:
    return sum(map(size_of, folder.iterdir()))


def shard_size(corpus: Corpus) -> int:
    return sum(each.n_bytes for each in corpus.storage.entries("shards"))


def test_only_the_parts_that_are_read_are_downloaded_and_the_batches_are_the_same(
    here: Corpus, there: Corpus, tmp_path: Path
) -> None:
    near, far = (
        WindowDataset(each, **SETTINGS, cache_dir=tmp_path / "cache") for each in (here, there)
    )
    assert windows(far) == windows(near)
    groups = 2
    assert 0 < cached(tmp_path / "cache") < shard_size(there) // SMALL
    matrices = groups * ROWS_PER_GROUP * sum(MATRICES.values())
    assert cached(tmp_path / "cache") < matrices + FOOTER_BYTES + GAP + 1_000


def test_columns_far_from_each_other_are_downloaded_without_those_in_between(
    here: Corpus, there: Corpus, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "fields": ("step", "actions")}
    near = WindowDataset(here, **settings)
    far = WindowDataset(there, **settings, cache_dir=tmp_path / "cache")
    for a, b in zip(far, near, strict=True):
        assert np.array_equal(a["step"], b["step"])
        assert np.array_equal(a["actions"], b["actions"], equal_nan=True)
    assert cached(tmp_path / "cache") < shard_size(there) // SMALL


def test_a_shard_of_which_much_is_read_is_downloaded_whole_and_compared(
    there: Corpus, tmp_path: Path
) -> None:
    for settings in ({"split": None}, {"check_shards": True}):
        folder = tmp_path / str(settings)
        data = WindowDataset(there, **{**SETTINGS, **settings}, cache_dir=folder)
        next(iter(data))
        assert cached(folder) >= shard_size(there)


def test_a_whole_copy_in_the_cache_is_used(
    here: Corpus, there: Corpus, faulty: FaultProxy, tmp_path: Path
) -> None:
    whole = WindowDataset(there, **{**SETTINGS, "split": "train"}, cache_dir=tmp_path / "cache")
    next(iter(whole))
    before = len(faulty.seen)
    part = WindowDataset(there, **SETTINGS, cache_dir=tmp_path / "cache")
    assert windows(part) == windows(WindowDataset(here, **SETTINGS))
    assert not any("/shards/" in path for _, path in faulty.seen[before:])


def test_a_full_shuffle_fits_if_the_parts_fit(there: Corpus, tmp_path: Path) -> None:
    room = shard_size(there) // 2
    data = WindowDataset(there, **SETTINGS, cache_dir=tmp_path / "cache", cache_bytes=room)
    assert len(windows(data)) > 10
    assert cached(tmp_path / "cache") <= room
    with pytest.raises(UsageError, match="cache_bytes"):
        WindowDataset(there, **{**SETTINGS, "split": None}, cache_bytes=room)


def change(bucket: Bucket, corpus: Corpus, byte: int) -> None:
    (name,) = set(corpus.episodes["shard"])
    body = bytearray(obstore.get(bucket.raw, f"shards/{name}").bytes())
    body[byte] ^= 1
    obstore.put(bucket.raw, f"shards/{name}", bytes(body))


@pytest.mark.parametrize("column", list(MATRICES))
def test_a_changed_bit_in_a_part_is_found_and_not_remembered(
    bucket: Bucket, here: Corpus, there: Corpus, tmp_path: Path, column: str
) -> None:
    view = here.open_shard(here.episodes["shard"][0])
    group = (STEPS // 2 + FIRST) // ROWS_PER_GROUP
    byte = int(view.matrix_offsets(column)[group]) + 777
    change(bucket, there, byte)
    settings = {**SETTINGS, "cache_dir": tmp_path / "cache"}
    expected = f"row group {group}: {column} is corrupt: its page has the checksum"
    with pytest.raises(IntegrityError, match=expected):
        windows(WindowDataset(there, **settings))
    skipping = WindowDataset(there, **settings, on_bad_shard="skip")
    with pytest.warns(UserWarning, match="its windows are skipped"):
        assert windows(skipping) == []
    assert len(skipping.windows.bad_shards) == 1
    change(bucket, there, byte)
    assert windows(WindowDataset(there, **settings)) == windows(WindowDataset(here, **SETTINGS))


def test_a_copy_that_was_changed_in_the_cache_is_fetched_again(
    there: Corpus, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "cache_dir": tmp_path / "cache"}
    expected = windows(WindowDataset(there, **settings))
    parts = sorted((tmp_path / "cache").glob("*-*-*"), key=size_of)
    body = bytearray(parts[-1].read_bytes())
    body[1_000] ^= 1
    parts[-1].write_bytes(body)
    body[1_000] ^= 1
    assert windows(WindowDataset(there, **settings)) == expected
    assert parts[-1].read_bytes() == bytes(body)


@pytest.mark.parametrize("from_end", [1, 6, 300, 3_000])
def test_a_changed_footer_gives_an_error_or_the_same_windows(
    bucket: Bucket, here: Corpus, there: Corpus, tmp_path: Path, from_end: int
) -> None:
    change(bucket, there, -from_end)
    data = WindowDataset(there, **SETTINGS, cache_dir=tmp_path / "cache")
    try:
        found = windows(data)
    except IntegrityError:
        return
    assert found == windows(WindowDataset(here, **SETTINGS))


def test_a_missing_shard_is_an_error_that_names_it(bucket: Bucket, there: Corpus) -> None:
    data = WindowDataset(there, **SETTINGS)
    (name,) = set(there.episodes["shard"])
    obstore.delete(bucket.raw, f"shards/{name}")
    with pytest.raises(IntegrityError, match=f"{bucket.location}/shards/{name}: is missing"):
        windows(data)


def test_answers_that_are_cut_are_asked_for_again(
    here: Corpus, there: Corpus, faulty: FaultProxy
) -> None:
    faulty.faults = [Fault("cut", times=2, method="GET", part="/shards/")]
    assert windows(WindowDataset(there, **SETTINGS)) == windows(WindowDataset(here, **SETTINGS))


def test_a_pickled_dataset_and_a_forked_process_download_parts_too(
    here: Corpus, there: Corpus, tmp_path: Path
) -> None:
    data = WindowDataset(there, **SETTINGS, cache_dir=tmp_path / "cache")
    expected = windows(WindowDataset(here, **SETTINGS))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(windows(data)), daemon=True)
    child.start()
    assert answers.get() == expected
    child.join()
    assert cached(tmp_path / "cache") < shard_size(there) // SMALL
    assert windows(pickle.loads(pickle.dumps(data))) == expected


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900), st.integers(1, 40)), min_size=1),
    st.integers(1, 7),
)
def test_the_bytes_of_parts_are_those_of_the_row_groups_with_windows(
    runs: list[tuple[int, int, int]], rows: int
) -> None:
    runs = sorted(runs)
    shard, first, counts = (np.array(column) for column in zip(*runs, strict=True))
    found = Windows(shard.astype(np.int32), first, np.cumsum(counts), 1)
    group_rows = np.array([100, 100, 64, 1_000])
    groups = {(s, row // group_rows[s]) for s, f, n in runs for row in range(f, f + n - 1 + rows)}
    of_shard = np.bincount([s for s, _ in groups], minlength=4)
    sizes = np.array([10**9, 2 * 10**7, 10**7, 10**9])
    parts = of_shard * group_rows * 24 + FOOTER_BYTES
    small = SMALL * (parts + (of_shard + 1) * REQUEST_BYTES) <= sizes
    expected = np.where(small & (of_shard > 0), parts, 0)
    assert np.array_equal(bytes_of_parts(found, rows, 24, group_rows, sizes), expected)
