"""A strict reader of Parquet page headers: it finds where in a column chunk the raw matrix begins.

A header is a struct in Thrift's compact protocol: fields with increasing numbers, each with its
type, and a zero byte at the end. Field types that no page header has count as damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LONGEST_HEADER: Final = 1_024
"""Longest page header that is read, in bytes. Ours have about 30 bytes, 70 with statistics."""
DATA_PAGE: Final = 0
PLAIN: Final = 0
_DEEPEST: Final = 4


@dataclass(frozen=True, slots=True)
class PageHeader:
    """The header of a page.

    header_bytes  length of the header; the body follows it
    body_bytes    length of the body as stored
    raw_bytes     length of the body without compression
    plain         whether this is a data page (version 1) in PLAIN encoding
    values        count of values in the page; 0 if it is not a data page
    crc           CRC-32 of the body as stored; None: not given. Not compared with `==`
    """

    header_bytes: int
    body_bytes: int
    raw_bytes: int
    plain: bool
    values: int
    crc: int | None = field(default=None, compare=False)


def read_page_header(data: bytes) -> PageHeader:
    """The header at the beginning of `data`.

    Raises:
        ValueError: `data` does not begin with a page header, or the header is cut off.
    """
    reader = _Compact(data)
    try:
        fields = reader.struct()
    except IndexError as error:
        raise ValueError("a page header without an end") from error
    about = fields.get(5)
    about = about if isinstance(about, Mapping) else {}
    numbers = [fields.get(1), fields.get(2), fields.get(3), about.get(1, 0), about.get(2, -1)]
    match numbers:
        case [int(kind), int(raw), int(stored), int(values), int(encoding)]:
            plain = kind == DATA_PAGE and encoding == PLAIN
            crc = fields.get(4)
            checked = crc & 0xFFFFFFFF if isinstance(crc, int) else None
            return PageHeader(reader.at, stored, raw, plain, values, checked)
    raise ValueError("not a page header")


class _Compact:
    """A cursor over a struct in Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int = 1) -> dict[int, object]:
        """Field number -> whole number, truth value, text or struct."""
        if depth > _DEEPEST:
            raise ValueError("a page header nested too deep")
        fields: dict[int, object] = {}
        number = 0
        while head := self._byte():
            step = head >> 4
            number = number + step if step else self._signed()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 8:
                return self._text()
            case 12:
                return self.struct(depth + 1)
        raise ValueError(f"a page header with a field of type {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)

    def _text(self) -> bytes:
        length = self._unsigned()
        self.at += length
        return self._data[self.at - length : self.at]
