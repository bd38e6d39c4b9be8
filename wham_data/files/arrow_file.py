"""Reads untrusted Arrow files (the IPC file format, also called Feather 2) as record batches.

    for batch in arrow_batches(path, ["actions", "rewards"]):
        batch.column("actions")                  # a view of the mapped file

A batch is not copied, so its size is that of the file: a file whose batches are packed is refused.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from wham_data.files.found import open_regular
from wham_data.schemas.errors import Reason, RefusedInput

MAGIC: Final = b"ARROW1"
START: Final = 8
"""Where the messages begin: the magic bytes, padded."""


def arrow_batches(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a file, in order, with their columns checked.

    Args:
        path: the file.
        names: the columns that are needed.

    Raises:
        RefusedInput: LOG_EMPTY, TRUNCATED or LOG_SYNTAX, no sound Arrow file; LOG_COLUMN, a column is
            missing; FORMAT_NOT_ALLOWED, the batches are packed.
    """
    with open_regular(path) as file:
        head = file.read(len(MAGIC))
        if not head:
            raise RefusedInput(Reason.LOG_EMPTY, f"{path.name} is empty (0 bytes)")
        if head != MAGIC:
            raise RefusedInput(Reason.LOG_SYNTAX, f"{path.name} is no Arrow file")
        file.seek(-len(MAGIC), 2)
        if file.tell() < START or file.read() != MAGIC:
            raise RefusedInput(Reason.TRUNCATED, f"{path.name} ends before its end mark")
        # Closed with the last view of it.
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        yield from _batches(content.slice(START), names, path)
    except (pa.ArrowException, OSError, ValueError, KeyError, struct.error) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedInput(
            Reason.LOG_SYNTAX, f"{path.name} is no sound Arrow file: {first_line[:200]}"
        ) from None


def _batches(content: Any, names: Sequence[str], path: Path) -> Iterator[pa.RecordBatch]:
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(content))
    schema = pa.ipc.read_schema(messages.read_next_message())
    if missing := [name for name in names if name not in schema.names]:
        raise RefusedInput(Reason.LOG_COLUMN, f"{path.name} has no column {', '.join(missing)}")
    for message in messages:
        if message.type != "record batch":
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED, f"{path.name} has a {message.type}, expected plain rows"
            )
        if _is_packed(message.metadata.to_pybytes()):
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED,
                f"{path.name} is compressed: write it again without compression",
            )
        batch = pa.ipc.read_record_batch(message, schema)
        for name in names:
            batch.column(name).validate(full=True)
        yield batch.select(list(names))


def _is_packed(metadata: bytes) -> bool:
    """Whether the description of a record batch, a Flatbuffer, names a compression."""

    def field(table: int, number: int) -> int:
        (back,) = struct.unpack_from("<i", metadata, table)
        (size,) = struct.unpack_from("<H", metadata, table - back)
        place = 4 + 2 * number
        if place >= size:
            return 0
        (offset,) = struct.unpack_from("<H", metadata, table - back + place)
        return table + int(offset) if offset else 0

    def table_at(place: int) -> int:
        return place + int(struct.unpack_from("<I", metadata, place)[0])

    header = field(table_at(0), 2)
    return field(table_at(header), 3) != 0
