"""Untrusted LMDB files: where the value of each key is. Every offset is checked.

The LMDB library maps a file and follows its pointers, so a damaged file crashes the process. This
module walks the tree in Python instead: two meta pages, of which the newer one counts; branch pages
that lead to other pages; leaf pages with keys and values. A large value has pages of its own.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.files.elsewhere import size_of
from wham_data.files.found import head_of, open_regular
from wham_data.schemas.errors import Reason, RefusedInput

MAGIC: Final = 0xBEEFC0DE
VERSION: Final = 1
HEAD_BYTES: Final = 152
PAGE_HEAD: Final = 16
BRANCH, LEAF, META, PACKED_LEAF = 0x01, 0x02, 0x08, 0x20
ON_OWN_PAGES, OTHER_TREE = 0x01, 0x06
NO_PAGE: Final = (1 << 64) - 1
PAGE_SIZES: Final = tuple(1 << bits for bits in range(9, 17))
MOST_KEYS: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class LmdbFile:
    """The keys of a file, and where the value of each starts and stops in the file."""

    path: Path
    places: dict[bytes, tuple[int, int]]

    @classmethod
    def open(cls, path: Path) -> LmdbFile:
        """Walk the tree.

        Raises:
            RefusedInput: TRUNCATED, CORRUPT, or TOO_LARGE for over two million keys.
        """
        places: dict[bytes, tuple[int, int]] = {}
        with open_regular(path) as file:
            if size_of(file) < HEAD_BYTES:
                raise RefusedInput(Reason.TRUNCATED, "an LMDB file without its first page")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                try:
                    _walk(data, places)
                except (struct.error, IndexError):
                    raise RefusedInput(
                        Reason.CORRUPT, "an LMDB file whose pages point out of it"
                    ) from None
        return cls(path, places)

    def value(self, key: str, most_bytes: int) -> bytes | None:
        """The value of a key; None if the key does not exist.

        Raises:
            RefusedInput: TOO_LARGE, the value has over `most_bytes` bytes.
        """
        place = self.places.get(key.encode())
        if place is None:
            return None
        start, stop = place
        if stop - start > most_bytes:
            raise RefusedInput(
                Reason.TOO_LARGE, f"{key} has {stop - start} bytes, limit {most_bytes}"
            )
        with open_regular(self.path) as file:
            file.seek(start)
            return file.read(stop - start)


def is_lmdb(path: Path) -> bool:
    """Whether the first bytes of a file are those of an LMDB environment."""
    try:
        head = head_of(path, PAGE_HEAD + 8)
    except RefusedInput:
        return False
    return head[PAGE_HEAD:] == struct.pack("<II", MAGIC, VERSION)


def _walk(data: mmap.mmap, places: dict[bytes, tuple[int, int]]) -> None:
    size, root = _root(data)
    pages = [root] if root != NO_PAGE else []
    seen = 0
    while pages:
        page = pages.pop() * size
        seen += 1
        if seen * size > len(data) or page + size > len(data):
            raise RefusedInput(Reason.CORRUPT, "an LMDB file that is cut short or runs in a circle")
        flags, lower = struct.unpack_from("<HH", data, page + 10)
        if flags & PACKED_LEAF or not flags & (BRANCH | LEAF) or not PAGE_HEAD <= lower <= size:
            raise RefusedInput(Reason.CORRUPT, f"an LMDB file with a page of kind {flags:#x}")
        for at in struct.unpack_from(f"<{(lower - PAGE_HEAD) // 2}H", data, page + PAGE_HEAD):
            low, high, kind, key_size = struct.unpack_from("<HHHH", data, page + at)
            if flags & BRANCH:
                pages.append(low | high << 16 | kind << 32)
                continue
            first = page + at + 8
            start = first + key_size
            length = low | high << 16
            if kind & OTHER_TREE:
                continue
            if kind & ON_OWN_PAGES:
                start = struct.unpack_from("<Q", data, start)[0] * size + PAGE_HEAD
            if start + length > len(data) or first + key_size > len(data):
                raise RefusedInput(Reason.TRUNCATED, "an LMDB file that is cut short")
            places[data[first : first + key_size]] = (start, start + length)
            if len(places) > MOST_KEYS:
                raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_KEYS} keys")


def _root(data: mmap.mmap) -> tuple[int, int]:
    """The size of a page, and the root page that the newer of the two meta pages names."""
    (size,) = struct.unpack_from("<I", data, 40)
    if size not in PAGE_SIZES:
        raise RefusedInput(Reason.CORRUPT, f"an LMDB file with pages of {size} bytes")
    found: list[tuple[int, int]] = []
    for page in (0, size):
        magic, version = struct.unpack_from("<II", data, page + PAGE_HEAD)
        if (magic, version) == (MAGIC, VERSION):
            root, _, transaction = struct.unpack_from("<QQQ", data, page + 128)
            found.append((transaction, root))
    if not found:
        raise RefusedInput(Reason.CORRUPT, "an LMDB file without a meta page")
    return size, max(found)[1]
