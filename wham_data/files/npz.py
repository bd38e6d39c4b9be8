"""Reads the .npz files of sources: zip files of arrays, read as streams, never unpickled.

    with opened_npz(path) as archive:
        actions = read_numbers(archive, "action", rows=n, columns=None)
        with member(archive, "image") as (stream, shape, dtype):
            ...

Members are stored or deflated. A member's checksum is compared when the member is read to its end.
Sizes are checked against the headers before memory is allocated.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import open_regular
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

MOST_MEMBERS: Final = 64
MOST_DIRECTORY_BYTES: Final = 1 << 16
MOST_COLUMNS: Final = 4096
MAX_HEADER: Final = 10_000
MOST_COLUMN_MAJOR: Final = 512 << 20

_HEADER: Final = re.compile(
    r"\{'descr': '(?P<dtype>[<>|=]?(?:f[248]|[iu][1248]|b1|[SU]\d{1,6}))', "
    r"'fortran_order': (?P<column_major>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), \}\s*",
    re.ASCII,
)


DAMAGED_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    UnicodeDecodeError,  # of a member's name
)
"""What reading a damaged zip file raises."""


@contextmanager
def opened_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file of few members, stored or deflated. Errors of the library become `RefusedInput`."""
    with open_regular(path) as file:
        check_directory(file, MOST_MEMBERS, MOST_DIRECTORY_BYTES)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_members(archive)
                yield archive
        except DAMAGED_ZIP as error:
            raise RefusedInput(
                Reason.ARCHIVE_CORRUPT, f"damaged zip file: {str(error)[:200]}"
            ) from None


def array_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of every array in a file, by name without `.npy`.

    Raises:
        RefusedInput: PICKLED_OBJECTS, or the file is damaged.
    """
    found = {}
    with opened_npz(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with member(archive, name) as (_, shape, dtype):
                    found[name.removesuffix(".npy")] = (shape, dtype)
    return found


def read_rows(archive: zipfile.ZipFile, name: str, picks: Index) -> Iterator[NDArray[Any]]:
    """Rows of an array, one at a time, in one pass over the whole array.

    Args:
        archive: an open file.
        name: the member's name, with `.npy`.
        picks: row numbers, int64, strictly increasing.

    Yields:
        An array of shape `shape[1:]` for each pick.
    """
    with member(archive, name) as (stream, shape, dtype):
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        at = 0
        for pick in picks.tolist():
            while at <= pick:
                row = read_exactly(stream, row_bytes)
                at += 1
            yield np.frombuffer(row, dtype).reshape(shape[1:])
        while stream.read(1 << 20):  # the checksum is compared at the end
            pass


def check_directory(file: BinaryIO, most_members: int, most_bytes: int) -> None:
    """Refuse a zip file with too many members, before a parser makes an object of each.

    The end record of a zip file gives the number of members and the size of the directory. A file
    of over 2 GB has a second, longer end record right before it.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if not size:
        raise RefusedInput(Reason.EMPTY_FILE, "empty file (0 bytes)")
    if end < 0 or len(tail) < end + 22:
        raise RefusedInput(Reason.TRUNCATED, "no whole zip file: its directory is missing")
    members, directory = struct.unpack_from("<HI", tail, end + 10)
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07") and end >= 76:
        members, directory = struct.unpack_from("<QQ", tail, end - 76 + 32)
    if members > most_members or directory > most_bytes:
        raise RefusedInput(
            Reason.ARCHIVE_UNSAFE,
            f"too many members: {members} in the zip file, limit {most_members}",
        )


