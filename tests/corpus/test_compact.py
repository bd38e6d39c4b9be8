"""Compaction changes where steps lie, never what they are, and disturbs nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.corpora import add_shard, info, recording_of, small_corpus

from wham_data.corpus.compact import compact, compact_to, merge_small_shards, relocate
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.runs import record_run
from wham_data.corpus.shards import ShardFile
from wham_data.schemas.errors import IntegrityError, MismatchError, Reason, UsageError
from wham_data.schemas.manifest import QuarantineRow


def many_shards(location: Path) -> Corpus:
    corpus = small_corpus(location)
    for name in ("dan", "eve", "fay"):
        corpus.commit(add_shard(corpus, f"{name}-0", n_steps=300, player=name))
    return corpus


def steps_of(corpus: Corpus) -> object:
    return corpus.scan().collect().sort("episode", "step").to_dicts()


def test_small_shards_become_one_with_the_same_steps(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    before, manifest = steps_of(corpus), corpus.episodes.drop("shard", "shard_sha256", "row_start")
    report = compact(corpus)
    assert (report.shards_before, report.shards_after, report.episodes) == (5, 1, 7)
    again = Corpus.open(tmp_path / "c")
    assert steps_of(again) == before
    assert again.episodes.drop("shard", "shard_sha256", "row_start").equals(manifest)
    assert again.verify().problems == ()
    assert report.version == again.version == 6


def test_compacting_again_finds_nothing_to_do(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    compact(corpus)
    report = compact(corpus)
    assert (report.shards_before, report.shards_after, report.episodes, report.version) == (
        1,
        1,
        0,
        6,
    )


def test_shards_are_filled_up_to_the_target_and_large_ones_left_alone(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    sizes = {p.name: p.stat().st_size for p in Path(corpus.location, "shards").iterdir()}
    large = [name for name, size in sizes.items() if size > 10_000]
    report = compact(corpus, target_bytes=20_000)
    assert report.shards_after == len(large) + 1
    assert set(large) < set(corpus.episodes["shard"])


def test_older_versions_stay_readable(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    before = steps_of(corpus)
    compact(corpus)
    old = Corpus.open(tmp_path / "c", 5)
    assert steps_of(old) == before
    assert old.verify().problems == ()


def test_what_is_committed_while_shards_are_merged_is_not_lost(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    runner = Corpus.open(tmp_path / "c")
    rows = corpus.episodes.filter(corpus.episodes["episode"] == "ann-0").rows(named=True)
    moved = corpus.write_shard([corpus.read_episode("ann-0")], "1" * 24)
    runner.commit(add_shard(runner, "gus-0"))
    assert relocate(corpus, {("ann-0", rows[0]["shard"]): (moved, 0)}) == 1
    assert corpus.episodes["episode"].to_list().count("gus-0") == 1
    assert corpus.read_episode("ann-0").n_steps == 20
    assert corpus.verify().problems == ()


def test_an_episode_that_somebody_else_moved_stays_where_it_is(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    mine = Corpus.open(tmp_path / "c")
    shard = mine.episodes["shard"][0]
    compact(corpus)
    stale = ShardFile(f"{'2' * 24}.parquet", "", 0, 0, ())
    assert relocate(mine, {("ann-0", shard): (stale, 0)}) == 0
    assert mine.verify().problems == ()


def test_a_recording_is_still_known_after_compaction(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    compact(corpus)
    report = corpus.commit(add_shard(corpus, "dan-0", n_steps=300, player="dan"))
    assert report.already_there == (recording_of("dan-0"),)


def test_damage_is_never_copied(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    path = corpus.shard_path(corpus.episodes["shard"][0])
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    for attempt in (lambda: compact(corpus), lambda: compact_to(corpus, tmp_path / "d", "cold")):
        with pytest.raises(IntegrityError, match=f"{path.name}: corrupt: sha256"):
            attempt()
    assert corpus.version == 5


def test_a_cold_corpus_is_smaller_and_comes_back_byte_for_byte(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    corpus.commit([], [QuarantineRow("x", "9" * 64, "open", Reason.EMPTY_FILE, "m", "s")])
    cold = compact_to(corpus, tmp_path / "cold", "cold")
    assert cold.bytes_after < cold.bytes_before
    frozen = Corpus.open(tmp_path / "cold")
    assert frozen.info.layout == "cold"
    assert frozen.verify().problems == ()
    assert steps_of(frozen) == steps_of(corpus)
    compact_to(corpus, tmp_path / "direct", "mapped")
    compact_to(frozen, tmp_path / "thawed", "mapped")
    thawed, direct = (Corpus.open(tmp_path / name) for name in ("thawed", "direct"))
    assert steps_of(thawed) == steps_of(corpus)
    assert thawed.quarantine.drop("created").equals(corpus.quarantine.drop("created"))
    hashes = [each.episodes["shard_sha256"].unique().to_list() for each in (thawed, direct)]
    assert hashes[0] == hashes[1]


def test_a_cold_corpus_is_brought_up_to_date_by_doing_it_again(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    compact_to(corpus, tmp_path / "cold", "cold")
    corpus.commit(add_shard(corpus, "gus-0"))
    assert compact_to(corpus, tmp_path / "cold", "cold").episodes == 1
    assert compact_to(corpus, tmp_path / "cold", "cold").episodes == 0
    assert steps_of(Corpus.open(tmp_path / "cold")) == steps_of(corpus)


def test_splits_are_kept_even_where_somebody_tied_two(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    corpus.adopt(add_shard(corpus, "gus-0", player="ann", split="test"))
    compact_to(corpus, tmp_path / "d", "mapped")
    copy = Corpus.open(tmp_path / "d")
    assert copy.episodes.select("episode", "split").equals(
        corpus.episodes.select("episode", "split")
    )


def test_another_corpus_is_never_written_into(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    Corpus.create(tmp_path / "hot", info())
    with pytest.raises(MismatchError, match="a mapped corpus, not a cold one"):
        compact_to(corpus, tmp_path / "hot", "cold")
    Corpus.create(tmp_path / "other", info(tokenizer=None))
    with pytest.raises(MismatchError, match="made with other settings"):
        compact_to(corpus, tmp_path / "other", "mapped")


def shard_files(corpus: Corpus) -> set[str]:
    return {path.name for path in Path(corpus.location, "shards").glob("*.parquet")}


def test_a_first_run_that_leaves_many_small_shards_ends_with_few_files(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    before = steps_of(corpus)
    merged = merge_small_shards(corpus, few=4)
    assert merged is not None
    assert (merged.report.shards_before, merged.report.shards_after) == (5, 1)
    assert merged.line == "merged 5 shards into 1"
    assert shard_files(corpus) == set(corpus.episodes["shard"])
    assert steps_of(Corpus.open(tmp_path / "c")) == before
    assert corpus.verify().problems == ()
    with pytest.raises(UsageError, match="version 5 is gone: a vacuum removed its files"):
        Corpus.open(tmp_path / "c", 5)


def test_a_version_that_a_run_has_left_before_stays_readable(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    before = steps_of(corpus)
    record_run(corpus.storage, {"command": "ingest", "exit_code": 0})
    merged = merge_small_shards(corpus, few=4)
    assert merged is not None
    assert merged.line.endswith(f"until: wham-data vacuum {corpus.location} --drop-before 6")
    assert len(shard_files(corpus)) == 6
    assert steps_of(Corpus.open(tmp_path / "c", 5)) == before


def test_versions_of_runs_that_broke_off_are_given_up(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    record_run(corpus.storage, {"command": "ingest", "exit_code": 130})
    merge_small_shards(corpus, few=4)
    assert len(shard_files(corpus)) == 1


def test_few_small_shards_are_left_as_they_are(tmp_path: Path) -> None:
    corpus = many_shards(tmp_path / "c")
    assert merge_small_shards(corpus, few=5) is None
    assert (corpus.version, len(shard_files(corpus))) == (5, 5)
