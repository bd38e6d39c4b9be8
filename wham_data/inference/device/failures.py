"""A device whose memory is full, or that fails, told in one line: what was done there, and what to lower.

Torch raises `OutOfMemoryError` and `AcceleratorError`, and for some failures a plain `RuntimeError` whose
text alone tells what it is. What ends a recorded pass can raise another error on top, so the errors below
one are looked at too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from wham_data.schemas.errors import DeviceError, WhamDataError

_FULL: Final = re.compile(
    r"out of memory|_STATUS_ALLOC_FAILED|DefaultCPUAllocator: (can't allocate|not enough) memory"
)
_FAILED: Final = re.compile(
    r"CUDA (driver )?error|cuDNN error|CUDNN_STATUS_|CUBLAS_STATUS_|NCCL error|no kernel image|"
    r"No CUDA GPUs are available|Found no NVIDIA driver|not compiled with CUDA|device-side assert"
)
_MOST_ERRORS: Final = 20

NO_ROOM: Final = (
    "End other programs that use this device (nvidia-smi lists them), or use another --device"
)
"""What to do where a model does not fit."""


def out_of_memory(error: BaseException) -> BaseException | None:
    """The error that says that memory is full: this one or one below it; None if there is none."""
    return next((each for each in _below(error) if _is_full(each)), None)


def device_failure(error: BaseException) -> BaseException | None:
    """The error that says that a device has failed: this one or one below it; None if there is none."""
    return next((each for each in _below(error) if _is_failure(each)), None)


def device_line(error: BaseException, what: str, lower: str) -> str | None:
    """One line for an error of a device; None if it is none.

    Args:
        what: was being done, and where: "training on cuda:0".
        lower: what to do if memory is full, as a sentence.
    """
    if (full := out_of_memory(error)) is not None:
        return f"{what}: out of memory ({first_line(full)}). {lower}"
    if (failed := device_failure(error)) is not None:
        return (
            f"{what}: the device failed ({first_line(failed)}). Run the same command again; if it "
            "fails again, see whether nvidia-smi lists the GPU without errors, or use --device cpu"
        )
    return None


@contextmanager
def device_errors(what: str, lower: str) -> Iterator[None]:
    """Tell a full or failed device inside this block in one line. The arguments are as for `device_line`.

    Raises:
        DeviceError: the memory of a device is full, or it has failed.
    """
    try:
        yield
    except WhamDataError:
        raise
    except Exception as error:
        if (line := device_line(error, what, lower)) is None:
            raise
        raise DeviceError(line) from error


def _below(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST_ERRORS:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [below for below in (each.__cause__, each.__context__) if below is not None]


def _is_full(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


def _is_failure(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # not loaded: then no error is of torch
    accelerator = getattr(torch, "AcceleratorError", None)  # from torch 2.8
    if accelerator is not None and isinstance(error, accelerator):
        return True
    plain = isinstance(error, RuntimeError | AssertionError)
    return plain and _FAILED.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """What an error says in its first line; torch adds general advice in further ones."""
    text = str(error).strip().partition("\n")[0]
    return " ".join(text.split())[:200].rstrip(". ") or type(error).__name__
