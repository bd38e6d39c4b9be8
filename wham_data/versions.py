"""The installed versions of the packages that a run uses, for the report of the run."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

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
