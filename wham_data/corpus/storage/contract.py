"""The interface between a corpus and its files: every name is written once and whole.

Two rules keep a corpus whole through crashes and races, wherever it lies: bytes are durable and
complete before their name can be seen, and a name is given by an operation that never replaces, so
that of two racers one wins and the other knows that it lost. A folder does it with hard links (see
`local`), an object store with conditional puts (see `object_store`).
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from wham_data.schemas.errors import IntegrityError, WhamDataError

TEMPORARY: Final = ".tmp-"
"""Names of files that are not complete yet begin with this."""


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
    """A file on this machine that stays in place for as long as this object lives."""

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        """Of a copy in the cache, with the descriptor whose lock keeps it there."""
        self.path = path
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)


class Storage(Protocol):
    """A corpus location. Names are relative to it, with forward slashes.

    Everything raises `WhamDataError` where the disk or the store fails, and `IntegrityError` for a
    name that leads out of the corpus.
    """

    @property
    def location(self) -> str:
        """The corpus for people: an absolute path, or a URL."""

    def where(self, name: str) -> str:
        """Full path or URL of `name`, for messages."""

    def exists(self, name: str) -> bool:
        """Whether `name` is there, whole."""

    def size(self, name: str) -> int:
        """Bytes under `name`."""

    def read(self, name: str, most: int = 1 << 30) -> bytes:
        """The bytes under `name`.

        Raises:
            FileNotFoundError: there is nothing under this name.
            IntegrityError: more than `most` bytes.
        """

    def sha256(self, name: str) -> str:
        """Of the bytes that lie under `name` now, hex digits; no copy is asked."""

    def entries(self, folder: str) -> list[Entry]:
        """All that lies directly in `folder`, also what killed writers have left."""

    def list(self, folder: str) -> list[str]:
        """Names of the whole files directly in `folder`, sorted; empty if there is no folder."""

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write `content` under `name` unless the name is taken.

        Returns:
            True if this call made it, False if somebody else's bytes were there already. Either
            way what is there is durable.
        """

    def staged(self, name: str) -> AbstractContextManager[Path]:
        """A private path to write to before `publish`; what is left there is removed at the end."""

    def publish(self, temporary: Path, name: str) -> bool:
        """Give a staged file its name, durably, unless the name is taken.

        Returns:
            Whether this call did it.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Write `content` under `name`, there or not: for hints only, never for truth."""

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""

    def discard(self, folder: str, entry: Entry) -> bool:
        """Remove what `entries` told of, unless it was put there anew or renewed since.

        Returns:
            Whether it is gone.
        """

    def renew(self, name: str) -> bool:
        """Let `name` count as put there now.

        Returns:
            Whether it is there.
        """

    def settle(self, *folders: str) -> None:
        """Make the folders if they are not there, and make durable which names are in them.

        Whoever builds on what another process has just put there calls this before.
        """

    def probe(self) -> None:
        """Look whether two writers can be kept apart here, before the first byte of a new corpus.

        Raises:
            UsageError: they cannot.
        """

    def folder(self, name: str) -> Path | None:
        """A folder of the corpus, where it is one on this machine."""

    def file(self, name: str, sha256: Callable[[], str]) -> Leased:
        """The bytes under `name` as a file on this machine, to be read or mapped.

        Args:
            name: of something that never changes.
            sha256: what they must be; asked for where the file is a copy, which is then compared.
        """

    def fresh(self, name: str) -> AbstractContextManager[Path]:
        """The bytes as they lie there now as a file on this machine; never an earlier copy."""

    def shadow(self, names: Sequence[str]) -> AbstractContextManager[Path]:
        """A folder of one's own on this machine with some files side by side, for a while.

        What is written to it is lost.
        """


def publish_again(storage: Storage, temporary: Path, name: str, sha256: str) -> None:
    """Give a staged file a name that tells what it was made of, or find the same bytes there.

    Raises:
        IntegrityError: other bytes are there.
    """
    while not storage.publish(temporary, name):
        # Made young before it is relied on, so that no vacuum takes it before the commit.
        if not storage.renew(name):
            continue
        there = storage.sha256(name)
        if there != sha256:
            raise IntegrityError(
                f"{storage.where(name)}: is there with sha256 {there}, but the same recordings and "
                f"settings now give {sha256}: ingest is not deterministic, or the file is damaged"
            )
        return


def check_name(location: str, name: str) -> str:
    """`name`, which is in the corpus at `location`.

    Raises:
        IntegrityError: it leads out of it.
    """
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise IntegrityError(f"{location}: unsafe path {name!r} leads outside the corpus")
    return name


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror or error}") from error


@contextmanager
def one_line(path: Path | str, passes: type[OSError] | None = None) -> Iterator[None]:
    """Turn an error of the file system into one line that names the path and the cause."""
    try:
        yield
    except OSError as error:
        if passes is not None and isinstance(error, passes):
            raise
        raise WhamDataError(f"{path}: {error.strerror or error}") from error
