"""Files and actions of the log of a Delta Lake table, as far as a reader needs them. No file access."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError, short_message

LOG: Final = "_delta_log"
LAST_CHECKPOINT: Final = "_last_checkpoint"
MOST_EXPANSION: Final = 1_000
"""A Parquet file that would need more memory than this many times its own size is refused."""
FILE_NAME: Final = re.compile(r"([0-9]{20})\.(json|checkpoint\.parquet)")
NEEDED: Final = ("protocol.minReaderVersion", "add.path", "add.stats")

Action = Mapping[str, Any]


def entry_name(version: int) -> str:
    """The file of a log entry."""
    return f"{version:020d}.json"


def checkpoint_name(version: int) -> str:
    """The file of a checkpoint, which holds the table at this version."""
    return f"{version:020d}.checkpoint.parquet"


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The versions for which a log has files, sorted.

    entries      versions with an entry
    checkpoints  versions with a checkpoint
    """

    entries: tuple[int, ...]
    checkpoints: tuple[int, ...]

    @classmethod
    def named(cls, names: Iterable[str]) -> LogFiles:
        """The log files among the names of a folder's files. Other names are left out."""
        found = [match for name in names if (match := FILE_NAME.fullmatch(name))]
        kinds: dict[str, list[int]] = {"json": [], "checkpoint.parquet": []}
        for match in found:
            kinds[match[2]].append(int(match[1]))
        return cls(*(tuple(sorted(versions)) for versions in kinds.values()))

    @property
    def newest(self) -> int:
        """The last version that an entry or a checkpoint gives; -1 without any."""
        return max((*self.entries, *self.checkpoints), default=-1)

    def checkpoint_for(self, version: int) -> int | None:
        """The last checkpoint at or before a version."""
        return max((each for each in self.checkpoints if each <= version), default=None)


def entry_actions(content: bytes) -> list[Action]:
    """The actions of a log entry. An entry always has at least one.

    Raises:
        UsageError: the bytes are no log entry; the message says why.
    """
    if not content:
        raise UsageError("has 0 bytes")
    try:
        actions = [parse_json(line) for line in content.splitlines() if line.strip()]
    except UsageError as error:
        raise UsageError(f"has {len(content)} bytes that cannot be read: {error}") from error
    found: list[Action] = [action for action in actions if isinstance(action, dict)]
    if len(found) != len(actions) or not found:
        raise UsageError(f"has {len(content)} bytes that are not a list of actions")
    return found


def checkpoint_actions(content: bytes) -> list[Action]:
    """The actions of a checkpoint, with those of their fields that a reader needs.

    Raises:
        UsageError: the bytes are no checkpoint; the message says why.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        claimed = sum(group.total_byte_size for group in groups)
        if max(claimed, file.metadata.num_rows) > MOST_EXPANSION * len(content):
            raise UsageError(f"has {len(content)} bytes that claim to hold {claimed}")
        rows = file.read(NEEDED).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(
            f"has {len(content)} bytes that cannot be read: {short_message(error)}"
        ) from error
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def protocol_of(action: Action) -> object:
    """`minReaderVersion` of a protocol action; None for another action."""
    found = action.get("protocol")
    return found.get("minReaderVersion", 0) if isinstance(found, dict) else None


def records_in(add: object) -> object:
    """`numRecords` of an add action; None if the action does not contain it."""
    stats = add.get("stats") if isinstance(add, dict) else None
    if not isinstance(stats, str):
        return None
    try:
        fields = parse_json(stats)
    except UsageError:
        return None
    return fields.get("numRecords") if isinstance(fields, dict) else None
