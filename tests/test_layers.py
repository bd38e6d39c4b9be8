"""Heavy imports are lazy, and the package works without the links at the top."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("av", "ray", "torch", "deltalake", "polars", "h5py", "PIL")


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import wham_data").intersection(HEAVY)


def test_building_the_command_line_loads_nothing_heavy() -> None:
    assert not modules_after("import wham_data.cli.main").intersection(HEAVY)


def test_every_public_name_is_there() -> None:
    import wham_data

    assert all(getattr(wham_data, name) is not None for name in wham_data.__all__)


def test_the_links_at_the_top_are_relative_and_lead_into_the_package() -> None:
    root = Path(__file__).parent.parent
    for name in ("schemas", "pipelines", "inference"):
        link = root / name
        if link.is_symlink():  # a checkout without them works too
            assert str(link.readlink()) == f"wham_data/{name}"
