"""Text logs, CSV and JSON lines: a vectorised pass over plain files, a slow one over the others.

Only when the fast pass meets something unusual does the slow one go over the lines, and either says
which line is wrong or reads what the fast one could not (true and false, a last line torn by a
killed recorder).
"""

from __future__ import annotations

import codecs
import csv
import decimal
import gzip
import io
import json
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from wham_data.files.found import open_regular, read_whole
from wham_data.files.json_lines import (
    MAX_LINE_BYTES,
    MAX_LOG_BYTES,
    MAX_NUMBER_CHARACTERS,
    check_json_depth,
)
from wham_data.pipelines.readers.video_log.log_table import (
    MAX_COLUMNS,
    NO_TIME,
    TIME_DIGITS,
    LogTable,
    TimeUnit,
    WantedColumns,
    check_room,
    distinct,
)
from wham_data.pipelines.readers.video_log.log_words import BUTTON_WORDS
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

MAX_INFLATION: Final = 100
INFLATED_PIECE_BYTES: Final = 1 << 20
INFLATION_COUNTS_FROM_BYTES: Final = 16 << 20

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_WORDS: Final = {"true": 1.0, "false": 0.0} | dict.fromkeys(
    ("", "null", "none", "na", "n/a", "nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity",
     "+infinity", "-infinity"),
    np.nan,
)  # fmt: skip
_NO_VALUE: Final = ["", "null", "NULL", "Null", "None", "NA", "N/A", "nan", "NaN", "NAN"]
_PLAIN: Final = frozenset((float, int, Decimal, bool))
_EXACT: Final = decimal.Context(prec=100, rounding=decimal.ROUND_HALF_EVEN)


_Row = tuple[int, list[Any] | None]


def open_text_log(path: Path) -> CsvLog | JsonLinesLog:
    """Open a .csv or .jsonl log, gzipped (.csv.gz, .jsonl.gz) or not.

    Raises:
        RefusedInput: it is empty, too large, or in another encoding than UTF-8.
    """
    name = path.name.lower()
    zipped = name.endswith(".gz")
    text = _checked_text(_inflated(path) if zipped else read_whole(path, MAX_LOG_BYTES))
    plain_name = name.removesuffix(".gz")
    return JsonLinesLog.open(text) if plain_name.endswith(".jsonl") else CsvLog.open(text)


