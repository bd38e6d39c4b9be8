"""Text logs: a vectorised pass over plain CSV files, a slow one over the others.

Only when the fast pass meets something unusual does the slow one go over the lines, and either says
which line is wrong or reads what the fast one could not (true and false, a last line torn by a
killed recorder).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from wham_data.files.found import open_regular, read_whole
from wham_data.files.json_lines import MAX_LINE_BYTES, MAX_LOG_BYTES
from wham_data.pipelines.readers.video_log.log_cells import (
    DATE,
    NO_VALUE,
    NUMBER,
    Row,
    read_rows,
    text_times,
    understood,
    wanted_names,
)
from wham_data.pipelines.readers.video_log.log_dialect import decimal_mark, dialect_of
from wham_data.pipelines.readers.video_log.log_format import LogFormat, TimeKind
from wham_data.pipelines.readers.video_log.log_json import JsonLog, has_rows
from wham_data.pipelines.readers.video_log.log_table import (
    MAX_COLUMNS,
    LogTable,
    TimeUnit,
    WantedColumns,
    check_room,
    distinct,
)
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

MAX_INFLATION: Final = 100
INFLATED_PIECE_BYTES: Final = 1 << 20
INFLATION_COUNTS_FROM_BYTES: Final = 16 << 20
JSON_ENDINGS: Final = (".json", ".jsonl", ".ndjson")

_MARKS: Final = (  # the marks of UTF-32 begin with those of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def open_text_log(path: Path, delimiter: str = "", decimal: str = "") -> CsvLog | JsonLog:
    """Open a .csv, .tsv, .jsonl or .json log, gzipped or not.

    Args:
        path: the file.
        delimiter, decimal: of a CSV, as the metadata declares them; "": to be found out.

    Raises:
        RefusedInput: it is empty, too large, or in an encoding that is not known for sure.
    """
    name = path.name.lower()
    zipped = name.endswith(".gz")
    data = _inflated(path) if zipped else read_whole(path, MAX_LOG_BYTES)
    if not data:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty (0 bytes)")
    data, encoding = _as_utf8(data)
    text = _checked_text(data)
    if name.removesuffix(".gz").endswith(JSON_ENDINGS):
        return JsonLog.open(text.data, text.lines, text.longest_line, encoding)
    text.check_lines()
    return CsvLog.open(text, encoding, delimiter, decimal)


def is_json_log(path: Path) -> bool:
    """Whether a .json beside a video holds rows; one that cannot be read holds none."""
    try:
        zipped = path.name.lower().endswith(".gz")
        data = _inflated(path) if zipped else read_whole(path, MAX_LOG_BYTES)
        return bool(data) and has_rows(_as_utf8(data)[0])
    except RefusedInput:
        return False


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


def _as_utf8(data: bytes) -> tuple[bytes, str]:
    """The text as UTF-8 without a byte order mark, and the encoding that it had.

    Raises:
        RefusedInput: LOG_ENCODING, it is not sound, or has no mark and is not UTF-8.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "UTF-8")
    if encoding == "UTF-8":
        data = data.removeprefix(codecs.BOM_UTF8)
        if b"\0" in data[:200] and data[1:200:2].count(0) + data[:200:2].count(0) > 50:
            raise RefusedInput(
                Reason.LOG_ENCODING,
                "the log looks like UTF-16 without a byte order mark; save it as UTF-8",
            )
        return data, encoding
    view = memoryview(data)
    pieces = (bytes(view[at : at + (1 << 24)]) for at in range(0, len(data), 1 << 24))
    made: list[bytes] = []
    try:
        made.extend(text.encode() for text in codecs.iterdecode(pieces, encoding))
    except UnicodeError:
        line = sum(piece.count(b"\n") for piece in made) + 1
        raise RefusedInput(
            Reason.LOG_ENCODING,
            f"at or below line {line}: not sound {encoding}, which its byte order mark promises",
        ) from None
    return b"".join(made), encoding


@dataclass(frozen=True, slots=True)
class _Text:
    """A text log of UTF-8 without NULs."""

    data: bytes
    lines: int
    longest_line: int

    def check_lines(self) -> None:
        """Refuse lines that no log has."""
        if self.longest_line > MAX_LINE_BYTES:
            raise RefusedInput(
                Reason.TOO_LARGE,
                f"a line of {self.longest_line} bytes (limit {MAX_LINE_BYTES}): not a log",
            )


def _checked_text(data: bytes) -> _Text:
    """Check the encoding, and measure the lines, a piece at a time."""
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
    return _Text(data, lines, longest)


