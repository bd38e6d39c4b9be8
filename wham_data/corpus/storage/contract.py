"""The interface between a corpus and its files: each file is written once, and complete.

Two rules keep a corpus intact through crashes and concurrent writers, on every kind of storage:

- The bytes of a file are complete and durable before its name is visible.
- The operation that gives a file its name never replaces another file. If two writers use one name,
  one wins and the other is informed that it lost.

A folder does this with hard links (see `local`), an object store with conditional puts (see
`object_store`).
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from wham_data.schemas.errors import IntegrityError, WhamDataError

TEMPORARY: Final = ".tmp-"
"""Names of files that are not complete yet begin with this."""
HINTS: Final = "hints"
"""Folder of files that only save time, and may be replaced or deleted at any moment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a folder of a corpus.

    name         file name in the folder
    n_bytes      its size
    modified_ns  time when it was written, by the clock of the store
    """

    name: str
    n_bytes: int
    modified_ns: int


class Leased:
    """A file on this machine that stays in place for as long as this object lives.

    Attributes:
        path: path of the file.
        start: the byte of the original at which this file begins; above 0 for a copy of a part.
    """

    def __init__(self, path: Path, descriptor: int | None = None, start: int = 0) -> None:
        """Make a lease.

        Args:
            path: of the file.
            descriptor: of a copy in the cache, open and locked; closed when this object ends.
                None: not a copy.
            start: the byte of the original at which the file begins.
        """
        self.path, self.start = path, start
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)


class Storage(Protocol):
    """The location of a corpus. Names of files are relative to it, with forward slashes.

    Every method raises `WhamDataError` if the disk or the store fails, and `IntegrityError` for a
    name that leads out of the corpus.
    """

    @property
    def location(self) -> str:
        """Absolute path or URL of the corpus, for messages."""

    def where(self, name: str) -> str:
        """Full path or URL of `name`, for messages."""

    def exists(self, name: str) -> bool:
        """Whether there is a complete file `name`."""

    def size(self, name: str) -> int:
        """Size of the file `name` in bytes."""

    def read(self, name: str, most: int = 1 << 30) -> bytes:
        """The bytes of the file `name`.

        Raises:
            FileNotFoundError: there is no such file.
            IntegrityError: the file has more than `most` bytes.
        """

    def sha256(self, name: str) -> str:
        """SHA-256 of the file `name`, hex digits. Always reads the file itself, never a copy."""

    def entries(self, folder: str) -> list[Entry]:
        """The files directly in `folder`, including temporary files of killed writers."""

    def list(self, folder: str) -> list[str]:
        """Names of the complete files directly in `folder`, sorted; empty if there is no folder."""

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write `content` to a new file `name`, unless the name is taken.

        Returns:
            True if this call made the file, False if it was there already. In both cases the file
            is durable.
        """

    def staged(self, name: str) -> AbstractContextManager[Path]:
        """A private path to write to before `publish`; a file left there is removed at the end."""

    def publish(self, temporary: Path, name: str) -> bool:
        """Give a staged file its name, unless the name is taken. The name is durable.

        Returns:
            Whether this call gave the name.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Write `content` to the file `name`, replacing it if it is there.

        Only for hints and for the card; no data of a corpus is ever replaced.
        """

    def delete(self, name: str) -> None:
        """Remove the file `name`; does nothing if it is not there."""

    def discard(self, folder: str, entry: Entry) -> bool:
        """Remove a file that `entries` returned, unless it was written or renewed since then.

        Returns:
            Whether the file is gone.
        """

    def renew(self, name: str) -> bool:
        """Set the time of the file `name` to now.

        Returns:
            Whether the file is there.
        """

    def settle(self, *folders: str) -> None:
        """Make the folders if they are missing, and make the names of the files in them durable.

        A writer calls this before it depends on a file that another process has just written.
        """

    def probe(self) -> None:
        """Check that this storage prevents two writers from overwriting each other's files.

        Called before the first file of a new corpus is written.

        Raises:
            UsageError: it does not.
        """

    def file(self, name: str, sha256: Callable[[], str], part: range | None = None) -> Leased:
        """The file `name`, or a copy of it, on this machine; it can be read or memory-mapped.

        Args:
            name: of a file that never changes.
            sha256: returns the expected hash; called only if a copy is made, to check it.
            part: the bytes that are needed; None: all. A copy may then hold these bytes alone. The
                hash is not compared with such a copy: the caller must check it.
        """

    def fresh(self, name: str) -> AbstractContextManager[Path]:
        """The file `name` in its present state, on this machine; never an earlier copy."""


def publish_again(storage: Storage, temporary: Path, name: str, sha256: str) -> None:
    """Publish a file whose name is a hash of its inputs; an equal file may be there already.

    Raises:
        IntegrityError: a file with other bytes has this name.
    """
    while not storage.publish(temporary, name):
        # Renewed first, so that `vacuum` does not remove the old file before the commit.
        if not storage.renew(name):
            continue
        there = storage.sha256(name)
        if there != sha256:
            raise IntegrityError(
                f"{storage.where(name)}: the existing file has sha256 {there}, but the same "
                f"recordings and settings now give {sha256}: ingest is not deterministic, or the "
                "file is damaged"
            )
        return


def all_there(paths: list[Path]) -> list[Path]:
    """Return `paths` if there is a file at each of them.

    Raises:
        IntegrityError: a file is missing; a copy may have been removed to make room for the next.
    """
    for path in paths:
        if not path.is_file():
            raise IntegrityError(
                f"{path}: the shard is missing. If it is a copy in a cache, the cache cannot hold all "
                f"{len(paths)} shards: set WHAM_DATA_CACHE_BYTES"
            )
    return paths


def check_name(location: str, name: str) -> str:
    """Return `name` if it is the name of a file in a corpus.

    Args:
        location: of the corpus, for the message.
        name: relative to the corpus.

    Raises:
        IntegrityError: the name leads out of the corpus.
    """
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise IntegrityError(f"{location}: unsafe path {name!r} leads outside the corpus")
    return name


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        IntegrityError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror or error}") from error


@contextmanager
def one_line(path: Path | str, passes: type[OSError] | None = None) -> Iterator[None]:
    """Turn an `OSError` into a `WhamDataError` of one line that names the path and the cause.

    Args:
        path: for the message.
        passes: class of errors that are raised unchanged.
    """
    try:
        yield
    except OSError as error:
        if passes is not None and isinstance(error, passes):
            raise
        raise WhamDataError(f"{path}: {error.strerror or error}") from error
