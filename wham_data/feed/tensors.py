"""The edge to torch: what a DataLoader asks of a dataset, and batches as tensors or arrays.

Nothing else of the feed knows torch, and this works without it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import MissingPartError

if TYPE_CHECKING:
    import torch
    from torch.utils.data import IterableDataset

    Stream = IterableDataset[dict[str, Any]]
else:
    try:
        from torch.utils.data import IterableDataset as Stream
    except ImportError:
        Stream = object

Batch = dict[str, NDArray[Any]]
"""Arrays by name; see `WindowDataset`."""


def this_worker() -> tuple[int, int] | None:
    """Number of this DataLoader worker and how many there are; None in any other process."""
    if Stream is object:
        return None
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return None if info is None else (info.id, info.num_workers)


def to_torch(
    batch: Mapping[str, Any], device: str | torch.device = "cpu", *, widen: bool = True
) -> dict[str, torch.Tensor]:
    """A batch as tensors on a device.

    Integers travel as they are, tokens in 16 bits, and are widened there to int64, which is what an
    embedding looks up.

    Args:
        batch: arrays or tensors.
        widen: False leaves integers as they are.

    Raises:
        MissingPartError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPartError("tensors need torch, which is not installed") from error
    tensors = {}
    for name, values in batch.items():
        tensor = torch.as_tensor(values).to(device, non_blocking=True)
        whole = widen and not (tensor.is_floating_point() or tensor.dtype == torch.bool)
        tensors[name] = tensor.to(torch.int64) if whole else tensor
    return tensors


def to_numpy(batch: Mapping[str, Any]) -> Batch:
    """A batch as arrays, sharing memory with tensors that are on the CPU."""
    return {
        name: values.cpu().numpy() if hasattr(values, "cpu") else np.asarray(values)
        for name, values in batch.items()
    }
