"""Reads the messages of untrusted MCAP files, one chunk at a time.

    for message in read_messages(path):
        message.topic, message.schema, message.log_time_ns, message.data

A recorder that was killed leaves a file without its end: the complete records in it are read.
Chunks are unpacked within limits and their checksums compared. The index at the end is not needed.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import pyarrow as pa

from wham_data.files.found import head_of, open_regular
from wham_data.schemas.errors import Reason, RefusedInput

MAGIC: Final = b"\x89MCAP0\r\n"
HEADER, SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x01, 0x03, 0x04, 0x05, 0x06, 0x0F
MOST_HEADER_BYTES: Final = 1 << 16
MOST_RECORD_BYTES: Final = 64 << 20
MOST_CHANNELS: Final = 1 << 16
MOST_DEFINITION_BYTES: Final = 1 << 18
CODECS: Final = {b"": None, b"zstd": "zstd", b"lz4": "lz4"}


class McapMessage(NamedTuple):
    """One message.

    place       where its chunk begins in the file, and its number in the chunk. For a message outside
                of a chunk: where the message itself begins
    encoding    how `data` is written: "json", "cdr", "protobuf", ...
    definition  the text or bytes that define the schema; b"" if they are longer than
                MOST_DEFINITION_BYTES
    """

    topic: str
    schema: str
    log_time_ns: int
    data: bytes
    place: tuple[int, int]
    encoding: str
    definition: bytes


@dataclass(slots=True)
class _Names:
    """The schemas and channels by number, for the part of the file that has been read."""

    schemas: dict[int, tuple[str, bytes]]
    channels: dict[int, tuple[str, str, int]]

    def learn(self, kind: int, body: bytes) -> None:
        if len(self.schemas) + len(self.channels) > MOST_CHANNELS:
            raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_CHANNELS} schemas and channels")
        if kind == SCHEMA:
            (number,) = struct.unpack_from("<H", body)
            name, at = _text(body, 2)
            definition, _ = _text(body, _text(body, at)[1])
            known = definition if len(definition) <= MOST_DEFINITION_BYTES else b""
            self.schemas[number] = name.decode("utf-8", "replace"), known
        elif kind == CHANNEL:
            number, schema = struct.unpack_from("<HH", body)
            topic, at = _text(body, 4)
            encoding, _ = _text(body, at)
            names = topic.decode("utf-8", "replace"), encoding.decode("utf-8", "replace")
            self.channels[number] = (*names, schema)

    def message(self, body: bytes, place: tuple[int, int]) -> McapMessage:
        channel, _, log_time_ns = struct.unpack_from("<HIQ", body)
        topic, encoding, number = self.channels.get(channel, ("", "", 0))
        schema, definition = self.schemas.get(number, ("", b""))
        if log_time_ns >= 1 << 62:
            raise RefusedInput(Reason.LOG_CLOCK, f"a message at {log_time_ns} ns")
        return McapMessage(topic, schema, log_time_ns, body[22:], place, encoding, definition)


class MessagesAgain:
    """Reads messages of a file again, by their place. The messages of the last chunk are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chunk = -1
        self._kept: dict[tuple[int, int], bytes] = {}

    def data(self, place: tuple[int, int]) -> bytes:
        """The data of the message at a place that `read_messages` gave.

        Raises:
            RefusedInput: CHANGED_WHILE_READ, it is not there any more; as `read_messages`.
        """
        if place[0] != self._chunk:
            found = read_messages(self._path, place[0])
            mine = takewhile(lambda message: message.place[0] == place[0], found)
            self._kept = {message.place: message.data for message in mine}
            self._chunk = place[0]
        if place not in self._kept:
            raise RefusedInput(Reason.CHANGED_WHILE_READ, f"{self._path.name} changed while read")
        return self._kept[place]


