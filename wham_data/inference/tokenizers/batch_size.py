"""How many frames a pass on a GPU takes: fewer and fewer while they do not fit into its memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from wham_data.inference.device.failures import NO_ROOM, device_line, out_of_memory
from wham_data.schemas.errors import DeviceError

Result = TypeVar("Result")


class BatchSize:
    """The number of frames in a pass. It is halved where memory is full, and stays so.

    All passes of a call have one size, so what is made of a frame does not depend on its place. Passes of
    another size may split sums differently: where two ids are nearly as good, the other one may be chosen.

    Args:
        frames: to begin with.
        device: where passes run.
        what: is run, for messages.
    """

    def __init__(self, frames: int, device: torch.device, what: str) -> None:
        self._frames = frames
        self._device = device
        self._what = what

    def run(self, work: Callable[[int], Result]) -> Result:
        """The result of `work`, which is given the number of frames in a pass.

        Raises:
            DeviceError: there is not even room for a single frame, or the device fails.
        """
        while True:
            try:
                return work(self._frames)
            except Exception as error:
                if (full := out_of_memory(error)) is None:
                    line = device_line(error, f"{self._what} on {self._device}", NO_ROOM)
                    if line is None:
                        raise
                    raise DeviceError(line) from error
                if self._frames == 1:
                    raise DeviceError(
                        f"{self._what}: not even one frame fits into the memory of {self._device}. {NO_ROOM}"
                    ) from full
            # Only here: while the error is held, so is the memory of the pass.
            self._frames //= 2
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(
                f"{self._what}: the memory of {self._device} is full; from now on {self._frames} frames "
                "at a time. Ids that are nearly as good as another may differ from those of larger batches",
                RuntimeWarning,
                stacklevel=2,
            )
