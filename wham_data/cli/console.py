"""How the commands speak: results on stdout (or one JSON object), everything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result: `text` for a person, or `result` as exactly one JSON object."""
    print(json.dumps(result, ensure_ascii=False, default=str) if as_json else text)


def say(line: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    print(line, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` with control characters, bidi marks and undecodable bytes escaped.

    Names and messages come from strangers' files; none may move the cursor or fake a line.
    """
    return "".join(
        c
        if c.isprintable() and c not in BIDI
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
