"""The dialect of a CSV: what separates its cells, which line names its columns, what marks decimals.

Decided by the first lines alone. What fits in two ways is refused with the line to write.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wham_data.pipelines.readers.video_log.log_cells import DATE, NUMBER, WORDS
from wham_data.pipelines.readers.video_log.log_words import BUTTON_WORDS
from wham_data.schemas.errors import Reason, RefusedInput

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
SAMPLED_ROWS: Final = 20
MOST_COMMENTS: Final = 1000
MOST_UNIT_CHARACTERS: Final = 16
_SEP: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_COMMA_NUMBER: Final = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d{1,4})?", re.ASCII)
_QUOTED_DECIMAL: Final = re.compile(rb'"[+-]?(?:0?,\d+|\d*,(?:\d{1,2}|\d{4,}))(?:[eE][+-]?\d+)?"')
_POINTED: Final = re.compile(rb'(?:^|[,\n"])[+-]?\d*\.\d+(?:[eE][+-]?\d+)?(?=[",\r\n]|$)')
_UNIT: Final = re.compile(
    r"[\[(].*[\])]|-|1|%|bool(?:ean)?|(?:milli|micro|nano)?sec(?:ond)?s?|[mun]?s|count|raw", re.I
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the lines of a CSV are made.

    delimiter    between cells
    columns      names of the columns
    header_line  line that names them, from 1
    body_line    first line that may hold a row, from 1
    units        texts of the units row, one for each column; (): there is none
    comments     comment lines above the body that do not name the columns
    guessed      neither a comma nor declared
    """

    delimiter: str
    columns: tuple[str, ...]
    header_line: int
    body_line: int
    units: tuple[str, ...] = ()
    comments: int = 0
    guessed: bool = False


def dialect_of(lines: Iterable[str], delimiter: str = "") -> Dialect:
    """Find out the dialect of a CSV.

    Args:
        lines: its lines from the first on, as many as are wanted are taken.
        delimiter: the one that the metadata declares; "": none.

    Raises:
        RefusedInput: LOG_EMPTY, LOG_SYNTAX, naming the line.
    """
    comments: list[tuple[int, str]] = []
    rows: list[tuple[int, str]] = []
    declared = delimiter
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        sep = _SEP.fullmatch(text.strip(" ")) if number == 1 else None
        if sep is not None:
            declared = declared or sep[1]
        elif text.startswith("#"):
            comments += [(number, text)] if not rows else []
        elif text.strip():
            rows.append((number, text))
        if len(rows) > SAMPLED_ROWS or len(comments) > MOST_COMMENTS:
            break
    if not rows and not comments:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: blank lines only")
    return _understood(comments, rows, declared)


def _understood(
    comments: list[tuple[int, str]], rows: list[tuple[int, str]], declared: str
) -> Dialect:
    """The dialect of these lines, each after its number."""
    if not rows:
        rows = [(number, _uncommented(text)) for number, text in comments[-1:]]
        comments = comments[:-1]
    named = [text for _, text in rows]
    delimiter = declared or _delimiter(named, [_uncommented(text) for _, text in comments])
    table = [_cells(text, delimiter, number) for number, text in rows]
    guessed = not declared and delimiter != ","
    if len(table[0]) < 2 and len(table) > 1:
        raise RefusedInput(
            Reason.LOG_SYNTAX,
            f"line {rows[0][0]}: one cell, {ascii(table[0][0])[:60]}: no separator of "
            f"{', '.join(DELIMITERS.values())} cuts the lines into cells; a log has a time and controls",
        )
    if not _names_columns(table[0], table[1:]):
        wide = [
            (number, cells)
            for number, text in comments
            if len(cells := _cells(_uncommented(text), delimiter, number)) == len(table[0])
        ]
        if not wide:
            raise RefusedInput(
                Reason.LOG_SYNTAX,
                f"line {rows[0][0]}: numbers, where the names of the columns are expected: write "
                f"such a line above the first row",
            )
        units: tuple[str, ...] = ()
        if len(wide) > 1 and all(_UNIT.fullmatch(cell) for cell in wide[-1][1] if cell):
            units = wide.pop()[1]
        line, columns = wide[-1]
        left = len(comments) - 1 - bool(units)
        return Dialect(delimiter, columns, line, rows[0][0], units, left, guessed)
    units = table[1] if len(table) > 1 and _are_units(table[0], table[1]) else ()
    body = rows[0][0] + 1 if not units else rows[1][0] + 1
    return Dialect(delimiter, table[0], rows[0][0], body, units, len(comments), guessed)


