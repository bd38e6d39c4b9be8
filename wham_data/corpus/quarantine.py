"""The quarantine of a corpus: a table with one row for every refused input and settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from wham_data.corpus.commit_rules import quarantine_after
from wham_data.corpus.manifest import Change, ManifestTable, Snapshot
from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.manifest import QUARANTINE_SCHEMA, QuarantineRow, quarantine_table


class Quarantine:
    """The refused inputs as they stand now, whatever version of the corpus is open.

    Attributes:
        table: where they lie.
    """

    def __init__(self, storage: Storage) -> None:
        """Of the corpus that lies there."""
        self.table = ManifestTable(storage, "quarantine", QUARANTINE_SCHEMA)
        self._seen: Snapshot | None = None

    def read(self) -> pa.Table:
        """All rows."""
        return self.table.read(list(self.table.snapshot().files))

    def note(
        self,
        refused: Sequence[QuarantineRow],
        cured: Collection[tuple[str, str]],
        operation: str = "WRITE",
    ) -> None:
        """Bring it up to date: one row per input and settings, none for what is in the corpus.

        Args:
            refused: what was refused.
            cured: keys of rows (see `QuarantineRow.key`) that go.
            operation: what the table's history shows.
        """

        def plan(snapshot: Snapshot) -> Change | None:
            if not refused and not snapshot.files:
                return None
            old = self.table.read(list(snapshot.files))
            kept, new = quarantine_after(old, refused, cured)
            rows = quarantine_table(new, datetime.now(UTC))
            if len(kept) < len(old):
                return Change(pa.concat_tables([kept, rows]), operation, tuple(snapshot.files))
            return Change(rows, operation) if new else None

        self._seen = self.table.transact(self._seen or self.table.snapshot(), plan)

    def release(self, recordings: Collection[str], operation: str) -> None:
        """Let recordings (hashes) go, under whatever settings they were refused."""
        rows = (
            QuarantineRow.from_record(row)
            for row in self.read().drop_columns(["created"]).to_pylist()
        )
        cured = {row.key for row in rows if row.sha256 in recordings}
        if cured:
            self.note((), cured, operation)