def _inflated(path: Path) -> bytes:
    """Unpack a gzip file, of one member or several, within its budget."""
    pieces: list[bytes] = []
    made = 0
    with open_regular(path) as file, gzip.GzipFile(fileobj=file) as unpacked:
        try:
            while piece := unpacked.read(INFLATED_PIECE_BYTES):
                pieces.append(piece)
                made += len(piece)
                ratio = made / file.tell()
                if made > MAX_LOG_BYTES or (
                    made > INFLATION_COUNTS_FROM_BYTES and ratio > MAX_INFLATION
                ):
                    raise RefusedInput(
                        Reason.TOO_LARGE,
                        f"unpacks to over {made} bytes, {ratio:.0f} times its size: too large "
                        f"(limits {MAX_LOG_BYTES} bytes and {MAX_INFLATION} times)",
                    )
        except EOFError:
            raise RefusedInput(Reason.LOG_SYNTAX, "the gzip file is cut short") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise RefusedInput(Reason.LOG_SYNTAX, f"not sound gzip: {error}") from None
    return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text log of UTF-8 without NULs, whose lines are not too long."""

    data: bytes
    lines: int
    longest_line: int


def _checked_text(data: bytes) -> _Text:
    """Check encoding and line lengths, a piece at a time; a UTF-8 byte order mark is cut off."""
    if not data:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty (0 bytes)")
    marks = (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    )
    for mark, encoding in marks:
        if data.startswith(mark):
            raise RefusedInput(
                Reason.LOG_ENCODING, f"the log is encoded in {encoding}; save it as UTF-8"
            )
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data[:200] and data[1:200:2].count(0) + data[:200:2].count(0) > 50:
        raise RefusedInput(Reason.LOG_ENCODING, "the log looks like UTF-16; save it as UTF-8")
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = longest = 0
    line_start = -1
    for at in range(0, len(data), 1 << 24):
        piece = data[at : at + (1 << 24)]
        nul = piece.find(b"\0")
        if nul >= 0:
            line = lines + piece.count(b"\n", 0, nul) + 1
            raise RefusedInput(Reason.LOG_SYNTAX, f"line {line}: a NUL byte; the log is damaged")
        try:
            decoder.decode(piece, at + len(piece) >= len(data))
        except UnicodeDecodeError as error:
            line = lines + piece.count(b"\n", 0, error.start) + 1
            raise RefusedInput(
                Reason.LOG_ENCODING, f"line {line}: the encoding is not UTF-8; save it as UTF-8"
            ) from None
        ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == 10) + at
        if len(ends):
            longest = max(longest, int(np.diff(ends, prepend=line_start).max()))
            line_start = int(ends[-1])
            lines += len(ends)
    longest = max(longest, len(data) - line_start)
    lines += line_start + 1 < len(data)
    if longest > MAX_LINE_BYTES:
        raise RefusedInput(
            Reason.TOO_LARGE, f"a line of {longest} bytes (limit {MAX_LINE_BYTES}): not a log"
        )
    return _Text(data, lines, longest)


@dataclass(frozen=True, slots=True)
class CsvLog:
    """Comma-separated values with one header line."""

    text: _Text
    columns: tuple[str, ...]

    @classmethod
    def open(cls, text: _Text) -> CsvLog:
        """Read the header."""
        header = text.data.partition(b"\n")[0].decode("utf-8").rstrip("\r")
        try:
            names = next(csv.reader([header]), [])
        except csv.Error as error:
            raise RefusedInput(Reason.LOG_SYNTAX, f"line 1: {error}") from None
        columns = tuple(name.strip() for name in names)
        if not columns:
            raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: its first line is blank")
        if len(columns) > MAX_COLUMNS:
            raise RefusedInput(Reason.LOG_SYNTAX, f"{len(columns)} columns, limit {MAX_COLUMNS}")
        for separator in (";", "\t"):
            if len(columns) == 1 and separator in columns[0]:
                raise RefusedInput(
                    Reason.LOG_SYNTAX, f"columns are separated by {separator!r}, expected commas"
                )
        return cls(text, columns)

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns: vectorised if the file is plain, else line by line."""
        check_room(self.text.lines, len(wanted.numbers) + 1)
        long_cells = self.text.longest_line > 1 << 16
        table = None if long_cells else self._read_fast(wanted)
        return table if table is not None else _read_rows(self._rows(wanted), wanted)

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        wanted = WantedColumns(column, "time_ns", ())
        return distinct(cells[0] for _, cells in self._rows(wanted) if cells is not None)

    def _read_fast(self, wanted: WantedColumns) -> LogTable | None:
        types: dict[str, pa.DataType] = dict.fromkeys(wanted.numbers, pa.float64())
        types[wanted.time] = pa.string()
        if wanted.control is not None:
            types[wanted.control] = pa.dictionary(pa.int32(), pa.string())
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(self.text.data),
                read_options=pa_csv.ReadOptions(
                    use_threads=False, column_names=list(self.columns), skip_rows=1
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=_NO_VALUE
                ),
            )
            if not len(table):
                return None
            times_ns = _text_times(table[wanted.time], wanted.unit)
        except (pa.ArrowException, ValueError):
            return None
        numbers = np.empty((len(table), len(wanted.numbers)))
        for place, name in enumerate(wanted.numbers):
            numbers[:, place] = table[name].to_numpy()
        if wanted.control is None:
            return LogTable(times_ns, numbers)
        controls = table[wanted.control].combine_chunks()
        if controls.null_count:
            return None
        return LogTable(
            times_ns,
            numbers,
            tuple(controls.dictionary.to_pylist()),
            controls.indices.to_numpy().astype(np.int64),
        )

    def _rows(self, wanted: WantedColumns) -> Iterator[_Row]:
        places = [self.columns.index(name) for name in _names(wanted)]
        lines = io.TextIOWrapper(io.BytesIO(self.text.data), "utf-8", newline="")
        reader = csv.reader(lines)
        width = len(self.columns)
        try:
            next(reader)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) == width:
                    yield reader.line_num, [cells[place] for place in places]
                elif reader.line_num >= self.text.lines and len(cells) < width:
                    yield reader.line_num, None
                else:
                    raise RefusedInput(
                        Reason.LOG_SYNTAX,
                        f"line {reader.line_num}: {len(cells)} cells, the header has {width}",
                    )
        except csv.Error as error:
            raise RefusedInput(Reason.LOG_SYNTAX, f"line {reader.line_num}: {error}") from None


