"""The quarantine of a corpus: a table with one row for every refused input and settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from wham_data.corpus.commit_rules import quarantine_after
from wham_data.corpus.delta.actions import LOG
from wham_data.corpus.delta.table import Change, ManifestTable, Snapshot
from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.manifest import QUARANTINE_SCHEMA, QuarantineRow, quarantine_table


class Quarantine:
    """The refused inputs, always at their newest state, whichever corpus version is open.

    Attributes:
        table: the table that stores them.
    """

    def __init__(self, storage: Storage) -> None:
        """The quarantine of the corpus in `storage`."""
        self.table = ManifestTable(storage, "quarantine", QUARANTINE_SCHEMA)
        self._seen: Snapshot | None = None

    @property
    def is_there(self) -> bool:
        """Whether the table exists, in a corpus or before there is one; see `begin`."""
        return bool(self.table.storage.list(f"{self.table.folder}/{LOG}"))

    def begin(self) -> None:
        """Make the table where no corpus can be made yet, for no input of the first run was read.

        Nothing else of a corpus is there then, so a later run may begin it with any settings.
        """
        self.table.storage.probe()
        self.table.create()
        self.table.storage.settle(f"{self.table.folder}/{LOG}", "")

    def read(self) -> pa.Table:
        """All rows, a table of QUARANTINE_SCHEMA."""
        return self.table.read(list(self.table.snapshot().files))

    def note(
        self,
        refused: Sequence[QuarantineRow],
        resolved: Collection[tuple[str, str]],
        operation: str = "WRITE",
    ) -> None:
        """Update the table in one transaction: at most one row for each input and settings.

        Args:
            refused: rows to add; a row with the same key is replaced.
            resolved: (hash or path, settings) of the rows to remove.
            operation: name of the transaction in the table's history.

        Raises:
            WhamDataError: the table cannot be written.
        """

        def plan(snapshot: Snapshot) -> Change | None:
            if not refused and not snapshot.files:
                return None
            old = self.table.read(list(snapshot.files))
            kept, new = quarantine_after(old, refused, resolved)
            rows = quarantine_table(new, datetime.now(UTC))
            if len(kept) < len(old):
                return Change(pa.concat_tables([kept, rows]), operation, tuple(snapshot.files))
            return Change(rows, operation) if new else None

        self._seen = self.table.transact(self._seen or self.table.snapshot(), plan)

    def release(self, recordings: Collection[str], operation: str) -> None:
        """Remove all rows of some recordings.

        Args:
            recordings: hashes of the recordings, under any settings.
            operation: name of the transaction in the table's history.
        """
        rows = (
            QuarantineRow.from_record(row)
            for row in self.read().drop_columns(["created"]).to_pylist()
        )
        resolved = {(row.sha256, row.settings) for row in rows if row.sha256 in recordings}
        if resolved:
            self.note((), resolved, operation)


def refused_so_far(storage: Storage) -> str:
    """What to say of a folder in which there is a quarantine and no corpus yet; "" for others."""
    quarantine = Quarantine(storage)
    if not quarantine.is_there or not quarantine.table.snapshot().rows:
        return ""
    return (
        ": no recording could be read yet. `wham-data quarantine list` shows why; mend what it says, "
        "then run `wham-data ingest` again"
    )
