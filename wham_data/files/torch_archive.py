"""Opens the zip archive that `torch.save` writes, without running any code in it.

An archive `<root>/data.pkl`, `<root>/data/0`, `<root>/data/1`, ... holds the values of its tensors
uncompressed, in the same layout as in memory. So the file is memory-mapped, the pickle is read as
data (`inert_pickle`), and a tensor is an array over the map, which is read from disk only when it
is used. Two thirds of a published checkpoint belong to the optimizer; they are never read.

This module does not use torch: values are numpy arrays.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wham_data.files import elsewhere
from wham_data.files.found import SNIFFED_BYTES, content_of, stand_in_of
from wham_data.files.inert_pickle import TensorRecord, read_pickle
from wham_data.schemas.errors import IntegrityError, UsageError

LARGEST_PICKLE = 16 * 1024 * 1024
_LARGEST_DIRECTORY = 16 * 1024 * 1024
_VALUES_AT_A_TIME = 1 << 16

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END = struct.Struct("<4s8xIIH")
_END_64 = struct.Struct("<4s36xQQ")
_LOCATOR_64 = struct.Struct("<4s4xQ4x")

_BYTES = {"FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2}
"""Types of storage that weights may have. The published checkpoints have float32."""

_PICKLE = b"\x80"
_PICKLES_BEFORE_ZIP = 5
"""Torch's older format is a series of pickles: magic number, version, machine, object, storages."""


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """The content of a file of `torch.save`.

    content   the pickled object as data: see `inert_pickle`
    """

    path: Path
    content: object
    _bytes: memoryview
    _members: dict[str, zipfile.ZipInfo]
    _root: str
    _intact: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, path: Path) -> TorchArchive:
        """Check the structure of the archive, map it and read its pickle.

        Raises:
            UsageError: the file does not exist.
            IntegrityError: the file is not an archive that `torch.save` would write (it is
                truncated or compressed, or members repeat or overlap), or its pickle is refused.
        """
        try:
            with elsewhere.whole(path).open("rb") as file:
                members = _members(path, file)
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except IsADirectoryError:
            raise UsageError(f"{path}: a folder, expected a file") from None
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        root = _common_root(path, members)
        archive = cls(path, None, memoryview(mapped), members, root)
        if "byteorder" in archive and bytes(archive.member("byteorder")) != b"little":
            raise IntegrityError(f"{path}: its values are not little-endian")
        if "data.pkl" not in archive:
            raise IntegrityError(
                f"{path}: no data.pkl in the archive, so torch.save did not write it"
            )
        if (size := members[f"{root}/data.pkl"].file_size) > LARGEST_PICKLE:
            raise IntegrityError(
                f"{path}: data.pkl of {size} bytes is too large, expected at most {LARGEST_PICKLE}"
            )
        pickled = bytes(archive.member("data.pkl"))
        try:
            content = read_pickle(pickled)
        except IntegrityError as refused:
            raise IntegrityError(f"{path}: {refused}") from refused.__cause__
        return cls(path, content, archive._bytes, members, root, archive._intact)

    def __contains__(self, name: str) -> bool:
        return f"{self._root}/{name}" in self._members

    def member(self, name: str) -> memoryview:
        """The bytes of a member. The first access compares its checksum."""
        info = self._members.get(f"{self._root}/{name}")
        if info is None:
            raise IntegrityError(f"{self.path}: truncated or damaged: no {name} in the archive")
        at = info.header_offset
        signature, name_size, extra_size = _LOCAL_HEADER.unpack(
            self._bytes[at : at + _LOCAL_HEADER.size]
        )
        start = at + _LOCAL_HEADER.size + name_size + extra_size
        values = self._bytes[start : start + info.file_size]
        if name not in self._intact:
            if signature != b"PK\3\4" or len(values) != info.file_size:
                raise IntegrityError(f"{self.path}: truncated or damaged at {name}")
            if zlib.crc32(values) != info.CRC:
                raise IntegrityError(f"{self.path}: corrupt: the checksum of {name} is wrong")
            self._intact.add(name)
        return values

    def array(self, name: str, tensor: TensorRecord) -> NDArray[np.float32]:
        """A tensor's values as float32, in C order.

        They are a view of the mapped file if they are stored as float32 and in this order. A tensor
        that was permuted before it was saved is copied. `name` is for error messages.

        Raises:
            IntegrityError: the type is another one, the tensor leaves its storage or repeats values of
                it, the checksum is wrong, or a value is not finite.
        """
        storage = tensor.storage
        if (width := _BYTES.get(storage.kind)) is None:
            raise IntegrityError(f"{self.path}: {name} is a {storage.kind}, expected float32")
        values = self.member(f"data/{storage.key}")
        count = min(len(values) // width, storage.count)
        if not tensor.is_within(count):
            raise IntegrityError(
                f"{self.path}: {name} of shape {tensor.shape} is larger than its storage"
            )
        if tensor.repeats:
            raise IntegrityError(
                f"{self.path}: {name} of shape {tensor.shape} has strides {tensor.strides}, which "
                "repeat its values: save it again after .contiguous()"
            )
        used = values[width * tensor.offset : width * tensor.span]
        stored = _as_float32(used, storage.kind)
        array = np.ascontiguousarray(replace(tensor, offset=0).of(stored))
        every = array.reshape(-1)
        for start in range(0, len(every), _VALUES_AT_A_TIME):
            if not np.isfinite(every[start : start + _VALUES_AT_A_TIME]).all():
                raise IntegrityError(f"{self.path}: {name} holds values that are not finite")
        return array


def _as_float32(values: memoryview, kind: str) -> NDArray[np.float32]:
    if kind == "FloatStorage":
        return np.frombuffer(values, "<f4")
    if kind == "HalfStorage":
        return np.frombuffer(values, "<f2").astype(np.float32)
    return (np.frombuffer(values, "<u2").astype(np.uint32) << 16).view(np.float32)  # bfloat16


def _members(path: Path, file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name. No two overlap, and none is compressed or encrypted."""
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(SNIFFED_BYTES)
    if (why := stand_in_of(start)) is not None:
        raise IntegrityError(f"{path}: {'not a checkpoint: ' if start else ''}{why}")
    if content_of(start) == "gzip":
        raise IntegrityError(f"{path}: compressed with gzip. Unpack it first (gunzip).")
    if start.startswith(_PICKLE):
        raise IntegrityError(f"{path}: {_bare_pickle(file)}")
    if not start.startswith(b"PK\3\4"):
        raise IntegrityError(f"{path}: invalid: not a checkpoint (the zip archive of torch.save)")
    _check_end(path, file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as damaged:
        raise IntegrityError(f"{path}: corrupt zip archive ({damaged})") from damaged
    for info in listed:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise IntegrityError(
                f"{path}: {info.filename} is compressed, which torch.save never does"
            )
        if info.flag_bits & 1:
            raise IntegrityError(f"{path}: {info.filename} is encrypted")
    if len({info.filename.casefold() for info in listed}) < len(listed):
        raise IntegrityError(f"{path}: refused: two members of the archive have one name")
    places = sorted((info.header_offset, info.file_size, info.filename) for info in listed)
    ends = [(at + _LOCAL_HEADER.size + length, name) for at, length, name in places]
    starts = [at for at, _, _ in places[1:]] + [size]
    if places and places[0][0] < 0:
        raise IntegrityError(f"{path}: corrupt zip archive (a member before its beginning)")
    for (end, name), following in zip(ends, starts, strict=True):
        if end > following:
            raise IntegrityError(
                f"{path}: truncated or corrupt: {name} reaches over what follows it"
            )
    return {info.filename: info for info in listed}


def _bare_pickle(file: BinaryIO) -> str:
    """Why a file of bare pickles is refused: a dangerous name in one, or else its format."""
    file.seek(0)
    pickles = io.BytesIO(file.read(LARGEST_PICKLE))
    try:
        for _ in range(_PICKLES_BEFORE_ZIP):
            read_pickle(pickles)
    except IntegrityError as refused:
        if "unsafe" in str(refused):
            return str(refused)
    return (
        "refused: a bare pickle, which is not allowed; expected the zip archive that torch.save "
        "has written since 1.6"
    )


def _check_end(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse an archive whose end differs from that of `torch.save`, before zipfile parses it."""
    cut = IntegrityError(f"{path}: truncated: a zip archive without its end. Copy it again.")
    tail_size = _END.size + _LOCATOR_64.size
    file.seek(max(size - tail_size, 0))
    tail = file.read(tail_size)
    if len(tail) < tail_size:
        raise cut
    signature, directory_size, _, comment_size = _END.unpack(tail[_LOCATOR_64.size :])
    if signature != b"PK\5\6" or comment_size:
        raise cut
    if directory_size == 0xFFFFFFFF:
        signature, at = _LOCATOR_64.unpack(tail[: _LOCATOR_64.size])
        if signature != b"PK\6\7" or at + _END_64.size > size:
            raise cut
        file.seek(at)
        signature, directory_size, _ = _END_64.unpack(file.read(_END_64.size))
        if signature != b"PK\6\6":
            raise cut
    if directory_size > _LARGEST_DIRECTORY:
        raise IntegrityError(f"{path}: a list of members of {directory_size} bytes is too large")


def _common_root(path: Path, members: dict[str, zipfile.ZipInfo]) -> str:
    roots = {name.partition("/")[0] for name in members}
    if len(roots) != 1:
        raise IntegrityError(
            f"{path}: {len(roots)} folders at the top of the archive, expected one"
        )
    return roots.pop()
