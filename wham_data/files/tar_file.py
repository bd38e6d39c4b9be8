"""Untrusted tar files: where each plain file is, without unpacking the archive."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

from wham_data.files.found import open_regular
from wham_data.schemas.errors import Reason, RefusedInput

BLOCK: Final = 512
MOST_MEMBERS: Final = 2_000_000
MOST_HEADER_BYTES: Final = 1 << 16
FILES_KEPT: Final = 2
_CHECKSUM: Final = slice(148, 156)
_OCTAL: Final = re.compile(rb"[0-7]{1,12}")
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]{1,100})=")
_PLAIN, _FOLDER, _MORE, _LONG_NAME, _FOR_ALL = b"07\0", b"5", b"x", b"L", b"g"

Places = dict[str, tuple[int, int]]
"""The first byte of each file, and the byte after its last, by name, in the order of the tar file."""


def tar_places(path: Path) -> Places:
    """The places of the plain files in a tar file. Folders are skipped.

    Headers of POSIX (ustar and pax) and of GNU tar are read; a leading `./` of a name is left out. The
    result is cached, because the episodes of one tar file are opened one after another: the caller
    must not change it.

    Raises:
        RefusedInput: ARCHIVE_CORRUPT, TRUNCATED; ARCHIVE_UNSAFE, there are links, devices or other
            members that are neither files nor folders, two files of one name, or too many members.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"{path.name}: {error.strerror}") from None
    return _walked(path, found.st_size, found.st_mtime_ns)


def first_file(path: Path) -> tuple[str, int, int] | None:
    """Name, start and stop of the first file in a tar; None if the file is not such a tar file."""
    try:
        with open_regular(path) as file:
            head = _header(file.read(BLOCK))
    except RefusedInput:
        return None
    return (head[0], BLOCK, BLOCK + head[1]) if head and head[2] in _PLAIN else None


def bytes_at(file: BinaryIO, places: Places, name: str, most: int) -> bytes:
    """The content of a file in the tar.

    Raises:
        RefusedInput: LOG_COLUMN, it is not there; TOO_LARGE, it has more than `most` bytes.
    """
    if name not in places:
        raise RefusedInput(Reason.LOG_COLUMN, f"no {name} in the tar file")
    start, stop = places[name]
    if stop - start > most:
        raise RefusedInput(Reason.TOO_LARGE, f"{name} has {stop - start} bytes, limit {most}")
    file.seek(start)
    return file.read(stop - start)


@lru_cache(maxsize=FILES_KEPT)
def _walked(path: Path, size: int, changed_ns: int) -> Places:
    del changed_ns  # another file under the same name is another tar
    places: Places = {}
    said: dict[str, str] = {}
    with open_regular(path) as file:
        at = 0
        for _ in range(MOST_MEMBERS):
            head = _header(_block(file, at))
            if head is None:
                return places
            name, length, kind = head
            start = at + BLOCK
            if kind in _PLAIN:
                name, length = said.get("path", name), _whole(said.get("size", str(length)))
            if start + length > size:
                raise RefusedInput(Reason.TRUNCATED, "a tar file that is cut short")
            if kind in _PLAIN:
                name = name.removeprefix("./")
                if name in places:
                    raise RefusedInput(
                        Reason.ARCHIVE_UNSAFE, f"a tar file with two files called {name[:80]!r}"
                    )
                places[name] = (start, start + length)
            said = _said(file, start, length, kind, said)
            at = start + -(-length // BLOCK) * BLOCK
    raise RefusedInput(Reason.ARCHIVE_UNSAFE, f"a tar file of {MOST_MEMBERS} members or more")


def _said(
    file: BinaryIO, start: int, length: int, kind: bytes, before: dict[str, str]
) -> dict[str, str]:
    """What a member says of the file that follows it: `path` and `size`, where it says so."""
    if kind in _PLAIN or kind == _FOLDER:
        return {}
    if length > MOST_HEADER_BYTES:
        raise RefusedInput(Reason.ARCHIVE_UNSAFE, f"a tar file with a header of {length} bytes")
    file.seek(start)
    data = file.read(length)
    if kind == _LONG_NAME:
        return {**before, "path": os.fsdecode(data.split(b"\0")[0])}
    found: dict[str, str] = {}
    while data:
        match = _RECORD.match(data)
        if match is None or not match.end() < int(match[1]) <= len(data):
            raise RefusedInput(Reason.ARCHIVE_CORRUPT, "a damaged tar file")
        key, value = match[2], data[match.end() : int(match[1]) - 1]
        data = data[int(match[1]) :]
        if key in (b"path", b"size"):
            found[key.decode()] = os.fsdecode(value)
        if key.startswith(b"GNU.sparse") or (kind == _FOR_ALL and key in (b"path", b"size")):
            raise RefusedInput(Reason.ARCHIVE_UNSAFE, "a tar file with more in it than plain files")
    return {**before, **found}


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, "a damaged tar file")
    return int(text)


def _block(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(BLOCK)


def _header(block: bytes) -> tuple[str, int, bytes] | None:
    """Name, length and kind of the member that follows a header; None at the end of the tar.

    Raises:
        RefusedInput: the block is not the header of a file, a folder, or of more about the next file.
    """
    if len(block) < BLOCK:
        raise RefusedInput(Reason.TRUNCATED, "a tar file that is cut short")
    if not any(block):
        return None
    blank = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    if _octal(block[_CHECKSUM]) != sum(blank) or block[257:262] != b"ustar":
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, "a damaged tar file")
    kind = block[156:157]
    if kind not in _PLAIN + _FOLDER + _MORE + _LONG_NAME + _FOR_ALL:
        raise RefusedInput(Reason.ARCHIVE_UNSAFE, "a tar file with more in it than plain files")
    name, prefix = (part.split(b"\0")[0] for part in (block[:100], block[345:500]))
    # In GNU tar's own headers, times are in the place of the prefix.
    whole = prefix + b"/" + name if prefix and block[262:263] == b"\0" else name
    return os.fsdecode(whole), _octal(block[124:136]), kind


def _octal(field: bytes) -> int:
    digits = field.split(b"\0")[0].strip() or b"0"
    if not _OCTAL.fullmatch(digits):
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, "a damaged tar file")
    return int(digits, 8)
