"""Windows read from memory-mapped shards: one numpy copy per field and batch, without decoding.

In a shard a row of `tokens` or `actions` is a fixed number of bytes at a known place in the file. When
the file is mapped into memory, that place is an address, and a batch is one numpy gather over
addresses, even if its windows are in different shards. When a shard is first needed, checks make sure
that this is safe: the footer and page headers are as this package writes them, the matrices end
before the end of the file, and every window in the manifest lies inside one episode of the shard.
(A finished shard is never changed, so no file becomes shorter while it is mapped.)

A mapping holds no file descriptor, because a corpus may have more shards than the number of files
that a process may open. A forked worker inherits only memory.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shard_view import ShardView
from wham_data.corpus.storage.contract import hash_file
from wham_data.feed.mapped_file import MappedFile, in_blocks, merged, will_need
from wham_data.feed.remote_shards import Copies, stored_sizes
from wham_data.feed.shard_parts import Parts, ShardPart, rows_read
from wham_data.feed.windows import Numbers, Windows
from wham_data.schemas.errors import IntegrityError, UsageError, WhamDataError
from wham_data.schemas.steps import FLOAT, TOKEN

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "tokens": TOKEN,
    "actions": FLOAT,
    "step": np.dtype("<i4"),
    "time_ns": np.dtype("<i8"),
}
"""The columns that can be read without decoding -> the type of the numbers in their rows."""

Names = NDArray[np.bytes_]
NAME_BYTES: Final = 32
"""Length of a shard's name: 24 hex digits and `.parquet`."""


