"""Decoders of passes of fixed shapes that no session uses, kept for the next sessions of that size.

A decoder has a cache of keys and values, a gigabyte or more for one dream of a large model, and its
recorded passes, each of which took a part of a second. A run of many dreams begins one session after
another, all of the same size; it needs one decoder.
"""

from __future__ import annotations

import threading

import torch

from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.static_decode import StaticDecoder

MOST_KEPT = 2
"""So many decoders are kept at most: a run's full batches, and its last one."""

_MOST_OF_MEMORY = 0.5
"""While torch holds more than this share of a GPU's memory, no decoder is kept beside a new one."""


class KeptDecoders:
    """The decoders of one model that no session uses. Threads may share it.

    Attributes:
        built: number of decoders that were made, so far.
    """

    def __init__(self) -> None:
        self.built = 0
        self._idle: list[StaticDecoder] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[KeptDecoders], tuple[()]]:
        return KeptDecoders, ()  # a copy of the model, or one in another process, keeps its own

    def take(self, gpt: GPT, rows: int, positions: int, *, fused: bool = False) -> StaticDecoder:
        """A decoder that is the caller's alone until it is given back; its cache holds old values."""
        with self._lock:
            for decoder in reversed(self._idle):
                if decoder.fits(gpt, rows, positions, fused=fused):
                    self._idle.remove(decoder)
                    return decoder
            if _crowded(gpt.lm_head.weight.device):
                self._idle.clear()
            self.built += 1
        return StaticDecoder(gpt, rows, positions, fused=fused)

    def give_back(self, decoder: StaticDecoder) -> None:
        """Keep a decoder that its session no longer uses; beyond `MOST_KEPT`, the oldest is freed."""
        with self._lock:
            self._idle.append(decoder)
            del self._idle[:-MOST_KEPT]

    def let_go(self) -> None:
        """Free all decoders that are kept."""
        with self._lock:
            self._idle.clear()


def _crowded(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.memory_allocated(device) > _MOST_OF_MEMORY * total
