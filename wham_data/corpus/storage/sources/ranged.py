"""The bytes of an object, read in blocks: the last ones are kept, the next ones got ahead."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.sources import objects
from wham_data.corpus.storage.sources.objects import About

BLOCK: Final = 1 << 20
KEPT: Final = 12
AHEAD: Final = 3
HEAD: Final = 1 << 14
"""So much of an object is got for those who only look at its first bytes."""
REQUESTS_AT_ONCE: Final = 16


class Pool:
    """Threads that wait for stores; those of a forked process are its own."""

    _threads: ThreadPoolExecutor | None = None

    @classmethod
    def threads(cls) -> ThreadPoolExecutor:
        """The threads of this process."""
        if cls._threads is None:
            cls._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="store")
        return cls._threads

    @classmethod
    def after_fork(cls) -> None:
        """Called in the new process."""
        cls._threads = None


os.register_at_fork(after_in_child=Pool.after_fork)


class RangedObject:
    """The bytes of a version of an object. KEPT + AHEAD blocks are in memory at most.

    Args:
        path: of the object.
        version: the version that is read.
        head: its first bytes, if they are known.
    """

    def __init__(self, path: Path, version: About, head: bytes = b"") -> None:
        self._path, self._version, self._head = path, version, head
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._coming: dict[int, Future[bytes]] = {}
        self._last = -1
        self._turn = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Its size."""
        return self._version.n_bytes

    def read_head(self) -> None:
        """Get the first bytes, if they are not known: they tell what a file is.

        Raises:
            RefusedInput, WhamDataError: as `objects.read`.
        """
        if not self._head:
            self._head = objects.read(self._path, self._version, 0, min(HEAD, self.n_bytes))

    def read_some(self, start: int, stop: int) -> bytes:
        """As `read`, but maybe fewer: those that are known, at the start of the object.

        Raises:
            RefusedInput, WhamDataError: as `objects.read`.
        """
        if start == 0:
            self.read_head()
        return self._head[start:stop] if start < len(self._head) else self.read(start, stop)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, which are in the object.

        Raises:
            RefusedInput, WhamDataError: as `objects.read`.
        """
        parts = []
        with self._turn:
            while start < stop:
                number = start // BLOCK
                block = self._block(number)
                part = block[start - number * BLOCK : stop - number * BLOCK]
                parts.append(part)
                start += len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        coming = self._coming.pop(number, None)
        if number and self._last in (number - 1, number):
            last = (self.n_bytes - 1) // BLOCK
            for ahead in range(number + 1, min(number + AHEAD, last) + 1):
                if ahead not in self._blocks and ahead not in self._coming:
                    self._coming[ahead] = Pool.threads().submit(self._got, ahead)
        elif coming is None:
            self._coming.clear()  # it goes on somewhere else
        self._last = number
        if number not in self._blocks:
            self._blocks[number] = coming.result() if coming is not None else self._got(number)
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _got(self, number: int) -> bytes:
        start = number * BLOCK
        stop = min(start + BLOCK, self.n_bytes)
        return objects.read(self._path, self._version, start, stop)