@dataclass(frozen=True, slots=True)
class CsvLog:
    """Separated values below a line that names the columns.

    body_at, body_line  where the rows begin: a byte, and a line from 1
    plain               no line of the body is a comment, and none has spaces before quotation marks
    spaced              spaces stand before quotation marks
    """

    text: _Text
    columns: tuple[str, ...]
    format: LogFormat
    body_at: int
    body_line: int
    plain: bool
    spaced: bool = False

    @classmethod
    def open(cls, text: _Text, encoding: str, delimiter: str, decimal: str) -> CsvLog:
        """Find out the dialect, and read the names of the columns."""
        lines = io.BytesIO(text.data)
        dialect = dialect_of((line.decode("utf-8") for line in lines), delimiter)
        columns = dialect.columns
        if len(columns) > MAX_COLUMNS:
            raise RefusedInput(Reason.LOG_SYNTAX, f"{len(columns)} columns, limit {MAX_COLUMNS}")
        lines.seek(0)
        above = itertools.islice(lines, dialect.body_line - 1)
        body_at = sum(map(len, above))
        above_body = max(0, body_at - 1)
        # One byte is found forty times as fast as two, and most logs do not have it at all.
        marked = text.data.find(b"#", above_body) >= 0
        comments = text.data.count(b"\n#", above_body) if marked else 0
        guessed = ["delimiter"] * dialect.guessed
        quoted = re.escape(dialect.delimiter.encode()) + b' +"'
        spaced = b' "' in text.data and bool(re.search(quoted, text.data))
        spaced &= dialect.delimiter != " "
        if not decimal:
            mark = decimal_mark(text.data, above_body, dialect.delimiter)
            guessed += ["decimal"] * (mark != ".")
        else:
            mark = decimal
        units = zip(columns, dialect.units, strict=bool(dialect.units))
        form = LogFormat(
            encoding=encoding,
            delimiter=dialect.delimiter,
            decimal=mark,
            header_line=dialect.header_line,
            units=tuple((name, unit) for name, unit in units if unit),
            comments=dialect.comments + comments,
            guessed=tuple(guessed),
        )
        return cls(
            text, columns, form, body_at, dialect.body_line, not (comments or spaced), spaced
        )

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns: vectorised if the file is plain, else line by line."""
        check_room(self.text.lines, len(wanted.numbers) + 1)
        fast = self.plain and self.text.longest_line <= 1 << 16
        table = self._read_fast(wanted) if fast else None
        return table if table is not None else read_rows(self._rows(wanted), wanted, self.format)

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        wanted = WantedColumns(column, "time_ns", ())
        return distinct(cells[0] for _, cells in self._rows(wanted) if cells is not None)

    def _read_fast(self, wanted: WantedColumns) -> LogTable | None:
        types: dict[str, pa.DataType] = dict.fromkeys(wanted.numbers, pa.float64())
        types[wanted.time] = pa.string()
        if wanted.control is not None:
            types[wanted.control] = pa.dictionary(pa.int32(), pa.string())
        body = pa.py_buffer(self.text.data).slice(self.body_at)
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(body),
                read_options=pa_csv.ReadOptions(use_threads=False, column_names=list(self.columns)),
                parse_options=pa_csv.ParseOptions(delimiter=self.format.delimiter),
                convert_options=pa_csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=NO_VALUE,
                    decimal_point=self.format.decimal,
                ),
            )
            if not len(table):
                return None
            times_ns, kind = self._times(table[wanted.time], wanted.unit)
        except (pa.ArrowException, ValueError):
            return None
        numbers = np.empty((len(table), len(wanted.numbers)))
        for place, name in enumerate(wanted.numbers):
            numbers[:, place] = table[name].to_numpy()
        form = understood(self.format, wanted, kind, len(table))
        if wanted.control is None:
            return LogTable(times_ns, numbers, format=form)
        controls = table[wanted.control].combine_chunks()
        if controls.null_count:
            return None
        return LogTable(
            times_ns,
            numbers,
            tuple(controls.dictionary.to_pylist()),
            controls.indices.to_numpy().astype(np.int64),
            format=form,
        )

    def _times(self, column: pa.ChunkedArray, unit: TimeUnit) -> tuple[Nanos, TimeKind]:
        if self.format.decimal == "," and not DATE.fullmatch(column[0].as_py() or ""):
            if pc.any(pc.match_substring(column, ".")).as_py():
                raise ValueError("a decimal point among decimal commas")
            column = pc.replace_substring(column, ",", ".")
        return text_times(column, unit)

    def _rows(self, wanted: WantedColumns) -> Iterator[Row]:
        places = [self.columns.index(name) for name in wanted_names(wanted)]
        raw = io.BytesIO(self.text.data)
        raw.seek(self.body_at)
        lines = io.TextIOWrapper(raw, "utf-8", newline="")
        # A blank line is no row, and keeps the count of lines.
        uncommented = ("\n" if line.startswith("#") else line for line in lines)
        reader = csv.reader(
            uncommented, delimiter=self.format.delimiter, skipinitialspace=self.spaced
        )
        width = len(self.columns)
        above = self.body_line - 1
        try:
            for cells in reader:
                line = above + reader.line_num
                if not cells:
                    continue
                if len(cells) == width:
                    mine = [cells[place] for place in places]
                    yield line, self._with_points(mine, line)
                elif line >= self.text.lines and len(cells) < width:
                    yield line, None
                else:
                    raise RefusedInput(
                        Reason.LOG_SYNTAX,
                        f"line {line}: {len(cells)} cells, the header has {width}",
                    )
        except csv.Error as error:
            line = above + reader.line_num
            raise RefusedInput(Reason.LOG_SYNTAX, f"line {line}: {error}") from None

    def _with_points(self, cells: list[str], line: int) -> list[str]:
        """Cells whose numbers have decimal points, whatever the file has."""
        if self.format.decimal == ".":
            return cells
        made = []
        for cell in cells:
            if "." in cell and NUMBER.fullmatch(cell.strip()):
                raise RefusedInput(
                    Reason.LOG_TYPE,
                    f"line {line}: {ascii(cell)[:40]} has a decimal point, other numbers have "
                    "decimal commas",
                )
            pointed = cell.replace(",", ".", 1)
            made.append(pointed if NUMBER.fullmatch(pointed.strip()) else cell)
        return made