def _check_members(archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS or len({info.filename for info in infos}) < len(infos):
        raise RefusedInput(Reason.ARCHIVE_UNSAFE, "members of the zip file share a name")
    for info in infos:
        if info.flag_bits & 1:
            raise RefusedInput(Reason.ARCHIVE_ENCRYPTED, "the zip file is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED,
                f"{ascii(info.filename)[:60]} is neither stored nor deflated",
            )


@contextmanager
def member(
    archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """A member's values as a stream (in C order, after the header), its shape and its dtype.

    A column-major array is read as a whole at the first read, and given out row by row.

    Raises:
        RefusedInput: the member is not an array, holds pickled objects, its size differs from the
            size in its header, or it is column-major and over `MOST_COLUMN_MAJOR` bytes.
    """
    with archive.open(name) as stream:
        shape, dtype, column_major = array_header(stream, name)
        count = math.prod(shape) * dtype.itemsize
        there = archive.getinfo(name).file_size - stream.tell()
        if count != there:
            raise RefusedInput(
                Reason.TRUNCATED, f"{name} claims {count} bytes {shape}, the file holds {there}"
            )
        if not column_major or len(shape) < 2:
            yield stream, shape, dtype
            return
        if count > MOST_COLUMN_MAJOR:
            raise RefusedInput(
                Reason.TOO_LARGE,
                f"{name} is column-major (Fortran order) and has {count} bytes, limit "
                f"{MOST_COLUMN_MAJOR}: save it again after np.ascontiguousarray",
            )
        yield io.BufferedReader(_RowByRow(stream, shape, dtype)), shape, dtype


class _RowByRow(io.RawIOBase):
    """The values of a column-major array in C order."""

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows = _rows_of(stream, shape, dtype)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or next(self._rows, self._left)
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)


def _rows_of(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[memoryview]:
    data = read_exactly(stream, math.prod(shape) * dtype.itemsize)
    stream.read(1)  # the checksum is compared at the end
    for row in np.frombuffer(data, dtype).reshape(shape, order="F"):
        yield memoryview(row.tobytes())


def array_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, dtype, and whether the array is column-major. Accepts only headers as numpy writes.

    Raises:
        RefusedInput: PICKLED_OBJECTS; ARCHIVE_CORRUPT, the header is not that of a plain array.
    """
    start = stream.read(8)
    width = {1: 2, 2: 4, 3: 4}.get(start[6]) if start[:6] == b"\x93NUMPY" and start[6:] else None
    length = int.from_bytes(stream.read(width), "little") if width is not None else MAX_HEADER + 1
    header = stream.read(length).decode("latin-1") if length <= MAX_HEADER else ""
    found = _HEADER.fullmatch(header)
    if "|O" in header:
        raise RefusedInput(
            Reason.PICKLED_OBJECTS, f"{name} holds pickled objects, which are never loaded"
        )
    if found is None:
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, f"{name} is no plain array")
    shape = tuple(int(number) for number in found["shape"].split(",") if number.strip())
    return shape, np.dtype(found["dtype"]), found["column_major"] == "True"


def read_numbers(
    archive: zipfile.ZipFile, name: str, rows: int, columns: int | None
) -> NDArray[np.float32]:
    """A float32 table with one row per frame; an array of one dimension has one column.

    `columns` is only for the error message.

    Raises:
        RefusedInput: LOG_TYPE, the array has another number of rows or is not a table of numbers.
    """
    with member(archive, name) as (stream, shape, dtype):
        width = {1: 1, 2: shape[-1]}.get(len(shape), -1)
        if dtype.kind not in "fiub" or shape[:1] != (rows,) or not 0 <= width <= MOST_COLUMNS:
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"{name} is {dtype} {shape}, expected numbers ({rows}, {columns or 'S'})",
            )
        data = read_exactly(stream, rows * width * dtype.itemsize)
        table: NDArray[np.float32] = np.frombuffer(data, dtype).reshape(rows, width)
        return table.astype(np.float32)


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Read `count` bytes; raises `RefusedInput` TRUNCATED if there are fewer."""
    data = stream.read(count)
    if len(data) != count:
        raise RefusedInput(Reason.TRUNCATED, "an array ends before its last number")
    return data
