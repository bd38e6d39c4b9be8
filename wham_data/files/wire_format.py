"""Protocol buffers read without their schema: the fields of a message and where each one is.

for field in fields(data, 0, len(data)):
    field.number, field.value         # value is the number, or None for bytes
    data[field.start : field.stop]    # the bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import Reason, RefusedInput

Buffer = bytes | memoryview | mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}
MOST_VARINT_BYTES: Final = 10


class Field(NamedTuple):
    """One field of a message.

    number       the field's number
    wire         its wire type: VARINT, FIXED64, BYTES or FIXED32
    value        the number of a VARINT, in [0, 2^64); None for the other types
    start, stop  the range of its bytes in the buffer
    """

    number: int
    wire: int
    value: int | None
    start: int
    stop: int


def fields(data: Buffer, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message in data[start:stop], in order.

    Raises:
        RefusedInput: LOG_SYNTAX, the bytes are not a message.
    """
    at = start
    while at < stop:
        tag, at = varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        value, first = None, at
        if wire == VARINT:
            value, at = varint(data, at, stop)
        elif wire == BYTES:
            length, first = varint(data, at, stop)
            at = first + length
        elif wire in FIXED_BYTES:
            at += FIXED_BYTES[wire]
        else:
            raise RefusedInput(Reason.LOG_SYNTAX, f"no message: wire type {wire} at byte {first}")
        if number == 0 or at > stop:
            raise RefusedInput(Reason.LOG_SYNTAX, f"no message: field {number} at byte {first}")
        yield Field(number, wire, value, first, at)


def varint(data: Buffer, at: int, stop: int) -> tuple[int, int]:
    """The whole number at a position, in [0, 2^64), and the position after it.

    Raises:
        RefusedInput: LOG_SYNTAX, the number does not end before `stop`.
    """
    value = 0
    for place in range(min(MOST_VARINT_BYTES, stop - at)):
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value & (1 << 64) - 1, at + place + 1
    raise RefusedInput(Reason.LOG_SYNTAX, f"no message: a number that does not end, at byte {at}")


def packed_varints(data: bytes) -> NDArray[np.int64]:
    """The varints in `data`, written one after the other, int64 [N].

    Raises:
        RefusedInput: LOG_SYNTAX, the last varint does not end, or one has over 10 bytes.
    """
    octets = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(octets < 128)
    if len(octets) and (not len(last) or last[-1] != len(octets) - 1):
        raise RefusedInput(Reason.LOG_SYNTAX, "packed numbers that do not end")
    first = np.append(0, last[:-1] + 1)[: len(last)]
    if (last - first >= MOST_VARINT_BYTES).any():
        raise RefusedInput(Reason.LOG_SYNTAX, "a packed number of over 10 bytes")
    values = np.zeros(len(last), np.uint64)
    for place in range(int((last - first).max(initial=-1)) + 1):
        there = first + place <= last
        parts = octets[(first + place)[there]].astype(np.uint64) & np.uint64(127)
        values[there] |= parts << np.uint64(7 * place)
    return values.view(np.int64)
