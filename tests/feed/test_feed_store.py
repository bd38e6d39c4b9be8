"""Windows of a corpus on an object store: the same batches, from a bounded cache of shards."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from makers.corpora import add_shard, info
from makers.fault_proxy import FaultProxy
from makers.object_stores import Bucket

from wham_data import WindowDataset
from wham_data.corpus import Corpus
from wham_data.schemas.errors import IntegrityError, UsageError

EIGHT = [f"play{number}-0" for number in range(8)]
SETTINGS: dict[str, Any] = {"length": 5, "batch_size": 8, "unknown_actions": "keep"}


def eight_shards(location: str | Path) -> Corpus:
    corpus = Corpus.create(location, info())
    corpus.commit([row for name in EIGHT for row in add_shard(corpus, name)])
    return corpus


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return eight_shards(tmp_path_factory.mktemp("here") / "corpus")


@pytest.fixture
def there(faulty: FaultProxy, bucket: Bucket, here: Corpus) -> Corpus:
    """The same corpus on a store; what is asked of it from now on is in `faulty.seen`."""
    corpus = Corpus.open(bucket.put(Path(here.location)))
    faulty.seen.clear()
    return corpus


def windows(dataset: WindowDataset) -> list[tuple[list[int], bytes]]:
    return [(batch["window"].tolist(), batch["tokens"].tobytes()) for batch in dataset]


def fetched(faulty: FaultProxy) -> int:
    return sum(method == "GET" and "/shards/" in path for method, path in faulty.seen)


def shard_bytes(corpus: Corpus) -> int:
    return max(each.n_bytes for each in corpus.storage.entries("shards"))


def test_the_batches_are_those_of_the_same_corpus_in_a_folder(
    here: Corpus, there: Corpus, faulty: FaultProxy
) -> None:
    far, near = WindowDataset(there, **SETTINGS), WindowDataset(here, **SETTINGS)
    assert windows(far) == windows(near)
    assert windows(far) == windows(near)  # the second epoch
    assert fetched(faulty) == len(EIGHT)


def test_a_forked_process_reads_though_its_parent_has_used_the_store(there: Corpus) -> None:
    dataset = WindowDataset(there, **SETTINGS)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(windows(dataset)), daemon=True)
    child.start()
    from_child = answers.get()
    child.join()
    assert from_child == windows(WindowDataset(there, **SETTINGS))


def test_a_small_cache_is_never_overfull_and_what_goes_is_fetched_again(
    here: Corpus, there: Corpus, tmp_path: Path
) -> None:
    room = 3 * shard_bytes(there)
    dataset = WindowDataset(
        there, **SETTINGS, shuffle=False, cache_dir=tmp_path / "small", cache_bytes=room
    )
    near = WindowDataset(here, **SETTINGS, shuffle=False)
    for _ in range(2):
        for far, close in zip(dataset, near, strict=True):
            assert np.array_equal(far["tokens"], close["tokens"])
            assert sum(map(size_of, (tmp_path / "small").iterdir())) <= room


def test_a_full_shuffle_that_does_not_fit_into_the_cache_is_refused_with_the_way_out(
    there: Corpus,
) -> None:
    with pytest.raises(
        UsageError, match=r"cache_bytes, or shuffle only neighbouring windows with pool=N"
    ):
        WindowDataset(there, **SETTINGS, cache_bytes=shard_bytes(there))
    assert len(windows(WindowDataset(there, **SETTINGS, pool=8, cache_bytes=shard_bytes(there))))


def damage(bucket: Bucket, corpus: Corpus) -> tuple[str, str]:
    """One shard goes, one changes; their names."""
    gone, changed = sorted(set(corpus.episodes["shard"]))[2:4]
    obstore.delete(bucket.raw, f"shards/{gone}")
    body = bytearray(obstore.get(bucket.raw, f"shards/{changed}").bytes())
    body[500] ^= 1
    obstore.put(bucket.raw, f"shards/{changed}", bytes(body))
    return gone, changed


def test_a_bad_shard_is_an_error_that_names_it(bucket: Bucket, there: Corpus) -> None:
    gone, _ = damage(bucket, there)
    with pytest.raises(IntegrityError, match=f"{bucket.location}/shards/{gone}: is missing"):
        windows(WindowDataset(there, **SETTINGS, shuffle=False))


def test_bad_shards_are_skipped_and_counted_where_that_is_asked_for(
    bucket: Bucket, here: Corpus, there: Corpus
) -> None:
    whole = WindowDataset(here, **SETTINGS)
    names = damage(bucket, there)
    dataset = WindowDataset(there, **SETTINGS, on_bad_shard="skip")
    with pytest.warns(UserWarning, match="its windows are skipped"):
        left = [number for numbers, _ in windows(dataset) for number in numbers]
    bad = {
        n for n in range(len(whole.windows)) if whole.windows.locate(np.array([n]))[0][0] in (2, 3)
    }
    assert set(left) == set(range(len(whole.windows))) - bad
    assert set(dataset.windows.bad_shards) == {f"{bucket.location}/shards/{n}" for n in names}
    with pytest.raises(IntegrityError, match="is missing"):
        dataset.windows[min(bad)]


@pytest.mark.parametrize("batch_size", [8, None])
def test_bad_shards_are_skipped_in_a_folder_too(tmp_path: Path, batch_size: int | None) -> None:
    corpus = eight_shards(tmp_path / "corpus")
    whole = WindowDataset(corpus, length=5, batch_size=batch_size, unknown_actions="keep")
    n_windows = len(whole.windows)
    corpus.shard_path(corpus.episodes["shard"][0]).unlink()
    dataset = WindowDataset(
        corpus, length=5, batch_size=batch_size, unknown_actions="keep", on_bad_shard="skip"
    )
    with pytest.warns(UserWarning, match="the shard is missing"):
        batches = list(dataset)
    assert sum(np.size(batch["window"]) for batch in batches) == n_windows * 7 // 8
    assert len(dataset.windows.bad_shards) == 1
    assert dataset.epoch == 1


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if the thread that reads ahead has just removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
