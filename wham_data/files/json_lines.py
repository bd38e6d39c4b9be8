"""Reads untrusted JSON within limits: whole files, and files of one object per line."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from wham_data.files.found import open_regular, read_whole
from wham_data.schemas.errors import Reason, RefusedInput

MOST_JSON_BYTES: Final = 64 << 20
TAIL_BYTES: Final = 64 << 10
MAX_LOG_BYTES: Final = 512 << 20
MAX_LINE_BYTES: Final = 1 << 20
MAX_JSON_DEPTH: Final = 32
MAX_NUMBER_CHARACTERS: Final = 64

JSON_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
"""A string of a JSON text, for `re.DOTALL`. One without its end goes on to the end of the text: else
each quote in it would be tried as the beginning of another, and a megabyte would take an hour."""

_JSON_BRACKETS: Final = re.compile(JSON_STRING + rb"|[\[\]{}]", re.DOTALL)


def read_json(path: Path, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """The value in a JSON file. A UTF-8 byte order mark is skipped.

    Raises:
        RefusedInput: TOO_LARGE, LOG_ENCODING or LOG_SYNTAX, naming the file.
    """
    return json_value(read_whole(path, most_bytes), path.name)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, one at a time. Blank lines are skipped.

    An incomplete last line, as a killed recorder leaves it, is left out: it is the beginning of an
    object and not valid JSON, also where a line feed was put behind it later. `torn_line` names it.

    Raises:
        RefusedInput: TOO_LARGE, LOG_ENCODING, or LOG_SYNTAX, naming the line.
    """
    lines = text_lines(path)
    for where, line in lines:
        try:
            value = json_value(line, where)
        except RefusedInput:
            if _is_torn(line) and next(lines, None) is None:
                return
            raise
        if not isinstance(value, dict):
            raise RefusedInput(Reason.LOG_SYNTAX, f"{where}: JSON, but no object")
        yield value


def torn_line(path: Path) -> str | None:
    """What to call the last line that `json_lines` leaves out; None where it leaves none out."""
    last = deque(text_lines(path), maxlen=1)
    torn = (where for where, line in last if _is_torn(line) and not _is_json(line))
    return next(torn, None)


def _is_torn(line: bytes) -> bool:
    """Whether a line that is no JSON may be the beginning of an object whose rest is missing."""
    text = line.strip()
    return not line.endswith(b"\n") or (text[:1] == b"{" and _deepest_open(text) > 0)


def _deepest_open(text: bytes) -> int:
    """How many brackets are open at the end; a string without its end holds none."""
    marks = (match[0] for match in _JSON_BRACKETS.finditer(text))
    return sum({b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark, 0) for mark in marks)


def text_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a file that are not blank, with their line ends; each after its name in messages.

    Raises:
        RefusedInput: TOO_LARGE, naming the line.
    """
    made = 0
    with open_regular(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            made += len(line)
            where = f"{path.name}, line {number}"
            if len(line) > MAX_LINE_BYTES or made > MAX_LOG_BYTES:
                raise RefusedInput(
                    Reason.TOO_LARGE,
                    f"{where}: a line of over {MAX_LINE_BYTES} or a file of over {MAX_LOG_BYTES} bytes",
                )
            if line.strip():
                yield where, line


def end_objects(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The first and the last complete line of a file of JSON lines; None if they are not objects.

    Reads only the first line and the last 64 KB. If no line ends in those 64 KB, the first line
    counts as the last.
    """
    try:
        with open_regular(path) as file:
            first = file.readline(MAX_LINE_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            # The text before the first line end may be the rest of a longer line.
            tail = file.read(TAIL_BYTES).split(b"\n")[1:-1]
        lines = [line for line in tail if line.strip()]
        if len(lines) > 1 and _is_torn(lines[-1]) and not _is_json(lines[-1]):
            lines.pop()
        ends = [json_value(line, path.name) for line in (first, lines[-1] if lines else first)]
    except RefusedInput:
        return None
    return (ends[0], ends[1]) if all(isinstance(end, dict) for end in ends) else None


def _is_json(text: bytes) -> bool:
    try:
        json_value(text, "")
    except RefusedInput:
        return False
    return True


def json_value(text: bytes, where: str) -> Any:
    """The value of a JSON text. A UTF-8 byte order mark is skipped.

    Args:
        text: the text.
        where: the name of the text in error messages.

    Raises:
        RefusedInput: LOG_ENCODING or LOG_SYNTAX.
    """
    check_json_depth(text, f"{where}: ")
    try:
        value = json.loads(text.decode("utf-8-sig"), parse_int=_whole_number)
        check_surrogates(text, value)
        return value
    except UnicodeDecodeError:
        raise RefusedInput(Reason.LOG_ENCODING, f"{where}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise RefusedInput(Reason.LOG_SYNTAX, f"{where}: not JSON: {str(error)[:100]}") from None


def check_json_depth(text: bytes, where: str) -> None:
    """Refuse JSON nested deeper than any log needs, before a parser recurses into it."""
    if text.count(b"[") + text.count(b"{") <= MAX_JSON_DEPTH:
        return
    depth = 0
    for match in _JSON_BRACKETS.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        if depth > MAX_JSON_DEPTH:
            raise RefusedInput(
                Reason.LOG_SYNTAX, f"{where}JSON nested deeper than {MAX_JSON_DEPTH} levels"
            )


def check_surrogates(text: bytes, value: object) -> None:
    """Refuse JSON with a string that is not valid Unicode because of an escape of half a character.

    Args:
        text: the JSON text. It is searched first, because such escapes are rare.
        value: the parsed value. Parts that are not JSON are skipped.

    Raises:
        ValueError: such a string exists.
    """
    if b"\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False, default=str).encode()


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_NUMBER_CHARACTERS:
        raise ValueError("a number of too many digits")
    return int(digits)
