"""How a file is written whole or not at all: into a private place beside it, then renamed.

    written_whole    one file
    folder_whole     a folder with all that is in it
    private_folder   several files, which `put_in_place` renames one by one when all are written

A name that can be seen is whole. What a process that was killed leaves behind begins with PRIVATE.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError

PRIVATE: Final = ".tmp-"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A private path to write to; at the end it is synced and renamed to `path`, or removed.

    Args:
        path: the file to make, in a folder that is there; a file of that name gives way.

    Raises:
        OSError: the disk is full or read-only.
    """
    beside = _private(path.parent)
    try:
        yield beside
        put_in_place(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A private folder to fill; at the end its files are synced and it is renamed to `path`, or removed.

    Args:
        path: the folder to make; nothing may be there but an empty folder.

    Raises:
        OSError: something is there, or the disk is full or read-only.
    """
    with private_folder(path.parent) as beside:
        yield beside
        _sync_all(beside)
        beside.rename(path)
        _sync(path.parent)


@contextmanager
def private_folder(parent: Path, prefix: str = PRIVATE) -> Iterator[Path]:
    """An empty folder in `parent`, which is made if it is not there; gone at the end."""
    folder = _private(parent, prefix)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(staged: Path, target: Path) -> None:
    """Rename a file or folder into place, durably.

    A file or folder that is there gives way. The folder of the target is made if it is not there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_all(staged)
    if staged.is_dir() and target.exists():
        shutil.rmtree(target)
    staged.replace(target)
    _sync(target.parent)


def read_object(path: Path, most_bytes: int) -> dict[str, Any] | None:
    """The JSON object in a file that was written whole; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            found = parse_json(file.read(most_bytes))
    except (OSError, UsageError):
        return None
    return found if isinstance(found, dict) else None


def _private(parent: Path, prefix: str = PRIVATE) -> Path:
    """A name in `parent` that nobody else has."""
    return parent / f"{prefix}{uuid.uuid4().hex}"


def _sync_all(path: Path) -> None:
    """Have a file, or a folder and all in it, on the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _sync_all(entry)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
