"""Writes docs/commands.md, the reference of all commands, from the code of the command line.

python tools/docs/commands.py > docs/commands.md
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import typer

from wham_data.cli.help import FIRST, Command, panel_of, say_less
from wham_data.cli.main import app
from wham_data.cli.options import PANELS

HEAD = """\
# Commands

Each command, as `wham-data COMMAND --help` describes it. This page is made from the code:
`python tools/docs/commands.py > docs/commands.md`.

Results are printed on stdout, everything else on stderr. Each option can also be set as a variable,
`WHAM_DATA_COMMAND_OPTION`, such as `WHAM_DATA_INGEST_TOKENIZER=none`, or [in a file](config.md).
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([HEAD, *_command("wham-data", typer.main.get_command(app))])


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A group and everything in it: the full name, and the command."""
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {child}", below)


def _command(root: str, top: Any) -> Iterator[str]:
    for name, command in commands(root, top):
        title = f"## `{name}`" if name.count(" ") < 2 else f"### `{name}`"
        yield f"{title}\n\n{_text(command.help or '')}\n"
        if isinstance(command, Command) or command is top:
            yield from _options(command)


def _text(help: str) -> str:
    """A help text as Markdown; paragraphs that must not be wrapped become code blocks."""
    parts = []
    for paragraph in inspect.cleandoc(help).split("\n\n"):
        title, *lines = paragraph.removeprefix("\b\n").splitlines()
        if paragraph.startswith("\b\n"):
            block = textwrap.dedent("\n".join(lines))
            parts.append(f"{title}\n\n```text\n{block}\n```")
        else:
            parts.append(paragraph)
    return "\n\n".join(parts)


def _options(command: Any) -> Iterator[str]:
    context = command.make_context(command.name, [], resilient_parsing=True)
    say_less(command.params)
    panels: dict[str, list[tuple[str, str]]] = {}
    for each in command.params:
        if (row := each.get_help_record(context)) is not None:
            panels.setdefault(panel_of(each), []).append(row)
    for title, rows in sorted(panels.items(), key=lambda panel: _order(panel[0])):
        yield f"| {title} | |\n|---|---|"
        yield from (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows)
        yield ""


def _order(title: str) -> int:
    return ("Arguments", FIRST, *PANELS).index(title)


def _cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
