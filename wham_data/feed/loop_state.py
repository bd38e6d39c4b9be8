"""Where the next loop over a dataset begins, in memory that the owning process and workers share."""

from __future__ import annotations

from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawArray
from typing import Any, Final

from wham_data.feed.batches import Place

_OPEN: Final = -1


class Progress:
    """Four numbers in memory that DataLoader workers share, forked or spawned.

    So `set_epoch` reaches workers that are running already. When it is pickled for anything but
    a worker, it becomes a copy.
    """

    def __init__(self) -> None:
        self._cells = RawArray("q", [0, 0, _OPEN, 0])

    def begin_at(self, place: Place, until: int | None = None) -> None:
        """Let the next loop begin at `place` and end before epoch `until`.

        Args:
            until: None: after as many epochs as the dataset says.
        """
        self._cells[:] = [*place, _OPEN if until is None else until, 0]

    @property
    def start(self) -> tuple[Place, int | None]:
        """The `place` and `until` that `begin_at` got last."""
        epoch, consumed, until, _ = self._cells
        return Place(epoch, consumed), None if until == _OPEN else until

    @property
    def in_workers(self) -> bool:
        """Whether a worker has begun to read since `begin_at`."""
        return bool(self._cells[3])

    def begun_in_worker(self) -> None:
        """Tell the owning process that a worker has begun to read."""
        self._cells[3] = 1

    def __getstate__(self) -> dict[str, Any]:
        shared = get_spawning_popen() is not None
        return {"_cells": self._cells if shared else list(self._cells)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cells = state["_cells"]
        self._cells = RawArray("q", cells) if isinstance(cells, list) else cells