def _uncommented(text: str) -> str:
    return text.lstrip("#").strip(" ")


def _cells(text: str, delimiter: str, number: int) -> tuple[str, ...]:
    """The cells of one line."""
    try:
        return tuple(cell.strip() for cell in next(_split(text, delimiter), []))
    except csv.Error as error:
        raise RefusedInput(Reason.LOG_SYNTAX, f"line {number}: {error}") from None


def _split(text: str, delimiter: str) -> Iterator[list[str]]:
    """The cells of one line, which may have a space before their quotation marks."""
    return csv.reader([text], delimiter=delimiter, skipinitialspace=delimiter != " ")


def _width(text: str, delimiter: str) -> int:
    try:
        return len(next(_split(text, delimiter), []))
    except csv.Error:
        return 0


def _delimiter(rows: Sequence[str], comments: Sequence[str]) -> str:
    """The one separator that cuts the sampled lines into the same number of cells, several.

    The last line may be torn. Spaces count only where nothing else does, for they are in dates.
    """
    fitting = []
    for delimiter in DELIMITERS:
        width = _width(rows[0], delimiter)
        others = rows[1:-1] if len(rows) > 2 else rows[1:]
        if width > 1 and all(_width(row, delimiter) == width for row in others):
            fitting.append(delimiter)
    plain = [delimiter for delimiter in fitting if delimiter != " "]
    headed = [d for d in plain if any(_width(c, d) == _width(rows[0], d) for c in comments)]
    best = (headed if len(plain) > 1 and len(headed) == 1 else plain) or fitting
    if len(best) > 1:
        names = " or ".join(DELIMITERS[delimiter] for delimiter in best)
        raise RefusedInput(
            Reason.LOG_SYNTAX,
            f"cells may be separated by {names}: say which beside the log, such as delimiter = "
            f'"{best[0] if best[0] != chr(9) else chr(92) + "t"}"',
        )
    if best:
        return best[0]
    return max(list(DELIMITERS)[:-1], key=lambda delimiter: _width(rows[0], delimiter))


def _is_value(cell: str) -> bool:
    """Whether a cell is a number or a date."""
    return bool(NUMBER.fullmatch(cell) or _COMMA_NUMBER.fullmatch(cell) or DATE.fullmatch(cell))


def _names_columns(first: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> bool:
    """Whether the first line names the columns: where it holds a word, some row holds a value."""
    if not any(map(_is_value, first)):
        return True
    words = [
        place
        for place, cell in enumerate(first)
        if not _is_value(cell) and cell.lower() not in WORDS
    ]
    return any(_is_value(row[place]) for row in rows for place in words if place < len(row))


def _are_units(names: tuple[str, ...], cells: tuple[str, ...]) -> bool:
    """Whether the line below the names gives units: no value in it, and nothing but short words."""
    known = [cell.lower() in WORDS or cell.lower() in BUTTON_WORDS for cell in cells if cell]
    return (
        len(cells) == len(names)
        and any(cells)
        and not any(known)
        and not any(_is_value(cell) for cell in cells)
        and all(len(cell) <= MOST_UNIT_CHARACTERS for cell in cells)
    )


def decimal_mark(data: bytes, start: int, delimiter: str) -> str:
    """What marks decimals in a CSV: "," where only commas do.

    Where commas separate the cells, those within quotation marks count, unless all of them may stand
    between thousands.

    Args:
        data: the file.
        start: where the line end above the rows is.
        delimiter: between the cells.
    """
    if data.find(b",", start) < 0:
        return "."
    if delimiter == ",":
        quoted = _QUOTED_DECIMAL.search(data, start)
        return "," if quoted and not _POINTED.search(data, start) else "."
    edge = re.escape(delimiter.encode())
    number = rb'(?:^|[%s\n])"?[+-]?\d*%s\d+(?:[eE][+-]?\d+)?"?(?=[%s\r\n]|$)'
    found = [
        re.compile(number % (edge, mark, edge)).search(data, start) for mark in (rb",", rb"\.")
    ]
    return "," if found[0] and not found[1] else "."
