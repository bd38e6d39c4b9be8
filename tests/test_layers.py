"""The house stays in order: layers, rooms, sizes, lazy imports; and it needs no links at the top."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from statistics import median

import pytest
from makers import code
from makers.commands import ROOT

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
    for name in ("schemas", "pipelines", "inference"):
        link = ROOT / name
        if link.is_symlink():  # a checkout without them works too
            assert str(link.readlink()) == f"wham_data/{name}"


MOST_MODULES = 20
MOST_LINES = 500
MEDIAN_LINES = 9
MOST_ARROWS = 31  # one more for curate > video: judging play needs its pictures


@pytest.fixture(scope="module")
def layers() -> list[str]:
    """The packages from the top down, as `make check` holds them to it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (
        each
        for each in settings["contracts"]
        if each["type"] == "layers" and "containers" not in each
    )
    return [layer.strip("()") for layer in contract["layers"]]  # in brackets: may be missing


def test_a_module_that_is_named_in_a_string_obeys_the_layers(layers: list[str]) -> None:
    def height(module: str) -> int:
        below = [n for n, layer in enumerate(layers) if f"{module}.".startswith(f"{layer}.")]
        return -below[0] if below else -len(layers)

    upwards = [
        f"{module} names {named}"
        for module in code.modules()
        for named in code.named_in_strings(module)
        if module != "wham_data" and height(named) > height(module)  # the top may name all
    ]

    assert upwards == []


def test_no_folder_holds_more_modules_than_one_sees_at_a_glance() -> None:
    held = Counter(path.parent for path in code.modules().values() if path.stem != "__init__")
    most = held.most_common(1)[0]
    print(f"most modules in a folder: {most[1]} ({most[0].relative_to(ROOT)})")

    assert {str(folder): n for folder, n in held.items() if n > MOST_MODULES} == {}


def test_no_module_is_longer_than_one_reads_in_a_sitting() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in code.modules().values()}
    longest = max(lines, key=lambda path: lines[path])
    print(f"longest module: {lines[longest]} lines ({longest.relative_to(ROOT)})")

    assert {str(path): n for path, n in lines.items() if n > MOST_LINES} == {}


def test_functions_are_short() -> None:
    lengths = [
        code.length(each) for path in code.modules().values() for each in code.functions(path)
    ]
    middle = median(lengths)
    print(f"functions: {len(lengths)}, median length {middle:g} lines, longest {max(lengths)}")

    assert middle <= MEDIAN_LINES


def test_everything_public_says_what_it_is() -> None:
    silent = [each for path in code.modules().values() for each in code.without_docstring(path)]

    assert silent == []


@pytest.mark.parametrize("house", ["pipelines", "inference"])
def test_few_arrows_run_between_rooms_and_none_in_a_circle(house: str) -> None:
    arrows = code.arrows(f"wham_data.{house}")
    print(f"{house}: {len(arrows)} arrows between rooms")
    print(*(f"  {start} > {end}" for start, end in sorted(arrows)), sep="\n")

    assert len(arrows) < MOST_ARROWS
    assert code.circle(arrows) == []


def test_a_circle_is_found() -> None:
    assert code.circle({("a", "b"), ("b", "c"), ("c", "d")}) == []
    assert code.circle({("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}) == ["b", "c", "b"]
