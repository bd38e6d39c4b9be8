"""A corpus on an object store: S3, a store that has the API of S3, or Google Cloud Storage.

An object store shows an object whole or not at all. A conditional put ("only if nothing has this
name") has one winner. So this storage needs no staging, no renaming and no lock: each name is
written once, with a conditional put.

After a time-out, a lost connection or a server error it is unknown whether the put was done. So the
put is repeated (see `store_client`). If the store then answers that the name is taken, we read the
object: if it has our bytes, our first put was done. A store also answers that the name is taken
(409) when two puts collide and neither was done; then there is no object, and we put again.

`probe` refuses a store that ignores the condition or returns other bytes than those written. It
runs before the first file of a new corpus is written.

Credentials, region and endpoint come from the usual environment variables (AWS_*, GOOGLE_*) or from
the role of the machine; none of them is stored. The client does not work after a fork, so a forked
process starts a child process that fetches its files (see `forked_fetch`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator
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
"""Most bytes in one put. A larger object needs several requests, which cannot be conditional."""
PROBE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ObjectStorage:
    """A `Storage` under a prefix of a bucket.

    location  URL without a slash at the end
    cache     folder where `file` keeps its copies
    """

    location: str
    cache: Cache

    @classmethod
    def at(cls, scheme: str, rest: str) -> ObjectStorage:
        """The storage at the URL `scheme://rest`.

        Raises:
            UsageError: the URL has no bucket, or its path has an empty, `.` or `..` part.
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
            # A 404 to `head` has no body, so it may mean that the whole bucket is missing.
            # Listing raises the error for that.
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

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`: those that an object lies in."""
        found = self._ask(folder, lambda api, store: api.list_with_delimiter(store, folder))
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]

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
        """See `Storage.publish`. The written object is read back and compared.

        Raises:
            IntegrityError: the store returned other bytes; the object is removed again.
        """
        with one_line(temporary), temporary.open("rb") as file:
            made = self._upload(file.fileno(), name)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if made and (found := self.sha256(name)) != sha256:
            self.delete(name)
            raise IntegrityError(
                f"{self.where(name)}: the store returned other bytes than those written: sha256 "
                f"{found}, expected {sha256}; the object was removed again"
            )
        return made

    def replace(self, name: str, content: bytes) -> None:
        """See `Storage.replace`."""
        self._ask(name, lambda api, store: api.put(store, name, content, use_multipart=False))

    def settle(self, *folders: str) -> None:
        """Does nothing: every visible object is durable, and a store has no folders."""

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        try:
            self._ask(name, lambda api, store: api.delete(store, name))
        except FileNotFoundError:
            return

    def discard(self, folder: str, entry: Entry) -> bool:
        """See `Storage.discard`. Stores give the time of one object in whole seconds only."""
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
        """See `Storage.renew`. The object is written again with the same bytes."""
        if not self.exists(name):
            return False
        with self.fresh(name) as path, path.open("rb") as file:
            self._upload(file.fileno(), name, mode="overwrite")
        return True

    def probe(self) -> None:
        """See `Storage.probe`. Puts two different objects of 1 MB under one name and reads it back."""
        name = f"{TEMPORARY}probe-{uuid.uuid4().hex}"
        first, second = (random.randbytes(PROBE_BYTES) for _ in range(2))
        try:
            made = self.put_if_absent(name, first), self.put_if_absent(name, second)
            there = self.read(name)
        finally:
            self.delete(name)
        if made != (True, False) or there == second:
            raise UsageError(
                f"{self.location}: this store ignores conditional puts (If-None-Match), so two "
                "writers could overwrite each other's files; put the corpus on a store that "
                "supports them"
            )
        if there != first:
            raise UsageError(
                f"{self.location}: this store returned other bytes ({len(there)}) than the "
                f"{len(first)} that were written; put the corpus on another store"
            )

    def file(self, name: str, sha256: Callable[[], str], part: range | None = None) -> Leased:
        """A copy in the cache, fetched and checked if it is not there yet. See `Storage.file`.

        A part has a copy of its own, unless the whole file is in the cache.

        Raises:
            IntegrityError: the object is missing, or its bytes have another hash.
        """
        expected = sha256()
        if part is not None and (whole := self.cache.held(expected)) is not None:
            return whole
        key = expected if part is None else f"{expected}-{part.start}-{part.stop}"

        def fill(descriptor: int) -> None:
            self._download(name, descriptor, part or range(os.fstat(descriptor).st_size))
            if part is not None:
                return
            with open(descriptor, "rb", closefd=False) as copy:
                copy.seek(0)
                found = hashlib.file_digest(copy, "sha256").hexdigest()
            if found != expected:
                raise IntegrityError(
                    f"{self.where(name)}: corrupt: its sha256 is {found}, but the manifest has "
                    f"{expected}"
                )

        if was_forked():
            while (leased := self.cache.held(key)) is None:
                fetch_in_child(self.location, self.cache, name, expected, part)
        else:
            leased = self.cache.lease(
                key, lambda: self._size_there(name) if part is None else len(part), fill
            )
        leased.start = part.start if part else 0
        return leased

    @contextmanager
    def fresh(self, name: str) -> Iterator[Path]:
        """See `Storage.fresh`."""
        with _scratch() as folder:
            path = folder / Path(name).name
            with one_line(path), path.open("w+b") as file:
                self._download(name, file.fileno(), range(self._size_there(name)))
            yield path

    def _upload(self, descriptor: int, name: str, mode: str = "create") -> bool:
        """Put a file. The file is memory-mapped, so it is never held in memory as a whole.

        Args:
            descriptor: of the open file.
            name: of the new object.
            mode: "create": only if nothing has this name; "overwrite": in any case.

        Returns:
            False if `mode` is "create" and the name was taken.
        """
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

        # Not closed here: a request that timed out may still read the map for a moment.
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return self._ask(name, once, n_bytes)

    def _download(self, name: str, descriptor: int, part: range) -> None:
        """Write bytes of an object to a file, AT_ONCE pieces at a time; repeat only failed pieces."""

        def piece(start: int) -> None:
            stop = min(start + PIECE, part.stop)
            os.pwrite(descriptor, self._piece(name, start, stop), start - part.start)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(piece, part[::PIECE]))

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
        """Raise `IntegrityError` for a missing object, for one that the manifest names."""
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
