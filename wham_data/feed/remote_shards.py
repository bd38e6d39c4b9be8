"""Corpora on object stores: shards are downloaded in the order in which they will be read.

The copies are kept in the cache of `corpus/storage/cache.py`. A reader announces which shards it will
need. Threads download them in that order, but stop while the shards that wait to be read fill half
of the cache. A process unmaps the shards that it has not read for the longest time, so that its
mappings do not keep more on the disk than the cache may hold.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.storage.cache import Cache
from wham_data.corpus.storage.object_store import ObjectStorage
from wham_data.schemas.errors import UsageError, WhamDataError

FETCHED_AT_ONCE: Final = 2
"""Threads that download at the same time."""
IDLE_S: Final = 10.0
"""Seconds without work after which a download thread ends."""
PIECES_AHEAD: Final = 16
"""Pieces that are announced before the first of them is read."""


class Located(Protocol):
    """Something to read that knows its shards."""

    @property
    def shard(self) -> NDArray[np.int32]:
        """Numbers of the shards in the order of reading, int32 [W]."""


Piece = TypeVar("Piece", bound=Located)


def with_cache(
    corpus: Corpus, folder: str | os.PathLike[str] | None, most_bytes: int | None
) -> Corpus:
    """The corpus with another cache, if it is on an object store and a folder or a limit is given.

    Args:
        corpus: the corpus; not changed.
        folder: folder of the cache; None: the folder that the corpus uses.
        most_bytes: largest size of the cache; None: the limit that the corpus uses.
    """
    storage = corpus.storage
    if not isinstance(storage, ObjectStorage) or (folder is None and most_bytes is None):
        return corpus
    before = storage.cache
    cache = Cache.of_user(
        before.folder if folder is None else folder,
        before.most_bytes if most_bytes is None else most_bytes,
    )
    cached = copy(corpus)
    cached.storage = replace(storage, cache=cache)
    return cached


def announced(pieces: Iterable[Piece], copies: Copies) -> Iterator[Piece]:
    """Yield the same pieces; shards of later pieces are downloaded while earlier ones are read.

    Args:
        pieces: pieces in the order of reading.
        copies: the shards that must be downloaded.
    """
    soon: deque[Piece] = deque()
    copies.forget_expected()
    for piece in pieces:
        copies.expect(piece.shard)
        soon.append(piece)
        if len(soon) > PIECES_AHEAD:
            yield soon.popleft()
    yield from soon


def stored_sizes(
    corpora: Sequence[tuple[Corpus, NDArray[np.bytes_]]],
) -> tuple[NDArray[np.int64], int] | None:
    """The sizes of shards on object stores, and of the smallest cache for them.

    Args:
        corpora: each corpus with the names of its shards, in the order of their numbers.

    Returns:
        bytes of each shard, int64 [S], 0 for a shard on this machine; and the limit of the cache. None
        if all shards are on this machine.
    """
    sizes: list[int] = []
    cache_limits: list[int] = []
    for corpus, names in corpora:
        if not isinstance(corpus.storage, ObjectStorage):
            sizes += [0] * len(names)
            continue
        listed_sizes = {each.name: each.n_bytes for each in corpus.storage.entries("shards")}
        sizes += [listed_sizes.get(name.decode(), 0) for name in names.tolist()]
        cache_limits.append(corpus.storage.cache.most_bytes)
    return (np.array(sizes, np.int64), min(cache_limits)) if cache_limits else None


class Copies:
    """The downloaded copies of shards, and the queue of shards to download.

    Pickling keeps the sizes but not the queue.

    Attributes:
        sizes: bytes of each shard, int64 [S]; 0 for a shard on this machine.
        most_bytes: largest size of the cache.
        all_fit: all shards fit in the cache together, so none ever needs to be unmapped.
    """

    def __init__(
        self, sizes: NDArray[np.int64], most_bytes: int, fetch: Callable[[int], object]
    ) -> None:
        """Prepare; nothing is downloaded yet.

        Args:
            sizes: bytes of each shard, int64 [S]; 0 for a shard on this machine.
            most_bytes: largest size of the cache.
            fetch: downloads the shard of a number into the cache.
        """
        self.sizes, self.most_bytes, self._fetch = sizes, most_bytes, fetch
        self.all_fit = int(sizes.sum()) <= most_bytes
        self._reset()

    @classmethod
    def checked(
        cls,
        sizes: NDArray[np.int64],
        most_bytes: int,
        fetch: Callable[[int], object],
        *,
        scattered: bool,
    ) -> Copies:
        """The copies, if the cache is large enough.

        Args:
            sizes, most_bytes, fetch: see `__init__`.
            scattered: windows are read from all shards in no order.

        Raises:
            UsageError: `scattered`, but the cache cannot hold all shards.
        """
        if scattered and sizes.sum() > most_bytes:
            raise UsageError(
                f"the shards have {sizes.sum():,} bytes, but the cache holds {most_bytes:,}: every "
                "shard would be fetched again and again. Set a larger cache_bytes, or shuffle only "
                "neighbouring windows with pool=N"
            )
        return cls(sizes, most_bytes, fetch)

    def expect(self, shards: NDArray[np.int32]) -> None:
        """Queue shards for download in the order in which they first appear; does not wait.

        Args:
            shards: numbers of shards in the order of reading, int32 [W], repeats allowed.
        """
        self._after_fork()
        _, first = np.unique(shards, return_index=True)
        with self._changed:
            for number in shards[np.sort(first)].tolist():
                if self.sizes[number] and number not in self._requested | self._mapped:
                    self._requested.add(number)
                    self._queue.append(number)
            self._wake()

    def forget_expected(self) -> None:
        """Empty the queue, because another order of reading begins."""
        self._after_fork()
        with self._changed:
            self._queue.clear()
            self._requested.clear()
            self._waiting_bytes.clear()

    def mapped(self, number: int) -> None:
        """Record that a shard is about to be mapped: it needs no download and waits no longer."""
        self._after_fork()
        with self._changed:
            self._mapped.add(number)
            self._requested.discard(number)
            self._waiting_bytes.pop(number, None)
            with suppress(ValueError):
                self._queue.remove(number)
            self._wake()

    def given_up(self, number: int) -> None:
        """Record that a shard is no longer mapped."""
        self._mapped.discard(number)

    def _wake(self) -> None:
        """Start download threads if shards are queued; they end after IDLE_S without work."""
        while self._queue and len(self._threads) < FETCHED_AT_ONCE:
            thread = threading.Thread(target=self._work, name="wham-data-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(self._may_fetch, IDLE_S):
                    self._threads.remove(threading.current_thread())
                    return
                number = self._queue.popleft()
                self._waiting_bytes[number] = int(self.sizes[number])
            # The error is ignored here: it comes again, and is raised, when the shard is read.
            with suppress(WhamDataError):
                self._fetch(number)

    def _may_fetch(self) -> bool:
        """Whether a shard is queued and its download leaves room for the shards that wait."""
        if not self._queue:
            return False
        waiting = sum(self._waiting_bytes.values())
        return not waiting or waiting + int(self.sizes[self._queue[0]]) <= self.most_bytes // 2

    def _after_fork(self) -> None:
        if self._process != os.getpid():
            self._reset(self._mapped)  # a forked process keeps the mappings, but not the threads

    def _reset(self, mapped: set[int] | None = None) -> None:
        self._queue: deque[int] = deque()
        self._requested: set[int] = set()
        self._waiting_bytes: dict[int, int] = {}
        self._mapped: set[int] = mapped or set()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._process: int = os.getpid()

    def __reduce__(self) -> tuple[type[Copies], tuple[object, ...]]:
        return Copies, (self.sizes, self.most_bytes, self._fetch)
