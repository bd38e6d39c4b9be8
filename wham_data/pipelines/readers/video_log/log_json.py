"""JSON logs: one object per line, a list of objects, or an object with one such list in it.

A list is taken apart object by object, so that a large file never becomes one value in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from wham_data.files.json_lines import (
    JSON_STRING,
    MAX_LINE_BYTES,
    MAX_NUMBER_CHARACTERS,
    MOST_JSON_BYTES,
    check_json_depth,
)
from wham_data.pipelines.readers.video_log.log_cells import Row, read_rows, wanted_names
from wham_data.pipelines.readers.video_log.log_format import LogFormat
from wham_data.pipelines.readers.video_log.log_table import (
    MAX_COLUMNS,
    LogTable,
    WantedColumns,
    check_room,
    distinct,
)
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput, printable

MOST_SHAPES: Final = 1 << 12
_JSON: Final = json.JSONDecoder(parse_float=Decimal)
_DIGITS: Final = re.compile(rb"[0-9]{%d}" % MAX_NUMBER_CHARACTERS)
_TOKENS: Final = re.compile(JSON_STRING + rb"|[\[\]{}]", re.DOTALL)
_STRINGS: Final = re.compile(rb"(" + JSON_STRING + rb")(?:\s*+(:))?+", re.DOTALL)
_FLAT: Final = re.compile(rb'\{(?:[^"{}\[\]]++|' + JSON_STRING + rb")*+\}", re.DOTALL)
_BETWEEN: Final = re.compile(rb"[\s,]*+")
_SPACE: Final = re.compile(rb"\s*+")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows are: the list that begins at byte `list_at`; None: a row in each line."""

    list_at: int | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class JsonLog:
    """Objects that are rows. The columns are all keys of all rows; a key that is not there is null.

    data    UTF-8
    lines   number of lines
    place   where the rows are
    header  the first object shares no key with the second: it is no row
    paths   column -> the keys that lead to it
    """

    data: bytes
    lines: int
    place: _Place
    header: bool
    paths: dict[str, tuple[str, ...]]
    format: LogFormat

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, nested ones joined with dots."""
        return tuple(self.paths)

    @classmethod
    def open(cls, data: bytes, lines: int, longest_line: int, encoding: str) -> JsonLog:
        """Find the rows, and the keys of all of them.

        Raises:
            RefusedInput: no rows, or one that is no object, too large or nested too deep.
        """
        place = _place_of_rows(data)
        if place.list_at is None and longest_line > MAX_LINE_BYTES:
            raise RefusedInput(
                Reason.TOO_LARGE,
                f"a line of {longest_line} bytes (limit {MAX_LINE_BYTES}): not a log",
            )
        header, paths = _columns(_objects(data, place))
        form = LogFormat(
            form="JSON lines" if place.list_at is None else "JSON list",
            encoding=encoding,
            delimiter="",
            header_line=0,
            list_name=place.name,
        )
        return cls(data, lines, place, header, paths, form)

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns of every row."""
        most = self.lines if self.place.list_at is None else self.data.count(b"}")
        check_room(most, len(wanted.numbers) + 1)
        table = read_rows(self._rows(wanted), wanted, self.format)
        if not self.header:
            return table
        note = "the first object has other keys than the rows: left out as a header"
        return replace(table, notes=(note, *table.notes))

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        wanted = WantedColumns(column, "time_ns", ())
        return distinct(cells[0] for _, cells in self._rows(wanted) if cells is not None)

    def _rows(self, wanted: WantedColumns) -> Iterator[Row]:
        paths = [self.paths[name] for name in wanted_names(wanted)]
        torn: int | None = None
        for count, (line, text) in enumerate(_objects(self.data, self.place)):
            if torn is not None:
                raise RefusedInput(Reason.LOG_SYNTAX, f"line {torn}: not JSON")
            row = json_object(text, line)
            if row is None:
                torn = line
            elif count or not self.header:
                yield line, [_leaf(row, path) for path in paths]
        if torn is not None:
            yield torn, None


def _place_of_rows(data: bytes) -> _Place:
    """Where the rows of a JSON text are."""
    at = _first(data, 0)
    if data[at : at + 1] == b"[":
        return _Place(at)
    end = data.find(b"\n", at)
    end = len(data) if end < 0 else end
    several = _first(data, end) < len(data)
    if several and (end - at > MAX_LINE_BYTES or _ends_at(data, at, end) is not None):
        return _Place(None)
    if len(data) > MOST_JSON_BYTES:
        raise RefusedInput(
            Reason.TOO_LARGE,
            f"a JSON object of {len(data)} bytes (limit {MOST_JSON_BYTES}): write the log as JSON "
            "lines, an object per line",
        )
    lists = list(_lists_in(data, at))
    if len(lists) > 1:
        raise RefusedInput(
            Reason.LOG_SYNTAX,
            printable(
                f"several lists in one JSON object ({', '.join(name for name, _ in lists[:4])}): "
                "write the one that is the log as JSON lines, an object per line"
            ),
        )
    return _Place(lists[0][1], lists[0][0]) if lists else _Place(None)


def has_rows(data: bytes) -> bool:
    """Whether a JSON text holds rows: a list of objects, alone or in an object, or object after object.

    A single object of settings has none.
    """
    at = _first(data, 0)
    if data[at : at + 1] == b"[":
        inner = _first(data, at + 1)
        return data[inner : inner + 1] == b"{"
    if data[at : at + 1] != b"{":
        return False
    try:
        place = _place_of_rows(data)
    except RefusedInput:
        return True  # several lists, or too large: says so when it is opened
    return place.list_at is not None or b"\n{" in data[at:].rstrip()


