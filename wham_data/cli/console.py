"""How the commands speak: results on stdout (or one JSON object), everything else on stderr."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wham_data.schemas.errors import StalledError


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result: `text` for a person, or `result` as exactly one JSON object."""
    print(json.dumps(result, ensure_ascii=False, default=str) if as_json else text)


def say(line: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def resumable(kept: str) -> Iterator[None]:
    """If the block is interrupted, say what is kept and which command goes on.

    Args:
        kept: what is not lost, such as "what is written is kept".
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, StalledError) as end:
        why = "stopped" if isinstance(end, StalledError) else "interrupted"
        say(f"wham-data: {why}; {kept}. To go on, run the same command again:")
        say(f"  {shlex.join(['wham-data', *sys.argv[1:]])}")
        raise


def comma_list(text: str) -> list[str]:
    """The names in a text such as "train,val"; empty for an empty text."""
    return [name.strip() for name in text.split(",") if name.strip()]
