"""The file of `--config`: a table for each command, a key for each option.

    [ingest]
    tokenizer = "none"
    mask = ["0,0,64,32"]

    [train.world-model]
    minutes = 60

What the command line or a variable says wins over the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wham_data.schemas.declarations import nearest
from wham_data.schemas.errors import UsageError


def read_config(path: Path, root: Any) -> dict[str, Any]:
    """The defaults of a file, as click takes them: by command, then by parameter.

    Args:
        path: a TOML file. Dashes and underscores in its names are the same.
        root: the group that holds all commands.

    Raises:
        UsageError: the file is missing or not TOML, or names a command or option that does not exist.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    return _of_group(path, "", tables, root)


def _of_group(path: Path, above: str, tables: Mapping[str, Any], group: Any) -> dict[str, Any]:
    """The defaults of a group's commands. `above` is how the group is called in the file."""
    found: dict[str, Any] = {}
    for written, table in tables.items():
        name = written.replace("_", "-")
        if not isinstance(table, dict):
            raise UsageError(
                f"{path}: {above}{written}: expected a table named after a command, as [ingest]"
            )
        command = group.commands.get(name)
        if command is None:
            close = nearest(name, list(group.commands), "commands")
            raise UsageError(f"{path}: [{above}{written}]: no such command{close}")
        read = _of_group if hasattr(command, "commands") else _of_command
        found[name] = read(path, f"{above}{written}.", table, command)
    return found


def _of_command(path: Path, above: str, table: Mapping[str, Any], command: Any) -> dict[str, Any]:
    """The defaults of one command."""
    parameters = {
        flag.lstrip("-").replace("-", "_"): each.name
        for each in command.params
        for flag in (*each.opts, *each.secondary_opts)
        if not (flag.startswith("-") and len(flag) == 2)
    }
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = parameters.get(key.replace("-", "_"))
        if name is None or key.startswith("no-"):
            close = nearest(key.replace("_", "-"), [*_flags(command)], "options")
            raise UsageError(f"{path}: {above}{key}: no such option{close}")
        found[name] = value
    return found


def _flags(command: Any) -> list[str]:
    """The options of a command as a file calls them."""
    return [max(each.opts, key=len).lstrip("-") for each in command.params]
