"""Reads values of CDR, the encoding of ROS 2's messages, in the order in which they were written.

    values = CdrValues(data)
    values.time_ns(), values.text(), values.numbers(np.dtype("f4"))

The first four bytes tell the order of bytes. Each number lies at a multiple of its own size, counted
after those four (OMG, DDS Interoperability Wire Protocol 2.5, section 10.2, "plain" CDR, version 1).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput

ORDERS: Final[dict[bytes, Literal["<", ">"]]] = {b"\0\0": ">", b"\0\1": "<"}
"""Of the numbers, by the first two bytes."""
PADDING: Final = 3
"""Bytes that may follow the last value, so that the whole has a multiple of four bytes."""


class CdrValues:
    """The values of one message. Nothing is allocated for a size before its bytes are there."""

    def __init__(self, data: bytes) -> None:
        """Read the four bytes before the values.

        Raises:
            RefusedInput: LOG_SYNTAX, it is not plain CDR.
        """
        order = ORDERS.get(data[:2])
        if order is None or len(data) < 4:
            raise RefusedInput(
                Reason.LOG_SYNTAX, f"a message that begins with {data[:4].hex()}: not plain CDR"
            )
        self._order = order
        self._values = memoryview(data)[4:]
        self._at = 0

    def numbers(self, dtype: np.dtype[Any], count: int | None = None) -> NDArray[Any]:
        """So many numbers, or all of a sequence, which is stored after its length."""
        count = self._length() if count is None else count
        if count:
            self._at = -(-self._at // dtype.itemsize) * dtype.itemsize
        data = self._taken(count * dtype.itemsize)
        return np.frombuffer(data, dtype.newbyteorder(self._order))

    def octets(self) -> bytes:
        """A sequence of bytes."""
        return bytes(self._taken(self._length()))

    def text(self) -> str:
        """A text. Bytes that are not UTF-8 are replaced."""
        return str(self.octets().rstrip(b"\0"), "utf-8", "replace")

    def time_ns(self) -> int:
        """A time: whole seconds (int32), and nanoseconds (uint32)."""
        seconds = int(self.numbers(np.dtype("i4"), 1)[0])
        return seconds * SECOND_NS + int(self.numbers(np.dtype("u4"), 1)[0])

    def check_end(self) -> None:
        """Refuse a message that holds more values than were read.

        Raises:
            RefusedInput: LOG_SYNTAX.
        """
        left = len(self._values) - self._at
        if left > PADDING:
            raise RefusedInput(
                Reason.LOG_SYNTAX, f"a message with {left} bytes more than its type has"
            )

    def _length(self) -> int:
        return int(self.numbers(np.dtype("u4"), 1)[0])

    def _taken(self, size: int) -> memoryview:
        if size > len(self._values) - self._at:
            raise RefusedInput(
                Reason.LOG_SYNTAX,
                f"a message of {len(self._values)} bytes, too short for its type",
            )
        self._at += size
        return self._values[self._at - size : self._at]
