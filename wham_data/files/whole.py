"""Writes a file completely or not at all: under a private name beside the target, then renamed.

    written_whole    one file
    folder_whole     a folder with everything in it
    private_folder   several files, which `put_in_place` renames one by one when all are written

A file under its final name is always complete. When a process is killed, the files it leaves behind
have names that begin with PRIVATE.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError

PRIVATE: Final = ".tmp-"
NO_SYNC: Final = {errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EROFS}
"""Errors of a folder that cannot be synced: it belongs to somebody else, or to another kind of disk."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A private path to write to; at the end it is synced and renamed to `path`, or removed.

    Args:
        path: the file to make, in a folder that exists. An existing file of that name is replaced.

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
    """A private folder to fill. At the end it is synced and renamed to `path`; on an error, removed.

    Args:
        path: the folder to make. It must not exist yet, or must be an empty folder.

    Raises:
        OSError: the path exists and is not empty, or the disk is full or read-only.
    """
    with private_folder(path.parent) as beside:
        yield beside
        _sync_all(beside)
        beside.rename(path)
        sync_if_possible(path.parent)


@contextmanager
def private_folder(parent: Path, prefix: str = PRIVATE) -> Iterator[Path]:
    """An empty folder in `parent`, removed at the end. `parent` is made if it does not exist."""
    folder = _private(parent, prefix)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(staged: Path, target: Path) -> None:
    """Rename a file or folder to its final name, and sync it to disk.

    An existing file or folder of that name is replaced. The folder of the target is made if it does
    not exist.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_all(staged)
    if staged.is_dir() and target.exists():
        shutil.rmtree(target)
    staged.replace(target)
    sync_if_possible(target.parent)


def read_object(path: Path, most_bytes: int) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file is missing, damaged or holds no object."""
    try:
        with path.open("rb") as file:
            found = parse_json(file.read(most_bytes))
    except (OSError, UsageError):
        return None
    return found if isinstance(found, dict) else None


def differences(
    noted: Mapping[str, object],
    wanted: Mapping[str, object],
    text: Callable[[object], str] = str,
) -> list[str]:
    """The settings that differ, one text for each: `name: noted value, not wanted value`.

    Args:
        noted: settings read from a file, by name.
        wanted: the settings now. A name that one of the two lacks counts as None there.
        text: how a value is shown.
    """
    return [
        f"{name}: {text(noted.get(name))}, not {text(wanted.get(name))}"
        for name in sorted({*noted, *wanted})
        if noted.get(name) != wanted.get(name)
    ]


def _private(parent: Path, prefix: str = PRIVATE) -> Path:
    """A new path in `parent` that no other process uses."""
    return parent / f"{prefix}{uuid.uuid4().hex}"


def _sync_all(path: Path) -> None:
    """Sync a file, or a folder and everything in it, to disk."""
    if path.is_dir():
        for entry in path.iterdir():
            _sync_all(entry)
        sync_if_possible(path)
    else:
        sync(path)


def sync_if_possible(folder: Path) -> None:
    """Sync the names in a folder to disk, on a file system that can do so.

    Raises:
        OSError: the disk fails.
    """
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync(path: Path) -> None:
    """Sync the bytes of a file, or the names in a folder, to disk.

    Raises:
        OSError: the disk fails, or the file system cannot sync a folder.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
