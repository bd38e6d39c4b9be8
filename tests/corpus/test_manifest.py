"""The manifest is a Delta Lake table with one winner per version, however damaged what is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wham_data.corpus.delta.table import Change, ManifestTable, Snapshot
from wham_data.corpus.storage.local import LocalStorage
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.manifest import (
    EPISODES_SCHEMA,
    EpisodeRow,
    QuarantineRow,
    episodes_table,
)
from wham_data.schemas.recording import ClockAudit

ROW = EpisodeRow(
    episode="e",
    recording="ab" * 32,
    source="a.mp4",
    format="video-log",
    shard=f"{'0' * 24}.parquet",
    shard_sha256="cd" * 32,
    row_start=0,
    n_steps=10,
    split="train",
    settings="0" * 24,
)


def rows(*names: str) -> pa.Table:
    return episodes_table([replace(ROW, episode=name) for name in names], datetime.now(UTC))


def table_at(path: Path) -> ManifestTable:
    table = ManifestTable(LocalStorage(path), "episodes", EPISODES_SCHEMA)
    table.create()
    return table


def names_in(table: ManifestTable, snapshot: Snapshot) -> list[str]:
    return sorted(table.read(list(snapshot.files)).column("episode").to_pylist())


def add(table: ManifestTable, *names: str) -> Snapshot:
    return table.transact(table.snapshot(), lambda _: Change(rows(*names)))


def test_of_two_who_decided_on_the_same_state_one_commits(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    seen = table.snapshot()
    first, second = table.write_rows(rows("a")), table.write_rows(rows("b"))
    assert table.commit(seen, "WRITE", add={first: 1}) is not None
    assert table.commit(seen, "WRITE", add={second: 1}) is None
    assert names_in(table, table.snapshot()) == ["a"]


def test_who_comes_second_decides_anew_on_what_is_there_by_then(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    seen: list[int] = []

    def plan(snapshot: Snapshot) -> Change:
        seen.append(snapshot.version)
        if len(seen) == 1:
            add(table, "theirs")
        return Change(rows("mine"))

    after = table.transact(table.snapshot(), plan)
    assert seen == [0, 1]
    assert names_in(table, after) == ["mine", "theirs"]
    assert len(list((tmp_path / "episodes").glob("*.parquet"))) == 2


def test_a_state_followed_entry_by_entry_is_the_state_that_is_read_anew(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    start = table.snapshot()
    add(table, "a", "b")
    table.transact(table.snapshot(), lambda s: Change(rows("c"), remove=tuple(s.files)))
    add(table, "d")
    assert table.advance(start) == table.snapshot() == table.advance(table.snapshot(1))
    assert names_in(table, table.advance(start)) == ["c", "d"]


def test_many_small_commits_leave_few_files_a_checkpoint_and_every_version(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    snapshot = table.snapshot()
    for number in range(110):
        snapshot = table.transact(snapshot, lambda _, n=number: Change(rows(f"{n:03d}")))
    assert len(snapshot.files) < 64
    log = tmp_path / "episodes" / "_delta_log"
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == 100
    assert names_in(table, table.snapshot()) == [f"{n:03d}" for n in range(110)]
    assert names_in(table, table.snapshot(7)) == [f"{n:03d}" for n in range(7)]
    assert deltalake.DeltaTable(tmp_path / "episodes").count() == 110
    assert not list(tmp_path.glob(".tmp*"))
    for entry in sorted(log.glob("*.json"))[:100]:
        entry.unlink()
    assert names_in(table, table.snapshot()) == [f"{n:03d}" for n in range(110)]


def test_a_checkpoint_that_cannot_be_written_does_not_fail_the_commit(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    snapshot = add(table, "a")
    (tmp_path / "episodes" / "_delta_log" / f"{0:020d}.json").unlink()
    assert table.tidy(replace(snapshot, version=100)).version == 100


def test_rows_survive_the_way_to_disk_and_back(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    clock = ClockAudit(
        variable_rate=True, gaps=1, drift_ppm=-3.5, frames_expected=9, frames_found=8
    )
    full = replace(
        ROW, clock=clock, keep=((0, 3), (5, 10)), game="maze", player="ann", start_ns=-5, clamped=2
    )
    after = table.transact(
        table.snapshot(), lambda _: Change(episodes_table([full, ROW], datetime.now(UTC)))
    )
    records = table.read(list(after.files)).drop_columns(["created"]).to_pylist()
    found = [EpisodeRow.from_record(record) for record in records]
    assert found == [full, replace(ROW, keep=((0, 10),))]


@pytest.mark.parametrize(
    "change",
    [
        {"shard": "../../etc/passwd"},
        {"shard": "A" * 24 + ".parquet"},
        {"n_steps": 0},
        {"row_start": -1},
        {"split": ""},
        {"keep": ((0, 11),)},
        {"keep": ((5, 6), (0, 2))},
    ],
)
def test_a_row_that_makes_no_sense_cannot_be_built(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(ROW, **change)


def test_a_reason_of_a_newer_release_stays_what_it_is() -> None:
    record = {
        "path": "a",
        "sha256": "",
        "stage": "open",
        "reason": "too_new",
        "message": "m",
        "settings": "s",
        "frames_expected": None,
        "frames_decoded": None,
    }
    assert QuarantineRow.from_record(record).reason == "too_new"
    assert QuarantineRow.from_record(record).key == ("a", "", "s")


def entry(path: Path, version: int) -> Path:
    return path / "episodes" / "_delta_log" / f"{version:020d}.json"


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the add action of log entry 1."""
    lines = [json.loads(line) for line in entry(path, 1).read_text().splitlines()]
    for line in lines:
        if "add" in line:
            change(line["add"])
    entry(path, 1).write_text("\n".join(json.dumps(line) for line in lines))


