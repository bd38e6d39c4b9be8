"""A cache of immutable files on this machine, with a size limit, shared by all processes.

The name of a file in the cache is its SHA-256. So several corpora share the file, and it is never
out of date:

    <sha256>         complete and checked, put there by a rename
    <sha256>-<n>-<m> bytes n to m of it, complete; who uses them checks them
    <sha256>.part    being fetched
    <sha256>.lock    locked by the process that fetches it; others wait for the lock, then look again

A process that reads a copy holds a shared lock on it (see `Leased`), so that the copy is not
removed. When room is needed, the least recently used copies are removed. A copy that is
memory-mapped but not locked may be removed too: the map stays valid, and the disk space is free
when the map is closed. The kernel releases the locks of a killed process.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.contract import Leased, one_line
from wham_data.schemas.errors import UsageError
from wham_data.schemas.paths import expanded

FOLDER: Final = "WHAM_DATA_CACHE_DIR"
MOST_BYTES: Final = "WHAM_DATA_CACHE_BYTES"
DEFAULT_BYTES: Final = 32_000_000_000
PART: Final = ".part"
LOCK: Final = ".lock"
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder with copies of files.

    most_bytes  limit of their total size. A single file above the limit is fetched nevertheless,
                and every other file that is not locked is removed
    """

    folder: Path
    most_bytes: int = DEFAULT_BYTES

    @classmethod
    def of_user(cls, folder: str | os.PathLike[str] | None = None, n: int | None = None) -> Cache:
        """The cache of the user.

        Args:
            folder: where it is; None: the environment variable WHAM_DATA_CACHE_DIR, or `wham-data`
                in the user's cache folder.
            n: most bytes; None: the environment variable WHAM_DATA_CACHE_BYTES, or 32 GB.

        Raises:
            UsageError: the size is negative or not a size.
        """
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        place = folder or os.environ.get(FOLDER) or Path(home) / "wham-data"
        most = n if n is not None else _bytes_in(os.environ.get(MOST_BYTES) or str(DEFAULT_BYTES))
        if most < 0:
            raise UsageError(f"cache_bytes {most}: expected a number of bytes")
        return cls(Path(expanded(place)).absolute(), most)

    def __contains__(self, sha256: str) -> bool:
        return (self.folder / sha256).exists()

    def lease(self, sha256: str, n_bytes: Callable[[], int], fill: Callable[[int], None]) -> Leased:
        """The file with this hash, fetched if it is not in the cache.

        Args:
            sha256: of the file, hex digits.
            n_bytes: returns its size; called when room is made for it.
            fill: writes the file to a descriptor, and raises if the bytes have another hash.

        Raises:
            WhamDataError: the disk of the cache is full or fails; or what `fill` raises.
        """
        with one_line(f"{self.folder} (the cache; {FOLDER} and {MOST_BYTES} choose another)"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while (leased := self.held(sha256)) is None:
                self._fetch(self.folder / sha256, n_bytes, fill)
            return leased

    def held(self, sha256: str) -> Leased | None:
        """The file with this hash, marked as used now; None if it is not in the cache."""
        path = self.folder / sha256
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is(descriptor, path):  # removed before it was locked
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return Leased(path, descriptor)

    def _fetch(self, path: Path, n_bytes: Callable[[], int], fill: Callable[[int], None]) -> None:
        """Fetch a file, or wait until another process has; the caller then looks for it again."""
        lock, part = path.with_name(path.name + LOCK), path.with_name(path.name + PART)
        turn = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if not _is(turn, lock):
                return
            try:
                if not path.exists():
                    self._fill(part, n_bytes, fill, path)
            finally:
                part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
        finally:
            os.close(turn)

    def _fill(
        self, part: Path, n_bytes: Callable[[], int], fill: Callable[[int], None], path: Path
    ) -> None:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # so that `_make_room` leaves it alone
            if not _is(descriptor, part):
                return
            self._reserve(descriptor, n_bytes())
            fill(descriptor)
            os.fsync(descriptor)
            part.rename(path)
        finally:
            os.close(descriptor)

    def _reserve(self, part: int, n_bytes: int) -> None:
        """Make room for a file and give it its size; one process at a time does so."""
        turn = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            os.ftruncate(part, 0)
            self._make_room(n_bytes)
            os.ftruncate(part, n_bytes)
        finally:
            os.close(turn)

    def _make_room(self, n_bytes: int) -> None:
        """Remove the least recently used files that are not locked, until `n_bytes` fit."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(about.st_mode):  # inputs that are laid out
                        continue
                    found.append((about.st_mtime_ns, Path(entry.path), about.st_size))
        surplus = sum(size for *_, size in found) + n_bytes - self.most_bytes
        for _, path, size in sorted(found):
            if surplus <= 0:
                return
            if remove_unless_used(path):
                surplus -= size


def remove_unless_used(path: Path) -> bool:
    """Remove a file, unless it is locked. Also removes the partial file of a killed process."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is(descriptor, path):  # renamed or replaced meanwhile
                return False
            path.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True


def _is(descriptor: int, path: Path) -> bool:
    """Whether a path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _bytes_in(text: str) -> int:
    size = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,6})?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if size is None:
        raise UsageError(f"{MOST_BYTES}={text[:40]!r}: expected a size such as 20GB")
    return int(float(size[1]) * UNITS[size[2].upper()])
