"""Find and choose the device on which models run."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

from wham_data.schemas.errors import MissingPartError, UsageError

if TYPE_CHECKING:
    import torch


def gpu_name() -> str | None:
    """Name and memory of the first CUDA device; None if there is none, or no torch."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"


def gpu_count() -> int:
    """How many CUDA devices torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class _Utilization(ctypes.Structure):
    """`nvmlUtilization_t`: percent of the last sample period in which the GPU, and its memory, worked."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@cache
def _nvml() -> ctypes.CDLL | None:
    """NVML, which comes with NVIDIA's driver, ready for calls; None if there is none."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return library if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


def gpu_busy() -> dict[int, float]:
    """The share of the last moment, at most a second, in which each NVIDIA GPU was working.

    It is that of all programs on this machine together. Torch is not needed.

    Returns:
        Number of the GPU, as nvidia-smi has it -> share, 0 to 1. Without those that do not know it
        (as slices of a GPU, "MIG"); empty without a GPU of NVIDIA.
    """
    library, count = _nvml(), ctypes.c_uint()
    if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return {}
    busy: dict[int, float] = {}
    for number in range(count.value):
        device, found = ctypes.c_void_p(), _Utilization()
        if (
            library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) == 0
            and library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(found)) == 0
        ):
            busy[number] = found.gpu / 100
    return busy


def choose_device(name: str) -> torch.device:
    """The device of this name.

    Args:
        name: "cpu", "cuda" (the first GPU), "cuda:N", or "auto": a GPU if there is one.

    Raises:
        MissingPartError: `name` is a GPU that is not there.
        UsageError: `name` is not the name of a device.
    """
    import torch

    kind, _, index = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    usable = gpu_count()
    if kind == "cuda" and int(index or 0) >= usable:
        raise MissingPartError(
            f"device {name!r}: {usable} CUDA devices are usable here. "
            "Use --device cpu, or a torch built for this machine's GPU."
        )
    if name == "cpu" or (name == "auto" and not usable):
        return torch.device("cpu")
    return torch.device("cuda", int(index or 0))
