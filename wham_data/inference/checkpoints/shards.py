"""A safetensors file, or the same tensors in several files with an index.

    NAME.safetensors                                      all tensors, or
    NAME.safetensors.index.json                           {"weight_map": {tensor: file, ...}}
    NAME-00001-of-00002.safetensors, ...                  the files that it names, in the same folder

The index is hostile input: it can name only files directly in its folder, and each file must hold exactly
the tensors that the index gives to it, so that no tensor is there twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from wham_data.inference.checkpoints.json_file import read_model_json
from wham_data.schemas.errors import IntegrityError, UsageError

INDEX: Final = ".safetensors.index.json"
LARGEST_INDEX: Final = 8 << 20
MOST_FILES: Final = 1000
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors", re.ASCII)


def index_of(path: Path) -> Path:
    """The index that may stand in the place of a safetensors file."""
    return path.with_name(path.name + ".index.json")


def is_there(path: Path) -> bool:
    """Whether there is a safetensors file, or an index in its place."""
    return path.is_file() or index_of(path).is_file()


def tensors_by_file(path: Path, names: Collection[str]) -> dict[Path, list[str]]:
    """The files that hold these tensors, each with the names of its own.

    Args:
        path: the safetensors file. If it is not there, its index is read.
        names: all tensors of the configuration.

    Raises:
        IntegrityError: the index is damaged, too large, has other tensors, or names a file that is no
            plain name.
        UsageError: a file that it names is missing.
    """
    if path.is_file():
        return {path: list(names)}
    index = index_of(path)
    files = _weight_map(index)
    if files.keys() != set(names):
        missing, unexpected = set(names) - files.keys(), files.keys() - set(names)
        raise IntegrityError(
            f"{index}: tensors missing: {_some(missing)}; unexpected: {_some(unexpected)}"
        )
    found: dict[Path, list[str]] = {}
    for name, file in files.items():
        found.setdefault(index.with_name(file), []).append(name)
    if len(found) > MOST_FILES:
        raise IntegrityError(f"{index}: names {len(found)} files, expected at most {MOST_FILES}")
    for each in found:
        if not each.is_file():
            raise UsageError(f"{each}: no such file, but {index.name} names it. Download it too")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    content = read_model_json(index, LARGEST_INDEX)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise IntegrityError(f"{index}: no weight_map, expected the index of safetensors files")
    for file in files.values():
        if not isinstance(file, str) or not _FILE_NAME.fullmatch(file):
            raise IntegrityError(
                f"{index}: refused as unsafe: it names {str(file)[:80]!r}, expected the plain name of "
                "a .safetensors file beside it"
            )
    return files


def _some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "none"
