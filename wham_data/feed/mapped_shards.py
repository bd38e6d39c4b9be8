"""Windows out of memory-mapped shards: one compiled copy per field and batch, nothing decoded.

In a mapped shard a row of `tokens` or `actions` is a fixed number of bytes at a known place of the
file, so with the file in memory it is an address, and a batch is one numpy gather over addresses,
whichever shards they lie in. What makes that safe is checked once, when a shard is first needed: its
footer and page headers say what we write, the matrices lie inside the file, and every window that
the manifest promises lies inside one episode of the shard. (A shard never changes once it has its
name, so no file shrinks under its map.)

A mapping holds no file descriptor: a corpus may have more shards than a process may have files, and
a forked worker inherits nothing but memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shard_view import ShardView
from wham_data.corpus.storage.contract import hash_file, one_line
from wham_data.feed.remote_shards import Copies
from wham_data.feed.windows import Numbers, Windows
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.steps import FLOAT, TOKEN

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "tokens": TOKEN,
    "actions": FLOAT,
    "step": np.dtype("<i4"),
    "time_ns": np.dtype("<i8"),
}
"""The columns that can be had without decoding, and what their rows are made of."""

Names = NDArray[np.bytes_]
NAME_BYTES: Final = 32
"""Letters of a shard's name: 24 hex digits and `.parquet`."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MADV_POPULATE_READ: Final = 22
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


@dataclass(frozen=True, slots=True)
class Column:
    """The part of a column that one window holds.

    dtype    of its numbers
    numbers  in a row
    rows     from the first row of the window on
    """

    dtype: np.dtype[Any]
    numbers: int
    rows: int

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self.numbers * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of some corpora, numbered one corpus after another.

    corpora  the corpora that the shards belong to
    names    file names of the shards of each corpus, ASCII
    hashes   their SHA-256, hex digits, to be compared when they are opened; None: they are not
    skip_bad  leave out shards that are missing or damaged instead of raising
    """

    corpora: tuple[Corpus, ...]
    names: tuple[Names, ...]
    hashes: tuple[pa.Array | None, ...]
    skip_bad: bool = False

    def __len__(self) -> int:
        return sum(len(names) for names in self.names)

    def open(self, number: int) -> ShardView:
        """A shard, its footer checked against its corpus, and its bytes if that was asked for.

        Raises:
            IntegrityError: it is not there, damaged, or of another corpus.
            UsageError: it is a cold one, which cannot be mapped.
        """
        corpus, name, sha256 = self._placed(number)
        if corpus.info.layout == "cold":
            raise UsageError(
                f"{corpus.location}: a cold corpus cannot be mapped; `wham-data compact "
                f"{corpus.location} --out DIR` makes one that can"
            )
        view = corpus.open_shard(name)
        if sha256 is not None and hash_file(view.path) != sha256:
            raise IntegrityError(
                f"{view.where}: its bytes are not those that were committed (corrupt); "
                f"`wham-data verify {corpus.location}` tells what is wrong"
            )
        return view

    def readable(self, number: int) -> ShardView | None:
        """A shard; None for a missing or damaged shard when `skip_bad` is set."""
        try:
            return self.open(number)
        except IntegrityError:
            if not self.skip_bad:
                raise
            return None

    def name(self, number: int) -> str:
        """The path or URL of a shard, for messages."""
        corpus, name, _ = self._placed(number)
        return corpus.storage.where(f"shards/{name}")

    def fetch(self, number: int) -> None:
        """Make sure that a shard is on this machine: fetch it unless it is here already."""
        corpus, name, _ = self._placed(number)
        corpus.shard_file(name)

    def copies(self, *, scattered: bool) -> Copies | None:
        """The shards that have to be fetched; None if all are on this machine. See `Copies.of`."""
        corpora = list(zip(self.corpora, self.names, strict=True))
        return Copies.of(corpora, self.fetch, scattered=scattered)

    def _placed(self, number: int) -> tuple[Corpus, str, str | None]:
        """A shard's corpus, name, and hash where it is to be compared."""
        corpora = iter(zip(self.corpora, self.names, self.hashes, strict=True))
        corpus, names, hashes = next(corpora)
        while number >= len(names):
            number -= len(names)
            corpus, names, hashes = next(corpora)
        return corpus, names[number].decode(), None if hashes is None else hashes[number].as_py()


