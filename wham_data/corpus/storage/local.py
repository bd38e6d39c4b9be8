"""A corpus in a folder.

How a file is written:

    write .tmp-<random>, fsync it      the bytes survive a power cut; no reader sees them yet
    link(.tmp-<random>, name)          atomic; fails if the name is taken: of two writers one wins
    fsync the folder                   the name survives a power cut
    unlink .tmp-<random>

A writer may depend on a file that another process has just written. It then syncs the folder of
that file again before it reports success, because the other process may have been stopped before
the name was durable. The same holds for folders.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.contract import (
    TEMPORARY,
    Entry,
    Leased,
    check_name,
    hash_file,
    one_line,
)
from wham_data.faults import fault_point
from wham_data.files.whole import sync, sync_if_possible
from wham_data.schemas.errors import IntegrityError, WhamDataError

NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A `Storage` in a folder of a file system.

    root  folder of the corpus
    """

    root: Path
    _settled: set[Path] = field(default_factory=set, init=False, repr=False, compare=False)
    """Folders whose names, and the names of all their parents, are known to be durable."""

    @property
    def location(self) -> str:
        """Path of the folder."""
        return str(self.root)

    def path(self, name: str) -> Path:
        """Path of the file `name`.

        Raises:
            IntegrityError: the name leads out of the corpus.
        """
        return self.root / check_name(self.location, name)

    def where(self, name: str) -> str:
        """See `Storage.where`."""
        return str(self.path(name))

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """See `Storage.size`."""
        with one_line(self.path(name)):
            return self.path(name).stat().st_size

    def read(self, name: str, most: int = 1 << 30) -> bytes:
        """See `Storage.read`."""
        path = self.path(name)
        with one_line(path, passes=FileNotFoundError), path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise IntegrityError(f"{path}: more than {most} bytes, which is not a file of a corpus")
        return content

    def sha256(self, name: str) -> str:
        """See `Storage.sha256`."""
        return hash_file(self.path(name))

    def entries(self, folder: str) -> list[Entry]:
        """See `Storage.entries`."""
        path = self.path(folder)
        if not path.is_dir():
            return []
        found: list[Entry] = []
        with one_line(path), os.scandir(path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a writer has just published or removed it
                    leftover = entry.name.startswith(TEMPORARY)
                    if leftover or entry.is_file():
                        about = entry.stat(follow_symlinks=not leftover)
                        found.append(Entry(entry.name, about.st_size, about.st_mtime_ns))
        return found

    def list(self, folder: str) -> list[str]:
        """See `Storage.list`."""
        path = self.path(folder)
        if not path.is_dir():
            return []
        with one_line(path), os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(TEMPORARY) and entry.is_file()
            )

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """See `Storage.put_if_absent`.

        Raises:
            WhamDataError: the disk is full or read-only, or its file system has no hard links.
        """
        with self.staged(name) as temporary:
            with one_line(temporary):
                temporary.write_bytes(content)
            return self.publish(temporary, name)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """See `Storage.staged`."""
        folder = self.path(name).parent
        self._make_folder(folder)
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        fault_point("name.begun", name)
        try:
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def publish(self, temporary: Path, name: str) -> bool:
        """See `Storage.publish`."""
        target = self.path(name)
        fault_point("name.written", name)
        with one_line(target):
            sync(temporary)
            try:
                os.link(temporary, target)
                made = True
                fault_point("name.linked", name)
            except FileExistsError:
                made = False
            except OSError as error:
                if error.errno in NO_LINKS:
                    raise WhamDataError(
                        f"{target.parent}: this file system has no hard links, so two writers "
                        "could overwrite each other's files; put the corpus on another disk"
                    ) from error
                raise
            sync(target.parent)
        fault_point("name.published", name)
        return made

    def replace(self, name: str, content: bytes) -> None:
        """See `Storage.replace`."""
        with self.staged(name) as temporary, one_line(temporary):
            temporary.write_bytes(content)
            sync(temporary)
            temporary.replace(self.path(name))
            sync(temporary.parent)

    def settle(self, *folders: str) -> None:
        """See `Storage.settle`."""
        for folder in folders:
            path = self.path(folder)
            self._make_folder(path)
            with one_line(path):
                sync(path)

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        with one_line(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def discard(self, folder: str, entry: Entry) -> bool:
        """See `Storage.discard`."""
        path = self.path(f"{folder}/{entry.name}".lstrip("/"))
        with one_line(path, passes=FileNotFoundError), suppress(FileNotFoundError):
            if path.lstat().st_mtime_ns != entry.modified_ns:
                return False
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return True

    def renew(self, name: str) -> bool:
        """See `Storage.renew`. The time of a file that belongs to another user stays as it is."""
        with one_line(self.path(name)), suppress(PermissionError):
            try:
                os.utime(self.path(name))
            except FileNotFoundError:
                return False
        return True

    def probe(self) -> None:
        """Does nothing: `publish` raises an error on a file system without hard links."""

    def file(
        self,
        name: str,
        sha256: Callable[[], str],  # noqa: ARG002  not a copy
        part: range | None = None,  # noqa: ARG002
    ) -> Leased:
        """The file itself. See `Storage.file`."""
        return Leased(self.path(name))

    @contextmanager
    def fresh(self, name: str) -> Iterator[Path]:
        """The file itself. See `Storage.fresh`."""
        yield self.path(name)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder if it is missing, and make its name durable."""
        if folder in self._settled and folder.is_dir():
            return
        with one_line(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for above in folder.parents:
                sync_if_possible(above)
                if above in self._settled:
                    break
        self._settled.update([folder, *folder.parents])
