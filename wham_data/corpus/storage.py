"""The one seam between a corpus and where it lies: every name is written once and whole.

The rule that keeps a corpus whole through crashes and races: bytes become durable under a private
name first, and only then get their real name, by an operation that never replaces.

    write .tmp-<random>, fsync it      the bytes survive a power cut, nobody sees them
    link(.tmp-<random>, name)          atomic, fails if the name is taken: one of two racers wins
    fsync the folder                   the name survives a power cut
    unlink .tmp-<random>

So a name that can be seen is complete, and a writer that loses a race knows that it lost. Whoever
sees a name and builds on it syncs the same folder again before reporting success, so what is built
upon survives whenever the building does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wham_data.schemas.errors import IntegrityError, MissingPartError, WhamDataError

TEMPORARY = ".tmp-"
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class Storage:
    """A corpus location on a file system. Names are relative, with forward slashes."""

    root: Path

    def path(self, name: str) -> Path:
        """Where `name` lies, for readers that map files.

        Raises:
            IntegrityError: the name leads out of the corpus.
        """
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise IntegrityError(f"{self.root}: unsafe path {name!r} leads outside the corpus")
        return self.root / name

    def exists(self, name: str) -> bool:
        """Whether `name` is there, whole."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """Bytes under `name`."""
        with one_line(self.path(name)):
            return self.path(name).stat().st_size

    def read(self, name: str, most: int = 1 << 30) -> bytes:
        """The bytes under `name`.

        Args:
            name: what to read.
            most: refuse to read more than this many bytes.

        Raises:
            FileNotFoundError: there is nothing under this name.
            IntegrityError: more than `most` bytes.
            WhamDataError: it cannot be read.
        """
        path = self.path(name)
        with one_line(path, passes=FileNotFoundError), path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise IntegrityError(f"{path}: more than {most} bytes, which is not a file of a corpus")
        return content

    def list(self, folder: str) -> list[str]:
        """Names of the whole files directly in `folder`, sorted; empty if there is no folder."""
        path = self.path(folder)
        if not path.is_dir():
            return []
        with one_line(path), os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(TEMPORARY) and entry.is_file(follow_symlinks=False)
            )

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write `content` under `name` unless the name is taken.

        Returns:
            True if this call made it, False if it was there already (with whatever bytes).
            Either way what is there is durable.

        Raises:
            WhamDataError: the disk is full, read-only, or knows no hard links.
        """
        with self.staged(name) as temporary:
            with one_line(temporary):
                temporary.write_bytes(content)
            return self.publish(temporary, name)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """A private path beside `name` to write to; what is left there is removed at the end."""
        folder = self.path(name).parent
        self._make_folder(folder)
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def publish(self, temporary: Path, name: str) -> bool:
        """Give a staged file its name, durably, unless the name is taken. See `put_if_absent`."""
        target = self.path(name)
        with one_line(target):
            _sync(temporary)
            try:
                os.link(temporary, target)
                made = True
            except FileExistsError:
                made = False
            except OSError as error:
                if error.errno in NO_LINKS:
                    raise WhamDataError(
                        f"{target.parent}: this file system has no hard links, without which two "
                        "writers cannot be kept apart; put the corpus on another disk"
                    ) from error
                raise
            _sync(target.parent)
        return made

    def replace(self, name: str, content: bytes) -> None:
        """Write `content` under `name`, there or not: for hints only, never for truth."""
        with self.staged(name) as temporary, one_line(temporary):
            temporary.write_bytes(content)
            _sync(temporary)
            temporary.replace(self.path(name))
            _sync(temporary.parent)

    def settle(self, *folders: str) -> None:
        """Make the folders if they are not there, and make durable which names are in them.

        Whoever builds on what another process has just put there calls this before.
        """
        for folder in folders:
            path = self.path(folder)
            self._make_folder(path)
            with one_line(path):
                _sync(path)

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""
        with one_line(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        with one_line(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for made in missing:
                _sync(made.parent)


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """The storage behind a location, which need not exist yet.

    Raises:
        MissingPartError: an object store, which this release cannot write to.
    """
    text = os.fspath(location)
    if text.startswith(("s3://", "gs://", "az://", "abfs://")):
        raise MissingPartError(
            f"{text}: corpora on object stores are not supported yet; use a path"
        )
    return Storage(Path(text.removeprefix("file://")).absolute())


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def one_line(path: Path, passes: type[OSError] | None = None) -> Iterator[None]:
    """Turn an error of the file system into one line that names the path and the cause."""
    try:
        yield
    except OSError as error:
        if passes is not None and isinstance(error, passes):
            raise
        raise WhamDataError(f"{path}: {error.strerror or error}") from error
