"""Read and check tables from TOML and JSON files: the declarations of action spaces and such."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, TypeGuard

from wham_data.schemas.errors import UsageError

MOST_BYTES: Final = 1_000_000
MOST_LISTED: Final = 24
NAME_RULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


def read_bundled(folder: str, name: str) -> dict[str, Any]:
    """The parsed content of a bundled TOML file.

    Args:
        folder: folder in `wham_data/schemas`.
        name: name of the file without `.toml`.
    """
    return tomllib.loads(bundled_text(folder, name))


def bundled_text(folder: str, name: str) -> str:
    """The text of a bundled TOML file. See `read_bundled` for the arguments."""
    return (_bundled(folder) / f"{name}.toml").read_text("utf-8")


def bundled_names(folder: str) -> tuple[str, ...]:
    """The names of the bundled TOML files in a folder, without `.toml`, sorted."""
    names = (entry.name for entry in _bundled(folder).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def _bundled(folder: str) -> Traversable:
    return resources.files("wham_data.schemas") / folder


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed content of a user's TOML file: UTF-8, at most 1 MB.

    Raises:
        UsageError: the file cannot be read, is too large, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path}: larger than {MOST_BYTES} bytes, the most that is read")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None


def check_name(name: object, what: str) -> str:
    """Check and return the name of a space or a dimension.

    Args:
        name: a letter or _, then at most 63 letters, digits, _ or dots.
        what: what it is the name of, for the error message.

    Raises:
        UsageError: it is not such a text.
    """
    if not isinstance(name, str) or not NAME_RULE.fullmatch(name):
        raise UsageError(
            f"{what} name {str(name)[:80]!r}: expected a letter or _, then at most 63 letters, "
            "digits, _ or ."
        )
    return name


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is an int or float (not a bool) whose float value is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_text(value: object, most: int) -> TypeGuard[str]:
    """Whether `value` is a text of at most `most` characters."""
    return isinstance(value, str) and len(value) <= most


def known_keys(data: object, known: Sequence[str], what: str) -> Mapping[str, Any]:
    """Check that `data` is a table with known keys only, and return it.

    Args:
        data: the value to check.
        known: the keys that may occur.
        what: name of the table in messages.

    Raises:
        UsageError: it is not a table, or a key is unknown (the message suggests a similar one).
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"{what}: expected a table, found {type(data).__name__}")
    for key in data:
        if key not in known:
            raise UsageError(
                f"{what}: unknown field {str(key)[:80]!r}{nearest(str(key), known, 'fields')}"
            )
    return data


def nearest(name: str, known: Sequence[str], what: str) -> str:
    """The end of an error message about an unknown name: a similar name, and the known names.

    Args:
        name: the unknown name.
        known: the names that exist; at most 24 of them are listed.
        what: plural noun for them, such as "fields".
    """
    near = difflib.get_close_matches(name[:80], known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    more = f", ... ({len(known)} in all)" if len(known) > MOST_LISTED else ""
    return f"{meant} known {what}: {', '.join(known[:MOST_LISTED])}{more}"
