"""Corpora on object stores: their shards are fetched ahead of the order they are needed in.

The copies lie in the cache of `corpus/storage/cache.py`. A reader says which shards will be needed; threads
fetch them in that order, so many at once that what waits to be read fills half of the cache. Of what
it has mapped, a process gives up what it has not read for longest, so that its maps do not keep more
on the disk than the cache may hold.
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
IDLE_S: Final = 10.0
PIECES_AHEAD: Final = 16


class Located(Protocol):
    """Something to be read that knows in which shards it lies."""

    @property
    def shard(self) -> NDArray[np.int32]:
        """Numbers of shards, in the order of reading."""


Piece = TypeVar("Piece", bound=Located)


def with_cache(
    corpus: Corpus, folder: str | os.PathLike[str] | None, most_bytes: int | None
) -> Corpus:
    """The corpus, with a cache of its own where one was asked for and it lies on an object store."""
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
    """The same pieces; the shards of each are fetched while those before it are read."""
    soon: deque[Piece] = deque()
    copies.forget_expected()
    for piece in pieces:
        copies.expect(piece.shard)
        soon.append(piece)
        if len(soon) > PIECES_AHEAD:
            yield soon.popleft()
    yield from soon


class Copies:
    """The shards of some corpora that have to be fetched, by number.

    A pickled copy keeps the sizes, but not what it was asked to fetch.

    Attributes:
        all_fit: into the cache, so that none need ever be given up.
    """

    def __init__(
        self, sizes: NDArray[np.int64], most_bytes: int, fetch: Callable[[int], object]
    ) -> None:
        """Fetch nothing yet.

        Args:
            sizes: bytes of each shard, int64 [S]; 0 for one that lies on this machine.
            most_bytes: that the cache holds.
            fetch: puts a shard into the cache.
        """
        self.sizes, self.most_bytes, self._fetch = sizes, most_bytes, fetch
        self.all_fit = int(sizes.sum()) <= most_bytes
        self._forget()

    @classmethod
    def of(
        cls,
        corpora: Sequence[tuple[Corpus, NDArray[np.bytes_]]],
        fetch: Callable[[int], object],
        *,
        scattered: bool,
    ) -> Copies | None:
        """For the named shards of some corpora; None if all of them lie on this machine.

        Args:
            corpora: each with its shards, in the order of their numbers.
            fetch: puts a shard into the cache.
            scattered: all of them will be needed all the time.

        Raises:
            UsageError: they will, but the cache is too small to hold them.
        """
        if not any(isinstance(corpus.storage, ObjectStorage) for corpus, _ in corpora):
            return None
        sizes: list[int] = []
        rooms: list[int] = []
        for corpus, names in corpora:
            if not isinstance(corpus.storage, ObjectStorage):
                sizes += [0] * len(names)
                continue
            there = {each.name: each.n_bytes for each in corpus.storage.entries("shards")}
            sizes += [there.get(name.decode(), 0) for name in names.tolist()]
            rooms.append(corpus.storage.cache.most_bytes)
        if scattered and sum(sizes) > min(rooms):
            raise UsageError(
                f"the shards have {sum(sizes):,} bytes, of which the cache holds {min(rooms):,}: "
                "windows from all over them would be fetched again and again. Give a larger "
                "cache_bytes, or shuffle neighbours only with pool=N"
            )
        return cls(np.array(sizes, np.int64), min(rooms), fetch)

    def expect(self, shards: NDArray[np.int32]) -> None:
        """Have shards fetched, in the order in which they first come; returns at once."""
        self._after_fork()
        _, first = np.unique(shards, return_index=True)
        with self._changed:
            for number in shards[np.sort(first)].tolist():
                if self.sizes[number] and number not in self._asked | self._mapped:
                    self._asked.add(number)
                    self._queue.append(number)
            self._wake()

    def forget_expected(self) -> None:
        """Another order begins: what was expected of the last one need not come."""
        self._after_fork()
        with self._changed:
            self._queue.clear()
            self._asked.clear()
            self._waiting.clear()

    def mapped(self, number: int) -> None:
        """A shard is about to be mapped: it need not be fetched, or does not wait any more."""
        self._after_fork()
        with self._changed:
            self._mapped.add(number)
            self._asked.discard(number)
            self._waiting.pop(number, None)
            with suppress(ValueError):
                self._queue.remove(number)
            self._wake()

    def given_up(self, number: int) -> None:
        """Note that a shard is no longer mapped."""
        self._mapped.discard(number)

    def _wake(self) -> None:
        """Have threads at work if there is some; they end when there has been none for a while."""
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
                self._waiting[number] = int(self.sizes[number])
            # An error comes again when the shard is read, and is raised there.
            with suppress(WhamDataError):
                self._fetch(number)

    def _may_fetch(self) -> bool:
        """Whether there is something to fetch, and it would not push out what waits to be read."""
        if not self._queue:
            return False
        waiting = sum(self._waiting.values())
        return not waiting or waiting + int(self.sizes[self._queue[0]]) <= self.most_bytes // 2

    def _after_fork(self) -> None:
        if self._process != os.getpid():
            self._forget(self._mapped)  # a fork keeps the maps, but no threads

    def _forget(self, mapped: set[int] | None = None) -> None:
        self._queue: deque[int] = deque()
        self._asked: set[int] = set()
        self._waiting: dict[int, int] = {}
        self._mapped: set[int] = mapped or set()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._process: int = os.getpid()

    def __reduce__(self) -> tuple[type[Copies], tuple[object, ...]]:
        return Copies, (self.sizes, self.most_bytes, self._fetch)
