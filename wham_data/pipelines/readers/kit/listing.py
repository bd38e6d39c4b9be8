"""The readers and the writers that there are: found by looking through the modules of a package.

Nobody keeps a list: a file put into the package is a format more.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Final

SHARED: Final = "kit"
"""The folder of what readers share, in which no reader is looked for."""


def formats_in(package: ModuleType) -> list[object]:
    """One instance of every format of a package and its folders, in the order they are asked.

    A format is a class, defined in the module itself, that says its `name` and `about`. Its
    `order`, a number, says when it is asked: lower ones first, `DEFAULT_ORDER` where it says
    nothing, equal ones by name.
    """
    found = [kind() for module in _modules_of(package) for kind in _formats_of(module)]
    return sorted(found, key=lambda each: (order_of(each), each.name))


DEFAULT_ORDER: Final = 500


def order_of(found: object) -> int:
    """When a format is asked, see `formats_in`."""
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
