"""Tar files of strangers: where each plain file lies, without unpacking anything."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

from wham_data.files.found import open_regular
from wham_data.schemas.errors import Reason, RefusedInput

BLOCK: Final = 512
MOST_MEMBERS: Final = 1_000_000
FILES_KEPT: Final = 2
_CHECKSUM: Final = slice(148, 156)
_OCTAL: Final = re.compile(rb"[0-7]{1,12}")

Places = dict[str, tuple[int, int]]
"""Where the bytes of each file start and stop, by name."""


def tar_places(path: Path) -> Places:
    """Walk a tar: POSIX.1-1988 headers of plain files, nothing else.

    Of two files of one name the later one counts. Remembered, as the episodes of one file are opened
    one after another; the caller leaves it as it is.

    Raises:
        RefusedInput: ARCHIVE_CORRUPT, TRUNCATED; ARCHIVE_UNSAFE for links, devices and the like, and
            for a million files or more.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"{path.name}: {error.strerror}") from None
    return _walked(path, found.st_size, found.st_mtime_ns)


def first_file(path: Path) -> tuple[str, int, int] | None:
    """The name of the first file in a tar, where it starts and stops; None if this is no such tar."""
    try:
        with open_regular(path) as file:
            head = _header(file.read(BLOCK))
    except RefusedInput:
        return None
    return (head[0], BLOCK, BLOCK + head[1]) if head else None


@lru_cache(maxsize=FILES_KEPT)
def _walked(path: Path, size: int, changed_ns: int) -> Places:
    del changed_ns  # another file under the same name is another tar
    places: Places = {}
    with open_regular(path) as file:
        at = 0
        for _ in range(MOST_MEMBERS):
            head = _header(_block(file, at))
            if head is None:
                return places
            name, length = head
            start = at + BLOCK
            if start + length > size:
                raise RefusedInput(Reason.TRUNCATED, "a tar file that is cut short")
            places[name] = (start, start + length)
            at = start + -(-length // BLOCK) * BLOCK
    raise RefusedInput(Reason.ARCHIVE_UNSAFE, f"a tar file of {MOST_MEMBERS} files or more")


def _block(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(BLOCK)


def _header(block: bytes) -> tuple[str, int] | None:
    """Name and length of the file behind a header; None at the end of the tar.

    Raises:
        RefusedInput: it is no header of a plain file.
    """
    if len(block) < BLOCK:
        raise RefusedInput(Reason.TRUNCATED, "a tar file that is cut short")
    if not any(block):
        return None
    blank = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    if _octal(block[_CHECKSUM]) != sum(blank) or block[257:262] != b"ustar":
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, "a damaged tar file")
    if block[156:157] not in (b"0", b"\0"):
        raise RefusedInput(Reason.ARCHIVE_UNSAFE, "a tar file with more in it than plain files")
    name, prefix = (part.split(b"\0")[0] for part in (block[:100], block[345:500]))
    whole = prefix + b"/" + name if prefix else name
    return os.fsdecode(whole), _octal(block[124:136])


def _octal(field: bytes) -> int:
    digits = field.split(b"\0")[0].strip() or b"0"
    if not _OCTAL.fullmatch(digits):
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, "a damaged tar file")
    return int(digits, 8)
