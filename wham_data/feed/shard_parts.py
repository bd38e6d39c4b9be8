"""Parts of shards on an object store: if few rows of a shard are read, only those are downloaded.

The windows say which row groups of a shard are read. If these, with the columns that are read, are a
small part of the shard, they are downloaded with requests for ranges of bytes. The parts are files in
the same cache as whole shards.

A part cannot be compared with the SHA-256 in the manifest, which is that of the whole shard. Instead
each page is compared with the checksum (CRC-32) in its header whenever the part is mapped, and the
footer is checked as that of any shard. This finds damage, but not bytes that someone changed together
with their checksum. `check_shards=True` downloads and compares whole shards. A damaged copy is
downloaded once more: it may have been damaged in the cache.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from wham_data.corpus import Corpus
from wham_data.corpus.pages import LONGEST_HEADER
from wham_data.corpus.shard_view import ShardView
from wham_data.corpus.shards import rows_per_group
from wham_data.corpus.storage.cache import remove_unless_used
from wham_data.corpus.storage.contract import Leased
from wham_data.feed.mapped_file import MappedFile
from wham_data.feed.windows import Numbers, Windows
from wham_data.schemas.errors import IntegrityError

FOOTER_BYTES: Final = 1 << 16
"""Bytes at the end of a shard that are downloaded first; nearly all footers are in them."""
REQUEST_BYTES: Final = 1 << 20
"""Bytes that are downloaded in about the time that one more request takes."""
SMALL: Final = 4
"""A shard is downloaded in parts if that takes at most this fraction of the time: one in four."""
GAP: Final = 1 << 16
"""Bytes between two parts that are downloaded too, to save a request."""
_MAGIC: Final = b"PAR1"

Result = TypeVar("Result")


def rows_read(windows: Windows, shard: int, rows: int) -> tuple[Numbers, Numbers]:
    """The rows that the windows of a shard read: first row of each run, and the row after its last.

    Args:
        windows: all windows, sorted by shard.
        shard: number of the shard.
        rows: rows that a window reads.
    """
    low, high = np.searchsorted(windows.shard, [shard, shard + 1]).tolist()
    first = windows.first[low:high]
    return first, first + (windows.counts(low, high) - 1) * windows.stride + rows


def groups_with(first: Numbers, after: Numbers, group_rows: Numbers) -> tuple[Numbers, Numbers]:
    """The row groups that runs of rows lie in.

    Args:
        first: first row of each run, int64 [R].
        after: row after the last one of each run, int64 [R].
        group_rows: rows in a row group of the run's shard, int64 [R].

    Returns:
        run and row group, each int64 [G], one entry for each row group of each run.
    """
    low, high = first // group_rows, (after - 1) // group_rows
    counts = high - low + 1
    run = np.repeat(np.arange(len(first)), counts)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts) + low[run]


def bytes_of_parts(
    windows: Windows, rows: int, row_bytes: int, group_rows: Numbers, sizes: Numbers
) -> Numbers:
    """How many bytes are downloaded of each shard that is downloaded in parts.

    Args:
        windows: all windows that may be read.
        rows: rows that a window reads.
        row_bytes: bytes of a row that are read.
        group_rows: rows in a row group of each shard, int64 [S].
        sizes: bytes of each shard, int64 [S].

    Returns:
        int64 [S]; 0 for shards that are downloaded whole.
    """
    first = windows.first
    after = first + (windows.counts() - 1) * windows.stride + rows
    run, group = groups_with(first, after, group_rows[windows.shard])
    different = np.unique(windows.shard[run].astype(np.int64) << 32 | group)
    counts = np.bincount(different >> 32, minlength=len(sizes))
    parts = counts * group_rows * row_bytes + FOOTER_BYTES
    cost = parts + (counts + 1) * REQUEST_BYTES
    return np.where((counts > 0) & (cost * SMALL <= sizes), parts, 0)


@dataclass(frozen=True, slots=True)
class Parts:
    """The shards that are downloaded in parts.

    locate   returns the corpus and the name of a shard
    windows  all windows that may be read, sorted by shard
    rows     rows that a window reads
    widths   the columns that are read -> bytes in a row
    sizes    bytes of each shard, int64 [S]; 0 for a shard on this machine
    n_bytes  bytes that are downloaded of each shard, int64 [S]; 0: it is not downloaded in parts
    """

    locate: Callable[[int], tuple[Corpus, str]]
    windows: Windows
    rows: int
    widths: Mapping[str, int]
    sizes: Numbers
    n_bytes: Numbers

    @classmethod
    def of(
        cls,
        corpora: Sequence[tuple[Corpus, int, bool]],
        locate: Callable[[int], tuple[Corpus, str]],
        windows: Windows,
        rows: int,
        widths: Mapping[str, int],
        sizes: Numbers,
    ) -> Parts:
        """Decide which shards are downloaded in parts.

        Args:
            corpora: each corpus, the number of its shards, and whether they must be whole.
            locate, windows, rows, widths, sizes: see the class.
        """
        shards = [number for _, number, _ in corpora]
        group_rows = np.repeat([rows_per_group(each.info) for each, *_ in corpora], shards)
        whole = np.repeat([must or each.info.layout == "cold" for each, _, must in corpora], shards)
        n_bytes = bytes_of_parts(windows, rows, sum(widths.values()), group_rows, sizes)
        return cls(locate, windows, rows, widths, sizes, np.where(whole, 0, n_bytes))

    def __contains__(self, number: int) -> bool:
        return bool(self.n_bytes[number])

    def open(self, number: int) -> ShardPart:
        """Open a shard that is downloaded in parts; downloads its footer.

        Raises:
            IntegrityError: the shard is missing or its footer is damaged.
        """
        read = rows_read(self.windows, number, self.rows)
        return ShardPart(*self.locate(number), int(self.sizes[number]), read, self.widths)

    def fetch(self, number: int) -> None:
        """Make sure that what is read of a shard is on this machine."""
        if number in self:
            self.open(number).fetch()
        else:
            corpus, name = self.locate(number)
            corpus.shard_file(name)


class ShardPart:
    """A shard of which only a part is on this machine.

    Attributes:
        view: its footer; no rows can be read with it.
    """

    def __init__(
        self,
        corpus: Corpus,
        name: str,
        n_bytes: int,
        rows: tuple[Numbers, Numbers],
        widths: Mapping[str, int],
    ) -> None:
        """Download and check the footer.

        Args:
            corpus: the corpus, on an object store.
            name: name of the shard.
            n_bytes: size of the shard.
            rows: the rows that are read: first row of each run, and the row after its last.
            widths: the columns that are read -> bytes in a row.

        Raises:
            IntegrityError: the shard is missing, or its footer is damaged or of another corpus.
        """
        self._corpus, self._name, self._n_bytes, self._widths = corpus, name, n_bytes, widths
        self._where = corpus.storage.where(f"shards/{name}")
        self.view = self._open(FOOTER_BYTES)
        group_rows = np.full(len(rows[0]), self.view.group_rows(0))
        groups = np.unique(groups_with(*rows, group_rows)[1])
        self._groups: list[int] = groups[groups < self.view.n_groups].tolist()

    def fetch(self) -> None:
        """Make sure that the parts are on this machine."""
        for part in self._parts():
            self._corpus.shard_file(self._name, part)

    def map(self, *, scattered: bool) -> tuple[list[MappedFile], dict[str, Numbers]]:
        """Map the parts into memory and compare each page with its checksum.

        Args:
            scattered: see `MappedFile`.

        Returns:
            the mapped files; and for each column the address of its matrix in each row group, int64
            [row groups], 0 where it is not on this machine.

        Raises:
            IntegrityError: a page is damaged, has no checksum, or is not a raw matrix.
        """
        files: list[MappedFile] = []
        addresses = {name: np.zeros(self.view.n_groups, np.int64) for name in self._widths}
        for part, chunks in self._parts().items():

            def map_and_check(
                leased: Leased, chunks: list[tuple[str, int]] = chunks
            ) -> tuple[MappedFile, list[int]]:
                file = MappedFile(leased.path, scattered=scattered)
                found = []
                for name, group in chunks:
                    chunk = self.view.chunk(name, group)
                    first = chunk.start - leased.start
                    body = self._checked(name, group, file.bytes_at(first, len(chunk)))
                    found.append(file.address + first + body)
                return file, found

            file, found = self._good(part, map_and_check)
            files.append(file)
            for (name, group), address in zip(chunks, found, strict=True):
                addresses[name][group] = address
        return files, addresses

    def _checked(self, name: str, group: int, chunk: memoryview) -> int:
        """Compare a page with its checksum; returns the number of bytes before its matrix."""
        page = self.view.matrix_page(name, group, bytes(chunk[:LONGEST_HEADER]))
        found = zlib.crc32(chunk[page.header_bytes :])
        if found != page.crc:
            expected = "no checksum" if page.crc is None else f"the checksum {page.crc:08x}"
            raise IntegrityError(
                f"{self._where}: row group {group}: {name} is corrupt: its page has the checksum "
                f"{found:08x}, but its header has {expected}; `wham-data verify "
                f"{self._corpus.location}` shows what is wrong"
            )
        return page.header_bytes

    def _parts(self) -> dict[range, list[tuple[str, int]]]:
        """The ranges of bytes to download, and the column chunks (column, row group) in each."""
        chunks = sorted(
            ((name, group) for group in self._groups for name in self._widths),
            key=lambda each: self.view.chunk(*each).start,
        )
        parts: dict[range, list[tuple[str, int]]] = {}
        part, inside = range(0), list[tuple[str, int]]()
        for each in chunks:
            chunk = self.view.chunk(*each)
            if not 0 < chunk.start < chunk.stop <= self._n_bytes:
                raise IntegrityError(
                    f"{self._where}: row group {each[1]}: {each[0]} is said to be bytes "
                    f"{chunk.start} to {chunk.stop} of {self._n_bytes}"
                )
            if not inside or chunk.start > part.stop + GAP:
                part, inside = chunk, []
            else:
                del parts[part]
                part = range(part.start, max(part.stop, chunk.stop))
            inside.append(each)
            parts[part] = inside
        return parts

    def _open(self, n_bytes: int) -> ShardView:
        """The shard with the last `n_bytes` bytes, or with more if its footer is longer."""
        end = range(max(0, self._n_bytes - n_bytes), self._n_bytes)

        def checked(leased: Leased) -> ShardView:
            with leased.path.open("rb") as file:
                file.seek(end.start - leased.start)
                footer = file.read()
            length = int.from_bytes(footer[-8:-4], "little") + 8
            if footer[-4:] == _MAGIC and len(footer) < length <= self._n_bytes:
                return self._open(length)
            return ShardView(leased.path, self._corpus.info, self._where, footer=_MAGIC + footer)

        return self._good(end, checked)

    def _good(self, part: range, use: Callable[[Leased], Result]) -> Result:
        """The result of `use` for a copy of a part; a damaged copy is downloaded once more."""
        leased = self._corpus.shard_file(self._name, part)
        try:
            return use(leased)
        except IntegrityError:
            if not leased.start:  # a whole shard, which was compared with the manifest
                raise
        path = leased.path
        del leased  # its lock
        remove_unless_used(path)
        return use(self._corpus.shard_file(self._name, part))
