"""A corpus on an object store keeps what a corpus in a folder keeps, through whatever goes wrong."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import obstore
import pytest
from makers.corpora import add_shard, info, small_corpus
from makers.fault_proxy import Fault, FaultProxy
from makers.object_stores import Bucket

from wham_data.corpus import Corpus
from wham_data.corpus.compact import compact, compact_to
from wham_data.corpus.query import query
from wham_data.corpus.stats import summarize
from wham_data.corpus.storage.locations import open_storage
from wham_data.corpus.storage.object_store import ObjectStorage
from wham_data.corpus.vacuum import vacuum
from wham_data.schemas.errors import IntegrityError, UsageError, WhamDataError


def storage_of(bucket: Bucket) -> ObjectStorage:
    storage = open_storage(bucket.location)
    assert isinstance(storage, ObjectStorage)
    return storage


# --- what lies there --------------------------------------------------------------------------


def test_a_corpus_on_a_store_holds_what_the_same_one_in_a_folder_holds(
    bucket: Bucket, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = small_corpus(tmp_path_factory.mktemp("here") / "corpus")
    there = small_corpus(bucket.location)
    assert there.location == bucket.location
    again = Corpus.open(bucket.location)
    assert again.episodes.drop("created").equals(here.episodes.drop("created"))
    assert again.scan().collect().equals(here.scan().collect())
    assert again.verify().ok
    assert again.verify().n_bytes == summarize(again).n_bytes == here.verify().n_bytes
    assert Corpus.open(bucket.location, version=1).n_episodes == 2


def test_a_location_that_went_through_pathlib_is_understood() -> None:
    assert open_storage("s3:/bucket/corpus").location == "s3://bucket/corpus"
    assert open_storage("s3://bucket/corpus/").location == "s3://bucket/corpus"
    assert open_storage("gs://bucket").location == "gs://bucket"


@pytest.mark.parametrize(
    "location", ["s3://", "s3://bucket//x", "s3://bucket/../x", "ftp://host/x"]
)
def test_a_location_that_makes_no_sense_is_refused(location: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        open_storage(location)


def test_small_shards_are_merged_where_they_are_and_to_other_places(bucket: Bucket) -> None:
    corpus = small_corpus(bucket.location)
    steps = corpus.scan().sort("episode", "step").collect()
    report = compact_to(corpus, f"{bucket.location}/cold", "cold")
    assert (report.shards_before, report.shards_after) == (2, 1)
    assert (
        Corpus.open(f"{bucket.location}/cold")
        .scan()
        .sort("episode", "step")
        .collect()
        .equals(steps)
    )
    assert compact(corpus).shards_after == 1
    again = Corpus.open(bucket.location)
    assert again.verify().ok
    assert again.scan().sort("episode", "step").collect().equals(steps)


def test_a_query_reads_a_corpus_where_it_is(bucket: Bucket) -> None:
    corpus = small_corpus(bucket.location)
    sums = query(corpus, "SELECT SUM(tokens[1]) FROM steps WHERE split = 'val'").collect().item()
    rows = corpus.scan().filter(split="val").collect()
    assert sums == rows["tokens"].list.get(0).cast(int).sum()


def test_a_long_history_is_read_from_its_last_checkpoint(bucket: Bucket) -> None:
    corpus = small_corpus(bucket.location)
    corpus._episodes.checkpoint(corpus.version)
    corpus.commit(add_shard(corpus, "dan-0"))
    obstore.delete(bucket.raw, "episodes/_delta_log/00000000000000000000.json")
    assert Corpus.open(bucket.location).n_episodes == 5


def test_no_corpus_no_version_and_no_bucket_are_told_apart(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="no corpus here"):
        Corpus.open(bucket.location)
    small_corpus(bucket.location)
    with pytest.raises(UsageError, match="there is no version 9; versions 0 to 2"):
        Corpus.open(bucket.location, version=9)
    with pytest.raises(WhamDataError, match="there is no bucket 'nowhere-at-all'"):
        Corpus.open("s3://nowhere-at-all/corpus")


def test_a_shard_that_is_gone_or_changed_is_named(bucket: Bucket) -> None:
    corpus = small_corpus(bucket.location)
    gone, changed = sorted(set(corpus.episodes["shard"]))
    obstore.delete(bucket.raw, f"shards/{gone}")
    body = bytearray(obstore.get(bucket.raw, f"shards/{changed}").bytes())
    body[200] ^= 1
    obstore.put(bucket.raw, f"shards/{changed}", bytes(body))
    with pytest.raises(IntegrityError, match=f"{bucket.location}/shards/{gone}: is missing"):
        corpus.open_shard(gone)
    with pytest.raises(IntegrityError, match=f"shards/{changed}: corrupt: its sha256 is"):
        corpus.open_shard(changed)
    problems = "\n".join(corpus.verify().problems)
    assert gone in problems
    assert f"shards/{changed}: corrupt: sha256 is" in problems


def test_what_was_put_anew_is_not_discarded_and_the_rest_is(bucket: Bucket) -> None:
    storage = storage_of(bucket)
    assert storage.put_if_absent("shards/a", b"a")
    (entry,) = storage.entries("shards")
    seen_earlier = replace(entry, modified_ns=entry.modified_ns - 5 * 10**9)
    assert not storage.discard("shards", seen_earlier)
    assert storage.renew("shards/a")
    (entry,) = storage.entries("shards")
    assert storage.discard("shards", entry)
    assert bucket.names() == []
    assert not storage.renew("shards/a")


def test_a_vacuum_removes_what_no_version_names(bucket: Bucket) -> None:
    corpus = small_corpus(bucket.location)
    kept = bucket.names("shards")
    add_shard(corpus, "orphan-0")
    assert len(bucket.names("shards")) == len(kept) + 1
    time.sleep(1.1)  # the times of a store are whole seconds
    vacuum(corpus, older_than_seconds=0)
    assert bucket.names("shards") == kept
    assert Corpus.open(bucket.location).verify().ok


# --- one winner -------------------------------------------------------------------------------


def test_of_racing_writers_one_makes_the_name_and_the_others_know(bucket: Bucket) -> None:
    storage = storage_of(bucket)
    contents = [f"writer {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for race in range(5):
            made = list(pool.map(lambda c: storage.put_if_absent(f"a/{race}", c), contents))  # noqa: B023
            assert made.count(True) == 1
            assert storage.read(f"a/{race}") == contents[made.index(True)]
    assert storage.list("a") == [str(race) for race in range(5)]


def test_writers_that_race_all_land_and_nothing_is_in_twice(bucket: Bucket) -> None:
    Corpus.create(bucket.location, info())

    def write(number: int) -> None:
        corpus = Corpus.open(bucket.location)
        for name in (f"own{number}-0", "same-0"):
            corpus.commit(add_shard(corpus, name))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(write, range(5)))
    corpus = Corpus.open(bucket.location)
    assert list(corpus.episodes["episode"]) == [
        *(f"own{number}-0" for number in range(5)),
        "same-0",
    ]
    assert corpus.verify().ok


# --- bad moments ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "500 after", "503", "409", "refused", "lost", "slow"])
def test_a_put_that_met_trouble_is_known_to_be_ours(
    faulty: FaultProxy, bucket: Bucket, kind: str
) -> None:
    storage = storage_of(bucket)
    faulty.faults = [Fault(kind, times=2, method="PUT")]
    assert storage.put_if_absent("name", b"ours")
    assert storage.read("name") == b"ours"
    faulty.faults = [Fault(kind, times=2, method="PUT")]
    assert not storage.put_if_absent("name", b"theirs")
    assert storage.read("name") == b"ours"


@pytest.mark.parametrize("kind", ["500", "refused", "lost", "cut", "slow"])
def test_reading_goes_on_after_trouble(faulty: FaultProxy, bucket: Bucket, kind: str) -> None:
    small_corpus(bucket.location)
    faulty.faults = [Fault(kind, times=6, method="GET")]
    assert Corpus.open(bucket.location).verify().ok


def test_a_corpus_written_through_a_store_that_fails_a_quarter_of_the_time_is_whole(
    faulty: FaultProxy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHAM_DATA_STORE_TIMEOUT", "60")
    faulty.share, faulty.seed = 0.25, 7
    corpus = small_corpus(bucket.location)
    for number in range(4):
        corpus.commit(add_shard(corpus, f"dan{number}-0"))
    faulty.share = 0
    assert faulty.injected > 10
    assert Corpus.open(bucket.location).n_episodes == 8
    assert corpus.verify().ok


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("403", r"access denied \(.*AccessDenied\): the credentials are missing, expired"),
        ("expired", r"access denied \(.*ExpiredToken\)"),
        ("no bucket", "there is no bucket"),
    ],
)
def test_what_will_not_get_better_is_told_at_once(
    faulty: FaultProxy, bucket: Bucket, kind: str, told: str
) -> None:
    corpus = small_corpus(bucket.location)
    faulty.faults = [Fault(kind, times=1000)]
    before = len(faulty.seen)
    with pytest.raises(WhamDataError, match=told) as caught:
        corpus.commit(add_shard(corpus, "dan-0"))
    assert "\n" not in str(caught.value)
    assert len(faulty.seen) - before <= 2
    faulty.faults = []
    assert Corpus.open(bucket.location).n_episodes == 4


def test_a_store_that_stays_away_is_given_up_with_its_name_and_cause(
    faulty: FaultProxy, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = small_corpus(bucket.location)
    monkeypatch.setenv("WHAM_DATA_STORE_TIMEOUT", "1")
    faulty.faults = [Fault("500", times=1000)]
    began = time.monotonic()
    with pytest.raises(WhamDataError, match=rf"^{bucket.location}/.*: the store failed .*500"):
        corpus.refresh()
    assert time.monotonic() - began < 10


# --- stores that must not be trusted ------------------------------------------------------------


def test_a_store_that_ignores_conditions_is_refused_before_anything_is_written(
    faulty: FaultProxy, bucket: Bucket
) -> None:
    faulty.faults = [Fault("unconditional", times=1000, method="PUT")]
    with pytest.raises(UsageError, match="ignores conditional puts"):
        Corpus.create(bucket.location, info())
    assert bucket.names() == []


def test_a_store_that_changes_what_is_put_is_refused(faulty: FaultProxy, bucket: Bucket) -> None:
    faulty.faults = [Fault("flip", times=1000, method="PUT")]
    with pytest.raises(UsageError, match="returned other bytes"):
        Corpus.create(bucket.location, info())
    assert bucket.names() == []


def test_a_shard_that_arrives_damaged_is_found_and_removed(
    faulty: FaultProxy, bucket: Bucket
) -> None:
    corpus = small_corpus(bucket.location)
    before = bucket.names("shards")
    faulty.faults = [Fault("flip", method="PUT", part="/shards/")]
    with pytest.raises(IntegrityError, match="the store returned other bytes"):
        add_shard(corpus, "dan-0")
    assert bucket.names("shards") == before
    corpus.commit(add_shard(corpus, "dan-0"))
    assert corpus.verify().ok