def _first(data: bytes, at: int) -> int:
    """Where the next byte is that is no white space."""
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _lists_in(data: bytes, at: int) -> Iterator[tuple[str, int]]:
    """Name and place of each list of objects that is a value of the object at `at`."""
    depth = 0
    name = b'""'
    for token in _TOKENS.finditer(data, at):
        mark = token[0]
        if mark[:1] == b'"':
            name = mark if depth == 1 else name
            continue
        opens = mark in b"[{"
        if mark == b"[" and depth == 1:
            inner = _first(data, token.end())
            if data[inner : inner + 1] == b"{":
                yield _name(name), token.start()
        depth += 1 if opens else -1
        if depth == 0:
            return


def _name(text: bytes) -> str:
    try:
        return str(json.loads(text[:400]))
    except ValueError:
        return ascii(text[:40])


def _ends_at(data: bytes, at: int, stop: int) -> int | None:
    """Where the value that opens at `at` ends; None where it does not before `stop`."""
    flat = _FLAT.match(data, at, stop)
    if flat is not None:
        return flat.end()
    depth = 0
    for token in _TOKENS.finditer(data, at, stop):
        if token[0][:1] != b'"':
            depth += 1 if token[0] in b"[{" else -1
            if depth <= 0:
                return token.end()
    return None


def _objects(data: bytes, place: _Place) -> Iterator[tuple[int, bytes]]:
    """The texts of the rows, each after its line from 1; the last may be torn."""
    if place.list_at is None:
        start, number = 0, 0
        while start < len(data):
            end = data.find(b"\n", start) + 1 or len(data)
            number += 1
            line = data[start:end]
            start = end
            if line.strip():
                yield number, line
        return
    at = place.list_at + 1
    number = data.count(b"\n", 0, at) + 1
    while True:
        between = _BETWEEN.match(data, at)
        assert between is not None
        number += data.count(b"\n", at, between.end())
        at = between.end()
        if at >= len(data):
            return  # torn between two objects
        if data[at : at + 1] == b"]":
            _check_rest(data, at + 1, place, number)
            return
        if data[at : at + 1] != b"{":
            raise RefusedInput(
                Reason.LOG_SYNTAX,
                f"line {number}: {data[at : at + 20].decode('utf-8', 'ignore')!a} in the list "
                "of rows, expected objects",
            )
        ends_at = _ends_at(data, at, min(len(data), at + MAX_LINE_BYTES))
        if ends_at is None and len(data) - at > MAX_LINE_BYTES:
            raise RefusedInput(
                Reason.TOO_LARGE, f"line {number}: an object of over {MAX_LINE_BYTES} bytes"
            )
        stop = ends_at or len(data)  # torn: up to the end
        yield number, data[at:stop]
        number += data.count(b"\n", at, stop)
        at = stop


def _check_rest(data: bytes, at: int, place: _Place, number: int) -> None:
    """Refuse what follows a list that is the whole file."""
    rest = _first(data, at)
    if not place.name and rest < len(data):
        line = number + data.count(b"\n", at, rest)
        raise RefusedInput(
            Reason.LOG_SYNTAX, f"line {line}: text behind the end of the list of rows"
        )


def _columns(objects: Iterator[tuple[int, bytes]]) -> tuple[bool, dict[str, tuple[str, ...]]]:
    """Whether the first object is a header instead of a row, and the keys of all rows.

    An object whose keys are those of one above adds none, and is not parsed for them.
    """
    shapes: set[tuple[bytes, ...]] = set()
    paths: dict[str, tuple[str, ...]] = {}
    header = False
    first: dict[str, tuple[str, ...]] = {}
    for count, (line, text) in enumerate(objects):
        shape = tuple(string for string, colon in _STRINGS.findall(text) if colon)
        if shape in shapes:
            continue
        row = json_object(text, line)
        if row is None:
            if not count:
                raise RefusedInput(
                    Reason.LOG_SYNTAX, f"line {line}: not JSON; expected one object per line"
                )
            continue  # refused, or dropped as torn, when it is read
        if len(shapes) < MOST_SHAPES:
            shapes.add(shape)
        mine = {".".join(path): path for path in _leaves(row)}
        if count == 0:
            first = mine
        elif count == 1 and first.keys().isdisjoint(mine):
            header, paths = True, {}
        paths |= mine
        if len(paths) > MAX_COLUMNS:
            raise RefusedInput(
                Reason.LOG_SYNTAX, f"line {line}: {len(paths)} columns, limit {MAX_COLUMNS}"
            )
    if not paths:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: no rows")
    return header, paths


def json_object(text: bytes, line: int) -> dict[str, Any] | None:
    """An object, with exact decimals; None if the text is not JSON.

    Raises:
        RefusedInput: another JSON value, nested too deep, or a number of too many digits.
    """
    check_json_depth(text, f"line {line}: ")
    if _DIGITS.search(text):
        raise RefusedInput(Reason.LOG_TYPE, f"line {line}: a number of too many digits")
    try:
        value = _JSON.decode(text.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(value, dict):
        raise RefusedInput(
            Reason.LOG_SYNTAX, f"line {line}: JSON, but no object; expected one object per line"
        )
    return value


def _leaves(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of everything in an object that is no object itself."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, (*path, key))
        else:
            yield (*path, key)


def _leaf(row: dict[str, Any], path: tuple[str, ...]) -> Any:
    """What lies at a path, None if nothing does."""
    value = row.get(path[0])
    for key in path[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value
