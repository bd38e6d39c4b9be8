"""TFRecord files: where the records are, their checksums, and the `tf.train.Example`s in them.

A record is its length (8 bytes), a checksum of the length, its data, and a checksum of the data. An
Example is a table of named lists: of bytes, of floats or of whole numbers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.elsewhere import size_of
from wham_data.files.found import open_regular
from wham_data.files.wire_format import (
    BYTES,
    FIXED32,
    VARINT,
    Buffer,
    fields,
    packed_varints,
)
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

HEAD_BYTES: Final = 12
CHECKSUM_BYTES: Final = 4
MOST_RECORDS: Final = 1_000_000
MOST_NAME: Final = 1024
MOST_COLUMNS: Final = 1024
MOST_VALUES: Final = 1 << 24
CASTAGNOLI: Final = 0x82F63B78
MASK_DELTA: Final = 0xA282EAD8
LANE_BYTES: Final = 256
BLOCK_BYTES: Final = 16 << 20

_Bits = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Record:
    """The range of bytes in the file that holds the data of a record."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Column:
    """One list of an Example. It holds numbers or bytes; the other field is empty.

    numbers  float32 [N] or int64 [N]
    places   int64 [N, 2]  where each of N runs of bytes starts and stops in the file
    """

    numbers: NDArray[np.float32] | NDArray[np.int64]
    places: Index

    def __len__(self) -> int:
        return max(len(self.numbers), len(self.places))


