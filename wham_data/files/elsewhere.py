"""Files that are not on this disk, but can be read here: whoever knows how puts a *placeholder* at a path.

A placeholder is an empty (sparse) file with the size and the times of the real one, so that everything
that asks for those gets them. Its bytes are got when they are asked for, through `open_regular` and
the functions here. Nothing else may open an input; a test holds all readers to that.

Who needs a file of the operating system (to map it into memory, or for a library in C) gets one: the
file is then fetched to its place as a whole.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from wham_data.files.in_parts import InParts

BUFFER_BYTES: Final = 1 << 19


class Remote(Protocol):
    """The real file."""

    @property
    def n_bytes(self) -> int:
        """Its size."""

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, which are in the file; or fewer, but one at least.

        Raises:
            RefusedInput: CHANGED_WHILE_READ, it is another file now.
            WhamDataError: it cannot be read now.
        """

    def fetch(self) -> None:
        """Put the whole file in the place of the placeholder.

        Raises:
            RefusedInput: TOO_LARGE, more than may be fetched; or as `read`.
        """


_remotes: Final[dict[str, Remote]] = {}


def put(path: Path, remote: Remote) -> None:
    """From here on the file at `path` is a placeholder for a real one."""
    _remotes[str(path)] = remote


def only(remotes: Mapping[Path, Remote]) -> None:
    """From here on these are all the placeholders."""
    _remotes.clear()
    _remotes.update({str(path): remote for path, remote in remotes.items()})


def remove(path: Path) -> None:
    """The file at `path`, if it is one, is no placeholder any more."""
    _remotes.pop(str(path), None)


def remote_of(path: Path) -> Remote | None:
    """The real file for which the one at `path` stands; None: it is the real one."""
    return _remotes.get(str(path)) if _remotes else None


def opened(path: Path) -> BinaryIO | None:
    """The real file for which the one at `path` stands, open for reading; None: it is the real one."""
    remote = remote_of(path)
    return None if remote is None else io.BufferedReader(_RemoteFile(path, remote), BUFFER_BYTES)


def whole(path: Path) -> Path:
    """The path itself, at which the real file now lies as a whole: for libraries that open a path.

    Raises:
        RefusedInput, WhamDataError: see `Remote.fetch`.
    """
    remote = remote_of(path)
    if remote is not None:
        remote.fetch()
    return path


class _RemoteFile(InParts):
    """The bytes of a remote file."""

    def __init__(self, path: Path, remote: Remote) -> None:
        super().__init__([0, remote.n_bytes])
        self._path, self._remote = path, remote
        self._fetched: BinaryIO | None = None

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        stop = min(self._at + len(view), self._remote.n_bytes)
        if stop <= self._at:
            return 0
        data = self._remote.read(self._at, stop)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def fileno(self) -> int:
        """A descriptor of the file, which is fetched for it."""
        if self._fetched is None:
            self._remote.fetch()
            self._fetched = self._path.open("rb")
        return self._fetched.fileno()

    def close(self) -> None:
        if self._fetched is not None:
            self._fetched.close()
        super().close()


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file; the position stays. Unlike `os.fstat` this fetches nothing."""
    at = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(at)
    return size