class MappedShards:
    """Rows of many shards; a shard is opened when a row of it is first asked for.

    Pickled, it is a list of shards; what was mapped is mapped again where it is needed.
    """

    def __init__(
        self, shards: Shards, windows: Windows, columns: Mapping[str, Column], *, scattered: bool
    ) -> None:
        """Open nothing yet.

        Args:
            shards: what the numbers in `windows` mean.
            windows: what will be read, sorted by shard; every shard is checked to hold its share.
            columns: what to read of each window, by name.
            scattered: windows will be asked for all over a shard, so that its neighbours on disk
                need not be read with them.
        """
        self._scattered = scattered
        self._copies = shards.copies(scattered=scattered)
        self._shards, self._windows, self._columns = shards, windows, dict(columns)
        self._rows = max(column.rows for column in columns.values())
        self._forget()

    def read(self, shard: NDArray[np.int32], row: Numbers) -> dict[str, NDArray[Any]]:
        """The windows that begin at some rows.

        Args:
            shard: number of the shard, int32 [B].
            row: first row, int64 [B].

        Returns:
            column -> [B, rows, numbers in a row], new and contiguous.

        Raises:
            IntegrityError: a shard is missing, damaged, or not what the manifest says.
            UsageError: a shard is a cold one, which cannot be mapped.
        """
        if self._copies is None or self._copies.all_fit:
            return self._gathered(shard, row)
        with self._turn():  # no other thread may unmap a shard meanwhile
            return self._gathered(shard, row)

    def readable(self, shard: NDArray[np.int32]) -> NDArray[np.bool_] | None:
        """Which windows lie in good shards, bool [B]; None: all do, or `skip_bad` is not set."""
        if not self._shards.skip_bad:
            return None
        with self._turn():
            self._open_all(shard)
        bad = self._bad[shard]
        return ~bad if bad.any() else None

    @property
    def bad(self) -> dict[str, str]:
        """Shard name -> what is wrong, for the bad shards that are skipped."""
        return dict(self._wrong)

    @property
    def copies(self) -> Copies | None:
        """The shards that have to be fetched, if there are any."""
        return self._copies

    def _gathered(self, shard: NDArray[np.int32], row: Numbers) -> dict[str, NDArray[Any]]:
        self._open_all(shard)
        if self._wrong and (bad := shard[self._bad[shard]]).size:
            raise IntegrityError(self._wrong[self._shards.name(int(bad[0]))])
        group_rows = self._group_rows[shard]
        slot, at = np.divmod(row, group_rows)
        slot += self._slot[shard]
        whole = bool((at + self._rows <= group_rows).all())
        if not whole:
            # Some windows go on in the next row group, so every row is looked up by itself.
            rows = at[:, None] + np.arange(self._rows)
            further, at = np.divmod(rows, group_rows[:, None])
            slot = slot[:, None] + further
        memory = self._memory
        found: dict[str, NDArray[Any]] = {}
        for name, column in self._columns.items():
            address = self._bodies[name][slot] + at * column.width
            values = (
                memory.windows(name, address)
                if whole
                else memory.rows(name, address[:, : column.rows])
            )
            shape = (len(row), column.rows, column.numbers)
            found[name] = values.view(column.dtype).reshape(shape)
        return found

    def announce(self, shard: NDArray[np.int32], row: Numbers) -> None:
        """Ask the system to have windows in memory soon; returns before they are.

        Args:
            shard: number of the shard, int32 [B].
            row: first row, int64 [B].
        """
        if self._copies is not None:
            return  # what was fetched is still in memory, or the disk is slow beside the network
        self._open_all(shard)
        slot, at = np.divmod(row, self._group_rows[shard])
        slot += self._slot[shard]
        for name, column in self._columns.items():
            first = self._bodies[name][slot] + at * column.width
            # What a window has in the next row group is left to be found there.
            n_bytes = column.width * np.minimum(column.rows, self._group_rows[shard] - at)
            page = first // mmap.PAGESIZE * mmap.PAGESIZE
            for address, size in zip(page.tolist(), (first - page + n_bytes).tolist(), strict=True):
                _LIBC.madvise(address, size, mmap.MADV_WILLNEED)

    def __getstate__(self) -> dict[str, Any]:
        names = ("_shards", "_windows", "_columns", "_rows", "_scattered", "_copies")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        # The row groups of a shard that is open have slots, in which the addresses of their
        # matrices stand.
        self._slot = np.full(len(self._shards), -1, np.int64)
        self._place = self._slot.copy()
        self._bad = np.zeros(len(self._shards), np.bool_)
        self._wrong: dict[str, str] = {}
        self._group_rows = np.ones(len(self._shards), np.int64)
        self._bodies = {name: np.empty(64, np.int64) for name in self._columns}
        self._used = 0
        self._files: dict[int, MappedFile] = {}
        self._memory = _AddressSpace(self._columns)
        self._lock, self._process = threading.RLock(), os.getpid()

    def _turn(self) -> threading.RLock:
        if self._process != os.getpid():
            # Forked, perhaps while a thread that is not here held the lock.
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock

    def _open_all(self, shard: NDArray[np.int32]) -> None:
        if (unseen := shard[self._slot[shard] < 0]).size:
            for number in np.unique(unseen).tolist():
                if not self._bad[number]:
                    self._open(number)
        if self._copies is not None and not self._copies.all_fit:
            self._give_up(self._copies, np.unique(shard).tolist())

    def _open(self, number: int) -> None:
        with self._turn():
            if self._slot[number] >= 0:
                return
            if self._copies is not None:
                self._copies.mapped(number)
            try:
                self._map(number, self._shards.open(number))
            except IntegrityError as error:
                if not self._shards.skip_bad:
                    raise
                self._bad[number] = True
                self._wrong[self._shards.name(number)] = str(error)
                warnings.warn(f"{error}; its windows are skipped", stacklevel=2)

    def _map(self, number: int, view: ShardView) -> None:
        self._check_windows(number, view)
        file = MappedFile(view.path, scattered=self._scattered)
        first = self._used if self._place[number] < 0 else int(self._place[number])
        after = first + view.n_groups
        for name, column in self._columns.items():
            if after > len(self._bodies[name]):
                self._bodies[name] = np.resize(self._bodies[name], 2 * after)
            self._bodies[name][first:after] = file.matrices(view, name, column.width)
        self._files[number] = file
        self._memory = self._memory.with_file(file)
        self._group_rows[number] = _rows_per_group(view)
        self._slot[number] = self._place[number] = first
        self._used = max(self._used, after)

    def _give_up(self, copies: Copies, needed: Sequence[int]) -> None:
        """Unmap what has not been read for longest, but for what is needed, until the rest fits."""
        for number in needed:
            if number in self._files:
                self._files[number] = self._files.pop(number)
        surplus = sum(file.size for file in self._files.values()) - copies.most_bytes
        for number in list(self._files):
            if surplus <= 0 or number in needed:  # these were put last
                return
            surplus -= self._files.pop(number).size
            self._slot[number] = -1
            copies.given_up(number)

    def _check_windows(self, number: int, view: ShardView) -> None:
        """Every window of a shard lies in one of the episodes that the shard says it has."""
        windows = self._windows
        low, high = np.searchsorted(windows.shard, [number, number + 1]).tolist()
        first = windows.first[low:high]
        after = first + (windows.counts(low, high) - 1) * windows.stride + self._rows
        starts = np.array([0, *(each.start for each in view.episodes)])
        ends = np.array([0, *(each.start + each.n_steps for each in view.episodes)])
        owner = np.searchsorted(starts, first, side="right") - 1
        if (first < 0).any() or (after > ends[owner]).any():
            raise IntegrityError(
                f"{view.where}: the manifest has windows in its rows {first.min()} to {after.max()} "
                f"that do not lie within its episodes; it has {view.rows} rows"
            )


