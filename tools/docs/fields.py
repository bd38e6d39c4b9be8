"""Shows tables of fields in docstrings unchanged.

    rate         steps per second; None: every source frame is a step
    size, fit    (width, height) in pixels

A table like this one is text in columns. Markdown would join its lines, so it becomes a code block.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROW = re.compile(r"\w[\w, .*]* {2,}\S")


class FieldTables(griffe.Extension):
    """Makes a code block of each table of fields."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one function, class or module."""
        if obj.docstring is not None:
            obj.docstring.value = with_blocks(obj.docstring.value)


def with_blocks(docstring: str) -> str:
    """The docstring, with each paragraph that begins with a row of a table as a code block."""
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(
        f"```text\n{each}\n```" if ROW.match(each) and "\n" in each else each for each in paragraphs
    )
