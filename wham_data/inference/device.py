"""What this machine has to run models on."""

from __future__ import annotations


def gpu_name() -> str | None:
    """The first CUDA device, with its memory; None where there is none, or no torch."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
