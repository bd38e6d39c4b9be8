"""The code of the package as a tree: modules, functions, and who imports whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from makers.commands import ROOT

PACKAGE = ROOT / "wham_data"
NAME = re.compile(r"wham_data(\.\w+)*")
"""A string that is this from start to end names a module."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, Path]:
    """Dotted name of every module and package, and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(module: str) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it it does."""
    for node in ast.walk(tree(modules()[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module in modules():
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield node.module
            yield from sorted(inner & set(modules()))


def named_in_strings(module: str) -> list[str]:
    """The modules of the package that a module names in strings: for `import_module`, for `-m`."""
    strings = (
        node.value
        for node in ast.walk(tree(modules()[module]))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [each for each in strings if NAME.fullmatch(each) and each in modules()]


def room(module: str, house: str) -> str | None:
    """The child of the package `house` in which a module is; None: outside, or the package itself."""
    return (
        module.removeprefix(f"{house}.").split(".")[0] if module.startswith(f"{house}.") else None
    )


def arrows(house: str) -> set[tuple[str, str]]:
    """Who imports whom among the children of a package."""
    found = set()
    for module in modules():
        start = room(module, house)
        ends = {room(each, house) for each in imports(module)} if start else set()
        found |= {(start, end) for end in ends if start and end and end != start}
    return found


def circle(links: set[tuple[str, str]]) -> list[str]:
    """Names that lead from one to the next and back to the first; empty where none do."""
    left = set(links)
    while dead_ends := {end for _, end in left} - {start for start, _ in left}:
        left = {(start, end) for start, end in left if end not in dead_ends}
    way: list[str] = [min(start for start, _ in left)] if left else []
    while way and way[-1] not in way[:-1]:
        way.append(min(end for start, end in left if start == way[-1]))
    return way[way.index(way[-1]) :] if way else []


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a file, inner ones too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Lines from its `def` to its end."""
    return (function.end_lineno or 0) - function.lineno + 1


def without_docstring(path: Path) -> list[str]:
    """Public classes, functions, methods and the module itself that say nothing of themselves."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for name, node in _public(tree(path), "")
        if ast.get_docstring(node) is None
    ]


def _public(
    node: ast.Module | ast.ClassDef | Function, name: str
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | Function]]:
    """A node and what is public in it; what stands inside functions is nobody else's."""
    yield name, node
    if isinstance(node, Function):
        return
    for inner in node.body:
        if not isinstance(inner, ast.ClassDef | Function) or inner.name.startswith("_"):
            continue
        if not _told_above(inner, ast.get_docstring(node) or ""):
            yield from _public(inner, f"{name}.{inner.name}".strip("."))


def _told_above(node: ast.ClassDef | Function, docstring: str) -> bool:
    """An overload, or an attribute of a protocol that the docstring of its class has a line on."""
    decorators = {ast.unparse(each).split(".")[-1] for each in node.decorator_list}
    named = re.search(rf"^ *(\w+, )*{node.name}\b", docstring, re.MULTILINE)
    return "overload" in decorators or ("property" in decorators and named is not None)
