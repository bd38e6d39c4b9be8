"""Cells of a text log become numbers and times, row by row or in one vectorised pass."""

from __future__ import annotations

import datetime
import decimal
import re
from array import array
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wham_data.files.json_lines import MAX_NUMBER_CHARACTERS
from wham_data.pipelines.readers.video_log.log_format import LogFormat, TimeKind
from wham_data.pipelines.readers.video_log.log_table import (
    NO_TIME,
    TIME_DIGITS,
    LogTable,
    TimeUnit,
    WantedColumns,
)
from wham_data.pipelines.readers.video_log.log_words import BUTTON_WORDS
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

NO_VALUE: Final = ["", "null", "NULL", "Null", "None", "NA", "N/A", "nan", "NaN", "NAN"]
NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
DATE: Final = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)[Tt ](\d\d)(:?)(\d\d)\6(\d\d)(?:[.,](\d{1,18}))?"
    r" ?([Zz]|UTC|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
WORDS: Final = {"true": 1.0, "false": 0.0} | dict.fromkeys(
    ("", "null", "none", "na", "n/a", "nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity",
     "+infinity", "-infinity"),
    np.nan,
)  # fmt: skip
_PLAIN: Final = frozenset((float, int, Decimal, bool))
_EXACT: Final = decimal.Context(prec=100, rounding=decimal.ROUND_HALF_EVEN)

Row = tuple[int, list[Any] | None]


def wanted_names(wanted: WantedColumns) -> list[str]:
    """The wanted columns in the order in which rows give their cells."""
    return [wanted.time, *wanted.numbers, *([wanted.control] if wanted.control else [])]


def read_rows(rows: Iterator[Row], wanted: WantedColumns, form: LogFormat) -> LogTable:
    """The slow pass: row by row, with the line number of whatever is wrong.

    Args:
        rows: line numbers, and the cells of `wanted_names`; None for a torn last line.
        wanted: what to take from them.
        form: how the log was understood.

    Raises:
        RefusedInput: naming the line.
    """
    times_ns, numbers, controls = array("q"), array("d"), array("q")
    words = list[int]()
    codes: dict[str, int] = {}
    notes: list[str] = []
    kind: TimeKind | None = None
    nameless = 0
    for line, cells in rows:
        if cells is None:
            notes.append(f"last line torn (line {line}): dropped")
            break
        time_ns, this = _time_ns(cells[0], wanted, line)
        kind = kind or this
        if this != kind:
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"line {line}: column {wanted.time} holds {_shown(cells[0])} ({_kind_words(this)}), "
                f"above it {_kind_words(kind)}",
            )
        times_ns.append(time_ns)
        if wanted.skips_nameless and not _control(cells[-1]):
            numbers.extend([np.nan] * len(wanted.numbers))
            controls.append(codes.setdefault("", len(codes)))
            nameless += 1
            continue
        for cell, name in zip(cells[1:], wanted.numbers, strict=False):
            plain = type(cell) in _PLAIN  # all that a sound JSON log has, and there are millions
            if not plain and is_button_word(cell):
                words.append(len(numbers))
            numbers.append(float(cell) if plain else number_of(cell, name, f"line {line}"))
        if wanted.control is not None:
            control = _control(cells[-1])
            if not control:
                raise RefusedInput(
                    Reason.LOG_TYPE, f"line {line}: column {wanted.control} names no control"
                )
            controls.append(codes.setdefault(control, len(codes)))
    if not times_ns:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: no rows after the header")
    if nameless:
        notes.append(f"{nameless} rows whose {wanted.control} is empty left out")
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
        format=understood(form, wanted, kind or wanted.unit, len(times_ns)),
    )


def understood(form: LogFormat, wanted: WantedColumns, kind: TimeKind, rows: int) -> LogFormat:
    """How a log was understood, once it is read."""
    return replace(form, time_column=wanted.time, time_kind=kind, rows=rows)


def _control(cell: Any) -> str:
    """The control that a cell names; "" where it names none."""
    if type(cell) is int:
        return str(cell)
    return cell.strip() or cell if isinstance(cell, str) else ""