def profile_of(path: Path) -> str | None:
    """The profile that an MCAP file names; None if the file is not an MCAP file."""
    try:
        if head_of(path, len(MAGIC)) != MAGIC:
            return None
        with open_regular(path) as file:
            file.seek(len(MAGIC))
            kind, size = struct.unpack("<BQ", file.read(9))
            body = file.read(min(size, MOST_HEADER_BYTES))
            return _text(body, 0)[0].decode("utf-8", "replace") if kind == HEADER else None
    except (RefusedInput, struct.error):
        return None


def is_torn(path: Path) -> bool:
    """Whether a file does not end as an MCAP file does: its recorder was killed, or a copy stopped."""
    with open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(MAGIC)))
        return file.read() != MAGIC


def read_messages(path: Path, start: int = len(MAGIC)) -> Iterator[McapMessage]:
    """The messages of a file in the order in which they were written.

    Args:
        path: the file.
        start: where to begin: at the first record, or at the place of a message. Channels that the
            file declares only before this place are unknown.

    Raises:
        RefusedInput: CORRUPT, a chunk cannot be unpacked; TOO_LARGE, a record or chunk is too large.
    """
    names = _Names({}, {})
    with open_regular(path) as file:
        file.seek(start)
        try:
            for at, kind, body in _records_of_file(file):
                if kind == CHUNK:
                    inner = enumerate(_records(_unpacked(body, at)))
                    for number, (inner_kind, inner_body) in inner:
                        if inner_kind == MESSAGE:
                            yield names.message(inner_body, (at, number))
                        else:
                            names.learn(inner_kind, inner_body)
                elif kind == MESSAGE:
                    yield names.message(body, (at, 0))
                elif kind == DATA_END:
                    return
                else:
                    names.learn(kind, body)
        except struct.error:
            raise RefusedInput(Reason.CORRUPT, f"{path.name}: damaged MCAP record") from None


def _records_of_file(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Place, kind and body of each record. Stops where the file is cut off."""
    while True:
        at = file.tell()
        head = file.read(9)
        if len(head) < 9:
            return
        kind, size = struct.unpack("<BQ", head)
        if size > MOST_RECORD_BYTES:
            raise RefusedInput(
                Reason.TOO_LARGE, f"an MCAP record of {size} bytes, limit {MOST_RECORD_BYTES}"
            )
        body = file.read(size)
        if len(body) < size:
            return
        yield at, kind, body


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each record of a chunk."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<BQ", data, at)
        at += 9
        if size > len(data) - at:
            raise RefusedInput(Reason.CORRUPT, f"an MCAP record of {size} bytes, over its chunk")
        yield kind, data[at : at + size]
        at += size


def _unpacked(body: bytes, at: int) -> bytes:
    """The records of a chunk, decompressed."""
    _, _, size, checksum = struct.unpack_from("<QQQI", body)
    name, start = _text(body, 28)
    (packed_size,) = struct.unpack_from("<Q", body, start)
    packed = body[start + 8 : start + 8 + packed_size]
    if name not in CODECS:
        raise RefusedInput(
            Reason.FORMAT_NOT_ALLOWED, f"an MCAP chunk packed with {name[:20]!r}, not zstd or lz4"
        )
    if size > MOST_RECORD_BYTES:
        raise RefusedInput(
            Reason.TOO_LARGE, f"an MCAP chunk of {size} bytes, limit {MOST_RECORD_BYTES}"
        )
    data = packed
    if codec := CODECS[name]:
        try:
            with pa.CompressedInputStream(pa.BufferReader(packed), codec) as stream:
                data = stream.read(size + 1)
        except (OSError, pa.ArrowException):
            data = b""
    if len(data) != size or (checksum and zlib.crc32(data) != checksum):
        raise RefusedInput(Reason.CORRUPT, f"the MCAP chunk at byte {at} cannot be unpacked")
    return data


def _text(body: bytes, at: int) -> tuple[bytes, int]:
    """A text that is stored after its length, and the position after the text."""
    (size,) = struct.unpack_from("<I", body, at)
    return body[at + 4 : at + 4 + size], at + 4 + size
