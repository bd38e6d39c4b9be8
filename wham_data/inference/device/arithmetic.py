"""Passes of a tokenizer or a world model compute in IEEE float32, whatever the caller has set in torch.

Torch can compute float32 products in fewer bits: in TF32 on NVIDIA GPUs (10 bits; convolutions use it unless
told otherwise), in bfloat16 on some CPUs, or in what `torch.autocast` asks for. The tokens of a frame would
then depend on a setting of the program around, but a fingerprint stands for the same tokens everywhere. So
every pass runs inside `ieee_float32`. A faster arithmetic needs an entry of its own in `ARITHMETIC`
(`tokenizers/config.py`), so that the fingerprint names it.

Torch keeps these settings for the whole process, not per thread. While any thread is in a pass they are
pinned, and the pass that ends last gives them back. Whatever else the process computes at that moment is
exact too, and slower. `torch.autocast` is per thread, and is switched off in the thread of the pass alone.

Torch has a tree of settings: a place without a setting of its own follows the one above it. It is pinned
from the top down, and only where it does not follow yet: a convolution's first setting, for example, cannot
be given back once another was made. So while a pass runs, `torch.backends.cudnn.conv.fp32_precision` is
"ieee", but torch refuses to read the older `torch.backends.cudnn.allow_tf32`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

IEEE: Final = "ieee"
_torch: Any = torch._C  # the settings of oneDNN as a whole have no working public name
_HAS_TREE: Final = hasattr(_torch, "_get_fp32_precision_getter")  # from torch 2.9
TREE: Final = (
    ("generic", "all"),
    ("cuda", "all"),
    ("mkldnn", "all"),
    *((backend, op) for backend in ("cuda", "mkldnn") for op in ("matmul", "conv", "rnn")),
)
"""Torch's names of the places that have a precision, each after the one that it follows."""
_SWITCHES: Final = ("benchmark",) if _HAS_TREE else ("benchmark", "allow_tf32")
"""What is switched off in `torch.backends.cudnn`. "benchmark" chooses by timing: not the same each time."""
_MATMULS: Final = (("cuda", "matmul"), ("mkldnn", "matmul"))
"""The places that `torch.set_float32_matmul_precision` sets."""
_AUTOCAST: Final = ("cpu", "cuda")


def precision(place: tuple[str, str]) -> str:
    """The precision in force at a place of the tree: "none", "ieee", "tf32" or "bf16"."""
    return str(_torch._get_fp32_precision_getter(*place))


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute in IEEE float32 inside this block, which may be nested. It is a decorator too."""
    cast = [device for device in _AUTOCAST if torch.is_autocast_enabled(device)]
    _pin.enter()
    try:
        for device in cast:
            torch.set_autocast_enabled(device, False)
        yield
    finally:
        for device in cast:
            torch.set_autocast_enabled(device, True)
        _pin.leave()


class _Pin:
    """The settings of the process while passes run: how many passes, and what the settings were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes = 0
        self._matmul: str | None = None
        self._switched: set[str] = set()
        self._before: dict[tuple[str, str], str] = {}

    def enter(self) -> None:
        """Pin the settings. Those that another thread has changed since the last pass are pinned too."""
        with self._lock:
            self._passes += 1
            matmuls = {place: precision(place) for place in _MATMULS if _HAS_TREE}
            for place in TREE if _HAS_TREE else ():
                if (found := precision(place)) != IEEE:
                    self._before[place] = found
                    _torch._set_fp32_precision_setter(*place, IEEE)
            if (matmul := _float32_matmul()) != "highest":
                # Else torch finds that its two interfaces disagree, and raises. It sets `_MATMULS` too.
                torch.set_float32_matmul_precision("highest")
                self._matmul = matmul
                for place, found in matmuls.items():
                    self._before.setdefault(place, IEEE if found == IEEE else "none")
            for switch in _SWITCHES:
                if getattr(torch.backends.cudnn, switch):
                    self._switched.add(switch)
                    setattr(torch.backends.cudnn, switch, False)

    def leave(self) -> None:
        """At the end of the last pass, give the settings back, but not over newer ones."""
        with self._lock:
            self._passes -= 1
            if self._passes:
                return
            if self._matmul is not None:
                torch.set_float32_matmul_precision(self._matmul)
            for place, found in reversed(self._before.items()):
                if precision(place) == IEEE or (self._matmul and place in _MATMULS):
                    _torch._set_fp32_precision_setter(*place, found)
            for switch in self._switched:
                setattr(torch.backends.cudnn, switch, True)
            self._matmul = None
            self._switched.clear()
            self._before.clear()


def _float32_matmul() -> str:
    """`torch.get_float32_matmul_precision()`, which raises where the newer settings contradict it."""
    for own in (None, IEEE, "bf16", "tf32"):  # one of them agrees
        try:
            if own is not None:
                _torch._set_fp32_precision_setter("mkldnn", "matmul", own)
            return torch.get_float32_matmul_precision()
        except RuntimeError:
            continue
        finally:
            if own is not None:
                _torch._set_fp32_precision_setter("mkldnn", "matmul", IEEE)
    return "highest"


_pin = _Pin()
