"""Writes MCAP files: JSON messages in chunks packed with zstd, with an index and checksums.

    Header, Chunk + MessageIndex.., DataEnd, Schema.., Channel.., Statistics, ChunkIndex.., Footer

A reader finds a time by the index at the end; one that does not use it reads the chunks in order.
Source: the specification of the MCAP format.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import pyarrow as pa

from wham_data.files.mcap import CHANNEL, CHUNK, DATA_END, HEADER, MAGIC, MESSAGE, SCHEMA

FOOTER, MESSAGE_INDEX, CHUNK_INDEX, STATISTICS = 0x02, 0x07, 0x08, 0x0B
CHUNK_BYTES: Final = 1 << 20
LIBRARY: Final = "wham-data"
CODEC: Final = "zstd"


class Topic(NamedTuple):
    """What messages of a topic are.

    schema      the name of their type
    properties  JSON schema of each field
    required    the fields that each message has
    """

    name: str
    schema: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]


class McapWriter:
    """Writes messages to a new file. Their times must not decrease.

    Args:
        path: the file.
        profile: name of the convention that the messages keep to.
        topics: everything that may be written, in the order of their numbers.
    """

    def __init__(self, path: Path, profile: str, topics: Sequence[Topic]) -> None:
        self._file = path.open("wb")
        self._numbers = {topic.name: number for number, topic in enumerate(topics, start=1)}
        self._names = b"".join(
            _record(SCHEMA, struct.pack("<H", number) + _schema(topic))
            + _record(
                CHANNEL,
                struct.pack("<HH", number, number) + _text(topic.name) + _text("json") + _text(""),
            )
            for number, topic in enumerate(topics, start=1)
        )
        self._records = bytearray(self._names)
        self._index: dict[int, list[tuple[int, int]]] = {}
        self._counts = dict.fromkeys(self._numbers.values(), 0)
        self._span = self._whole = (0, 0)
        self._chunks: list[bytes] = []
        self._file.write(MAGIC + _record(HEADER, _text(profile) + _text(LIBRARY)))

    def __enter__(self) -> McapWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._finish()

    def add(self, topic: str, time_ns: int, content: Mapping[str, Any]) -> None:
        """Write a message, logged and published at `time_ns`."""
        number = self._numbers[topic]
        if not any(self._counts.values()):
            self._whole = (time_ns, time_ns)
        if not self._index:
            self._span = (time_ns, time_ns)
        self._whole, self._span = (self._whole[0], time_ns), (self._span[0], time_ns)
        self._index.setdefault(number, []).append((time_ns, len(self._records)))
        head = struct.pack("<HIQQ", number, self._counts[number], time_ns, time_ns)
        data = json.dumps(content, separators=(",", ":")).encode()
        self._records += _record(MESSAGE, head + data)
        self._counts[number] += 1
        if len(self._records) >= CHUNK_BYTES:
            self._end_chunk()

    def _end_chunk(self) -> None:
        """Write the messages that wait, and their index."""
        if not self._index:
            return
        records, start = bytes(self._records), self._file.tell()
        packed = pa.compress(records, CODEC, asbytes=True)
        span = struct.pack("<QQ", *self._span)
        sizes = struct.pack("<QI", len(records), zlib.crc32(records))
        packed_size = struct.pack("<Q", len(packed))
        self._file.write(_record(CHUNK, span + sizes + _text(CODEC) + packed_size + packed))
        length, places = self._file.tell() - start, b""
        indexed = self._file.tell()
        for number, entries in self._index.items():
            places += struct.pack("<HQ", number, self._file.tell())
            body = b"".join(struct.pack("<QQ", *entry) for entry in entries)
            self._file.write(_record(MESSAGE_INDEX, struct.pack("<H", number) + _sized(body)))
        self._chunks.append(
            span
            + struct.pack("<QQ", start, length)
            + _sized(places)
            + struct.pack("<Q", self._file.tell() - indexed)
            + _text(CODEC)
            + struct.pack("<QQ", len(packed), len(records))
        )
        self._records, self._index = bytearray(), {}

    def _finish(self) -> None:
        """Write what is needed to read the file from its end."""
        self._end_chunk()
        self._file.write(_record(DATA_END, bytes(4)))
        start = self._file.tell()
        counts = b"".join(struct.pack("<HQ", *each) for each in self._counts.items())
        statistics = struct.pack(
            "<QHIIIIQQ",
            sum(self._counts.values()),
            len(self._numbers),
            len(self._numbers),
            0,
            0,
            len(self._chunks),
            *self._whole,
        )
        summary = self._names + _record(STATISTICS, statistics + _sized(counts))
        summary += b"".join(_record(CHUNK_INDEX, chunk) for chunk in self._chunks)
        head = struct.pack("<BQQQ", FOOTER, 20, start, 0)
        checksum = struct.pack("<I", zlib.crc32(summary + head))
        self._file.write(summary + head + checksum + MAGIC)


def _schema(topic: Topic) -> bytes:
    described = {
        "type": "object",
        "title": topic.schema.rpartition("/")[2],
        "properties": topic.properties,
        "required": topic.required,
    }
    return _text(topic.schema) + _text("jsonschema") + _sized(json.dumps(described).encode())


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def _sized(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def _text(text: str) -> bytes:
    return _sized(text.encode())
