"""A corpus holds what was committed, once, whatever else happens at the same time."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import polars as pl
import pytest
from makers.corpora import add_shard, info, recording_of, small_corpus, steps

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.storage.local import LocalStorage
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import (
    IntegrityError,
    MismatchError,
    Reason,
    UsageError,
    WhamDataError,
)
from wham_data.schemas.manifest import EPISODES_SCHEMA, QUARANTINE_SCHEMA, QuarantineRow
from wham_data.schemas.steps import shard_schema

TESTS = Path(__file__).parents[1]

COMMITTER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from makers.corpora import add_shard, info
from wham_data.corpus.corpus import Corpus

corpus = Corpus.open_or_create(sys.argv[1], info())
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[2].split(","):
    corpus.commit(add_shard(corpus, f"{name}-0", f"{name}-1", player=name))
    print(name, flush=True)
"""


def committer(location: Path, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(location), ",".join(names)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_three_processes_that_commit_at_once_lose_nothing_and_record_nothing_twice(
    tmp_path: Path,
) -> None:
    names = [f"r{i}" for i in range(24)]
    # Each has a third of its own, and all have the last six recordings in common.
    common = names[18:]
    shares = [names[0:6] + common, common + names[6:12], names[12:15] + common + names[15:18]]
    processes = [committer(tmp_path / "c", *share) for share in shares]
    assert [line_of(p) for p in processes] == ["ready"] * 3
    for process in processes:
        go(process)
    assert [p.wait() for p in processes] == [0, 0, 0]
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.episodes["episode"].to_list() == sorted(f"{n}-{i}" for n in names for i in (0, 1))
    assert corpus.version == 24  # a transaction per recording, none for what was there already
    for process in processes:
        process.communicate()


def test_a_run_killed_at_any_moment_leaves_a_clean_corpus_that_a_second_run_completes(
    tmp_path: Path,
) -> None:
    names = [f"r{i}" for i in range(60)]
    delays = iter((0.0, 0.03, 0.2))
    for delay in delays:
        process = committer(tmp_path / "c", *names)
        assert line_of(process) == "ready"
        go(process)
        line_of(process)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        corpus = Corpus.open(tmp_path / "c")
        assert corpus.verify().problems == ()
        recordings = corpus.episodes.group_by("recording").len()["len"].unique().to_list()
        assert recordings == [2]
    process = committer(tmp_path / "c", *names)
    process.communicate("go\n")
    undisturbed = Corpus.create(tmp_path / "d", info())
    for name in names:
        undisturbed.commit(add_shard(undisturbed, f"{name}-0", f"{name}-1", player=name))
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.episodes.drop("created").equals(undisturbed.episodes.drop("created"))
    assert shards_of(tmp_path / "c") == shards_of(tmp_path / "d")
    assert corpus.verify().problems == ()


def shards_of(location: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (location / "shards").glob("[!.]*")}


def test_a_corpus_is_created_once_and_opened_by_anyone(tmp_path: Path) -> None:
    made = Corpus.create(tmp_path / "deep" / "c", info())
    assert (made.version, made.n_episodes, made.info) == (0, 0, info())
    with pytest.raises(UsageError, match="there is a corpus already"):
        Corpus.create(tmp_path / "deep" / "c", info())
    assert Corpus.open_or_create(tmp_path / "deep" / "c", info()).info == info()
    with pytest.raises(UsageError, match=r"corpus\.json is missing"):
        Corpus.open(tmp_path / "nowhere")


def test_other_settings_stop_with_what_differs(tmp_path: Path) -> None:
    Corpus.create(tmp_path / "c", info())
    with pytest.raises(MismatchError, match='rate: "10", not "20"') as caught:
        Corpus.open_or_create(tmp_path / "c", info(rate=Fraction(20)))
    assert caught.value.exit_code == 4
    with pytest.raises(MismatchError, match="tokenizer: tiny, not none"):
        Corpus.open_or_create(tmp_path / "c", info(tokenizer=None))
    with pytest.raises(MismatchError, match=r"\(action_space: .*, not wham16\)"):
        Corpus.open_or_create(tmp_path / "c", info(action_space=load_space("wham16")))


def test_what_is_committed_is_there_and_a_second_commit_of_it_changes_nothing(
    tmp_path: Path,
) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    rows = add_shard(corpus, "ann-0", "ann-1", "bob-0")
    assert corpus.episodes.is_empty()
    report = corpus.commit(rows)
    assert report.committed == tuple(sorted({recording_of("ann-0"), recording_of("bob-0")}))
    assert (report.version, report.already_there) == (1, ())
    again = Corpus.open(tmp_path / "c").commit(rows)
    assert (again.committed, again.already_there, again.version) == ((), report.committed, 1)
    assert corpus.known_recordings() == set(report.committed)
    assert corpus.known_recordings("other settings") == set()


def test_an_episode_is_read_as_it_was_written(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    for name in ("ann-0", "ann-1", "bob-0", "cem-0"):
        read, expected = corpus.read_episode(name), steps(name)
        assert np.array_equal(read.actions, expected.actions, equal_nan=True)
        assert read.tokens is not None
        assert np.array_equal(read.tokens, expected.tokens)  # type: ignore[arg-type]
        assert np.array_equal(read.time_ns, expected.time_ns)
    with pytest.raises(UsageError, match="no episode 'zoe'"):
        corpus.read_episode("zoe")


def test_the_manifest_is_an_ordinary_delta_table_sorted_by_episode(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    assert corpus.episodes["episode"].to_list() == ["ann-0", "ann-1", "bob-0", "cem-0"]
    assert corpus.episodes["keep"].to_list() == [[{"start": 0, "end": 20}]] * 4
    assert corpus.episodes["clock"].struct.field("gaps").to_list() == [0] * 4
    elsewhere = pl.read_delta(str(tmp_path / "c" / "episodes")).sort("episode")
    assert elsewhere.equals(corpus.episodes)
    table = deltalake.DeltaTable(tmp_path / "c" / "episodes")
    assert [entry["operation"] for entry in table.history()] == ["WRITE", "WRITE", "CREATE TABLE"]


def test_a_corpus_can_be_read_as_of_any_version_but_not_changed_there(tmp_path: Path) -> None:
    rows = add_shard(small_corpus(tmp_path / "c"), "dan-0")
    counts = [Corpus.open(tmp_path / "c", version).n_episodes for version in (0, 1, 2)]
    assert counts == [0, 2, 4]
    old = Corpus.open(tmp_path / "c", 1)
    assert old.scan().select("episode").unique().collect()["episode"].sort().to_list() == [
        "ann-0",
        "ann-1",
    ]
    with pytest.raises(UsageError, match="opened at version 1"):
        old.commit(rows)
    with pytest.raises(UsageError, match="no version 9; versions 0 to 2"):
        Corpus.open(tmp_path / "c", 9)


def test_other_tools_get_the_shards_of_a_version_and_no_others(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    orphan = corpus.write_shard([steps("dan-0")], "0" * 24)
    every = sorted((tmp_path / "corpus" / "shards").iterdir())
    there = [path for path in every if path.name != orphan.name]

    assert corpus.shard_paths() == corpus.shard_paths(corpus.version) == there
    assert len(corpus.shard_paths(1)) == 1
    assert corpus.shard_paths(0) == []
    assert Corpus.open(corpus.location, version=1).shard_paths(2) == there
    with pytest.raises(UsageError, match="no version 9"):
        corpus.shard_paths(9)
    there[0].unlink()
    with pytest.raises(IntegrityError, match=there[0].name):
        corpus.shard_paths()


def test_an_open_corpus_stays_as_it_was_until_refreshed(tmp_path: Path) -> None:
    mine = small_corpus(tmp_path / "c")
    theirs = Corpus.open(tmp_path / "c")
    theirs.commit(add_shard(theirs, "dan-0"))
    assert (mine.version, len(mine.episodes)) == (2, 4)
    mine.refresh()
    assert (mine.version, len(mine.episodes)) == (3, 5)


def test_a_corpus_travels_to_a_worker(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.episodes.equals(corpus.episodes)
    assert copy.info == corpus.info


def test_rows_of_another_corpus_or_without_a_shard_are_refused(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    row = add_shard(corpus, "ann-0")[0]
    for change, told in (
        ({"settings": "0" * 24}, "settings 0000"),
        ({"tokenizer": "other"}, "tokenizer other"),
        ({"shard": f"{'f' * 24}.parquet"}, "has not been written"),
    ):
        with pytest.raises(UsageError, match=told):
            corpus.commit([replace(row, **change)])
    with pytest.raises(UsageError, match="in one commit twice"):
        corpus.commit([row, row])
    assert corpus.version == 0


def test_the_same_shard_can_be_written_twice_but_not_with_other_bytes(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    first = corpus.write_shard([steps("a")], "0" * 24)
    assert corpus.write_shard([steps("a")], "0" * 24) == first
    with pytest.raises(IntegrityError, match="not deterministic"):
        corpus.write_shard([steps("b")], "0" * 24)
    assert list(shards_of(tmp_path / "c")) == [first.name]
    assert len(list((tmp_path / "c" / "shards").iterdir())) == 1


def test_a_recording_whose_player_was_committed_in_the_meantime_follows_it(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    corpus.commit(add_shard(corpus, "ann-0", player="ann", split="val"))
    report = corpus.commit(add_shard(corpus, "ben-0", player="ann", split="train"))
    assert report.moved == (recording_of("ben-0"),)
    assert corpus.episodes["split"].to_list() == ["val", "val"]


def test_a_recording_that_would_tie_two_splits_goes_to_quarantine(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    corpus.commit(add_shard(corpus, "ann-0", player="ann", split="val"))
    corpus.commit(add_shard(corpus, "ben-0", match="final", split="train"))
    tie = add_shard(corpus, "dan-0", match="final", player="ann", split="train")
    report = corpus.commit(tie)
    assert (report.committed, report.split_conflicts) == ((), (recording_of("dan-0"),))
    assert corpus.quarantine["reason"].to_list() == ["split_conflict"]
    assert corpus.commit(tie, tie_to="test").committed == (recording_of("dan-0"),)
    assert corpus.quarantine.is_empty()


def refused(path: str, sha256: str, message: str = "moov atom missing") -> QuarantineRow:
    return QuarantineRow(path, sha256, "decode", Reason.TRUNCATED, message, info().settings_hash)


def test_the_quarantine_holds_one_row_per_input_the_latest(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    corpus.commit([], [refused("a.mp4", "1" * 64), refused("b.mp4", "2" * 64)])
    before = corpus.quarantine
    corpus.commit([], [refused("a.mp4", "1" * 64)])
    assert corpus.quarantine.equals(before)
    corpus.commit([], [refused("moved/a.mp4", "1" * 64, "no frames"), refused("x\udcff.mp4", "")])
    found = {row["path"]: row["message"] for row in corpus.quarantine.rows(named=True)}
    assert found == {
        "a.mp4": "moov atom missing",
        "b.mp4": "moov atom missing",
        "moved/a.mp4": "no frames",
        "x\\xff.mp4": "moov atom missing",
    }
    assert corpus.version == 0


def test_equal_refused_files_have_a_row_each_and_a_path_has_one(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    corpus.commit([], [refused(f"{name}.mp4", "1" * 64) for name in "abc"])
    assert corpus.quarantine["path"].to_list() == ["a.mp4", "b.mp4", "c.mp4"]
    corpus.commit([], [refused("b.mp4", "2" * 64, "no frames")])
    rows = corpus.quarantine.select("path", "sha256", "message").rows()
    assert [(path, sha256[0], said) for path, sha256, said in rows] == [
        ("a.mp4", "1", "moov atom missing"),
        ("b.mp4", "2", "no frames"),
        ("c.mp4", "1", "moov atom missing"),
    ]
    corpus.refused.note((), {("1" * 64, info().settings_hash)})
    assert corpus.quarantine["path"].to_list() == ["b.mp4"]


def test_a_scan_gives_ordinary_lists_and_null_where_no_action_is_known(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    frame = corpus.scan().filter(pl.col("episode") == "bob-0").collect()
    expected = steps("bob-0")
    assert frame.schema == {
        "episode": pl.String,
        "split": pl.String,
        "step": pl.Int32,
        "time_ns": pl.Int64,
        "tokens": pl.List(pl.UInt16),
        "actions": pl.List(pl.Float32),
    }
    assert expected.tokens is not None
    assert frame["tokens"].to_list() == expected.tokens.tolist()
    actions = [
        a.tolist() if k else None
        for a, k in zip(expected.actions, expected.action_known, strict=True)
    ]
    assert frame["actions"].to_list() == actions
    assert frame["split"].unique().to_list() == ["val"]


def test_a_scan_answers_like_a_frame_in_memory(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    scan, eager = corpus.scan(), corpus.scan().collect()
    late = (pl.col("step") > 15) & (pl.col("split") == "train")
    assert scan.filter(late).collect().equals(eager.filter(late))
    assert scan.head(7).collect().equals(eager.head(7))
    assert (
        scan.filter(pl.col("split") == "train")
        .head(7)
        .collect()
        .equals(eager.filter(pl.col("split") == "train").head(7))
    )
    assert scan.slice(30, 15).collect().equals(eager.slice(30, 15))
    assert scan.select(pl.len()).collect().item() == 80
    for name in eager.columns:
        assert scan.select(name).collect().equals(eager.select(name))
    assert scan.filter(pl.col("split") == "none").collect().is_empty()
    per_episode = pl.col("time_ns").max()
    assert (
        scan.group_by("episode").agg(per_episode).sort("episode").collect(engine="streaming")
    ).equals(eager.group_by("episode").agg(per_episode).sort("episode"))


def test_a_scan_skips_rows_of_a_shard_that_the_manifest_does_not_name(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    rows = add_shard(corpus, "ann-0", "bob-0", "cem-0")
    corpus.commit([rows[0], rows[2]])
    long = add_shard(corpus, "dan-0", "eve-0", "fay-0", n_steps=9000)
    corpus.commit([long[0], long[2]])
    assert corpus.scan().filter(step=8999).collect()["episode"].to_list() == ["dan-0", "fay-0"]
    assert corpus.scan().collect()["episode"].unique().sort().to_list() == [
        "ann-0",
        "cem-0",
        "dan-0",
        "fay-0",
    ]
    assert corpus.verify().ok


def test_every_run_leaves_its_account(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    names = {corpus.record_run({"command": "ingest", "exit": code}) for code in (0, 3)}
    found = [json.loads((tmp_path / "c" / "runs" / name).read_text()) for name in names]
    assert sorted(run["exit"] for run in found) == [0, 3]


def test_of_many_racers_for_one_name_one_wins_and_its_bytes_stay(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for race in range(20):
        with ThreadPoolExecutor(8) as pool:
            contents = [f"racer {i}".encode() * 1000 for i in range(8)]
            made = list(pool.map(lambda c: storage.put_if_absent(f"a/{race}", c), contents))  # noqa: B023
        assert made.count(True) == 1
        assert storage.read(f"a/{race}") == contents[made.index(True)]
    assert storage.list("a") == sorted(str(race) for race in range(20))
    assert len(list((tmp_path / "a").iterdir())) == 20


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\b", "a\0b"])
def test_no_name_leads_out_of_the_corpus(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="outside the corpus"):
        LocalStorage(tmp_path).path(name)


def test_a_full_disk_is_one_line_and_leaves_the_corpus_as_it_was(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    before = sorted((tmp_path / "c").rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(WhamDataError, match="File too large") as caught:
            add_shard(corpus, "dan-0", n_steps=5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert sorted((tmp_path / "c").rglob("*")) == before
    assert corpus.commit(add_shard(corpus, "dan-0", n_steps=5000)).version == 3


def test_the_example_in_the_documentation_reads_the_raw_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    page = (TESTS.parent / "docs" / "corpus.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(example, found)
    row = found["row"]
    stop = row["row_start"] + row["n_steps"]
    tokens = found["groups"][0][row["row_start"] : stop].reshape(row["n_steps"], 6)
    expected = corpus.read_episode(row["episode"]).tokens
    assert expected is not None
    assert np.array_equal(tokens, expected)


def test_the_documentation_names_every_column() -> None:
    page = (TESTS.parent / "docs" / "corpus.md").read_text()
    everything = info(frames="png", state_size=1, reward=True, text=True)
    names = [*EPISODES_SCHEMA.names, *QUARANTINE_SCHEMA.names, *shard_schema(everything).names]
    assert [name for name in [*names, *everything.to_dict()] if f"`{name}`" not in page] == []
