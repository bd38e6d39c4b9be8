"""Reads `.pt` files of `torch.save`, without torch and without running any code in the file.

file = TorchFile.open(path)
file.content                              # dicts, lists, numbers and texts as they are
file.array(file.content["obs"], "obs")    # a tensor, or a numpy array: memory-mapped
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import head_of, open_regular, stand_in
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
    """The content of a `.pt` file.

    content  the saved object. `array` gives the numbers of a tensor or numpy array in it. Any
             other object that is not a plain value is an `Inert`, which does nothing
    """

    content: object
    _archive: TorchArchive

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Memory-map the file and read its pickle as data.

        Raises:
            RefusedInput: PICKLED_OBJECTS, the pickle would run code; or the file is damaged, or is
                not a file of `torch.save`.
        """
        with open_regular(path):
            pass
        try:
            archive = TorchArchive.open(path)
        except (IntegrityError, UsageError) as error:
            raise _refusal(path, error) from None
        return cls(archive.content, archive)

    def array(self, value: object, name: str) -> NDArray[Any]:
        """The numbers of a tensor or a numpy array. A tensor is a view of the mapped file.

        A tensor that was permuted before it was saved has its numbers in another order in the file.

        Args:
            value: a part of `content`.
            name: the name of the value in error messages.

        Raises:
            RefusedInput: LOG_TYPE, the value is not a tensor or array of plain numbers; or the file
                is damaged.
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
        if dtype is None or len(tensor.shape) > MOST_DIMENSIONS:
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"{name} is a {tensor.storage.kind} of shape {tensor.shape}, expected plain numbers",
            )
        try:
            values = self._archive.member(f"data/{tensor.storage.key}")
        except IntegrityError as error:
            raise _refusal(self._archive.path, error) from None
        stored: NDArray[Any] = np.frombuffer(values, dtype, len(values) // dtype.itemsize)
        if not tensor.is_within(len(stored)):
            raise RefusedInput(
                Reason.CORRUPT, f"{name} of shape {tensor.shape} is larger than its storage"
            )
        if tensor.repeats:
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"{name} of shape {tensor.shape} and strides {tensor.strides} repeats its numbers: "
                "save it again after .contiguous()",
            )
        stored.flags.writeable = False
        return tensor.of(stored)


def looks_saved_by_torch(path: Path) -> bool:
    """Whether the first bytes show a zip archive whose first member is a pickle of torch."""
    try:
        head = head_of(path, HEAD_BYTES)
    except RefusedInput:
        return False
    return head[:4] == b"PK\x03\x04" and b"/data.pkl" in head


def _numpy_array(value: Inert) -> NDArray[Any] | None:
    """The array that numpy would build from the pickle; None if it is not one of plain numbers."""
    match value.state:
        case (
            int(),
            tuple(shape),
            Inert(
                name=kind, arguments=(str(code), *_), state=(int(), "<" | ">" | "|" as order, *_)
            ),
            bool(fortran),
            data,
        ):
            if kind.last != "dtype" or not isinstance(data, bytes):
                return None
            if code[:1] not in "fiub" or not code[1:].isdigit() or len(code) > 3:
                return None
            try:
                array = np.frombuffer(data, np.dtype(f"{order}{code}"))
                return array.reshape(shape, order="F" if fortran else "C")
            except (TypeError, ValueError):
                return None
    return None


def _refusal(path: Path, error: Exception) -> RefusedInput:
    message = str(error).removeprefix(f"{path}: ")
    if (why := stand_in(path)) is not None and not why.startswith("empty"):
        return RefusedInput(Reason.NOT_DOWNLOADED, why)
    unsafe = "unsafe" in message or "pickle calls" in message or "bare pickle" in message
    for word, reason in (("empty", Reason.EMPTY_FILE), ("truncated", Reason.TRUNCATED)):
        if message.startswith(word):
            return RefusedInput(reason, message)
    return RefusedInput(Reason.PICKLED_OBJECTS if unsafe else Reason.CORRUPT, message)
