"""Names of wrapping modules in the keys of a state dict, and the keys without them.

`torch.compile` puts `_orig_mod.` into the keys of what it compiled, DDP and DataParallel `module.`, at
the beginning or at any dot, and also one within the other. Nothing else of a key is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WRAPPERS: Final = ("_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module")
"""Parts of a key that only name a wrapper: of torch.compile, DDP, Lightning's Fabric and FSDP."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """The keys of a state dict without the names of wrappers.

    keys     key without them -> key in the file, in the order of the file
    removed  the names that were removed, sorted
    """

    keys: dict[str, str]
    removed: tuple[str, ...]


def without_wrappers(keys: Sequence[str]) -> Unwrapped:
    """Take the names of wrappers out of keys.

    If two keys would become one, it is not clear which is meant: then all keys stay as they are.
    """
    plain: dict[str, str] = {}
    removed: set[str] = set()
    for key in keys:
        parts = key.split(".")
        removed.update(part for part in parts if part in WRAPPERS)
        short = ".".join(part for part in parts if part not in WRAPPERS)
        if short in plain:
            return Unwrapped({key: key for key in keys}, ())
        plain[short] = key
    return Unwrapped(plain, tuple(sorted(removed)))
