"""Texts from strangers, such as names of players, so that they stay text in Markdown and in YAML."""

from __future__ import annotations

import json
import re
from typing import Final

from wham_data.schemas.errors import printable

MOST: Final = 120
_ACTIVE: Final = re.compile(r"[^\w\s,'()/;.:-]|_|[.:](?=\S)")
"""What Markdown, HTML or a renderer that links addresses could take for more than a letter."""


def plain(text: str) -> str:
    """A text on one line of Markdown that shows as it is, with every active character as an entity."""
    line = printable(text)
    line = line if len(line) <= MOST else f"{line[: MOST - 3]}..."
    return _ACTIVE.sub(lambda found: f"&#{ord(found[0])};", line).strip()


def quoted(value: object) -> str:
    """A value for YAML: quoted, on one line. YAML reads JSON, except for what is not printable."""
    if isinstance(value, str):
        value = printable(value)
    elif isinstance(value, list | tuple):
        return f"[{', '.join(map(quoted, value))}]"
    return json.dumps(value, ensure_ascii=False)
