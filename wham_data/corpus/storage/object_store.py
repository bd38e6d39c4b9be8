"""A corpus on an object store: S3 and what speaks its protocol, or Google Cloud Storage.

An object is seen whole or not at all, and a put on the condition that nothing is there has one
winner, so there is no staging, no renaming and no lock: a name is put once, by such a put.

After a time-out, a cut connection or an error of the server nobody knows whether a put was done. So
it is put again (`store_client` has the patience); told then that the name is
taken, we read what is there, and if those are our bytes it was us. A store also says "taken" when
two puts meet and neither is done (409): nothing is there, so again.

A store that does not know the condition, or does not give back what was put, is found out by
`probe` before a corpus is begun on it.

Credentials, region and endpoint come from the usual variables (AWS_*, GOOGLE_*) or from the machine's
own role; none is kept. The client does not survive a fork: a forked process has its copies fetched by
a child of its own (see `forked_fetch`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from wham_data.corpus.storage.cache import Cache
from wham_data.corpus.storage.contract import TEMPORARY, Entry, Leased, check_name, one_line
from wham_data.corpus.storage.forked_fetch import fetch_in_child
from wham_data.corpus.storage.store_client import AgainError, Answer, Request, ask, was_forked
from wham_data.schemas.errors import IntegrityError, UsageError

PIECE: Final = 8 << 20
AT_ONCE: Final = 4
LARGEST_PUT: Final = 5_000_000_000
"""What stores take in one put; on what is larger a condition cannot be set."""
PROBE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ObjectStorage:
    """A `Storage` under a prefix of a bucket.

    location  without a slash at the end
    cache     where `file` keeps copies
    """

    location: str
    cache: Cache

    @classmethod
    def at(cls, scheme: str, rest: str) -> ObjectStorage:
        """For `scheme://rest`.

        Raises:
            UsageError: no bucket, or a path with empty, `.` or `..` parts.
        """
        parts = rest.rstrip("/").split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise UsageError(
                f"{scheme}://{rest}: expected {scheme}://bucket/folder, without empty, . or .. parts"
            )
        return cls(f"{scheme}://{'/'.join(parts)}", Cache.of_user())

    def where(self, name: str) -> str:
        """See `Storage.where`."""
        check_name(self.location, name)
        return f"{self.location}/{name}" if name else self.location

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """See `Storage.size`.

        Raises:
            FileNotFoundError: there is nothing under this name.
        """
        try:
            return int(self._ask(name, lambda api, store: api.head(store, name))["size"])
        except FileNotFoundError:
            # The answer to this request has no body that could say that all of the bucket is gone.
            self._ask(name, lambda api, store: api.list_with_delimiter(store, name))
            raise

    def read(self, name: str, most: int = 1 << 30) -> bytes:
        """See `Storage.read`."""

        def whole(api: Any, store: Any) -> bytes:
            answer = api.get(store, name)
            if answer.meta["size"] > most:
                raise IntegrityError(
                    f"{self.where(name)}: more than {most} bytes, which is not a file of a corpus"
                )
            return bytes(answer.bytes())

        return self._ask(name, whole)

    def sha256(self, name: str) -> str:
        """See `Storage.sha256`."""
        digest = hashlib.sha256()
        n_bytes = self._size_there(name)
        for start in range(0, n_bytes, PIECE):
            digest.update(self._piece(name, start, min(start + PIECE, n_bytes)))
        return digest.hexdigest()

    def entries(self, folder: str) -> list[Entry]:
        """See `Storage.entries`."""
        found = self._ask(folder, lambda api, store: api.list_with_delimiter(store, folder))
        return [
            Entry(
                each["path"].rpartition("/")[2],
                each["size"],
                _nanoseconds(each["last_modified"]),
            )
            for each in found["objects"]
        ]

    def list(self, folder: str) -> list[str]:
        """See `Storage.list`."""
        names = (entry.name for entry in self.entries(folder))
        return sorted(name for name in names if not name.startswith(TEMPORARY))

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """See `Storage.put_if_absent`."""

        def once(api: Any, store: Any) -> bool:
            try:
                api.put(store, name, content, mode="create", use_multipart=False)
            except api.exceptions.AlreadyExistsError:
                try:
                    return bytes(api.get(store, name).bytes()) == content
                except FileNotFoundError as error:
                    raise AgainError("409, but nothing is there") from error
            return True

        return self._ask(name, once)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """See `Storage.staged`."""
        check_name(self.location, name)
        with _scratch() as folder:
            yield folder / Path(name).name

    def publish(self, temporary: Path, name: str) -> bool:
        """See `Storage.publish`. What was put is read back and compared.

        Raises:
            IntegrityError: the store gave back something else; it is removed again.
        """
        with one_line(temporary), temporary.open("rb") as file:
            made = self._upload(file.fileno(), name)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if made and (found := self.sha256(name)) != sha256:
            self.delete(name)
            raise IntegrityError(
                f"{self.where(name)}: the store took {sha256} and gave back {found} (sha256); what "
                "was written is removed again"
            )
        return made

    def replace(self, name: str, content: bytes) -> None:
        """See `Storage.replace`."""
        self._ask(name, lambda api, store: api.put(store, name, content, use_multipart=False))

    def settle(self, *folders: str) -> None:
        """Nothing to do: what can be seen is durable, and there are no folders."""

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        try:
            self._ask(name, lambda api, store: api.delete(store, name))
        except FileNotFoundError:
            return

    def discard(self, folder: str, entry: Entry) -> bool:
        """See `Storage.discard`. Of a time nothing finer than a second is told of one object."""
        name = f"{folder}/{entry.name}".lstrip("/")
        try:
            about = self._ask(name, lambda api, store: api.head(store, name))
        except FileNotFoundError:
            return True
        if abs(_nanoseconds(about["last_modified"]) - entry.modified_ns) >= 1e9:
            return False
        self.delete(name)
        return True

    def renew(self, name: str) -> bool:
        """See `Storage.renew`. It is put there once more."""
        if not self.exists(name):
            return False
        with self.fresh(name) as path, path.open("rb") as file:
            self._upload(file.fileno(), name, mode="overwrite")
        return True

    def probe(self) -> None:
        """See `Storage.probe`: two conditional puts of one name, and whether 1 MB comes back."""
        name = f"{TEMPORARY}probe-{uuid.uuid4().hex}"
        first, second = (random.randbytes(PROBE_BYTES) for _ in range(2))
        try:
            made = self.put_if_absent(name, first), self.put_if_absent(name, second)
            there = self.read(name)
        finally:
            self.delete(name)
        if made != (True, False) or there == second:
            raise UsageError(
                f"{self.location}: this store ignores the condition that nothing be there yet "
                "(If-None-Match), without which two writers destroy each other's work; put the "
                "corpus on a store that keeps it"
            )
        if there != first:
            raise UsageError(
                f"{self.location}: this store gave back {len(there)} other bytes than the "
                f"{len(first)} that were put; put the corpus elsewhere"
            )

    def folder(self, name: str) -> None:  # noqa: ARG002  none of them is on this machine
        """See `Storage.folder`."""
        return

    def file(self, name: str, sha256: Callable[[], str]) -> Leased:
        """A copy in the cache, fetched if need be and compared. See `Storage.file`.

        Raises:
            IntegrityError: it is missing, or its bytes have another hash.
        """
        expected = sha256()

        def fill(descriptor: int) -> None:
            self._download(name, descriptor, os.fstat(descriptor).st_size)
            with open(descriptor, "rb", closefd=False) as copy:
                copy.seek(0)
                found = hashlib.file_digest(copy, "sha256").hexdigest()
            if found != expected:
                raise IntegrityError(
                    f"{self.where(name)}: corrupt: its sha256 is {found}, but the manifest has "
                    f"{expected}"
                )

        if was_forked():
            while (leased := self.cache.held(expected)) is None:
                fetch_in_child(self.location, self.cache, name, expected)
            return leased
        return self.cache.lease(expected, lambda: self._size_there(name), fill)

    @contextmanager
    def fresh(self, name: str) -> Iterator[Path]:
        """See `Storage.fresh`."""
        with _scratch() as folder:
            path = folder / Path(name).name
            with one_line(path), path.open("w+b") as file:
                self._download(name, file.fileno(), self._size_there(name))
            yield path

    @contextmanager
    def shadow(self, names: Sequence[str]) -> Iterator[Path]:
        """Copies. See `Storage.shadow`."""

        def copy(name: str) -> None:
            content = self.read(name)
            with one_line(folder):
                (folder / Path(name).name).write_bytes(content)

        with _scratch() as folder:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(copy, names))
            yield folder

    def _upload(self, descriptor: int, name: str, mode: str = "create") -> bool:
        """Put a file; to "create" it, unless the name is taken. It is mapped: no memory holds it."""
        n_bytes = os.fstat(descriptor).st_size
        if n_bytes > LARGEST_PUT:
            if mode == "create" and self.exists(name):
                return False
            path = Path(f"/proc/self/fd/{descriptor}")
            self._ask(name, lambda api, store: api.put(store, name, path, max_concurrency=AT_ONCE))
            return True

        def once(api: Any, store: Any) -> bool:
            try:
                api.put(store, name, content, mode=mode, use_multipart=False)
            except api.exceptions.AlreadyExistsError:
                try:
                    api.head(store, name)
                except FileNotFoundError as error:
                    raise AgainError("409, but nothing is there") from error
                return False
            return True

        # Not closed: a request that was given up may let go of it a moment later.
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return self._ask(name, once, n_bytes)

    def _download(self, name: str, descriptor: int, n_bytes: int) -> None:
        """Write an object to a file, a few pieces at once; a cut connection costs one of them."""

        def piece(start: int) -> None:
            stop = min(start + PIECE, n_bytes)
            os.pwrite(descriptor, self._piece(name, start, stop), start)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(piece, range(0, n_bytes, PIECE)))

    def _piece(self, name: str, start: int, stop: int) -> memoryview:
        def once(api: Any, store: Any) -> memoryview:
            found = memoryview(api.get_range(store, name, start=start, end=stop))
            if len(found) != stop - start:
                raise AgainError(f"{len(found)} bytes instead of {stop - start}")
            return found

        with self._must_be_there(name):
            return self._ask(name, once)

    def _size_there(self, name: str) -> int:
        with self._must_be_there(name):
            return self.size(name)

    @contextmanager
    def _must_be_there(self, name: str) -> Iterator[None]:
        """What the manifest names and is not there is damage."""
        try:
            yield
        except FileNotFoundError as error:
            raise IntegrityError(f"{self.where(name)}: is missing") from error

    def _ask(self, name: str, request: Request[Answer], n_bytes: int = 0) -> Answer:
        """See `store_client.ask`."""
        return ask(self.location, self.where(name), request, n_bytes)


def _nanoseconds(when: datetime) -> int:
    return round(when.timestamp() * 1e3) * 1_000_000


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wham-data-") as folder:
        yield Path(folder)