@pytest.mark.parametrize(
    "evil",
    ["../../../etc/passwd", "/etc/passwd", "http://x/y.parquet", "%2e%2e/x.parquet", ".x.parquet"],
)
def test_a_log_that_points_outside_the_table_is_refused(tmp_path: Path, evil: str) -> None:
    table = table_at(tmp_path)
    start = table.snapshot()
    add(table, "a")
    edited(tmp_path, lambda action: action.update(path=evil))
    for read in (table.snapshot, lambda: table.advance(start)):
        with pytest.raises(IntegrityError, match=r"unsafe path|log is damaged"):
            read()


TORN = {
    b"": "has 0 bytes",
    b"{": "has 1 bytes that cannot be read",
    b"[]\n": "has 3 bytes that are not a list",
    b"\0" * 500: "has 500 bytes that cannot be read",
    b"\n\n": "has 2 bytes that are not a list",
}


@pytest.mark.parametrize(("content", "why"), TORN.items(), ids=map(repr, TORN))
@pytest.mark.parametrize("version", [1, 2])
def test_a_torn_log_entry_is_named_and_never_a_commit_without_rows(
    tmp_path: Path, content: bytes, why: str, version: int
) -> None:
    table = table_at(tmp_path)
    start = table.snapshot()
    add(table, "a")
    add(table, "b")
    entry(tmp_path, version).write_bytes(content)
    said = re.escape(f"{entry(tmp_path, version)}: damaged: this log entry {why}")
    for read in (table.snapshot, lambda: table.advance(start)):
        with pytest.raises(IntegrityError, match=said):
            read()
    assert [re.match(said, line) is not None for line in table.problems()] == [True]
    assert table.snapshot(version - 1).version == version - 1


def test_an_entry_without_a_path_in_its_action_is_an_error(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    add(table, "a")
    entry(tmp_path, 1).write_bytes(b'{"add": 3}\n')
    with pytest.raises(IntegrityError, match="an action without a path"):
        table.snapshot()


def test_a_hole_in_the_log_is_an_error(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    for name in "abc":
        add(table, name)
    entry(tmp_path, 2).unlink()
    said = f"{entry(tmp_path, 2)}: damaged: this log entry is missing, so a commit is lost"
    with pytest.raises(IntegrityError, match=said):
        table.snapshot()
    assert any(said in line for line in table.problems())


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}"])
def test_a_damaged_checkpoint_is_named_and_may_go(tmp_path: Path, content: bytes) -> None:
    table = table_at(tmp_path)
    after = add(table, "a")
    table.checkpoint(1)
    assert table.snapshot() == after
    checkpoint = entry(tmp_path, 1).with_suffix(".checkpoint.parquet")
    checkpoint.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{checkpoint}: damaged: has {len(content)} bytes"):
        table.snapshot()
    checkpoint.unlink()
    assert table.snapshot() == after
    assert list(table.problems()) == []


@pytest.mark.parametrize(
    "name", ["a%20b", "a%2Fb", "a%25b", "%", "a b", "a#b?c", "a\nb", "ä%C3%A4"]
)
def test_the_folder_that_is_named_is_the_folder_that_is_used(tmp_path: Path, name: str) -> None:
    twin = tmp_path / unquote(name)
    if twin != tmp_path / name:
        add(table_at(twin), "a stranger's", "another's")
    table = table_at(tmp_path / name)
    assert names_in(table, add(table, "mine")) == ["mine"]
    table.checkpoint(1)
    assert names_in(table, table.snapshot()) == ["mine"]
    assert list(table.problems()) == []


def test_a_table_that_needs_a_newer_reader_is_refused(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    text = entry(tmp_path, 0).read_text().replace('"minReaderVersion": 1', '"minReaderVersion": 2')
    entry(tmp_path, 0).write_text(text)
    with pytest.raises(IntegrityError, match="protocol 2"):
        table.snapshot()


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="episodes: is missing"):
        ManifestTable(LocalStorage(tmp_path), "episodes", EPISODES_SCHEMA).snapshot()


def test_every_flipped_bit_of_a_data_file_is_found(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    name = next(iter(add(table, "a").files))
    path = tmp_path / "episodes" / name
    whole = path.read_bytes()
    assert list(table.problems()) == []
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert list(table.problems()) != []


def test_a_data_file_of_another_schema_or_too_large_to_be_true_is_refused(tmp_path: Path) -> None:
    table = table_at(tmp_path)
    name = next(iter(add(table, "a").files))
    path = tmp_path / "episodes" / name
    pq.write_table(pa.table({"episode": ["a"]}), path)
    with pytest.raises(IntegrityError, match="another schema"):
        table.read([name])
    pq.write_table(pa.table({"episode": pa.repeat("a", 3_000_000)}), path, compression="zstd")
    with pytest.raises(IntegrityError, match="too large to be true"):
        table.read([name])
    path.unlink()
    with pytest.raises(IntegrityError, match="missing or corrupt"):
        table.read([name])