def _kind_words(kind: TimeKind) -> str:
    return kind if kind.startswith("dates") else "numbers"


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
        if len(text) <= MAX_NUMBER_CHARACTERS and NUMBER.fullmatch(text):
            return float(text)
        found = WORDS.get(text.lower(), BUTTON_WORDS.get(text.lower()))
        if found is not None:
            return found
    elif value is None:
        return np.nan
    hint = ""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip().replace(",", ".", 1)):
        hint = ' (if it is a decimal comma: decimal = "," beside the log)'
    raise RefusedInput(
        Reason.LOG_TYPE, f"{where}: column {name} holds {_shown(value)}, expected a number{hint}"
    )


def _time_ns(value: Any, wanted: WantedColumns, line: int) -> tuple[int, TimeKind]:
    """One time in nanoseconds, exactly, and whether it was a number or a date."""
    where = f"line {line}: column {wanted.time}"
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in WORDS and text.lower() not in ("true", "false"):
            value = None
        elif len(text) <= MAX_NUMBER_CHARACTERS and NUMBER.fullmatch(text):
            value = Decimal(text)
        elif DATE.fullmatch(text):
            try:
                date_ns, zoned = date_of(text)
            except ValueError as error:
                raise RefusedInput(
                    Reason.LOG_CLOCK, f"{where} holds {_shown(text)}: {error}"
                ) from None
            return date_ns, "dates" if zoned else "dates without a zone"
    if value is None or (isinstance(value, float | Decimal) and not np.isfinite(float(value))):
        raise RefusedInput(Reason.LOG_NOT_FINITE, f"{where}: the time is missing (null)")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RefusedInput(
            Reason.LOG_TYPE,
            f"{where} holds {_shown(value)}, expected a number of time, or a "
            "date such as 2026-11-20T14:03:11.250Z",
        )
    exact = Decimal(value)
    ticks = None
    if not exact or exact.adjusted() < 20:
        scaled = _EXACT.scaleb(exact, TIME_DIGITS[wanted.unit])
        ticks = int(scaled.to_integral_value(context=_EXACT))
    if ticks is None or not -(2**63) <= ticks < 2**63:
        raise RefusedInput(Reason.LOG_CLOCK, f"{where}: {NO_TIME.format(_shown(str(exact)))}")
    return ticks, wanted.unit


def date_of(text: str) -> tuple[int, bool]:
    """An ISO 8601 date with a time of day as nanoseconds since 1970, and whether it names its zone.

    One without a zone is taken as UTC. Half a nanosecond goes to the even one.

    Raises:
        ValueError: it is none, or one that cannot be.
    """
    match = DATE.fullmatch(text)
    if match is None:
        raise ValueError("no date such as 2026-11-20T14:03:11.250Z")
    year, _, month, day, hour, _, minute, second, fraction, zone = match.groups()
    date = int(year), int(month), int(day)
    whole = datetime.datetime(*date, int(hour), int(minute), int(second), tzinfo=datetime.UTC)
    since = whole - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    seconds = since.days * 86400 + since.seconds - _zone_s(zone)
    time_ns = seconds * SECOND_NS + round(Decimal(f"0.{fraction or 0}") * SECOND_NS)
    if not -(2**63) <= time_ns < 2**63:
        raise ValueError("a year before 1678 or after 2262")
    return time_ns, zone is not None


def _zone_s(zone: str | None) -> int:
    """How far a zone is ahead of UTC, in seconds."""
    if zone is None or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 15 or minutes > 59:
        raise ValueError("no such time zone")
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


def text_times(column: pa.ChunkedArray, unit: TimeUnit) -> tuple[Nanos, TimeKind]:
    """A column of decimal texts, or of dates, as nanoseconds, and which of the two it holds.

    Raises:
        ValueError, ArrowException: a cell is neither; the slow pass then says which.
    """
    if column.null_count:
        raise ValueError("null time")
    first = DATE.fullmatch(column[0].as_py().strip())
    if first is None:
        return _decimal_times(column, unit), unit
    zone = "UTC" if first[10] else None
    stamps = column.cast(pa.timestamp("ns", zone)).combine_chunks()
    times_ns: Nanos = np.asarray(stamps.cast(pa.int64())).astype(np.int64)
    return times_ns, "dates" if zone else "dates without a zone"


def _decimal_times(column: pa.ChunkedArray, unit: TimeUnit) -> Nanos:
    """Decimal texts to nanoseconds, exactly; half a nanosecond goes to the even one.

    Raises:
        ValueError, ArrowException: something is not a plain number of at most 19 digits before
            and 19 after the point.
    """
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