class MappedFile:
    """A file in memory, read-only, for as long as this object lives.

    The standard library's `mmap` would keep a descriptor open for each.
    """

    def __init__(self, path: Path, *, scattered: bool = False) -> None:
        with one_line(path), path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            address = _LIBC.mmap(None, self.size, _PROT_READ, _MAP_SHARED, file.fileno(), 0)
            if address == _MAP_FAILED:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.address = int(address)
        # Not at exit: a thread that reads ahead may still be at it.
        weakref.finalize(self, _LIBC.munmap, address, self.size).atexit = False
        if scattered:
            _LIBC.madvise(address, self.size, mmap.MADV_RANDOM)

    def load(self) -> None:
        """Have all of it in memory, and keep it there as far as the system lets."""
        _LIBC.madvise(self.address, self.size, _MADV_POPULATE_READ)

    def matrices(self, view: ShardView, field: str, width: int) -> Numbers:
        """The address of each row group's matrix of a column with rows of `width` bytes."""
        offsets = view.matrix_offsets(field)
        rows = np.array([view.group_rows(group) for group in range(view.n_groups)])
        if (offsets + rows * width > self.size).any():
            raise IntegrityError(f"{view.where}: {field} goes on behind the end of the file")
        return self.address + offsets


class _AddressSpace:
    """Addresses low to high, which hold all mapped files: a row, or a window, at any of them."""

    def __init__(self, columns: Mapping[str, Column], low: int = 1, high: int = 1) -> None:
        self._columns, self._low, self._high = columns, low, high
        self._rows = {name: _items(low, high, c.width) for name, c in columns.items()}
        self._windows = {name: _items(low, high, c.width * c.rows) for name, c in columns.items()}

    def with_file(self, file: MappedFile) -> _AddressSpace:
        """Wide enough for one more."""
        low, high = file.address, file.address + file.size
        if self._high > self._low:
            low, high = min(low, self._low), max(high, self._high)
        return _AddressSpace(self._columns, low, high)

    def rows(self, name: str, address: Numbers) -> NDArray[np.void]:
        """A copy of a row at each address."""
        return self._rows[name][address - self._low]

    def windows(self, name: str, address: Numbers) -> NDArray[np.void]:
        """A copy of as many rows as a window has at each address."""
        return self._windows[name][address - self._low]


def _items(low: int, high: int, width: int) -> NDArray[np.void]:
    """Addresses low to high as overlapping items of `width` bytes, one beginning at every address."""
    interface = {
        "data": (low, True),
        "shape": (max(0, high - low - width + 1),),
        "strides": (1,),
        "typestr": f"|V{width}",
        "version": 3,
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface))


def _rows_per_group(view: ShardView) -> int:
    """Rows of every row group but the last, which may have fewer."""
    rows = [view.group_rows(group) for group in range(view.n_groups)]
    if any(each != rows[0] for each in rows[1:-1]) or rows[-1] > rows[0]:
        raise IntegrityError(
            f"{view.where}: row groups of {min(rows)} to {max(rows)} rows, expected equal ones; "
            "`wham-data compact` makes them so"
        )
    return rows[0]
