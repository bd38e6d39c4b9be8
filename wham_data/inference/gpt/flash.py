"""The package flash-attn, where it can be used: it has what is called here, and its kernels run on this GPU.

Several packages have the module `flash_attn`. Version 2 has both functions; version 4 has neither, and comes
as a folder of that name. A wheel may also lack the kernels of a GPU, or be built for another torch: this
shows when one is called. So both functions are called once, before anything relies on them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from wham_data.inference.device.failures import first_line, out_of_memory

_NAMES: Final = ("flash_attn_func", "flash_attn_with_kvcache")
_HEAD: Final = 64


@dataclass(frozen=True, slots=True)
class FlashAttn:
    """The two functions of flash-attn.

    whole   `flash_attn_func`: attention of the last tokens of sequences over all their tokens
    cached  `flash_attn_with_kvcache`: the same, each sequence with its own number of tokens
    """

    whole: Callable[..., Any]
    cached: Callable[..., Any]


def flash_attn(device: torch.device) -> FlashAttn | None:
    """flash-attn, if it can be used on this device; `flash_problem` tells why it cannot."""
    found = _found(device)
    return found if isinstance(found, FlashAttn) else None


def flash_problem(device: torch.device) -> str | None:
    """Why flash-attn is not used on this device; None: it is, in half precision."""
    found = _found(device)
    return found if isinstance(found, str) else None


def functions_of(package: Any) -> FlashAttn | str:
    """The functions of a package that is called `flash_attn`, or what it lacks."""
    lacks = [name for name in _NAMES if not callable(getattr(package, name, None))]
    if lacks:
        version = getattr(package, "__version__", None)
        named = f"flash_attn {version}" if version else "the package flash_attn here"
        return f"{named} has no {' and no '.join(lacks)}; expected flash-attn 2"
    return FlashAttn(*(getattr(package, name) for name in _NAMES))


def tried(found: FlashAttn, device: torch.device) -> FlashAttn | str:
    """The functions, if they compute on this device what torch does; else why they are not used."""
    query, keys, values = torch.randn(
        3, 1, 16, 2, _HEAD, generator=torch.Generator().manual_seed(0)
    ).to(device, torch.bfloat16)
    lengths = torch.full((1,), 16, dtype=torch.int32, device=device)
    try:
        mixed = (
            found.whole(query, keys, values, causal=True),
            found.cached(query, keys, values, cache_seqlens=lengths, causal=True),
        )
        q, k, v = (each.float().transpose(1, 2) for each in (query, keys, values))
        expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        same = all(torch.allclose(each.float(), expected, atol=0.05) for each in mixed)
    except Exception as error:  # whatever a compiled package raises
        if out_of_memory(error):
            raise
        return f"a trial of flash-attn failed: {first_line(error)}"
    return found if same else "a trial of flash-attn gave other results than torch"


@functools.cache
def _found(device: torch.device) -> FlashAttn | str:
    if device.type != "cuda":
        return "flash-attn is for GPUs"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "flash-attn needs a GPU of the Ampere generation or a newer one"
    found = imported()
    if isinstance(found, str):
        return found
    with torch.inference_mode():
        return tried(found, device)


def imported() -> FlashAttn | str:
    """The functions of the package that is installed, or why there are none."""
    try:
        package = importlib.import_module("flash_attn")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "flash_attn"
        return "flash-attn is not installed" if missing else f"flash-attn: {first_line(error)}"
    return functions_of(package)
