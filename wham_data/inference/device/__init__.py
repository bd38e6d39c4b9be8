"""Find and choose the device on which models run.

what the driver lists   `gpus_of_driver`, without torch
what torch can use      `usable_gpus`
why it cannot           `gpu_problem`
which one is meant      `choose_device`
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from wham_data.inference.device.failures import device_failure, first_line, out_of_memory
from wham_data.schemas.errors import MissingPartError, UsageError

if TYPE_CHECKING:
    import torch

HIDDEN: Final = "CUDA_VISIBLE_DEVICES"
"""The variable that hides GPUs from the programs of NVIDIA."""
_LONGEST_NAME: Final = 96


def gpu_count() -> int:
    """How many CUDA devices torch can use here; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def usable_gpus() -> tuple[str, ...]:
    """Name and memory of each CUDA device that torch can use, as "NVIDIA H200, 140 GiB"."""
    names = []
    for number in range(gpu_count()):
        import torch

        found = torch.cuda.get_device_properties(number)
        names.append(f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    return tuple(names)


def gpu_problem() -> str | None:
    """Why torch cannot use the first GPU of this machine, or that it has none; None: it can.

    If torch finds a GPU, it computes something there, because torch may have been built for others.
    """
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if torch.cuda.is_available():
        return _trial()
    built_for = torch.version.cuda or torch.version.hip
    return why_unusable(torch.__version__, built_for, os.environ.get(HIDDEN), _why_no_cuda())


def why_unusable(version: str, built_for: str | None, visible: str | None, failure: str) -> str:
    """Why torch finds no GPU.

    Args:
        version: of torch.
        built_for: version of CUDA or ROCm for which torch was built; None: for the CPU alone.
        visible: value of CUDA_VISIBLE_DEVICES; None: it is not set.
        failure: what torch says if it is told to use a GPU.
    """
    if built_for is None:
        return (
            f"torch {version} is built for the CPU alone. Install a torch for CUDA "
            "(pytorch.org/get-started)"
        )
    if visible is not None and visible.strip() in ("", "-1"):
        return f"the variable {HIDDEN} is {visible!r}, which hides every GPU. Unset it"
    return f"{failure}. Torch {version} is built for CUDA {built_for}; nvidia-smi shows the driver's version"


def gpus_here() -> str:
    """What GPUs are here, in a sentence without its full stop, for a person."""
    usable = usable_gpus()
    if usable:
        named = (f"cuda:{number} ({name})" for number, name in enumerate(usable))
        return f"Here: {', '.join(named)}"
    if gpus_of_driver():
        return f"A GPU is there, but torch cannot use it: {gpu_problem()}"
    return "Here is no GPU"


def cpu_note(device: str) -> str | None:
    """Why "auto" is the CPU although this machine has a GPU; None: it has none, or torch can use it."""
    if device != "auto" or not gpus_of_driver() or (problem := gpu_problem()) is None:
        return None
    return f"--device auto: a GPU is there, but torch cannot use it, so the CPU is used: {problem}"


@cache
def _trial() -> str | None:
    """Why the first GPU does not compute, in torch's words; None: it does, or is only full."""
    import torch

    try:
        torch.ones(2, device="cuda").sum().item()
    except Exception as error:
        if out_of_memory(error) or device_failure(error) is None:
            return None
        return first_line(error)
    return None


def _why_no_cuda() -> str:
    import torch

    starts: Any = torch.cuda.init
    try:
        starts()
    except (RuntimeError, AssertionError) as error:
        return first_line(error)
    return "torch finds no CUDA device"


def gpus_of_driver() -> tuple[str, ...]:
    """Names of the GPUs that NVIDIA's driver lists, whether torch can use them or not."""
    names = []
    library = _nvml()
    for _, device in _devices():
        name = ctypes.create_string_buffer(_LONGEST_NAME)
        known = library is not None and library.nvmlDeviceGetName(device, name, _LONGEST_NAME) == 0
        names.append(name.value.decode(errors="replace") if known else "a GPU")
    return tuple(names)


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
    library = _nvml()
    busy: dict[int, float] = {}
    for number, device in _devices():
        found = _Utilization()
        if library and library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(found)) == 0:
            busy[number] = found.gpu / 100
    return busy


def _devices() -> Iterator[tuple[int, ctypes.c_void_p]]:
    """NVML's handles of the GPUs that it can open, by number."""
    library, count = _nvml(), ctypes.c_uint()
    if library is None or library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return
    for number in range(count.value):
        device = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) == 0:
            yield number, device


def parse_device(name: str) -> tuple[str, int | None]:
    """Kind and number of a device: ("auto", None), ("cpu", None), ("cuda", None) or ("cuda", N).

    Raises:
        UsageError: `name` is not the name of a device.
    """
    kind, colon, number = name.partition(":")
    if name in ("auto", "cpu", "cuda"):
        return name, None
    if kind == "cuda" and colon and number.isascii() and number.isdecimal():
        return kind, int(number)
    raise UsageError(f"device {name[:40]!r}: expected auto, cpu, cuda or cuda:N. {gpus_here()}")


def choose_device(name: str) -> torch.device:
    """The device of this name.

    Args:
        name: "cpu", "cuda" (the first GPU), "cuda:N", or "auto": a GPU if there is one that torch can
            use. `cpu_note` tells why it is none.

    Raises:
        MissingPartError: `name` is a GPU that is not there.
        UsageError: `name` is not the name of a device.
    """
    import torch

    kind, number = parse_device(name)
    if kind == "cpu" or (kind == "auto" and gpu_problem() is not None):
        return torch.device("cpu")
    check_gpu(name)
    return torch.device("cuda", number or 0)


def check_gpu(name: str) -> None:
    """Refuse a GPU that is not there, without starting anything on one.

    Args:
        name: of a device, as for `choose_device`.

    Raises:
        MissingPartError, UsageError: as for `choose_device`.
    """
    kind, number = parse_device(name)
    if kind == "cuda" and (number or 0) >= gpu_count():
        raise MissingPartError(
            f"device {name!r} is not there. {gpus_here()}. Use --device cpu, or auto"
        )
