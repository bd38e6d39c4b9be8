"""Versions of the packages that made a run, for its report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("wham-data", "av", "deltalake", "numpy", "polars", "pyarrow", "ray", "torch")


def versions() -> dict[str, str | None]:
    """Installed versions by package; None for one that is not there."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
