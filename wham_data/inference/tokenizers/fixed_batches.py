"""Passes of one fixed shape on an accelerator, with buffers that are kept.

    items ──> one of two pinned buffers ──> one buffer on the device ──> model ──> results
              the host fills the other one   (the copy does not wait)              stay on the device

Only the last batch is filled up with zeros. The host waits for the device once for every
`PIECE_BYTES` of results, when it fetches them, and otherwise only if it is two batches ahead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

PIECE_BYTES: Final = 64 << 20
"""What results of the default size take of the device's memory."""


@dataclass(frozen=True, slots=True)
class _Buffers:
    """The buffers for items of one shape, each [batch, *item].

    host    on the CPU, used in turn; pinned for CUDA
    device  what the model reads
    copied  for each of `host`, set when its content has left it; None: nothing is copied later
    """

    host: tuple[Tensor, Tensor]
    device: Tensor
    copied: tuple[torch.cuda.Event, torch.cuda.Event] | None


class FixedBatches:
    """Runs models over any number of items, always `batch` at a time.

    Args:
        device: where the models are.
        batch: items in a pass.
        piece_bytes: results of about so many bytes are fetched from the device together.

    Attributes:
        size: items in a pass.
    """

    def __init__(self, device: torch.device, batch: int, piece_bytes: int = PIECE_BYTES) -> None:
        self._device = device
        self.size = batch
        self._piece_bytes = piece_bytes
        self._kept: dict[tuple[torch.Size, torch.dtype], _Buffers] = {}
        self._in_use = threading.Lock()

    def run(self, model: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """`model` over the items.

        Args:
            model: from [batch, ...] on the device to [batch, ...], row by row. Its result must not
                share memory with what it is given.
            items: [N, ...] on the CPU, N > 0.

        Returns:
            [N, ...] on the CPU.
        """
        with self._in_use, torch.inference_mode():
            pieces = list(self._pieces(model, items))
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _pieces(self, model: Callable[[Tensor], Tensor], items: Tensor) -> Iterator[Tensor]:
        """The results on the CPU, a piece or one batch at a time."""
        buffers = self._buffers(items)
        results: list[Tensor] = []
        for number, part in enumerate(torch.split(items, self.size)):
            results.append(model(self._placed(buffers, number % 2, part))[: len(part)])
            if sum(each.nbytes for each in results) >= self._piece_bytes:
                yield torch.cat(results).cpu()
                results.clear()
        if results:
            yield torch.cat(results).cpu()

    def _placed(self, buffers: _Buffers, turn: int, part: Tensor) -> Tensor:
        """A batch on the device, filled up with zeros."""
        host = buffers.host[turn]
        if buffers.copied is not None:
            buffers.copied[turn].synchronize()
        host[: len(part)].copy_(part)
        if len(part) < self.size:
            host[len(part) :].zero_()
        buffers.device.copy_(host, non_blocking=True)
        if buffers.copied is not None:
            buffers.copied[turn].record(torch.cuda.current_stream(self._device))
        return buffers.device

    def _buffers(self, items: Tensor) -> _Buffers:
        """The buffers for such items, made once."""
        shape, dtype = items.shape[1:], items.dtype
        if (shape, dtype) not in self._kept:
            on_gpu = self._device.type == "cuda"
            size = (self.size, *shape)
            first, second = (torch.empty(size, dtype=dtype, pin_memory=on_gpu) for _ in range(2))
            event: Any = torch.cuda.Event  # not typed
            events = (event(), event()) if on_gpu else None
            device = torch.empty(size, dtype=dtype, device=self._device)
            self._kept[shape, dtype] = _Buffers((first, second), device, events)
        return self._kept[shape, dtype]
