"""The meaning of the log entries of a Delta Lake table. No file access."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError

Entry = Sequence[Mapping[str, Any]]
"""The actions of a log entry. They come from a file: only their outer type has been checked."""


def parse_entry(text: bytes) -> Entry:
    """The actions in the bytes of a log entry.

    Raises:
        ValueError: they are not a list of actions.
    """
    try:
        actions = [parse_json(line) for line in text.splitlines() if line.strip()]
    except UsageError as error:
        raise ValueError(str(error)) from error
    found = [action for action in actions if isinstance(action, dict)]
    if len(found) != len(actions) or not found:
        raise ValueError("not a list of actions")
    return found


def entry_text(operation: str, actions: Entry, time_ms: int) -> bytes:
    """The bytes of a log entry. A random id makes them unique: a writer can recognise its own entry.

    Args:
        operation: name of the transaction in the table's history.
        actions: what the transaction adds and removes.
        time_ms: when it was decided, in milliseconds since 1970.
    """
    about = {
        "timestamp": time_ms,
        "operation": operation,
        "engineInfo": "wham-data",
        "txnId": str(uuid.uuid4()),
    }
    lines = [json.dumps(action) for action in ({"commitInfo": about}, *actions)]
    return ("\n".join(lines) + "\n").encode()


def describes_table(entry: Entry) -> bool:
    """Whether an entry sets the protocol or the schema of the table, as its first entry does."""
    return any("protocol" in action or "metaData" in action for action in entry)


def reader_version(entry: Entry) -> object:
    """The protocol version that a reader of the table needs; 1 if the entry does not set it."""
    for action in entry:
        if "protocol" in action:
            protocol = action["protocol"]
            return protocol.get("minReaderVersion") if isinstance(protocol, dict) else None
    return 1


def apply_entry(files: dict[str, Any], entry: Entry) -> None:
    """Add and remove the data files that an entry names.

    Args:
        files: path of each data file -> count of its rows; changed. The entry may hold anything as
            the count, or None.
        entry: the log entry.

    Raises:
        ValueError: an action has no path.
    """
    for action in entry:
        if "remove" in action:
            files.pop(_path_in(action["remove"]), None)
        if "add" in action:
            path = _path_in(action["add"])
            files[path] = _records_in(action["add"])


def _path_in(action: object) -> str:
    path = action.get("path") if isinstance(action, dict) else None
    if not isinstance(path, str):
        raise ValueError("has an action without a path")
    return path


def _records_in(add: Mapping[str, Any]) -> object:
    """`numRecords` of an add action; None if the action does not contain it."""
    stats = add.get("stats")
    if isinstance(stats, str):
        with suppress(UsageError):
            fields = parse_json(stats)
            return fields.get("numRecords") if isinstance(fields, dict) else None
    return None
