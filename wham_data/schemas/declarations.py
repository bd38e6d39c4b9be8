"""Reading declarations from TOML and JSON tables, and refusing those that make no sense."""

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
    """The table of a TOML file that ships with the package."""
    return tomllib.loads(bundled_text(folder, name))


def bundled_text(folder: str, name: str) -> str:
    """A TOML file that ships with the package, as written."""
    return (_bundled(folder) / f"{name}.toml").read_text("utf-8")


def bundled_names(folder: str) -> tuple[str, ...]:
    """Stems of the TOML files in a folder that ships with the package, sorted."""
    names = (entry.name for entry in _bundled(folder).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def _bundled(folder: str) -> Traversable:
    return resources.files("wham_data.schemas") / folder


def read_toml(path: Path) -> dict[str, Any]:
    """The table of somebody's TOML file, at most 1 MB of UTF-8.

    Raises:
        UsageError: it cannot be read or is no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path}: larger than {MOST_BYTES} bytes; this is no declaration of ours")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None


def check_name(name: object, what: str) -> str:
    """`name`, if it may name a space or a dimension.

    Raises:
        UsageError: it may not.
    """
    if not isinstance(name, str) or not NAME_RULE.fullmatch(name):
        raise UsageError(
            f"{what} name {str(name)[:80]!r}: expected a letter or _, then at most 63 letters, "
            "digits, _ or ."
        )
    return name


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_text(value: object, most: int) -> TypeGuard[str]:
    """Whether `value` is a text of at most so many characters."""
    return isinstance(value, str) and len(value) <= most


def known_keys(data: object, known: Sequence[str], what: str) -> Mapping[str, Any]:
    """`data` as a table that has no other keys than the known ones.

    Raises:
        UsageError: it is no table, or a key is unknown (the message names the nearest).
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
    """The end of a sentence that says which name was probably meant and which there are."""
    near = difflib.get_close_matches(name[:80], known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    more = f", ... ({len(known)} in all)" if len(known) > MOST_LISTED else ""
    return f"{meant} known {what}: {', '.join(known[:MOST_LISTED])}{more}"