def records_in(path: Path) -> list[Record]:
    """The records of a file. Their lengths are checked; their data is not read.

    Raises:
        RefusedInput: NOT_A_VIDEO, the file is not a TFRecord file; TRUNCATED, CORRUPT or TOO_LARGE.
    """
    found: list[Record] = []
    with open_regular(path) as file:
        size = size_of(file)
        at = 0
        while at < size:
            file.seek(at)
            head = file.read(HEAD_BYTES)
            if len(head) < HEAD_BYTES:
                raise RefusedInput(Reason.TRUNCATED, f"record {len(found)} is cut short")
            length, stored = struct.unpack("<QI", head)
            if stored != masked(crc32c(head[:8])):
                reason = Reason.CORRUPT if found else Reason.NOT_A_VIDEO
                raise RefusedInput(reason, f"record {len(found)}: its length is damaged")
            start = at + HEAD_BYTES
            at = start + length + CHECKSUM_BYTES
            if at > size:
                raise RefusedInput(Reason.TRUNCATED, f"record {len(found)} is cut short")
            found.append(Record(start, start + length))
            if len(found) > MOST_RECORDS:
                raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_RECORDS} records")
    return found


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, memory-mapped. The file must not be empty."""
    with (
        open_regular(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        yield data


def check_record(data: Buffer, record: Record) -> None:
    """Compare the data of a record with its checksum.

    Raises:
        RefusedInput: CORRUPT, they differ.
    """
    (stored,) = struct.unpack("<I", data[record.stop : record.stop + CHECKSUM_BYTES])
    if masked(crc32c(data, record.start, record.stop)) != stored:
        raise RefusedInput(
            Reason.CORRUPT, f"the record at byte {record.start} differs from its checksum"
        )


def columns_in(data: Buffer, record: Record) -> dict[str, Column]:
    """The lists of the Example in a record.

    Raises:
        RefusedInput: LOG_SYNTAX, the record holds no Example; TOO_LARGE, a list has over 16 million
            values.
    """
    columns: dict[str, Column] = {}
    for features in fields(data, record.start, record.stop):
        if features.number != 1 or features.wire != BYTES:
            continue
        for entry in fields(data, features.start, features.stop):
            name, column = "", Column(np.zeros(0, np.float32), np.zeros((0, 2), np.int64))
            for part in fields(data, entry.start, entry.stop):
                if part.number == 1 and part.wire == BYTES and part.stop - part.start < MOST_NAME:
                    name = bytes(data[part.start : part.stop]).decode("utf-8", "replace")
                elif part.number == 2 and part.wire == BYTES:
                    column = _column(data, part.start, part.stop)
            columns[name] = column
            if len(columns) > MOST_COLUMNS:
                raise RefusedInput(Reason.TOO_LARGE, f"an example of over {MOST_COLUMNS} lists")
    return columns


def _column(data: Buffer, start: int, stop: int) -> Column:
    """The list in a `tf.train.Feature`."""
    places: list[tuple[int, int]] = []
    floats: list[bytes] = []
    packed: list[bytes] = []
    count = 0
    for kind in fields(data, start, stop):
        for value in fields(data, kind.start, kind.stop):
            size = value.stop - value.start
            if kind.number == 1 and value.wire == BYTES:
                places.append((value.start, value.stop))
                count += 1
            elif kind.number == 2 and value.wire in (BYTES, FIXED32) and size % 4 == 0:
                floats.append(bytes(data[value.start : value.stop]))
                count += size // 4
            elif kind.number == 3 and value.wire in (BYTES, VARINT):
                packed.append(bytes(data[value.start : value.stop]))
                count += size
            else:
                raise RefusedInput(Reason.LOG_SYNTAX, f"no example: a list at byte {start}")
            if count > MOST_VALUES:
                raise RefusedInput(Reason.TOO_LARGE, f"a list of over {MOST_VALUES} values")
    numbers: NDArray[np.float32] | NDArray[np.int64]
    numbers = packed_varints(b"".join(packed)) if packed else np.frombuffer(b"".join(floats), "<f4")
    return Column(numbers, np.array(places, np.int64).reshape(-1, 2))


def masked(checksum: int) -> int:
    """A checksum as TFRecord files store it."""
    return ((checksum >> 15 | checksum << 17) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: Buffer, start: int = 0, stop: int | None = None) -> int:
    """CRC-32C (Castagnoli) of data[start:stop].

    The data is cut into lanes of equal length. The checksums of all lanes are computed at once and
    then joined. Joining is possible because a checksum that starts at 0 is linear in its bits.
    """
    end = len(data) if stop is None else stop
    state = 0xFFFFFFFF
    for at in range(start, end, BLOCK_BYTES):
        block = np.frombuffer(data[at : min(end, at + BLOCK_BYTES)], np.uint8)
        state = _shifted(state, len(block)) ^ _linear(block)
    return state ^ 0xFFFFFFFF


def _linear(block: NDArray[np.uint8]) -> int:
    """The checksum of the bytes, started at 0 and not inverted at the end."""
    lanes = 1 << max(0, (len(block) // LANE_BYTES).bit_length() - 1)
    length = -(-len(block) // lanes)
    padded = np.zeros(lanes * length, np.uint8)  # zeros before the first byte change nothing
    padded[lanes * length - len(block) :] = block
    state = np.zeros(lanes, np.uint32)
    for octets in np.ascontiguousarray(padded.reshape(lanes, length).T):
        state = _TABLE[(state ^ octets) & 255] ^ state >> 8
    zeros = _zeros(length)
    while len(state) > 1:
        state = _applied(zeros, state[0::2]) ^ state[1::2]
        zeros = _applied(zeros, zeros)
    return int(state[0])


def _shifted(state: int, count: int) -> int:
    """The checksum after `count` more bytes, all of them zero."""
    return int(_applied(_zeros(count), np.array([state], np.uint32))[0])


@lru_cache(maxsize=64)
def _zeros(count: int) -> _Bits:
    """What each of the 32 bits of a checksum becomes after `count` zero bytes, uint32 [32]."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    made, power = bits, _TABLE[bits & 255] ^ bits >> 8
    while count:
        if count & 1:
            made = _applied(power, made)
        power, count = _applied(power, power), count >> 1
    return made


def _applied(operator: _Bits, states: _Bits) -> _Bits:
    """Checksums after an operator of `_zeros` was applied to them, uint32 [N]."""
    made = np.zeros_like(states)
    for bit in range(32):
        made ^= operator[bit] * (states >> bit & 1)
    return made


def _table() -> _Bits:
    table: _Bits = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ np.uint32(CASTAGNOLI) * (table & np.uint32(1))
    return table


_TABLE: Final = _table()
