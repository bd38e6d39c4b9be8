"""Archives are examined and refused, never unpacked. The message tells a person what is inside.

All member names of a zip file are checked, and up to MOST_READ bytes of its data. A tar file is
checked as far as its first MOST_READ bytes go, counted after decompression.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from wham_data.files.found import SNIFFED_BYTES, open_regular, stand_in_of
from wham_data.files.npz import check_directory
from wham_data.schemas.errors import Reason, RefusedInput

MOST_MEMBERS: Final = 5_000
MOST_DIRECTORY_BYTES: Final = 4 << 20
MOST_BYTES: Final = 20 << 30
MOST_RATIO: Final = 200
MOST_READ: Final = 32 << 20
BLOCK: Final = 1 << 16
DAMAGED: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, OSError, ValueError, RuntimeError),
)
ZIP_STARTS: Final = (b"PK\x03\x04", b"PK\x05\x06")


def refuse_archive(path: Path) -> RefusedInput:
    """The refusal of an archive: what is wrong with it, or else that it must be unpacked first."""
    try:
        with open_regular(path) as file:
            head = file.read(SNIFFED_BYTES)
            file.seek(0)
            if (why := stand_in_of(head)) is not None:
                return RefusedInput(Reason.NOT_DOWNLOADED if head else Reason.EMPTY_FILE, why)
            if path.suffix.lower() == ".zip" or head.startswith(ZIP_STARTS):
                _look_at_zip(file)
            else:
                _look_at_tar(file, head)
    except RefusedInput as why:
        return why
    except DAMAGED as error:
        return RefusedInput(Reason.ARCHIVE_CORRUPT, f"a damaged archive: {str(error)[:200]}")
    return RefusedInput(Reason.FORMAT_NOT_ALLOWED, "an archive: unpack it first")


def _look_at_zip(file: BinaryIO) -> None:
    check_directory(file, MOST_MEMBERS, MOST_DIRECTORY_BYTES)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _check_names([info.filename for info in infos])
        for info in infos:
            if info.flag_bits & 1:
                raise RefusedInput(Reason.ARCHIVE_ENCRYPTED, "its members are encrypted")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _unsafe(f"{info.filename[:80]!r} is a symbolic link")
            if info.file_size > MOST_RATIO * max(info.compress_size, BLOCK):
                raise RefusedInput(
                    Reason.TOO_LARGE,
                    f"{info.filename[:80]!r} unpacks to {info.file_size} bytes, more than the "
                    f"limit of {MOST_RATIO} times its size: too large",
                )
        _check_size(sum(info.file_size for info in infos))
        left = MOST_READ
        for info in infos:
            with archive.open(info) as member:  # its checksum is compared at its end
                while left > 0 and (block := member.read(BLOCK)):
                    left -= len(block)


def _look_at_tar(file: BinaryIO, head: bytes) -> None:
    stream = _Unpacked(file, head)
    names: list[str] = []
    try:
        archive = tarfile.open(fileobj=stream, mode="r|")  # type: ignore[call-overload]  # noqa: SIM115
    except tarfile.ReadError:  # some other archive
        return
    try:
        for member in archive:
            names.append(member.name)
            _check_names(names[-1:])
            _check_size(member.size)
            if not (member.isfile() or member.isdir()):
                raise _unsafe(f"{member.name[:80]!r} is a link or a device")
            if len(names) > MOST_MEMBERS:
                raise _unsafe(f"too many members, limit {MOST_MEMBERS}")
    except _EnoughRead:
        pass
    _check_names(names)


class _EnoughRead(Exception):
    """MOST_READ bytes have been unpacked."""


class _Unpacked:
    """The bytes of a tar file as a stream, decompressed if necessary, up to MOST_READ bytes."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file = file
        self._stream: BinaryIO = file
        if head.startswith(b"\x1f\x8b"):
            self._stream = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
        elif head.startswith(b"BZh"):
            self._stream = bz2.BZ2File(file)  # type: ignore[assignment]
        elif head.startswith(b"\xfd7zXZ"):
            self._stream = lzma.LZMAFile(file)  # type: ignore[assignment]  # noqa: SIM115
        self._count = 0

    def read(self, count: int) -> bytes:
        """Read at most `count` more bytes.

        Raises:
            RefusedInput: TOO_LARGE, the data is far larger than its compressed form.
        """
        block = self._stream.read(min(count, BLOCK))
        self._count += len(block)
        if self._count > MOST_READ:
            if self._count > MOST_RATIO * self._file.tell():
                raise RefusedInput(
                    Reason.TOO_LARGE,
                    f"unpacks to more than {MOST_RATIO} times its size, which is the limit: too large",
                )
            raise _EnoughRead
        return block


def _check_names(names: list[str]) -> None:
    for name in names:
        parts = re.split(r"[/\\]", name)
        if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
            raise _unsafe(f"the path {name[:80]!r} leads outside of where it is unpacked")
    if len({name.casefold() for name in names}) < len(names):
        raise _unsafe("duplicate members: two share a name")


def _check_size(n_bytes: int) -> None:
    if n_bytes > MOST_BYTES:
        raise RefusedInput(
            Reason.TOO_LARGE, f"claims {n_bytes} bytes, limit {MOST_BYTES}: too large"
        )


def _unsafe(what: str) -> RefusedInput:
    return RefusedInput(Reason.ARCHIVE_UNSAFE, f"an unsafe archive, do not unpack it: {what}")
