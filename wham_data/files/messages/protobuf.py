"""Protocol buffers without generated code: the fields of a message are read by number.

    message = Message.parse(data)
    message.message(2).text(1)        # field 1 of the message in field 2; "" if it is absent

The caller chooses the type of a field. A field that is absent, or has another wire type, gives the
default of proto3: 0, 0.0, "" or a message without fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from wham_data.files.wire_format import BYTES, FIXED32, FIXED64, VARINT, fields
from wham_data.schemas.errors import Reason, RefusedInput

MOST_FIELDS: Final = 1 << 19
Value = int | memoryview


def fields_of(data: bytes | memoryview) -> Iterator[tuple[int, int, Value]]:
    """Number, wire type and value of each field of a message, in order.

    Raises:
        RefusedInput: LOG_SYNTAX, the bytes from this field on are not a message.
    """
    view = memoryview(data)
    for field in fields(view, 0, len(view)):
        value = view[field.start : field.stop] if field.value is None else field.value
        yield field.number, field.wire, value


@dataclass(frozen=True, slots=True)
class Message:
    """A message: for each field number, all values in the order of the data.

    If a number or text occurs several times, the last one counts. If a message occurs several
    times, the occurrences are merged into one.
    """

    _fields: Mapping[int, tuple[tuple[int, Value], ...]]

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Message:
        """The message in `data`.

        Raises:
            RefusedInput: LOG_SYNTAX, `data` is not a message; TOO_LARGE, the message has over
                `MOST_FIELDS` fields.
        """
        found: dict[int, list[tuple[int, Value]]] = {}
        for count, (number, wire, value) in enumerate(fields_of(data)):
            if count == MOST_FIELDS:
                raise RefusedInput(Reason.TOO_LARGE, f"a message of over {MOST_FIELDS} fields")
            found.setdefault(number, []).append((wire, value))
        return cls({number: tuple(values) for number, values in found.items()})

    def integer(self, number: int) -> int:
        """A whole number or a truth value."""
        (value,) = self._of(number, VARINT)[-1:] or (0,)
        assert isinstance(value, int)
        return value - (1 << 64) if value >> 63 else value

    def real(self, number: int) -> float:
        """A float or a double."""
        for wire, code in ((FIXED64, "<d"), (FIXED32, "<f")):
            for value in self._of(number, wire)[-1:]:
                assert not isinstance(value, int)
                return float(struct.unpack(code, value)[0])
        return 0.0

    def octets(self, number: int) -> bytes:
        """Bytes."""
        return b"".join(self._bytes(number)[-1:])

    def texts(self, number: int) -> list[str]:
        """Every text of a repeated field. Bytes that are not UTF-8 are replaced."""
        return [str(value, "utf-8", "replace") for value in self._bytes(number)]

    def text(self, number: int) -> str:
        """A text."""
        return (self.texts(number)[-1:] or [""])[0]

    def messages(self, number: int) -> Iterator[Message]:
        """Every message of a repeated field."""
        return (Message.parse(value) for value in self._bytes(number))

    def message(self, number: int) -> Message:
        """A message."""
        return Message.parse(b"".join(self._bytes(number)))

    def _of(self, number: int, wire: int) -> list[Value]:
        return [value for kind, value in self._fields.get(number, ()) if kind == wire]

    def _bytes(self, number: int) -> list[memoryview]:
        return [value for value in self._of(number, BYTES) if not isinstance(value, int)]
