"""The log of a Delta Lake table in a corpus: its entries and checkpoints, and what is wrong with them.

We read the log ourselves, because the `deltalake` package (release 1.6) decodes the path of a table:
it looks for `my%20corpus` in `my corpus`. It also takes an entry of 0 bytes for a commit that changes
nothing, and does not name an entry that is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from wham_data.corpus.delta.actions import (
    LOG,
    Action,
    LogFiles,
    checkpoint_actions,
    checkpoint_name,
    entry_actions,
    entry_name,
)
from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.errors import IntegrityError, UsageError

READ_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class DeltaLog:
    """The log of one table.

    storage  the files of the corpus
    table    folder of the table in the corpus
    """

    storage: Storage
    table: str

    def files(self) -> LogFiles:
        """The entries and checkpoints that are there now."""
        return LogFiles.named(self.storage.list(f"{self.table}/{LOG}"))

    def read(self, name: str) -> bytes:
        """The bytes of a file of the log."""
        return self.storage.read(f"{self.table}/{LOG}/{name}")

    def entry(self, version: int) -> list[Action] | None:
        """The actions of an entry; None if there is no such entry.

        Raises:
            IntegrityError: the entry is damaged.
        """
        try:
            return entry_actions(self.read(entry_name(version)))
        except FileNotFoundError:
            return None
        except UsageError as error:
            without = (
                "; without a whole copy delete it, if no entry comes after it, and ingest again"
            )
            raise self._lost(version, str(error), without) from error

    def actions_to(self, version: int, files: LogFiles) -> list[Action]:
        """The actions that give the table at a version: of a checkpoint, and of the entries after it.

        Args:
            version: of the table.
            files: the files of the log.

        Raises:
            IntegrityError: one of these files is missing or damaged.
        """
        checkpoint = files.checkpoint_for(version)
        stored = [] if checkpoint is None else self._checkpoint(checkpoint)
        after = 0 if checkpoint is None else checkpoint + 1
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:  # on an object store each takes a while
            entries = list(pool.map(self._needed_entry, range(after, version + 1)))
        return [*stored, *(action for entry in entries for action in entry)]

    def problems(self) -> Iterator[str]:
        """The entries and checkpoints that are missing or damaged, one line each."""
        files = self.files()
        missing = sorted({*range(files.newest + 1)} - {*files.entries})
        if missing:
            others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
            yield str(self._lost(missing[0], f"is missing{others}"))
        parts: list[tuple[Callable[[int], object], int]] = [
            (self.entry, version) for version in files.entries
        ]
        parts += [(self._checkpoint, version) for version in files.checkpoints]
        for read, version in parts:
            try:
                read(version)
            except IntegrityError as error:
                yield str(error)

    def _needed_entry(self, version: int) -> list[Action]:
        actions = self.entry(version)
        if actions is None:
            raise self._lost(version, "is missing")
        return actions

    def _checkpoint(self, version: int) -> list[Action]:
        name = checkpoint_name(version)
        try:
            return checkpoint_actions(self.read(name))
        except UsageError as error:
            raise IntegrityError(
                f"{self._path(name)}: damaged: {error}. Copy this file again, or delete it if all "
                f"entries from {entry_name(0)} on are there"
            ) from error

    def _lost(self, version: int, why: str, without: str = "") -> IntegrityError:
        """The error for an entry that is missing or damaged."""
        older = f"; versions up to {version - 1} can be read" if version else ""
        return IntegrityError(
            f"{self._path(entry_name(version))}: damaged: this log entry {why}, so a commit is lost. "
            f"Copy the file again from where it is whole{without}{older}"
        )

    def _path(self, name: str) -> str:
        return self.storage.where(f"{self.table}/{LOG}/{name}")