def _text_times(column: pa.ChunkedArray, unit: TimeUnit) -> Nanos:
    """Decimal texts to nanoseconds, exactly; half a nanosecond goes to the even one.

    Raises:
        ValueError, ArrowException: something is not a plain number of at most 19 digits before
            and 19 after the point.
    """
    if column.null_count:
        raise ValueError("null time")
    digits = TIME_DIGITS[unit]
    exact = pc.round(column.cast(pa.decimal128(38, 19)), digits, "half_to_even")
    scaled = exact.cast(pa.decimal128(38, digits)).combine_chunks()
    if isinstance(scaled, pa.ChunkedArray):
        scaled = pa.concat_arrays(scaled.chunks)
    words = np.frombuffer(scaled.buffers()[1], np.int64)
    words = words[2 * scaled.offset :][: 2 * len(scaled)].reshape(-1, 2)
    low, high = words[:, 0], words[:, 1]  # a decimal is a 128-bit integer, low word first
    if not np.array_equal(high, low >> 63):
        raise ValueError("beyond 64 bits")
    return low.copy()


@dataclass(frozen=True, slots=True)
class JsonLinesLog:
    """One JSON object per line. Columns are those of the first line."""

    text: _Text
    paths: dict[str, tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, nested ones joined with dots."""
        return tuple(self.paths)

    @classmethod
    def open(cls, text: _Text) -> JsonLinesLog:
        """Read the first line."""
        for number, line in enumerate(io.BytesIO(text.data), 1):
            if not line.strip():
                continue
            first = _json_object(line, number)
            if first is None:
                raise RefusedInput(
                    Reason.LOG_SYNTAX, f"line {number}: not JSON; expected one object per line"
                )
            paths = {".".join(path): path for path in _leaves(first)}
            if len(paths) > MAX_COLUMNS:
                raise RefusedInput(Reason.LOG_SYNTAX, f"{len(paths)} columns, limit {MAX_COLUMNS}")
            return cls(text, paths)
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: blank lines only")

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns of every line."""
        check_room(self.text.lines, len(wanted.numbers) + 1)
        return _read_rows(self._rows(wanted), wanted)

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        wanted = WantedColumns(column, "time_ns", ())
        return distinct(cells[0] for _, cells in self._rows(wanted) if cells is not None)

    def _rows(self, wanted: WantedColumns) -> Iterator[_Row]:
        paths = [self.paths[name] for name in _names(wanted)]
        for number, line in enumerate(io.BytesIO(self.text.data), 1):
            if not line.strip():
                continue
            row = _json_object(line, number)
            if row is not None:
                yield number, [_leaf(row, path) for path in paths]
            elif number >= self.text.lines:
                yield number, None
            else:
                raise RefusedInput(Reason.LOG_SYNTAX, f"line {number}: not JSON")


_JSON: Final = json.JSONDecoder(parse_float=Decimal)
_JSON_DIGITS: Final = re.compile(rb"[0-9]{%d}" % MAX_NUMBER_CHARACTERS)


def _json_object(line: bytes, number: int) -> dict[str, Any] | None:
    """The object on a line, with exact decimals; None if the line is not JSON."""
    check_json_depth(line, f"line {number}: ")
    if _JSON_DIGITS.search(line):
        raise RefusedInput(Reason.LOG_TYPE, f"line {number}: a number of too many digits")
    try:
        value = _JSON.decode(line.decode("utf-8"))
    except json.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        raise RefusedInput(
            Reason.LOG_SYNTAX, f"line {number}: JSON, but no object; expected one object per line"
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


def _names(wanted: WantedColumns) -> list[str]:
    """The wanted columns in the order in which rows give their cells."""
    return [wanted.time, *wanted.numbers, *([wanted.control] if wanted.control else [])]


def _read_rows(rows: Iterator[_Row], wanted: WantedColumns) -> LogTable:
    """The slow pass: row by row, with the line number of whatever is wrong.

    Args:
        rows: line numbers, and the cells of `_names(wanted)`; None for a torn last line.
        wanted: what to take from them.
    """
    times_ns, numbers, controls = array("q"), array("d"), array("q")
    words = list[int]()
    codes: dict[str, int] = {}
    notes: list[str] = []
    for line, cells in rows:
        if cells is None:
            notes.append(f"last line torn (line {line}): dropped")
            break
        times_ns.append(_time_ns(cells[0], wanted, line))
        for cell, name in zip(cells[1:], wanted.numbers, strict=False):
            plain = type(cell) in _PLAIN  # all that a sound JSON log has, and there are millions
            if not plain and is_button_word(cell):
                words.append(len(numbers))
            numbers.append(float(cell) if plain else number_of(cell, name, f"line {line}"))
        if wanted.control is not None:
            control = str(cells[-1]) if type(cells[-1]) is int else cells[-1]
            if not isinstance(control, str) or not control.strip():
                raise RefusedInput(
                    Reason.LOG_TYPE, f"line {line}: column {wanted.control} names no control"
                )
            controls.append(codes.setdefault(control.strip(), len(codes)))
    if not times_ns:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: no rows after the header")
    table = np.array(numbers, np.float64).reshape(len(times_ns), len(wanted.numbers))
    worded = np.zeros(table.shape if words else (0, 0), np.bool_)
    np.put(worded, words, True)
    return LogTable(
        np.array(times_ns, np.int64),
        table,
        tuple(codes),
        np.array(controls, np.int64),
        tuple(notes),
        worded,
    )


def _shown(value: object) -> str:
    """A value from a file, short and harmless enough for a message."""
    return ascii(value)[:40]


def is_button_word(cell: object) -> bool:
    """Whether a cell says in a word that a button is down or up."""
    return isinstance(cell, str) and cell.strip().lower() in BUTTON_WORDS


def number_of(value: Any, name: str, where: str) -> float:
    """One sample of column `name`; NaN where there is none. `where` is the line or row."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(text):
            return float(text)
        found = _WORDS.get(text.lower(), BUTTON_WORDS.get(text.lower()))
        if found is not None:
            return found
    elif value is None:
        return np.nan
    raise RefusedInput(
        Reason.LOG_TYPE, f"{where}: column {name} holds {_shown(value)}, expected a number"
    )


def _time_ns(value: Any, wanted: WantedColumns, line: int) -> int:
    """One time in nanoseconds, exactly."""
    where = f"line {line}: column {wanted.time}"
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _WORDS and text.lower() not in ("true", "false"):
            value = None
        elif len(text) <= MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(text):
            value = Decimal(text)
    if value is None or (isinstance(value, float | Decimal) and not np.isfinite(float(value))):
        raise RefusedInput(Reason.LOG_NOT_FINITE, f"{where}: the time is missing (null)")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RefusedInput(
            Reason.LOG_TYPE, f"{where} holds {_shown(value)}, expected a number of time"
        )
    exact = Decimal(value)
    ticks = None
    if not exact or exact.adjusted() < 20:
        scaled = _EXACT.scaleb(exact, TIME_DIGITS[wanted.unit])
        ticks = int(scaled.to_integral_value(context=_EXACT))
    if ticks is None or not -(2**63) <= ticks < 2**63:
        raise RefusedInput(Reason.LOG_CLOCK, f"{where}: {NO_TIME.format(_shown(str(exact)))}")
    return ticks
