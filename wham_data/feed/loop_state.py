"""Where the next loop over a dataset begins, in memory shared by the main process and its workers."""

from __future__ import annotations

from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawArray
from typing import Any, Final

from wham_data.feed.batches import Place

_NO_END: Final = -1


class LoopState:
    """Four numbers in memory that is shared with DataLoader workers, whether forked or spawned.

    Because the memory is shared, `set_epoch` also reaches workers that are already running. Pickling
    it for any purpose other than starting a worker makes an independent copy.
    """

    def __init__(self) -> None:
        self._cells = RawArray("q", [0, 0, _NO_END, 0])

    def begin_at(self, place: Place, until: int | None = None) -> None:
        """Set where the next loop begins and ends.

        Args:
            place: where it begins.
            until: the epoch before which it ends; None: after the dataset's number of epochs.
        """
        self._cells[:] = [*place, _NO_END if until is None else until, 0]

    @property
    def start(self) -> tuple[Place, int | None]:
        """The `place` and `until` of the last call of `begin_at`."""
        epoch, consumed, until, _ = self._cells
        return Place(epoch, consumed), None if until == _NO_END else until

    @property
    def in_workers(self) -> bool:
        """Whether a worker has begun to read since the last call of `begin_at`."""
        return bool(self._cells[3])

    def begun_in_worker(self) -> None:
        """Record that a worker has begun to read; the main process sees it in `in_workers`."""
        self._cells[3] = 1

    def __getstate__(self) -> dict[str, Any]:
        shared = get_spawning_popen() is not None
        return {"_cells": self._cells if shared else list(self._cells)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cells = state["_cells"]
        self._cells = RawArray("q", cells) if isinstance(cells, list) else cells
