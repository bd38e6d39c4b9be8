"""A vacuum removes what no version needs, and nothing that anybody may still be at."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from makers.corpora import add_shard, info, recording_of, small_corpus, steps

from wham_data.corpus.compact import compact
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.forget import forget
from wham_data.corpus.shards import shard_id
from wham_data.corpus.tombstones import mark_versions_gone
from wham_data.corpus.vacuum import vacuum
from wham_data.schemas.errors import UsageError

DAY = 24 * 3600


def aged(path: Path, seconds: float) -> Path:
    """The same file, put there so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def orphan(corpus: Corpus, name: str = "zoe-0") -> Path:
    """A shard that a killed run has written and not committed."""
    (row,) = add_shard(corpus, name)
    return corpus.shard_path(row.shard)


def files_in(location: Path) -> set[str]:
    return {path.relative_to(location).as_posix() for path in location.rglob("*") if path.is_file()}


def test_orphans_and_temporary_files_go_when_they_are_older_than_the_grace(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    before = files_in(tmp_path / "c")
    old, young = aged(orphan(corpus, "old-0"), DAY + 60), orphan(corpus, "young-0")
    for folder in ("shards", "episodes", "episodes/_delta_log", "quarantine", "."):
        left = tmp_path / "c" / folder / ".tmp-killed"
        left.write_bytes(b"half")
        aged(left, DAY + 60)
    fresh = tmp_path / "c" / "shards" / ".tmp-at-work"
    fresh.write_bytes(b"half")

    report = vacuum(corpus)

    assert not old.exists()
    assert files_in(tmp_path / "c") == before | {f"shards/{young.name}", f"shards/{fresh.name}"}
    assert {why: len(names) for why, names in report.files.items()} == {"temporary": 5, "orphan": 1}
    assert report.young == 2
    assert Corpus.open(tmp_path / "c").verify().ok


def test_a_dry_run_says_the_same_and_removes_nothing(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    aged(orphan(corpus), 2 * DAY)
    forget(corpus, {"player": ["ann"]})
    before = files_in(tmp_path / "c")

    told = vacuum(corpus, dry_run=True)

    assert files_in(tmp_path / "c") == before
    assert vacuum(corpus).files == told.files


def test_every_version_that_is_kept_can_still_be_read(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    compact(corpus)
    for path in (tmp_path / "c").rglob("*.*"):
        aged(path, 9 * DAY)

    assert vacuum(corpus, older_than_seconds=0).files == {}

    for version in range(1, corpus.version + 1):
        assert Corpus.open(tmp_path / "c", version).verify().ok


def test_versions_can_be_let_go_of_to_have_the_room_of_compacted_shards(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    replaced = set(corpus.episodes["shard"])
    compact(corpus)

    report = vacuum(corpus, drop_before=corpus.version)

    assert set(report.files["forgotten"]) >= {f"shards/{name}" for name in replaced}
    assert corpus.verify().ok
    with pytest.raises(UsageError, match=f"versions from {corpus.version} on can be read"):
        Corpus.open(tmp_path / "c", 1)
    with pytest.raises(UsageError, match="there is no version 99"):
        vacuum(corpus, drop_before=99)


def test_a_shard_that_a_run_takes_up_again_is_young(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    path = aged(orphan(corpus), 2 * DAY)
    rows = add_shard(corpus, "zoe-0")

    vacuum(corpus)

    assert path.exists()
    corpus.commit(rows)
    assert corpus.verify().ok


def test_a_forgotten_shard_that_is_ingested_anew_is_not_taken_from_under_the_run(
    tmp_path: Path,
) -> None:
    corpus = small_corpus(tmp_path / "c")
    forget(corpus, {"player": ["ann"]})
    names = ("ann-0", "ann-1")
    name = shard_id({recording_of(each) for each in names}, corpus.info.settings_hash)
    corpus.write_shard([steps(each, corpus=info()) for each in names], name)

    vacuum(corpus)

    assert corpus.shard_path(f"{name}.parquet").exists()


def test_a_vacuum_that_was_stopped_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    corpus.commit(add_shard(corpus, "ann2-0", player="ann"))
    forget(corpus, {"player": ["ann"]})
    going = [name for names in vacuum(corpus, dry_run=True).files.values() for name in names]
    left = set()
    for count in range(len(going) + 1):
        shutil.copytree(tmp_path / "c", tmp_path / f"c{count}")
        stopped = Corpus.open(tmp_path / f"c{count}")
        mark_versions_gone(stopped.storage, corpus.version)
        for name in going[:count]:
            stopped.storage.delete(name)
        vacuum(stopped)
        left.add(frozenset(files_in(tmp_path / f"c{count}")))
        assert stopped.verify().ok
    assert len(left) == 1


def test_the_folder_of_a_killed_checkpoint_goes_too(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    folder = tmp_path / "c" / ".tmp-checkpoint"
    (folder / "_delta_log").mkdir(parents=True)
    (folder / "_delta_log" / "0.json").write_bytes(b"{}")
    aged(folder, 2 * DAY)

    vacuum(corpus)

    assert not folder.exists()


def test_strangers_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    notes = [tmp_path / "c" / name for name in ("README.md", "shards/notes.txt", "episodes/x.csv")]
    for path in notes:
        path.write_text("mine")
        aged(path, 9 * DAY)

    vacuum(corpus, older_than_seconds=0)

    assert all(path.exists() for path in notes)
