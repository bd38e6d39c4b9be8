"""Folders of inputs, on this disk or on an object store.

A store is asked for one folder at a time, page by page. While one is searched, the next ones are listed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.sources import objects
from wham_data.corpus.storage.sources.objects import Folder
from wham_data.corpus.storage.sources.ranged import Pool
from wham_data.files import found
from wham_data.files.found import DEEPEST_FOLDER, Listing
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.paths import is_in_store

AHEAD: Final = 12
LONGEST_NAME: Final = 255
"""Bytes of a name that file systems take."""


def listed(folder: Path, depth: int = 0) -> Listing:
    """As `files.found.listed`, also for a folder of an object store.

    Raises:
        WhamDataError: the store refuses, or did not answer in time.
    """
    if not is_in_store(folder):
        return found.listed(folder, depth)
    return _listing(objects.folder(folder), depth)


def walk(
    folder: Path, look_ahead: LookAhead | None = None
) -> Iterator[tuple[Path, RefusedInput | None]]:
    """As `files.found.walk`, also for a folder of an object store.

    Args:
        folder: its path.
        look_ahead: of the search that this is a part of; None: of none.
    """
    return found.walk(folder, (look_ahead or LookAhead()).listed)


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        WhamDataError: the store refuses, or did not answer in time.
    """
    if not is_in_store(path):
        return path.is_dir()
    inside = objects.folder(path)
    return bool(inside.files or inside.folders)


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        WhamDataError: the store refuses, or did not answer in time.
    """
    if not is_in_store(path):
        return path.is_file()
    try:
        objects.about(path)
    except FileNotFoundError:
        return False
    return True


def exists(path: Path) -> bool:
    """Whether there is a file or a folder.

    Raises:
        WhamDataError: the store refuses, or did not answer in time.
    """
    return is_file(path) or is_folder(path) if is_in_store(path) else os.path.lexists(path)


class LookAhead:
    """Lists folders for one search; those of a store before it comes to them.

    Not for another search: what was listed ahead and not asked for may have changed by then.
    """

    def __init__(self) -> None:
        self._coming: dict[Path, Future[Folder]] = {}
        self._left: dict[Path, deque[str]] = {}

    def listed(self, folder: Path, depth: int = 0) -> Listing:
        """See `listed`."""
        if not is_in_store(folder):
            return found.listed(folder, depth)
        coming = self._coming.pop(folder, None)
        if coming is not None:
            self._more(folder.parent)
        listing = _listing(coming.result() if coming else objects.folder(folder), depth)
        self._left[folder] = deque(listing.folders)
        for _ in range(AHEAD):
            self._more(folder)
        return listing

    def _more(self, folder: Path) -> None:
        """List one more of the folders in a folder."""
        left = self._left.get(folder)
        if left:
            child = folder / left.popleft()
            self._coming[child] = Pool.threads().submit(objects.folder, child)
        else:
            self._left.pop(folder, None)


def _listing(inside: Folder, depth: int) -> Listing:
    files = {name: each for name, each in inside.files.items() if not name.startswith(".")}
    folders = [name for name in inside.folders if not name.startswith(".")]
    refused: dict[str, RefusedInput] = {}
    for name in (*files, *folders):
        if len(os.fsencode(name)) > LONGEST_NAME:
            refused[name] = _unsafe(f"a name of more than {LONGEST_NAME} bytes")
    if depth >= DEEPEST_FOLDER:
        refused |= dict.fromkeys(folders, _unsafe(f"folders nested deeper than {DEEPEST_FOLDER}"))
    searched = tuple(name for name in folders if name not in refused)
    for name in files.keys() & set(folders):
        if files.pop(name).n_bytes:  # an empty object is how some programs mark a folder
            refused[name] = _unsafe("there is a folder of the same name: rename one of them")
    names = tuple(name for name in sorted(files) if name not in refused)
    stamps = tuple(files[name].stamp for name in names)
    return Listing(names, stamps, frozenset(), searched, refused)


def _unsafe(why: str) -> RefusedInput:
    return RefusedInput(Reason.UNSAFE_PATH, why)
