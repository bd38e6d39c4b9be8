"""Several processes that train one model: started by `torchrun`, one for each GPU.

Each process has the whole model and takes its part of every batch, and the gradients are averaged before
each step of AdamW (torch's DistributedDataParallel). So all processes have the same weights, and the
batches and their order are those of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wham_data.schemas.errors import UsageError

SET_BY_TORCHRUN: Final = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE: Final = timedelta(hours=1)
"""How long the others wait while the first one writes and judges a checkpoint."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train a model.

    number  of this process, from 0
    count   of all processes; 1: there is only this one
    """

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, judges and reports."""
        return self.number == 0

    def part(self, batch: int) -> slice:
        """The rows of a batch that are for this process.

        Raises:
            UsageError: the batch cannot be divided equally.
        """
        if batch % self.count:
            raise UsageError(
                f"a batch of {batch} cannot be divided equally among {self.count} processes: use a "
                f"--batch-size that is a multiple of {self.count}"
            )
        each = batch // self.count
        return slice(self.number * each, (self.number + 1) * each)

    def together(self, loss: nn.Module) -> nn.Module:
        """A module that averages the gradients of all processes when its result is derived."""
        return loss if self.count == 1 else DistributedDataParallel(loss)

    def mean(self, loss: Tensor) -> Tensor:
        """The mean of a scalar over all processes, on its device."""
        if self.count == 1:
            return loss
        total = loss / self.count
        distributed.all_reduce(total)
        return total

    def same(self, text: str) -> str:
        """The text that the first process has, in all of them. They wait for each other."""
        if self.count == 1:
            return text
        given = text.encode() if self.first else b""
        length = torch.tensor(len(given))
        distributed.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.first:
            content = torch.frombuffer(bytearray(given), dtype=torch.uint8)
        distributed.broadcast(content, 0)
        return content.numpy().tobytes().decode()


ALONE: Final = Ranks()


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that `torchrun` has started, until the end of the block.

    Args:
        device: as on the command line. For "auto" and "cuda" each process on a machine gets a GPU of
            its own.

    Yields:
        This process among them, and the name of its device; without `torchrun` only this process.

    Raises:
        UsageError: there are several processes and the device is one GPU.
    """
    if any(name not in os.environ for name in SET_BY_TORCHRUN):
        yield ALONE, device
        return
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if device.startswith("cuda:") and ranks.count > 1:
        raise UsageError(
            f"--device {device}: torchrun gives each process a GPU of its own. Use --device cuda, "
            "and CUDA_VISIBLE_DEVICES to choose among the GPUs"
        )
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        if int(os.environ["LOCAL_RANK"]) < torch.cuda.device_count():
            torch.cuda.set_device(device)
    # Text goes from CPU to CPU, so it does not wait for what the GPU has to do.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield ranks, device
    except UsageError:
        if not ranks.first:  # the first one says it
            raise SystemExit(UsageError.exit_code) from None
        raise
    finally:
        distributed.destroy_process_group()
