"""Finds all readers and writers by importing the modules of their package.

There is no list to maintain: a new file in the package is a new format.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Final

SHARED: Final = "kit"
"""The folder of code that readers share. It contains no readers."""


def formats_in(package: ModuleType) -> list[object]:
    """One instance of every format in a package and its subfolders, in their order.

    A format is a class, defined in the module itself, with the attributes `name` and `about`. Its
    attribute `order` is a number, by default `DEFAULT_ORDER`: lower numbers come first, equal ones
    are sorted by name.
    """
    found = [kind() for module in _modules_of(package) for kind in _formats_of(module)]
    return sorted(found, key=lambda each: (order_of(each), each.name))


DEFAULT_ORDER: Final = 500


def order_of(found: object) -> int:
    """The number by which a format is sorted, see `formats_in`."""
    return int(getattr(found, "order", DEFAULT_ORDER))


def _modules_of(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if info.name.rpartition(".")[2] == SHARED:
            continue
        module = import_module(info.name)
        yield module
        if info.ispkg:
            yield from _modules_of(module)


def _formats_of(module: ModuleType) -> list[type]:
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and kind.__module__ == module.__name__
        and all(isinstance(getattr(kind, name, None), str) for name in ("name", "about"))
    ]
