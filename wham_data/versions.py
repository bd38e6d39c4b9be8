"""The installed packages: their versions, for the report of a run, and how to install more."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

PACKAGES = ("wham-data", "av", "deltalake", "numpy", "polars", "pyarrow", "ray", "torch")


def versions() -> dict[str, str | None]:
    """The version of Python and of each package; None: the package is not installed."""
    by_package: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_package[name] = version(name)
        except PackageNotFoundError:
            by_package[name] = None
    return by_package


def install_command(extra: str) -> str:
    """The command that installs the packages of an extra, wherever this package came from."""
    try:
        stated = requires("wham-data") or []
    except PackageNotFoundError:
        stated = []
    wanted = [
        each.partition(";")[0].strip()
        for each in stated
        if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", each)
    ]
    named = " ".join(f"'{each}'" for each in wanted)
    return (
        f"pip install {named}" if named else f"pip install '.[{extra}]' in the folder of wham-data"
    )
