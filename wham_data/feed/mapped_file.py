"""Files mapped into memory, read-only.

The `mmap` of the standard library is not used, because it keeps a file descriptor open, and a corpus
may have more shards than the number of files that a process may open.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path
from typing import Final

import numpy as np

from wham_data.corpus.shard_view import ShardView
from wham_data.corpus.storage.contract import one_line
from wham_data.feed.windows import Numbers
from wham_data.schemas.errors import IntegrityError

BLOCK_BYTES: Final = 16_384
"""Bytes that are requested around a part of less than a page."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MADV_POPULATE_READ: Final = 22
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class MappedFile:
    """A file that is mapped into memory, read-only, as long as this object exists.

    Attributes:
        address: address of the first byte.
        size: bytes of the file.
    """

    def __init__(self, path: Path, *, scattered: bool = False) -> None:
        """Map a file.

        Args:
            path: the file; not empty.
            scattered: it is read in no order, so the system should not read ahead.

        Raises:
            WhamDataError: the file cannot be opened or mapped.
        """
        with one_line(path), path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            address = _LIBC.mmap(None, self.size, _PROT_READ, _MAP_SHARED, file.fileno(), 0)
            if address == _MAP_FAILED:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.address = int(address)
        # Not unmapped at exit: a thread that reads ahead may still use the memory.
        weakref.finalize(self, _LIBC.munmap, address, self.size).atexit = False
        if scattered:
            _LIBC.madvise(address, self.size, mmap.MADV_RANDOM)

    def load(self) -> None:
        """Read the whole file into memory; the system may remove it from there later."""
        _LIBC.madvise(self.address, self.size, _MADV_POPULATE_READ)

    def bytes_at(self, start: int, n_bytes: int) -> memoryview:
        """Bytes of the file, without a copy; valid as long as this object exists.

        Args:
            start: number of the first byte.
            n_bytes: number of bytes; all within the file.
        """
        if not 0 <= start <= start + n_bytes <= self.size:
            raise IndexError(f"bytes {start} to {start + n_bytes} of {self.size}")
        return memoryview((ctypes.c_char * n_bytes).from_address(self.address + start)).cast("B")

    def matrices(self, view: ShardView, field: str, width: int) -> Numbers:
        """The address of a column's matrix in each row group.

        Args:
            view: the shard in this file.
            field: name of the column.
            width: bytes in a row of the column.

        Returns:
            int64 [row groups].

        Raises:
            IntegrityError: a matrix does not end before the end of the file.
        """
        offsets = view.matrix_offsets(field)
        rows = np.array([view.group_rows(group) for group in range(view.n_groups)])
        if (offsets + rows * width > self.size).any():
            raise IntegrityError(f"{view.where}: {field} continues past the end of the file")
        return self.address + offsets


def in_blocks(least: Numbers, first: Numbers, after: Numbers) -> Numbers:
    """Ranges of addresses, extended to whole pages, and short ones to a longer block in front.

    Args:
        least: first address that a range may be extended to, apart from its page; int64 [R].
        first: first address of each range, int64 [R].
        after: address after the last one, int64 [R].

    Returns:
        int64 [2, R].
    """
    block = np.where(after - first < mmap.PAGESIZE, BLOCK_BYTES, mmap.PAGESIZE)
    low = np.maximum(first // block * block, least) // mmap.PAGESIZE * mmap.PAGESIZE
    return np.stack([low, -(-after // mmap.PAGESIZE) * mmap.PAGESIZE])


def merged(ranges: Numbers) -> Numbers:
    """The same addresses as few ranges that do not overlap, sorted.

    Args:
        ranges: first address and address after the last one of each range, int64 [2, R].

    Returns:
        int64 [2, R or fewer].
    """
    if not ranges.size:
        return ranges
    first, after = ranges[:, np.argsort(ranges[0])]
    after = np.maximum.accumulate(after)
    apart = first[1:] > after[:-1]
    return np.stack([first[np.append(True, apart)], after[np.append(apart, True)]])


def will_need(ranges: Numbers) -> None:
    """Ask the system to read mapped memory from disk; does not wait for it.

    Args:
        ranges: first address, at the beginning of a page, and address after the last one of each
            range, int64 [2, R]. Addresses that are not mapped are ignored.
    """
    first, n_bytes = ranges[0], ranges[1] - ranges[0]
    for address, size in zip(first.tolist(), n_bytes.tolist(), strict=True):
        _LIBC.madvise(address, size, mmap.MADV_WILLNEED)
