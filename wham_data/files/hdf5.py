"""Reads untrusted HDF5 files. This is the only module that imports h5py.

    with opened_hdf5(path) as file:
        actions = read_array(file, "episode_0/actions", most_bytes=1 << 26)
        for frame in read_rows(file, "episode_0/images", picks):
            ...

An HDF5 file can refer to other files (external and soft links, external and virtual datasets) and
can load code (filters that unpack data). Both are refused: a name must be a hard link to a plain
dataset of numbers, packed with a filter that every HDF5 library has. No Python object is ever built
from the content of a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files import elsewhere
from wham_data.files.found import head_of, open_regular
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

if TYPE_CHECKING:
    import h5py

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
MOST_NAMES: Final = 1_000_000
MOST_CHUNK_BYTES: Final = 256 << 20
MOST_BLOCK_BYTES: Final = 16 << 20
MOST_BLOB_BYTES: Final = 64 << 20
FILTERS: Final = frozenset({1, 2, 3, 4, 5, 6, 32000})
"""deflate, shuffle, fletcher32, szip, nbit, scale-offset and lzf."""


def is_hdf5(path: Path) -> bool:
    """Whether the first bytes of a file are those of HDF5."""
    try:
        return head_of(path, len(SIGNATURE)) == SIGNATURE
    except RefusedInput:
        return False


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """A file, opened for reading. Errors of the library become `RefusedInput`.

    Raises:
        RefusedInput: EMPTY_FILE, UNREADABLE, NOT_A_VIDEO or CORRUPT.
    """
    with open_regular(path) as file:
        start = file.read(len(SIGNATURE))
    if start != SIGNATURE:
        reason = Reason.NOT_A_VIDEO if start else Reason.EMPTY_FILE
        raise RefusedInput(reason, "no HDF5 file" if start else "empty file (0 bytes)")
    import h5py

    try:
        with h5py.File(elsewhere.whole(path), "r", locking=False) as opened:
            yield opened
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedInput(Reason.CORRUPT, f"damaged HDF5 file: {first_line[:200]}") from None


def created_hdf5(path: Path) -> h5py.File:
    """A new file, open for writing. Use it in a `with`, which closes it."""
    import h5py

    return h5py.File(path, "x", locking=False)


def create_blobs(group: h5py.Group, name: str, count: int) -> h5py.Dataset:
    """A dataset of `count` rows; each row takes a uint8 array of any length."""
    import h5py

    return group.create_dataset(name, (count,), h5py.vlen_dtype(np.uint8))


def names_in(group: h5py.Group) -> tuple[str, ...]:
    """Names of the groups and datasets directly in a group, sorted as texts.

    Raises:
        RefusedInput: TOO_LARGE, more than `MOST_NAMES`.
    """
    if len(group) > MOST_NAMES:
        raise RefusedInput(Reason.TOO_LARGE, f"{len(group)} names in a group, limit {MOST_NAMES}")
    return tuple(group)


def has(group: h5py.Group, name: str) -> bool:
    """Whether a name (parts joined with `/`) exists, and its content is inside this file."""
    import h5py

    here: Any = group
    for part in name.split("/"):
        if not isinstance(here, h5py.Group) or part not in here:
            return False
        if not isinstance(here.get(part, getlink=True), h5py.HardLink):
            return False
        here = here[part]
    return True


def group_at(group: h5py.Group, name: str) -> h5py.Group:
    """The group under a name.

    Raises:
        RefusedInput: LOG_COLUMN, the file has no such group.
    """
    import h5py

    found = group[name] if has(group, name) else None
    if not isinstance(found, h5py.Group):
        raise RefusedInput(Reason.LOG_COLUMN, f"no group {name} in the file")
    return found


def dataset_at(group: h5py.Group, name: str, *, blobs: bool = False) -> h5py.Dataset:
    """The dataset under a name: of numbers, or with `blobs` of byte strings of any length.

    Raises:
        RefusedInput: LOG_COLUMN, the file has no such dataset; FORMAT_NOT_ALLOWED, its data is in
            another file or packed with an unusual filter; LOG_TYPE, its type is another one.
    """
    import h5py

    data = group[name] if has(group, name) else None
    if not isinstance(data, h5py.Dataset):
        raise RefusedInput(Reason.LOG_COLUMN, f"no dataset {name} in the file")
    if data.external or data.is_virtual:
        raise RefusedInput(Reason.FORMAT_NOT_ALLOWED, f"{name} lies in another file")
    packing = data.id.get_create_plist()
    filters = {packing.get_filter(place)[0] for place in range(packing.get_nfilters())}
    if not filters <= FILTERS:
        raise RefusedInput(
            Reason.FORMAT_NOT_ALLOWED,
            f"{name} is packed with filter {min(filters - FILTERS)}, which HDF5 does not come with",
        )
    if math.prod(data.chunks or ()) * data.dtype.itemsize > MOST_CHUNK_BYTES:
        raise RefusedInput(Reason.TOO_LARGE, f"{name} is packed in chunks of {data.chunks}")
    plain = data.shape is not None and data.dtype.kind in "fiub"
    packed = data.ndim == 1 and h5py.check_vlen_dtype(data.dtype) == np.uint8
    if not (packed if blobs else plain):
        expected = "runs of bytes" if blobs else "numbers"
        raise RefusedInput(Reason.LOG_TYPE, f"{name} is {data.dtype}, expected {expected}")
    return data


def read_array(group: h5py.Group, name: str, *, most_bytes: int) -> NDArray[Any]:
    """A whole dataset of numbers.

    Raises:
        RefusedInput: TOO_LARGE, and as `dataset_at`.
    """
    data = dataset_at(group, name)
    if data.nbytes > most_bytes:
        raise RefusedInput(
            Reason.TOO_LARGE, f"{name} has {data.nbytes} bytes {data.shape}, limit {most_bytes}"
        )
    array: NDArray[Any] = data[()]
    return np.asarray(array)


def read_rows(group: h5py.Group, name: str, picks: Index) -> Iterator[NDArray[Any]]:
    """Rows of a dataset, one at a time. Only one block of rows is in memory at once.

    Args:
        group: the group that holds the dataset.
        name: the dataset's name.
        picks: row numbers, int64, strictly increasing.
    """
    data = dataset_at(group, name)
    row_bytes = max(1, data.nbytes // max(1, len(data)))
    if row_bytes > MOST_CHUNK_BYTES:
        raise RefusedInput(Reason.TOO_LARGE, f"{name} has rows of {row_bytes} bytes")
    block = max(1, MOST_BLOCK_BYTES // row_bytes)
    start, rows = 0, data[:0]
    for pick in picks.tolist():
        if not start <= pick < start + len(rows):
            start, rows = pick, data[pick : pick + block]
        yield rows[pick - start]


def read_blobs(group: h5py.Group, name: str, picks: Index) -> Iterator[bytes]:
    """Rows of a dataset of byte strings (such as coded pictures), one at a time.

    Raises:
        RefusedInput: TOO_LARGE, a row has over `MOST_BLOB_BYTES`; and as `dataset_at`.
    """
    data = dataset_at(group, name, blobs=True)
    for pick in picks.tolist():
        blob = np.asarray(data[pick], np.uint8).tobytes()
        if len(blob) > MOST_BLOB_BYTES:
            raise RefusedInput(Reason.TOO_LARGE, f"{name}[{pick}] has {len(blob)} bytes")
        yield blob