@dataclass(frozen=True, slots=True)
class Column:
    """The part of a column that one window reads.

    dtype    type of the numbers
    numbers  numbers in a row
    rows     number of rows, from the first row of the window on
    """

    dtype: np.dtype[Any]
    numbers: int
    rows: int

    @property
    def width(self) -> int:
        """Bytes in a row."""
        return self.numbers * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of one or more corpora, numbered from 0, one corpus after another.

    corpora   the corpora that the shards belong to
    names     for each corpus the file names of its shards, ASCII
    hashes    for each corpus the SHA-256 of its shards, hex digits; None: not compared
    skip_bad  leave out shards that are missing or damaged instead of raising an error
    """

    corpora: tuple[Corpus, ...]
    names: tuple[Names, ...]
    hashes: tuple[pa.Array | None, ...]
    skip_bad: bool = False

    def __len__(self) -> int:
        return sum(len(names) for names in self.names)

    def open(self, number: int) -> ShardView:
        """Open a shard; compare its footer with its corpus and, if there are hashes, its SHA-256.

        Args:
            number: number of the shard.

        Raises:
            IntegrityError: the shard is missing, damaged, or from another corpus.
            UsageError: the corpus is cold, so its shards cannot be mapped.
        """
        corpus, name, sha256 = self._locate(number)
        if corpus.info.layout == "cold":
            raise UsageError(
                f"{corpus.location}: a cold corpus cannot be mapped; `wham-data compact "
                f"{corpus.location} --out DIR` makes one that can"
            )
        view = corpus.open_shard(name)
        if sha256 is not None and hash_file(view.path) != sha256:
            raise IntegrityError(
                f"{view.where}: its bytes differ from those that were committed (corrupt); "
                f"`wham-data verify {corpus.location}` shows what is wrong"
            )
        return view

    def readable(self, number: int) -> ShardView | None:
        """Open a shard; None for a missing or damaged shard when `skip_bad` is set."""
        try:
            return self.open(number)
        except IntegrityError:
            if not self.skip_bad:
                raise
            return None

    def name(self, number: int) -> str:
        """The path or URL of a shard, for messages."""
        corpus, name, _ = self._locate(number)
        return corpus.storage.where(f"shards/{name}")

    def place(self, number: int) -> tuple[Corpus, str]:
        """The corpus of a shard, and its name."""
        corpus, name, _ = self._locate(number)
        return corpus, name

    def copies(
        self, windows: Windows, columns: Mapping[str, Column], *, scattered: bool
    ) -> tuple[Copies, Parts] | None:
        """What must be downloaded, whole or in parts; None if all shards are on this machine.

        Args:
            windows: all windows that may be read.
            columns: what to read of each window: name -> column.
            scattered: see `Copies.checked`.

        Raises:
            UsageError: see `Copies.checked`.
        """
        stored = stored_sizes(list(zip(self.corpora, self.names, strict=True)))
        if stored is None:
            return None
        sizes, most_bytes = stored
        corpora = [
            (corpus, len(names), hashes is not None)
            for corpus, names, hashes in zip(self.corpora, self.names, self.hashes, strict=True)
        ]
        rows = max(column.rows for column in columns.values())
        widths = {name: column.width for name, column in columns.items()}
        parts = Parts.of(corpora, self.place, windows, rows, widths, sizes)
        downloaded = np.where(parts.n_bytes, parts.n_bytes, sizes)
        return Copies.checked(downloaded, most_bytes, parts.fetch, scattered=scattered), parts

    def _locate(self, number: int) -> tuple[Corpus, str, str | None]:
        """The corpus of a shard, its name, and its hash if it must be compared."""
        corpora = iter(zip(self.corpora, self.names, self.hashes, strict=True))
        corpus, names, hashes = next(corpora)
        while number >= len(names):
            number -= len(names)
            corpus, names, hashes = next(corpora)
        return corpus, names[number].decode(), None if hashes is None else hashes[number].as_py()


class MappedShards:
    """Rows of many shards; a shard is opened when one of its rows is first read.

    Pickling keeps the list of shards but no mappings: the copy maps shards again when it reads them.
    """

    def __init__(
        self, shards: Shards, windows: Windows, columns: Mapping[str, Column], *, scattered: bool
    ) -> None:
        """Prepare to read; no shard is opened yet.

        Args:
            shards: the shards that `windows` refers to by number.
            windows: all windows that may be read, sorted by shard; when a shard is opened, its
                windows are checked to lie inside its episodes.
            columns: what to read of each window: name -> column.
            scattered: windows are read in no order, so the system should not read neighbouring
                pages from disk with them.
        """
        self._scattered = scattered
        self._copies: Copies | None = None
        self._parts: Parts | None = None
        if downloads := shards.copies(windows, columns, scattered=scattered):
            self._copies, self._parts = downloads
        self._shards, self._windows, self._columns = shards, windows, dict(columns)
        self._rows = max(column.rows for column in columns.values())
        self._reset()

    def read(self, shard: NDArray[np.int32], row: Numbers) -> dict[str, NDArray[Any]]:
        """Read windows.

        Args:
            shard: shard of each window, int32 [B].
            row: first row of each window in its shard, int64 [B].

        Returns:
            column -> new contiguous array [B, rows, numbers in a row] of the column's type.

        Raises:
            IntegrityError: a shard is missing, damaged, or does not match the manifest.
            UsageError: a corpus is cold, so its shards cannot be mapped.
        """
        if self._copies is None or self._copies.all_fit:
            return self._gather(shard, row)
        with self._current_lock():  # another thread must not unmap a shard meanwhile
            return self._gather(shard, row)

    def readable(self, shard: NDArray[np.int32]) -> NDArray[np.bool_] | None:
        """Whether each window lies in a good shard, bool [B]; None: all do, or `skip_bad` is not set.

        Opens the shards that are not open yet.

        Args:
            shard: shard of each window, int32 [B].

        Raises:
            UsageError: a corpus is cold, so its shards cannot be mapped.
        """
        if not self._shards.skip_bad:
            return None
        with self._current_lock():
            self._open_all(shard)
        bad = self._bad[shard]
        return ~bad if bad.any() else None

    @property
    def bad(self) -> dict[str, str]:
        """Path or URL of each bad shard that is skipped -> the error."""
        return dict(self._wrong)

    @property
    def copies(self) -> Copies | None:
        """The shards that must be downloaded; None if all are on this machine."""
        return self._copies

    def _gather(self, shard: NDArray[np.int32], row: Numbers) -> dict[str, NDArray[Any]]:
        self._open_all(shard)
        if self._wrong and (bad := shard[self._bad[shard]]).size:
            raise IntegrityError(self._wrong[self._shards.name(int(bad[0]))])
        group_rows = self._group_rows[shard]
        slot, at = np.divmod(row, group_rows)
        slot += self._slot[shard]
        in_one_group = bool((at + self._rows <= group_rows).all())
        if not in_one_group:
            # Some windows continue in the next row group, so every row gets an address of its own.
            rows = at[:, None] + np.arange(self._rows)
            groups_later, at = np.divmod(rows, group_rows[:, None])
            slot = slot[:, None] + groups_later
        memory = self._memory
        result: dict[str, NDArray[Any]] = {}
        for name, column in self._columns.items():
            address = self._bodies[name][slot] + at * column.width
            values = (
                memory.windows(name, address)
                if in_one_group
                else memory.rows(name, address[:, : column.rows])
            )
            shape = (len(row), column.rows, column.numbers)
            result[name] = values.view(column.dtype).reshape(shape)
        return result

    @property
    def window_bytes(self) -> int:
        """Bytes that one window reads."""
        return sum(column.width * column.rows for column in self._columns.values())

    def announce(self, shard: NDArray[np.int32], row: Numbers) -> int:
        """Ask the system to read windows from disk into memory; does not wait for it.

        Errors are left for the time when the windows are read. Shards that are being downloaded are
        left out.

        Args:
            shard: shard of each window, int32 [B].
            row: first row of each window in its shard, int64 [B].

        Returns:
            bytes requested; windows that were left out are counted too.
        """
        if self._copies is None:
            with suppress(WhamDataError):
                self._open_all(shard)
        mapped = self._slot[shard] >= 0
        left_out = len(shard) - int(mapped.sum())
        shard, row = shard[mapped], row[mapped]
        slot, at = np.divmod(row, self._group_rows[shard])
        slot += self._slot[shard]
        ranges = []
        for name, column in self._columns.items():
            body = self._bodies[name][slot]
            # Rows of a window in the next row group are not requested.
            after = np.minimum(at + column.rows, self._group_rows[shard])
            ranges.append(in_blocks(body, body + at * column.width, body + after * column.width))
        pages = merged(np.concatenate(ranges, axis=1))
        will_need(pages)
        return int((pages[1] - pages[0]).sum()) + left_out * self.window_bytes

    def __getstate__(self) -> dict[str, Any]:
        names = ("_shards", "_windows", "_columns", "_rows", "_scattered", "_copies", "_parts")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        # Each row group of an open shard has a slot: an index into the arrays of matrix addresses.
        # `_slot` is the first slot of a shard, or -1 if it is not mapped. `_place` remembers it for a
        # shard that was unmapped and is mapped again.
        self._slot = np.full(len(self._shards), -1, np.int64)
        self._place = self._slot.copy()
        self._bad = np.zeros(len(self._shards), np.bool_)
        self._wrong: dict[str, str] = {}
        self._group_rows = np.ones(len(self._shards), np.int64)
        self._bodies = {name: np.empty(64, np.int64) for name in self._columns}
        self._used = 0
        self._files: dict[int, list[MappedFile]] = {}
        self._memory = _AddressSpace(self._columns)
        self._lock, self._process = threading.RLock(), os.getpid()

    def _current_lock(self) -> threading.RLock:
        if self._process != os.getpid():
            # This process was forked, and a thread of the parent may have held the lock then.
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock

    def _open_all(self, shard: NDArray[np.int32]) -> None:
        if (unmapped := shard[self._slot[shard] < 0]).size:
            for number in np.unique(unmapped).tolist():
                if not self._bad[number]:
                    self._open(number)
        if self._copies is not None and not self._copies.all_fit:
            self._unmap_surplus(self._copies, np.unique(shard).tolist())

    def _open(self, number: int) -> None:
        with self._current_lock():
            if self._slot[number] >= 0:
                return
            if self._copies is not None:
                self._copies.mapped(number)
            try:
                if self._parts is not None and number in self._parts:
                    part = self._parts.open(number)
                    self._map(number, part.view, part)
                else:
                    self._map(number, self._shards.open(number))
            except IntegrityError as error:
                if not self._shards.skip_bad:
                    raise
                self._bad[number] = True
                self._wrong[self._shards.name(number)] = str(error)
                warnings.warn(f"{error}; its windows are skipped", stacklevel=2)

    def _map(self, number: int, view: ShardView, part: ShardPart | None = None) -> None:
        self._check_windows(number, view)
        if part is not None:
            files, matrices = part.map(scattered=self._scattered)
        else:
            file = MappedFile(view.path, scattered=self._scattered)
            files = [file]
            matrices = {
                name: file.matrices(view, name, column.width)
                for name, column in self._columns.items()
            }
        first = self._used if self._place[number] < 0 else int(self._place[number])
        after = first + view.n_groups
        for name, addresses in matrices.items():
            if after > len(self._bodies[name]):
                self._bodies[name] = np.resize(self._bodies[name], 2 * after)
            self._bodies[name][first:after] = addresses
        self._files[number] = files
        for each in files:
            self._memory = self._memory.with_file(each)
        self._group_rows[number] = _rows_per_group(view)
        self._slot[number] = self._place[number] = first
        self._used = max(self._used, after)

    def _unmap_surplus(self, copies: Copies, needed: Sequence[int]) -> None:
        """Unmap the least recently read shards, except the needed ones, until the rest fits."""
        for number in needed:
            if number in self._files:
                self._files[number] = self._files.pop(number)
        surplus = sum(map(_bytes_in, self._files.values())) - copies.most_bytes
        for number in list(self._files):
            if surplus <= 0 or number in needed:  # the needed ones were moved to the end above
                return
            surplus -= _bytes_in(self._files.pop(number))
            self._slot[number] = -1
            copies.given_up(number)

    def _check_windows(self, number: int, view: ShardView) -> None:
        """Check that every window of a shard lies inside one of its episodes."""
        first, after = rows_read(self._windows, number, self._rows)
        starts = np.array([0, *(each.start for each in view.episodes)])
        ends = np.array([0, *(each.start + each.n_steps for each in view.episodes)])
        episode = np.searchsorted(starts, first, side="right") - 1
        if (first < 0).any() or (after > ends[episode]).any():
            raise IntegrityError(
                f"{view.where}: the manifest has windows in rows {first.min()} to {after.max()} of "
                f"this shard that do not lie within its episodes; it has {view.rows} rows"
            )


class _AddressSpace:
    """Addresses [low, high) around all mapped files; a row or window can be read at each of them."""

    def __init__(self, columns: Mapping[str, Column], low: int = 1, high: int = 1) -> None:
        self._columns, self._low, self._high = columns, low, high
        self._rows = {name: _items(low, high, c.width) for name, c in columns.items()}
        self._windows = {name: _items(low, high, c.width * c.rows) for name, c in columns.items()}

    def with_file(self, file: MappedFile) -> _AddressSpace:
        """The same range, extended to include one more file."""
        low, high = file.address, file.address + file.size
        if self._high > self._low:
            low, high = min(low, self._low), max(high, self._high)
        return _AddressSpace(self._columns, low, high)

    def rows(self, name: str, address: Numbers) -> NDArray[np.void]:
        """Copy the row at each address; void [B] or [B, rows], items of the column's `width` bytes."""
        return self._rows[name][address - self._low]

    def windows(self, name: str, address: Numbers) -> NDArray[np.void]:
        """Copy the window (all its rows) at each address; void [B]."""
        return self._windows[name][address - self._low]


def _items(low: int, high: int, width: int) -> NDArray[np.void]:
    """Memory [low, high) as overlapping items of `width` bytes; one item begins at every address."""
    interface = {
        "data": (low, True),
        "shape": (max(0, high - low - width + 1),),
        "strides": (1,),
        "typestr": f"|V{width}",
        "version": 3,
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface))


def _bytes_in(files: Sequence[MappedFile]) -> int:
    return sum(file.size for file in files)


def _rows_per_group(view: ShardView) -> int:
    """Rows in every row group except the last one, which may have fewer."""
    rows = [view.group_rows(group) for group in range(view.n_groups)]
    if any(each != rows[0] for each in rows[1:-1]) or rows[-1] > rows[0]:
        raise IntegrityError(
            f"{view.where}: row groups have {min(rows)} to {max(rows)} rows, expected equal "
            "numbers; `wham-data compact` makes them equal"
        )
    return rows[0]
