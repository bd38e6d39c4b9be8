"""The manifest: Delta Lake tables whose log entries we put in place, one winner per number.

A Delta Lake table is a folder of Parquet files and a log, `_delta_log/<20 digits>.json`; an entry
adds files and removes files, and the table at version n is what entries 0..n leave. All safety lies
in one rule: entry n + 1 is written by whoever first puts a file of that name. We put it ourselves
(`Storage.put_if_absent`: durable before it is visible, never replacing), because the writer of the
`deltalake` package syncs nothing (traced, 1.6): a power cut could take away an entry that was
reported as done, or the data file behind it. An entry is only put after the very state that the
decision was made on; whoever comes second looks again, so no recording goes in twice.

Reading is left to the `deltalake` package and anything else that knows the format: the first state
of a table comes from it (on an object store, from a copy of the log), later entries are read one by
one. Parquet files of the table are never deleted here, so every version stays readable.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError, TableNotFoundError

from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import IntegrityError, UsageError, WhamDataError

LOG: Final = "_delta_log"
DATA_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.parquet")
HASHED_NAME: Final = re.compile(r"part-([0-9a-f]{64})\.parquet")
ENTRY_NAME: Final = re.compile(r"[0-9]{20}\.(json|checkpoint\.parquet)")
LAST_CHECKPOINT: Final = "_last_checkpoint"
TRIES: Final = 50
LONGEST_WAIT_S: Final = 0.25
CHECKPOINT_EVERY: Final = 100
MERGE_AT: Final = 64
"""This many small data files are merged into one, so that reading a table opens few files."""
SMALL_ROWS: Final = 32_768
MOST_EXPANSION: Final = 1_000
"""A data file that claims more memory than this many times its own size is a bomb. So is one with
more rows than bytes: a row holds a hash, which nothing compresses below 32 bytes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table at one version: the data files that make it up, each with its row count."""

    version: int
    files: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Change:
    """Rows to add to a table, and data files (of the state they were decided on) to drop."""

    rows: pa.Table
    operation: str = "WRITE"
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestTable:
    """One table of the manifest, in `folder` of the corpus."""

    storage: Storage
    folder: str
    schema: pa.Schema

    def create(self) -> None:
        """Make the table, empty, at version 0; nothing happens if it is there."""
        metadata = {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": deltalake.Schema.from_arrow(self.schema).to_json(),
            "partitionColumns": [],
            # Other writers may come by; none may throw away what old versions are made of.
            "configuration": {"delta.enableExpiredLogCleanup": "false"},
            "createdTime": _now_ms(),
        }
        self._put_entry(
            0,
            "CREATE TABLE",
            [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}],
        )

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The table as it stands, or stood at `version`.

        Raises:
            UsageError: there is no such version.
            IntegrityError: the log is damaged, has a hole, or was written by something newer.
        """
        with self._opened(version) as table:
            protocol, found = table.protocol(), table.get_add_actions(flatten=True)
            version = table.version()
        if protocol.min_reader_version > 1:
            raise self._bad(
                f"needs a reader of Delta Lake protocol {protocol.min_reader_version}; "
                "this release reads 1"
            )
        paths = found.column("path").to_pylist()
        known = "num_records" in found.schema.names
        counts = found.column("num_records").to_pylist() if known else [None] * len(paths)
        files: dict[str, int] = {}
        for path, count in zip(paths, counts, strict=True):
            if path in files:
                raise self._bad(f"lists {path} twice (duplicate)")
            files[path] = self._count(path, count)
        return Snapshot(version, files)

    def advance(self, snapshot: Snapshot) -> Snapshot:
        """The newest state, reading only the log entries after `snapshot`."""
        files, version = dict(snapshot.files), snapshot.version
        for number, entry in self.entries(snapshot.version):
            version = number
            for action in entry:
                if "protocol" in action or "metaData" in action:
                    return self.snapshot()
                if "remove" in action:
                    files.pop(self._path_in(action["remove"]), None)
                if "add" in action:
                    path = self._path_in(action["add"])
                    files[path] = self._count(path, _records_in(action["add"]))
        return Snapshot(version, files)

    def entries(self, after: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The entries of the log after a version, with their numbers."""
        while (entry := self._entry(after + 1)) is not None:
            after += 1
            yield after, entry

    def read(self, files: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of the given data files, in the order given.

        Raises:
            IntegrityError: a file is missing, damaged, or not of the table's schema.
        """
        schema = (
            self.schema if columns is None else pa.schema([self.schema.field(c) for c in columns])
        )
        tables = [self._read_one(name, schema) for name in files]
        return pa.concat_tables([schema.empty_table(), *tables])

    def write_rows(self, rows: pa.Table) -> str:
        """Write rows to a new data file, durably. They are not in the table until committed.

        Its name tells its SHA-256, so that `problems` can see whether it is still what was written.
        """
        body = io.BytesIO()
        with pq.ParquetWriter(
            body, self.schema, compression="ZSTD", write_page_checksum=True
        ) as writer:
            writer.write_table(rows.cast(self.schema))
            # Two writers must never share a file: the one who loses the race removes theirs.
            writer.add_key_value_metadata({"wham_data.nonce": uuid.uuid4().hex})
        name = f"part-{hashlib.sha256(body.getbuffer()).hexdigest()}.parquet"
        self.storage.put_if_absent(f"{self.folder}/{name}", body.getvalue())
        return name

    def problems(self, snapshot: Snapshot | None = None) -> Iterator[str]:
        """What is wrong with the log and the data files of a state (default: the newest)."""
        entries = [
            name for name in self.storage.list(f"{self.folder}/{LOG}") if name.endswith(".json")
        ]
        for number, name in enumerate(entries):
            if name != f"{number:020d}.json":
                yield f"{self.folder}: its log has {name} where entry {number} is missing"
                break
        try:
            snapshot = snapshot or self.snapshot()
        except IntegrityError as error:
            yield str(error)
            return
        for name, rows in snapshot.files.items():
            try:
                found = self._footer(name).num_rows
            except IntegrityError as error:
                yield str(error)
                continue
            if found != rows:
                yield f"{self.folder}/{name}: {found} rows, but the log has {rows} (mismatch)"
            told = HASHED_NAME.fullmatch(name)
            sha256 = self.storage.sha256(f"{self.folder}/{name}")
            if told and told[1] != sha256:
                yield f"{self.folder}/{name}: corrupt: its sha256 is {sha256}"

    def discard(self, data_file: str) -> None:
        """Remove a data file of one's own that was never committed."""
        self.storage.delete(f"{self.folder}/{data_file}")

    def commit(
        self,
        snapshot: Snapshot,
        operation: str,
        *,
        add: Mapping[str, int],
        remove: Sequence[str] = (),
        changes_rows: bool = True,
    ) -> Snapshot | None:
        """Put the log entry that follows `snapshot`.

        Args:
            snapshot: what the decision to commit was made on.
            operation: what `history` shows.
            add: data files written with `write_rows`, with their row counts.
            remove: data files of the snapshot that leave the table (not the disk).
            changes_rows: False if the same rows only move to other files.

        Returns:
            The table after it; None if somebody else was first: look again and decide anew.
        """
        actions: list[Mapping[str, Any]] = [
            {
                "remove": {
                    "path": name,
                    "deletionTimestamp": _now_ms(),
                    "dataChange": changes_rows,
                }
            }
            for name in remove
        ]
        actions += [
            {
                "add": {
                    "path": name,
                    "partitionValues": {},
                    "size": self.storage.size(f"{self.folder}/{name}"),
                    "modificationTime": _now_ms(),
                    "dataChange": changes_rows,
                    "stats": json.dumps({"numRecords": rows}),
                }
            }
            for name, rows in add.items()
        ]
        if not self._put_entry(snapshot.version + 1, operation, actions):
            return None
        files = {name: n for name, n in snapshot.files.items() if name not in set(remove)}
        return Snapshot(snapshot.version + 1, {**files, **add})

    def transact(self, snapshot: Snapshot, plan: Callable[[Snapshot], Change | None]) -> Snapshot:
        """Commit what `plan` makes of the newest state, anew whenever somebody else was first.

        Args:
            snapshot: a state seen before.
            plan: what to change, seeing a state; None if there is nothing to change.

        Returns:
            The state afterwards.

        Raises:
            WhamDataError: others were first every time, or the disk fails.
        """
        for attempt in range(TRIES):
            snapshot = self.advance(snapshot)
            change = plan(snapshot)
            if change is None:
                # Others have done it, and may have been stopped before it was durable.
                self.storage.settle(f"{self.folder}/{LOG}")
                return snapshot
            name = self.write_rows(change.rows)
            after = self.commit(
                snapshot, change.operation, add={name: len(change.rows)}, remove=change.remove
            )
            if after is not None:
                return self.tidy(after)
            self.discard(name)
            # Let others finish: a random time, longer the more often they were first.
            time.sleep(random.uniform(0, min(LONGEST_WAIT_S, 0.004 * 2**attempt)))
        where = self.storage.where(self.folder)
        raise WhamDataError(f"{where}: {TRIES} commits by others came first; try again")

    def tidy(self, snapshot: Snapshot) -> Snapshot:
        """Merge small data files and write a checkpoint now and then.

        Nothing depends on either, so a failing disk here does not make the commit before it fail.
        """
        with suppress(WhamDataError, OSError, DeltaError):
            if snapshot.version and snapshot.version % CHECKPOINT_EVERY == 0:
                self.checkpoint(snapshot.version)
            small = [name for name, rows in snapshot.files.items() if rows < SMALL_ROWS]
            if len(small) >= MERGE_AT:
                return self._merge(snapshot, small)
        return snapshot

    def checkpoint(self, version: int) -> None:
        """Write the state at `version` as one file, so that a reader need not read the whole log.

        `deltalake` writes it, but without syncing it and under its real name; so it does so in a
        folder beside the log, and what came out is put in place like everything else.
        """
        name = f"{version:020d}.checkpoint.parquet"
        with self._shadow(self._entries_for(version)) as shadow:
            deltalake.DeltaTable(shadow, version=version).create_checkpoint()
            log = f"{self.folder}/{LOG}"
            if self.storage.put_if_absent(f"{log}/{name}", (shadow / LOG / name).read_bytes()):
                hint = (shadow / LOG / LAST_CHECKPOINT).read_bytes()
                self.storage.replace(f"{log}/{LAST_CHECKPOINT}", hint)

    def _entries_for(self, version: int | None) -> list[str]:
        """Names in the log from the last checkpoint before `version` up to it; None: to the end."""
        numbered = {
            name: int(name[:20])
            for name in self.storage.list(f"{self.folder}/{LOG}")
            if ENTRY_NAME.fullmatch(name)
        }
        last = max(numbered.values(), default=0) if version is None else version
        since = max(
            (n for name, n in numbered.items() if name.endswith("t.parquet") and n < last),
            default=0,
        )
        return [name for name, n in numbered.items() if since <= n <= last]

    @contextmanager
    def _shadow(self, entries: Sequence[str]) -> Iterator[Path]:
        """A folder on this machine that is a table with these log entries, and no data."""
        names = [f"{self.folder}/{LOG}/{entry}" for entry in entries]
        with self.storage.shadow(names) as folder:
            (folder / LOG).mkdir()
            for entry in entries:
                (folder / entry).rename(folder / LOG / entry)
            yield folder

    def _merge(self, snapshot: Snapshot, small: Sequence[str]) -> Snapshot:
        rows = self.read(small)
        merged = self.write_rows(rows)
        after = self.commit(
            snapshot, "OPTIMIZE", add={merged: len(rows)}, remove=small, changes_rows=False
        )
        if after is None:
            self.discard(merged)
        return after or snapshot

    @contextmanager
    def _opened(self, version: int | None) -> Iterator[deltalake.DeltaTable]:
        """The table, for as long as its log is at hand."""
        here = self.storage.folder(self.folder)
        with nullcontext(here) if here else self._shadow(self._entries_for(version)) as folder:
            yield self._table(folder, version)

    def _table(self, folder: Path, version: int | None) -> deltalake.DeltaTable:
        try:
            return deltalake.DeltaTable(folder, version=version)
        except TableNotFoundError as error:
            raise self._bad("is missing or has no log") from error
        except (DeltaError, ValueError, OverflowError) as error:
            newest = self._newest_entry()
            if version is not None and not 0 <= version <= newest:
                where = self.storage.where(self.folder)
                raise UsageError(
                    f"{where}: there is no version {version}; versions 0 to {newest} can be read"
                ) from error
            raise self._bad(f"its log is damaged: {_line(error)}") from error

    def _newest_entry(self) -> int:
        entries = [n for n in self.storage.list(f"{self.folder}/{LOG}") if ENTRY_NAME.fullmatch(n)]
        return int(entries[-1][:20]) if entries else -1

    def _entry(self, version: int) -> list[dict[str, Any]] | None:
        name = f"{self.folder}/{LOG}/{version:020d}.json"
        try:
            text = self.storage.read(name)
        except FileNotFoundError:
            return None
        try:
            actions = [parse_json(line) for line in text.splitlines() if line.strip()]
        except UsageError as error:
            raise self._bad(f"its log entry {version} is damaged: {error}") from error
        found = [action for action in actions if isinstance(action, dict)]
        if len(found) != len(actions) or not found:
            raise self._bad(f"its log entry {version} is damaged: not a list of actions")
        return found

    def _put_entry(
        self, version: int, operation: str, actions: Sequence[Mapping[str, Any]]
    ) -> bool:
        # With the number, no two writers ever put the same bytes: each can tell its own entry.
        about = {
            "timestamp": _now_ms(),
            "operation": operation,
            "engineInfo": "wham-data",
            "txnId": str(uuid.uuid4()),
        }
        lines = [json.dumps(action) for action in ({"commitInfo": about}, *actions)]
        return self.storage.put_if_absent(
            f"{self.folder}/{LOG}/{version:020d}.json", ("\n".join(lines) + "\n").encode()
        )

    def _path_in(self, action: object) -> str:
        path = action.get("path") if isinstance(action, dict) else None
        if not isinstance(path, str):
            raise self._bad("its log has an action without a path")
        return path

    def _count(self, path: object, count: object) -> int:
        """The row count of a listed file, whose name is checked before anything is opened."""
        if not isinstance(path, str) or not DATA_NAME.fullmatch(path):
            raise self._bad(
                f"lists the unsafe path {str(path)[:120]!r}, expected a plain file name"
            )
        if isinstance(count, int) and count >= 0:
            return count
        return int(self._footer(path).num_rows)

    def _footer(self, name: str) -> pq.FileMetaData:
        return self._parquet(name)[0].metadata

    def _parquet(self, name: str) -> tuple[pq.ParquetFile, int]:
        """A data file and its size."""
        place = f"{self.folder}/{name}"
        told = HASHED_NAME.fullmatch(name)
        try:
            if told is None:
                content = self.storage.read(place)
                source, n_bytes = pa.BufferReader(content), len(content)
            else:
                file = self.storage.file(place, lambda: told[1])
                source, n_bytes = file.path, file.path.stat().st_size
            return pq.ParquetFile(source, page_checksum_verification=True), n_bytes
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._bad(f"{name} is missing or corrupt: {_line(error)}") from error

    def _read_one(self, name: str, schema: pa.Schema) -> pa.Table:
        file, n_bytes = self._parquet(name)
        footer = file.metadata
        claimed = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        if claimed > MOST_EXPANSION * n_bytes or footer.num_rows > n_bytes:
            raise self._bad(
                f"{name}: {footer.num_rows} rows in {n_bytes} bytes, too large to be true"
            )
        try:
            return file.read(schema.names).cast(schema)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._bad(f"{name} is corrupt or of another schema: {_line(error)}") from error

    def _bad(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.storage.where(self.folder)}: {what}")


def _records_in(add: object) -> object:
    """`numRecords` of an add action, if it says so."""
    stats = add.get("stats") if isinstance(add, dict) else None
    if isinstance(stats, str):
        with suppress(UsageError):
            told = parse_json(stats)
            return told.get("numRecords") if isinstance(told, dict) else None
    return None


def _now_ms() -> int:
    """The time, for people who read the log; nothing is ever decided on it."""
    return time.time_ns() // 1_000_000


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
