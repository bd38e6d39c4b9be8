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
