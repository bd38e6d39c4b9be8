"""Find and choose the device on which models run."""

from __future__ import annotations

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
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= usable:
        raise MissingPartError(
            f"device {name!r}: {usable} CUDA devices are usable here. "
            "Use --device cpu, or a torch built for this machine's GPU."
        )
    if name == "cpu" or (name == "auto" and not usable):
        return torch.device("cpu")
    return torch.device("cuda", int(index or 0))
