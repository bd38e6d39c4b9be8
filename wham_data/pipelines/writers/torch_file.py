"""Writes `.pt` files that `torch.load` reads, without torch and without holding them in memory.

    write_torch_file(path, {"obs": Tensor((600, 3, 64, 64), np.dtype("u1"), frames), "info": {}})

The pickle uses a few opcodes of protocol 2. The only names in it are those that torch itself uses for
tensors (which `weights_only=True` allows), numpy's array and `Counter`. Equal content gives equal
files.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.torch_file import DTYPES

ROOT: Final = "archive"
_KINDS: Final = {dtype: kind for kind, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor whose values are given in pieces.

    pieces  arrays in the order of the file; together they have the shape `shape`
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Iterable[NDArray[Any]]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Tensor:
        """An array as a tensor."""
        return cls(values.shape, values.dtype, (values,))


def write_torch_file(path: Path, content: Mapping[str, object]) -> None:
    """Write a file that `torch.load` reads as a dict.

    Args:
        path: the file to make.
        content: values by name: tensors, numpy arrays of int64, counters, dicts, texts and numbers.
    """
    _write(path, content)


def write_torch_tensor(path: Path, tensor: Tensor) -> None:
    """Write a file that `torch.load` reads as a tensor."""
    _write(path, tensor)


def _write(path: Path, content: object) -> None:
    tensors: list[Tensor] = []
    pickled = b"\x80\x02" + _pickled(content, tensors) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member("data.pkl"), pickled)
        archive.writestr(_member("byteorder"), b"little")
        for number, tensor in enumerate(tensors):
            with archive.open(_member(f"data/{number}"), "w", force_zip64=True) as member:
                for piece in tensor.pieces:
                    member.write(np.ascontiguousarray(piece, tensor.dtype).tobytes())
        archive.writestr(_member("version"), b"3\n")


def _member(name: str) -> zipfile.ZipInfo:
    """A member with a fixed date, so that equal content gives equal files."""
    return zipfile.ZipInfo(f"{ROOT}/{name}")


def _pickled(value: object, tensors: list[Tensor]) -> bytes:
    """The opcodes that leave `value` on the stack. Its tensors are appended to `tensors`."""
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return _whole(value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode("utf-8", "backslashreplace")
            return b"X" + struct.pack("<I", len(text)) + text
        case None:
            return b"N"
        case tuple():
            return b"(" + b"".join(_pickled(each, tensors) for each in value) + b"t"
        case Counter():
            return _call("collections", "Counter", _pickled((dict(value),), tensors))
        case Mapping():
            pairs = (_pickled(each, tensors) for pair in value.items() for each in pair)
            return b"}(" + b"".join(pairs) + b"u"
        case Tensor():
            return _tensor(value, tensors)
        case np.ndarray():
            return _array(value, tensors)
    raise TypeError(f"{type(value).__name__} has no place in a .pt file")


def _whole(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _call(module: str, name: str, arguments: bytes) -> bytes:
    return _name(module, name) + arguments + b"R"


def _tensor(tensor: Tensor, tensors: list[Tensor]) -> bytes:
    count = math.prod(tensor.shape)
    strides = tuple(math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
    where = (
        b"("
        + _pickled("storage", tensors)
        + _name("torch", _KINDS[tensor.dtype])
        + b"".join(_pickled(each, tensors) for each in (str(len(tensors)), "cpu", count))
        + b"tQ"
    )
    tensors.append(tensor)
    rest = b"".join(_pickled(each, tensors) for each in (0, tensor.shape, strides, False))
    hooks = _call("collections", "OrderedDict", b")")
    return _call("torch._utils", "_rebuild_tensor_v2", b"(" + where + rest + hooks + b"t")


def _array(array: NDArray[Any], tensors: list[Tensor]) -> bytes:
    """A numpy array. The names in it exist in every release of numpy."""
    values = np.ascontiguousarray(array)
    empty = _call(
        "numpy.core.multiarray",
        "_reconstruct",
        b"(" + _name("numpy", "ndarray") + _pickled((0,), tensors) + _bytes(b"b") + b"t",
    )
    code = values.dtype.str.lstrip("<|")
    dtype = _call("numpy", "dtype", _pickled((code, False, True), tensors))
    dtype += _pickled((3, "<", None, None, None, -1, -1, 0), tensors) + b"b"
    state = _pickled(1, tensors) + _pickled(values.shape, tensors) + dtype
    return empty + b"(" + state + b"\x89" + _bytes(values.tobytes()) + b"tb"


def _bytes(content: bytes) -> bytes:
    """Bytes in the form of protocol 2."""
    return _call("_codecs", "encode", _pickled((content.decode("latin1"), "latin1"), []))
