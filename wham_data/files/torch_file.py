"""`.pt` files that `torch.save` wrote, read without torch and without running anything in them.

file = TorchFile.open(path)
file.content                              # dicts, lists, numbers and texts as they are
file.array(file.content["obs"], "obs")    # a tensor, or a numpy array: memory-mapped
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import open_regular
from wham_data.files.inert_pickle import Inert, TensorRecord
from wham_data.files.torch_archive import TorchArchive
from wham_data.schemas.errors import IntegrityError, Reason, RefusedInput, UsageError

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
HEAD_BYTES: Final = 512
MOST_DIMENSIONS: Final = 8


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a `.pt` file holds.

    content  the saved object. Tensors and numpy arrays in it are given out by `array`; anything
             else that is no plain value stays an `Inert`, which does nothing
    """

    content: object
    _archive: TorchArchive

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Map the file and read its pickle as data.

        Raises:
            RefusedInput: PICKLED_OBJECTS, it asks for code; or it is damaged, or no such file.
        """
        with open_regular(path):
            pass
        try:
            archive = TorchArchive.open(path)
        except (IntegrityError, UsageError) as error:
            raise _refusal(path, error) from None
        return cls(archive.content, archive)

    def array(self, value: object, name: str) -> NDArray[Any]:
        """The numbers of a tensor or a numpy array; of a large tensor, a view of the mapped file.

        Args:
            value: something found in `content`.
            name: what to call it in messages.

        Raises:
            RefusedInput: LOG_TYPE, it is neither, or of no plain type; or the file is damaged.
        """
        if isinstance(value, TensorRecord):
            return self._tensor(value, name)
        if isinstance(value, Inert) and value.name.last == "_reconstruct":
            array = _numpy_array(value)
            if array is not None:
                return array
        raise RefusedInput(Reason.LOG_TYPE, f"{name} is no array of numbers")

    def _tensor(self, tensor: TensorRecord, name: str) -> NDArray[Any]:
        dtype = DTYPES.get(tensor.storage.kind)
        if dtype is None or not tensor.is_contiguous or len(tensor.shape) > MOST_DIMENSIONS:
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"{name} is a {tensor.storage.kind} of shape {tensor.shape} and strides "
                f"{tensor.strides}, expected plain numbers in one run",
            )
        try:
            values = self._archive.member(f"data/{tensor.storage.key}")
        except IntegrityError as error:
            raise _refusal(self._archive.path, error) from None
        start = tensor.offset * dtype.itemsize
        stop = start + math.prod(tensor.shape) * dtype.itemsize
        if min(*tensor.shape, tensor.offset, 0) < 0 or stop > len(values):
            raise RefusedInput(
                Reason.CORRUPT, f"{name} of shape {tensor.shape} is larger than its storage"
            )
        array: NDArray[Any] = np.frombuffer(values[start:stop], dtype)
        return array.reshape(tensor.shape)


def looks_saved_by_torch(path: Path) -> bool:
    """Whether a file is a zip archive whose first member is a torch pickle, by its first bytes."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except RefusedInput:
        return False
    return head[:4] == b"PK\x03\x04" and b"/data.pkl" in head


def _numpy_array(value: Inert) -> NDArray[Any] | None:
    """The array that numpy would rebuild, if it is one of plain numbers."""
    match value.state:
        case (
            int(),
            tuple(shape),
            Inert(name=kind, arguments=(str(code), *_)),
            bool(fortran),
            data,
        ):
            if kind.last != "dtype" or not isinstance(data, bytes):
                return None
            if code[:1] not in "fiub" or not code[1:].isdigit() or len(code) > 3:
                return None
            try:
                array = np.frombuffer(data, np.dtype(f"<{code}"))
                return array.reshape(shape, order="F" if fortran else "C")
            except (TypeError, ValueError):
                return None
    return None


def _refusal(path: Path, error: Exception) -> RefusedInput:
    told = str(error).removeprefix(f"{path}: ")
    unsafe = "unsafe" in told or "pickle calls" in told or "bare pickle" in told
    for word, reason in (("empty", Reason.EMPTY_FILE), ("truncated", Reason.TRUNCATED)):
        if told.startswith(word):
            return RefusedInput(reason, told)
    return RefusedInput(Reason.PICKLED_OBJECTS if unsafe else Reason.CORRUPT, told)
