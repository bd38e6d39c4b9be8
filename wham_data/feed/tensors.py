"""The only module of the feed that uses torch: the DataLoader interface and batch conversion.

It can be imported without torch; only `to_torch` then raises an error.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

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
"""Field name -> array; `WindowDataset` describes the fields."""


class WholeBatch(dict[str, Any]):
    """A batch that the dataset has made. It warns if a loader puts it into a batch once more."""

    def __copy__(self) -> WholeBatch:
        """A copy. torch makes one of each batch, and the general way takes 3 microseconds more."""
        return WholeBatch(self)

    def update(self, *values: Any, **more: Any) -> None:
        """As of a dictionary. torch's collate functions call it on a copy of the first batch."""
        super().update(*values, **more)
        if np.ndim(self.get("position", ())) == 2:
            shape = list(np.shape(self["window"]))
            warnings.warn(
                f"the dataset makes batches, and the DataLoader puts {shape[0]} of them into a batch again: "
                f"its arrays are {shape} windows; give batch_size=None to the DataLoader",
                stacklevel=2,
            )


class Worker(NamedTuple):
    """A DataLoader worker.

    number   its number, from 0
    workers  number of workers
    main     id of the process that it works for
    seed     a random number that is the same for all workers that were started together
    """

    number: int
    workers: int
    main: int
    seed: int


def this_worker() -> Worker | None:
    """The DataLoader worker that this process is; None if it is none."""
    if Stream is object:
        return None
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    if info is None:
        return None
    main = multiprocessing.parent_process()
    return Worker(info.id, info.num_workers, main.pid or 0 if main else 0, info.seed - info.id)


def to_torch(
    batch: Mapping[str, Any], device: str | torch.device = "cpu", *, widen: bool = True
) -> dict[str, torch.Tensor]:
    """Convert a batch to tensors on a device.

    Integers are copied to the device in their own type (tokens in 16 bits) and are widened to int64
    there, because an embedding layer expects int64.

    Args:
        batch: field name -> array or tensor of any shape.
        device: device of the result, as torch names it ("cpu", "cuda:0").
        widen: convert integers to int64; False keeps their types.

    Returns:
        field name -> tensor of the same shape. On the CPU a tensor whose type does not change shares
        memory with its array.

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
        is_integer = widen and not (tensor.is_floating_point() or tensor.dtype == torch.bool)
        tensors[name] = tensor.to(torch.int64) if is_integer else tensor
    return tensors


def to_numpy(batch: Mapping[str, Any]) -> Batch:
    """Convert a batch to numpy arrays of the same shapes and types.

    Tensors on the CPU share their memory with the arrays; tensors on another device are copied.
    """
    return {
        name: values.cpu().numpy() if hasattr(values, "cpu") else np.asarray(values)
        for name, values in batch.items()
    }
