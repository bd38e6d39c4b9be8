"""Protocol buffers without generated code: messages whose fields are asked for by number.

    told = Message.parse(data)
    told.message(2).text(1)           # field 1 of the message in field 2; "" where there is none

What a field holds is what the caller takes it for; one that is absent, or of another type on the
wire, gives the default of proto3: 0, 0.0, "" or a message without fields.
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
    """Number, type on the wire and value of each field of a message, in order.

    Raises:
        RefusedInput: LOG_SYNTAX, it is no message from here on.
    """
    view = memoryview(data)
    for field in fields(view, 0, len(view)):
        value = view[field.start : field.stop] if field.value is None else field.value
        yield field.number, field.wire, value


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its fields by number, each as often as it occurs.

    Of several numbers or texts the last counts; several messages are one.
    """

    _fields: Mapping[int, tuple[tuple[int, Value], ...]]

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Message:
        """The message in some bytes.

        Raises:
            RefusedInput: LOG_SYNTAX, they hold none; TOO_LARGE, it has over `MOST_FIELDS`.
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

    def texts(self, number: int) -> list[str]:
        """Every text of a repeated field; what is no UTF-8 in it is replaced."""
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
