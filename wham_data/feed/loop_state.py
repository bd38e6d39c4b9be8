"""Where the loops over a dataset begin, in memory shared by the main process and its workers.

The main process of a DataLoader does not tell a dataset that a loop begins, and each worker knows only
that it begins one. So the workers of one loop agree here on its place. The first worker that begins a
loop enters it; the others find it by its key. Entries are kept per main process, because a dataset may be
handed to several processes that read it independently.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus.storage.contract import one_line
from wham_data.feed.batches import Place

LOOPS: Final = 256
"""Loops that are remembered; more than can be running at once."""
_NO_END: Final = -1
_SPAN: Final = ("epoch", "consumed", "until")
_HEAD: Final = np.dtype([(name, "<i8") for name in (*_SPAN, "turn", "loops", "told")])
_LOOP: Final = np.dtype(
    [(name, "<i8") for name in (*_SPAN, "key", "main", "turn", "workers", "arrived", "done")]
)
_BYTES: Final = _HEAD.itemsize + LOOPS * _LOOP.itemsize


class Span(NamedTuple):
    """What a loop reads.

    start  where it begins
    until  the epoch before which it ends; None: it never ends, or the dataset decides
    """

    start: Place
    until: int | None


class LoopState:
    """Memory that is shared with DataLoader workers, whether forked or spawned.

    Because it is shared, `set_epoch` also reaches workers that are already running. Pickling it for any
    purpose other than starting a worker makes an independent copy, which begins at the same place.
    """

    def __init__(self) -> None:
        with one_line(tempfile.gettempdir()), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, _BYTES)  # a full disk is an error here, not later
            self._share(os.dup(file.fileno()), os.getpid())
        self._head["until"] = _NO_END

    def leave_others(self) -> None:
        """Get memory of its own in a process that has got it from another one and is no worker."""
        if self._owner != os.getpid():
            span = _span(self._head)
            self.__init__()  # type: ignore[misc]
            self.begin_at(*span)

    def begin_at(self, place: Place, until: int | None = None) -> None:
        """Set where the next loop begins and ends.

        Args:
            place: where it begins.
            until: the epoch before which it ends; None: after the dataset's number of epochs.
        """
        with self._locked():
            head = self._head
            head["epoch"], head["consumed"] = place
            head["until"] = _NO_END if until is None else until
            head["turn"] += 1

    @property
    def begun(self) -> Span | None:
        """The last loop that workers of this process have begun since `begin_at`; None: there is none."""
        with self._locked():
            last = self._last_of(os.getpid())
            return None if last is None else _span(last)

    @property
    def following(self) -> Span:
        """What the next loop reads. It follows the last one of workers, even if that was left early."""
        with self._locked():
            return self._following(self._last_of(os.getpid()))

    def begin_in_worker(
        self, key: int, main: int, workers: int, epochs: int | None, resumed: Span | None = None
    ) -> Span:
        """Begin a loop in a worker. The first worker of a loop decides what all of them read.

        Args:
            key: the same number for all workers of a loop; loops at the same time have other numbers.
            main: id of the process that the batches are for.
            workers: number of workers.
            epochs: number of epochs in a loop; None: it never ends.
            resumed: what the loop reads, if it was begun before; None: what follows the last loop.
        """
        with self._locked():
            same = (self._loops["key"] == key) & (self._loops["main"] == main)
            # The key comes again if the user sets the seed of torch before each loop.
            waiting = np.flatnonzero(same & (self._loops["arrived"] < self._loops["workers"]))
            if waiting.size:
                loop = self._loops[waiting[0]]
                loop["arrived"] += 1
                return _span(loop)
            last = self._last_of(main)
            start, until = resumed or self._following(last)
            if until is None and epochs is not None:
                until = start.epoch + epochs
            if resumed is None and last is not None and last["done"] < last["workers"]:
                self._warn(start.epoch)
            end = _NO_END if until is None else until
            entry = (*start, end, key, main, self._head["turn"], workers, 1, 0)
            self._loops[self._head["loops"] % LOOPS] = entry
            self._head["loops"] += 1
            return Span(start, until)

    def end_in_worker(self, key: int, main: int) -> None:
        """Record that a worker has given out all its batches of a loop."""
        with self._locked():
            self._loops["done"][(self._loops["key"] == key) & (self._loops["main"] == main)] += 1

    def _last_of(self, main: int) -> Any:
        """The last loop of a process since `begin_at`; None: there is none."""
        count, turn = int(self._head["loops"]), self._head["turn"]
        for number in range(count - 1, max(count - LOOPS, 0) - 1, -1):
            loop = self._loops[number % LOOPS]
            if loop["main"] == main and loop["turn"] == turn:
                return loop
        return None

    def _following(self, last: Any) -> Span:
        if last is None:
            return _span(self._head)
        span = _span(last)
        return span if span.until is None else Span(Place(span.until, 0), None)

    def _warn(self, epoch: int) -> None:
        """Warn once that the loop before was not read to its end."""
        if not self._head["told"]:
            self._head["told"] = 1
            warnings.warn(
                "DataLoader workers had not come to the end of the loop before this one, which begins with "
                f"epoch {epoch}. (Without workers, a loop that was left early begins again.) "
                "Call set_epoch(epoch) of the dataset before each loop to choose its epoch",
                stacklevel=2,
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _share(self, file: int, owner: int) -> None:
        self._owner, self._file, memory = owner, file, mmap.mmap(file, _BYTES)
        weakref.finalize(self, os.close, file)
        self._head: NDArray[Any] = np.frombuffer(memory, _HEAD, 1)[0]
        self._loops: NDArray[Any] = np.frombuffer(memory, _LOOP, LOOPS, _HEAD.itemsize)

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen():
            return {"file": DupFd(self._file)}
        return {"span": _span(self._head)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "file" in state:
            self._share(state["file"].detach(), owner=0)
        else:
            self.__init__()  # type: ignore[misc]
            self.begin_at(*state["span"])


def _span(cells: Any) -> Span:
    until = int(cells["until"])
    return Span(
        Place(int(cells["epoch"]), int(cells["consumed"])), None if until == _NO_END else until
    )
