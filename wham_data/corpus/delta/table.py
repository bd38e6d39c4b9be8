"""The manifest: Delta Lake tables. We write their log entries ourselves, so that they are durable.

A Delta Lake table is a folder with Parquet files and a log, `_delta_log/<20 digits>.json`. A log
entry adds files and removes files; entries 0 to n together give the table at version n.

Safety rests on one rule: only one process can create the file of entry n + 1, and it decides on the
state after entry n. A process that comes second reads the new entry and decides again, so no
recording is added twice. `Storage.put_if_absent` creates the file: its bytes are durable before the
name is visible, and it never replaces a file. We do not use the writer of the `deltalake` package,
because it never calls fsync (observed in release 1.6): after a power cut a committed entry, or the
data file that it adds, could be missing.

The log is read here too (`delta/log.py` says why). Other tools can read the tables. The Parquet files
are never deleted here, so every version stays readable.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from wham_data.after_fork import use_deltalake
from wham_data.corpus.delta.actions import (
    LAST_CHECKPOINT,
    LOG,
    MOST_EXPANSION,
    Action,
    checkpoint_name,
    entry_name,
    protocol_of,
    records_in,
)
from wham_data.corpus.delta.log import DeltaLog
from wham_data.corpus.storage.contract import Storage
from wham_data.files.found import SNIFFED_BYTES, stand_in_of
from wham_data.schemas.errors import IntegrityError, UsageError, WhamDataError, short_message
from wham_data.schemas.manifest import with_late_columns

DATA_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.parquet")
HASHED_NAME: Final = re.compile(r"part-([0-9a-f]{64})\.parquet")
TRIES: Final = 50
LONGEST_WAIT_S: Final = 0.25
CHECKPOINT_EVERY: Final = 100
MERGE_AT: Final = 64
"""As soon as there are this many small data files they are merged, to keep reading fast."""
SMALL_ROWS: Final = 32_768


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table at one version.

    version  number of the last log entry
    files    name of each data file -> count of its rows
    """

    version: int
    files: Mapping[str, int]

    @property
    def rows(self) -> int:
        """The count of rows of the table."""
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a table.

    rows       rows to add
    operation  name of the transaction in the table's history
    remove     data files to remove, from the snapshot on which the change was decided
    """

    rows: pa.Table
    operation: str = "WRITE"
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestTable:
    """One table of the manifest.

    storage  the files of the corpus
    folder   folder of the table in the corpus
    schema   of its rows
    """

    storage: Storage
    folder: str
    schema: pa.Schema

    @property
    def log(self) -> DeltaLog:
        """The log of the table."""
        return DeltaLog(self.storage, self.folder)

    def create(self) -> None:
        """Create the empty table at version 0. Nothing happens if the table exists."""
        metadata = {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": deltalake.Schema.from_arrow(self.schema).to_json(),
            "partitionColumns": [],
            # Other tools that write to the table must not delete the log of old versions.
            "configuration": {"delta.enableExpiredLogCleanup": "false"},
            "createdTime": _now_ms(),
        }
        self._put_entry(
            0,
            "CREATE TABLE",
            [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}],
        )

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The table at its newest version, or at `version`.

        Raises:
            UsageError: there is no such version.
            IntegrityError: the log is damaged, lacks an entry, or needs a newer reader.
        """
        files = self.log.files()
        newest = files.newest
        if newest < 0:
            raise self._bad("is missing or has no log")
        version = newest if version is None else version
        if not 0 <= version <= newest:
            raise UsageError(
                f"{self.storage.where(self.folder)}: there is no version {version}; versions 0 to "
                f"{newest} can be read"
            )
        actions = self.log.actions_to(version, files)
        if not any("protocol" in action for action in actions):
            raise self._bad("its log is damaged: no entry in it says which reader it needs")
        return Snapshot(version, self._files_after({}, actions))

    def advance(self, snapshot: Snapshot) -> Snapshot:
        """The newest version of the table. Reads only the log entries after `snapshot`."""
        files, version = snapshot.files, snapshot.version
        for number, actions in self.entries(version):
            files, version = self._files_after(files, actions), number
        return Snapshot(version, files)

    def _files_after(self, files: Mapping[str, int], actions: Sequence[Action]) -> dict[str, int]:
        """The data files of the table, with their row counts, after some actions.

        Raises:
            IntegrityError: the table needs a newer reader, or a data file has an unsafe name.
        """
        counts: dict[str, object] = dict(files)
        for action in actions:
            reader = protocol_of(action)
            if reader is not None and reader != 1:
                raise self._bad(
                    f"needs a reader of Delta Lake protocol {reader}; this release reads 1"
                )
            if "remove" in action:
                counts.pop(self._path_in(action["remove"]), None)
            if "add" in action:
                counts[self._path_in(action["add"])] = records_in(action["add"])
        return {path: self._count(path, count) for path, count in counts.items()}

    def entries(self, after: int) -> Iterator[tuple[int, list[Action]]]:
        """The log entries after a version: (number, actions) each."""
        while (entry := self.log.entry(after + 1)) is not None:
            after += 1
            yield after, entry

    def read(self, files: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of some data files, in the order of `files`.

        Args:
            files: names of data files.
            columns: names of the columns to read; None: all.

        Raises:
            IntegrityError: a file is missing, damaged, or not of the table's schema.
        """
        schema = (
            self.schema if columns is None else pa.schema([self.schema.field(c) for c in columns])
        )
        tables = [self._read_one(name, schema) for name in files]
        return pa.concat_tables([schema.empty_table(), *tables])

    def write_rows(self, rows: pa.Table) -> str:
        """Write rows to a new data file, which is durable on return. `commit` adds it to the table.

        Returns:
            The name of the file. It contains the file's SHA-256, so that `problems` finds damage.
        """
        body = io.BytesIO()
        with pq.ParquetWriter(
            body, self.schema, compression="ZSTD", write_page_checksum=True
        ) as writer:
            writer.write_table(rows.cast(self.schema))
            # Two writers must never share a file: the one that comes second removes its own.
            writer.add_key_value_metadata({"wham_data.nonce": uuid.uuid4().hex})
        name = f"part-{hashlib.sha256(body.getbuffer()).hexdigest()}.parquet"
        self.storage.put_if_absent(f"{self.folder}/{name}", body.getvalue())
        return name

    def problems(self, snapshot: Snapshot | None = None) -> Iterator[str]:
        """The problems in the log and in the data files, one line each.

        Args:
            snapshot: whose data files to check; None: of the newest version.
        """
        of_log = list(self.log.problems())
        yield from of_log
        try:
            snapshot = snapshot or self.snapshot()
        except IntegrityError as error:
            if str(error) not in of_log:
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
            hashed = HASHED_NAME.fullmatch(name)
            sha256 = self.storage.sha256(f"{self.folder}/{name}")
            if hashed and hashed[1] != sha256:
                yield f"{self.folder}/{name}: corrupt: its sha256 is {sha256}"

    def discard(self, data_file: str) -> None:
        """Delete a data file that this process has written and not committed."""
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
        """Write the log entry that follows `snapshot`.

        Args:
            snapshot: the version on which the change was decided.
            operation: name of the transaction in the table's history.
            add: data files from `write_rows` -> their row counts.
            remove: data files of the snapshot to remove from the table (not from the disk).
            changes_rows: False if the rows stay the same and only move to other files.

        Returns:
            The table after the entry; None if another process was first, so that the caller must
            read the new version and decide again.
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
        """Decide on a change of the newest version and commit it.

        If another process commits first, `plan` is called again with the new version.

        Args:
            snapshot: any earlier version of the table.
            plan: takes a version and returns the change; None: nothing to change.

        Returns:
            The version after the change.

        Raises:
            WhamDataError: other processes were first in every attempt, or the disk fails.
        """
        for attempt in range(TRIES):
            snapshot = self.advance(snapshot)
            change = plan(snapshot)
            if change is None:
                # Another process has done it, and may have died before it was durable.
                self.storage.settle(f"{self.folder}/{LOG}")
                return snapshot
            name = self.write_rows(change.rows)
            after = self.commit(
                snapshot, change.operation, add={name: len(change.rows)}, remove=change.remove
            )
            if after is not None:
                return self.tidy(after)
            self.discard(name)
            # Wait a random time, longer after each attempt, so that the others finish.
            time.sleep(random.uniform(0, min(LONGEST_WAIT_S, 0.004 * 2**attempt)))
        where = self.storage.where(self.folder)
        raise WhamDataError(f"{where}: {TRIES} commits by others came first; try again")

    def tidy(self, snapshot: Snapshot) -> Snapshot:
        """Merge small data files, and write a checkpoint every 100 versions.

        Both only make reading faster, so an error here is ignored: the commit before it succeeded.
        """
        with suppress(WhamDataError, OSError, DeltaError):
            due = snapshot.version and snapshot.version % CHECKPOINT_EVERY == 0
            if due and use_deltalake():  # after a fork, another process will write the next one
                self.checkpoint(snapshot.version)
            small = [name for name, rows in snapshot.files.items() if rows < SMALL_ROWS]
            if len(small) >= MERGE_AT:
                return self._merge(snapshot, small)
        return snapshot

    def checkpoint(self, version: int) -> None:
        """Write the table at `version` as one file, so that readers need not read the whole log.

        `deltalake` makes the file, but does not sync it. So it works in a temporary folder, and the
        file is then put into the corpus like every other file.
        """
        since = self.log.files().checkpoint_for(version - 1)
        names = [entry_name(each) for each in range(since or 0, version + 1)]
        names += [] if since is None else [checkpoint_name(since)]
        with tempfile.TemporaryDirectory(prefix="wham-data-") as shadow:
            log = Path(shadow) / LOG
            log.mkdir()
            for name in names:
                (log / name).write_bytes(self.log.read(name))
            deltalake.DeltaTable(shadow, version=version).create_checkpoint()
            name, folder = checkpoint_name(version), f"{self.folder}/{LOG}"
            if self.storage.put_if_absent(f"{folder}/{name}", (log / name).read_bytes()):
                hint = (log / LAST_CHECKPOINT).read_bytes()
                self.storage.replace(f"{folder}/{LAST_CHECKPOINT}", hint)

    def _merge(self, snapshot: Snapshot, small: Sequence[str]) -> Snapshot:
        rows = self.read(small)
        merged = self.write_rows(rows)
        after = self.commit(
            snapshot, "OPTIMIZE", add={merged: len(rows)}, remove=small, changes_rows=False
        )
        if after is None:
            self.discard(merged)
        return after or snapshot

    def _put_entry(
        self, version: int, operation: str, actions: Sequence[Mapping[str, Any]]
    ) -> bool:
        # The random id makes the bytes unique, so that a writer can recognise its own entry.
        about = {
            "timestamp": _now_ms(),
            "operation": operation,
            "engineInfo": "wham-data",
            "txnId": str(uuid.uuid4()),
        }
        lines = [json.dumps(action) for action in ({"commitInfo": about}, *actions)]
        return self.storage.put_if_absent(
            f"{self.folder}/{LOG}/{entry_name(version)}", ("\n".join(lines) + "\n").encode()
        )

    def _path_in(self, action: object) -> str:
        path = action.get("path") if isinstance(action, dict) else None
        if not isinstance(path, str):
            raise self._bad("its log has an action without a path")
        return path

    def _count(self, path: object, count: object) -> int:
        """The row count of a data file in the log. Its name is checked before the file is opened."""
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
        hashed = HASHED_NAME.fullmatch(name)
        try:
            if hashed is None:
                content = self.storage.read(place)
                source, n_bytes = pa.BufferReader(content), len(content)
            else:
                file = self.storage.file(place, lambda: hashed[1])
                source, n_bytes = file.path, file.path.stat().st_size
            return pq.ParquetFile(source, page_checksum_verification=True), n_bytes
        except (pa.ArrowException, OSError, ValueError) as error:
            why = self._stand_in(place) or f"is missing or corrupt: {short_message(error)}"
            raise self._bad(f"{name} {why}") from error

    def _stand_in(self, place: str) -> str | None:
        """What is in the place of a data file that was not copied or downloaded; else None."""
        with suppress(WhamDataError, OSError):
            found = stand_in_of(self.storage.read(place)[:SNIFFED_BYTES])
            return found and f"is {found}"
        return None

    def _read_one(self, name: str, schema: pa.Schema) -> pa.Table:
        file, n_bytes = self._parquet(name)
        footer = file.metadata
        claimed = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        if claimed > MOST_EXPANSION * n_bytes or footer.num_rows > n_bytes:
            raise self._bad(
                f"{name}: {footer.num_rows} rows in {n_bytes} bytes, too large to be true"
            )
        try:
            return with_late_columns(file.read(schema.names), schema).cast(schema)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._bad(
                f"{name} is corrupt or of another schema: {short_message(error)}"
            ) from error

    def _bad(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.storage.where(self.folder)}: {what}")


def _now_ms() -> int:
    """The current time in milliseconds, for people who read the log; no decision depends on it."""
    return time.time_ns() // 1_000_000
