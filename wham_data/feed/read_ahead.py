"""Reading ahead from a disk: the windows to come are known, so the system is asked for them in time.

Asking costs time too. So it is done only while the disk is really read: nothing is asked for when the
windows are in the page cache.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wham_data.feed.windows import Numbers

AHEAD_BYTES: Final = 32 << 20
"""Bytes that are requested before they are read: enough to keep a fast disk busy."""
MOST_AT_ONCE: Final = 128
"""Windows that are requested in one step."""
MOST_PIECES: Final = 16
"""Pieces of the plan that are held at a time."""
MANY_FAULTS: Final = 8
"""Page faults in about 8 batches from which windows are requested; waiting for a few costs less."""
MANY_BYTES: Final = 1 << 19
"""Bytes from the disk in about 8 batches from which windows are still requested."""
REMEMBERED: Final = 128
"""Batches during which windows are still requested after the last time the disk was read."""
_BLOCK: Final = 512
"""Bytes in a block, the unit in which the system counts what a process has read."""

Announce = Callable[[NDArray[np.int32], Numbers], int]
"""Requests the windows with these shards and first rows; returns how many bytes that is."""


class Located(Protocol):
    """Windows in the order of reading, and their places."""

    @property
    def shard(self) -> NDArray[np.int32]:
        """Numbers of the shards, int32 [W]."""

    @property
    def row(self) -> Numbers:
        """First row of each window in its shard, int64 [W]."""


Piece = TypeVar("Piece", bound=Located)


class Disk:
    """Whether this process reads from the disk, from what the system counts for it."""

    def __init__(self) -> None:
        self._before = _read_so_far()
        self._recent = np.zeros(2)
        self._batches = 0

    def is_read(self) -> bool:
        """Whether the disk is read; call it once per batch.

        Page faults begin it, because other parts of the program read files too. Bytes prolong it,
        because windows that were requested cause no page faults.
        """
        now = _read_so_far()
        self._recent = self._recent * 7 / 8 + now - self._before
        self._before = now
        faults, n_bytes = self._recent
        busy = faults >= MANY_FAULTS or (self._batches > 0 and n_bytes >= MANY_BYTES)
        self._batches = REMEMBERED if busy else max(0, self._batches - 1)
        return self._batches > 0


class ReadAhead(Generic[Piece]):
    """Pieces of the plan, and requests for the windows in them ahead of their reading.

    Iterating yields the pieces in order. Before each batch of a piece, `advance` must be called.
    """

    def __init__(
        self, pieces: Iterable[Piece], announce: Announce, disk: Disk | None, window_bytes: int
    ) -> None:
        """Prepare; takes no piece yet.

        Args:
            pieces: the pieces in the order of reading.
            announce: requests windows.
            disk: tells whether requests are worth their time; None: they never are.
            window_bytes: bytes in a window.
        """
        self._source, self._announce, self._disk = iter(pieces), announce, disk
        self._at_once = max(1, min(MOST_AT_ONCE, AHEAD_BYTES // 8 // window_bytes))
        self._pieces: deque[tuple[int, Piece]] = deque()
        # Windows are counted from the first one of the first piece.
        self._low = self._high = self._planned = self._announced = 0
        self._waiting: deque[tuple[int, int]] = deque()
        self._waiting_bytes = 0

    def __iter__(self) -> Iterator[Piece]:
        """The pieces."""
        while self._pieces or self._plan():
            yield self._pieces[0][1]
            self._pieces.popleft()

    def advance(self, windows: int) -> None:
        """Request later windows, if the disk is read, because the next ones are read now.

        Args:
            windows: number of windows that are read now.
        """
        self._low, self._high = self._high, self._high + windows
        while self._waiting and self._waiting[0][0] <= self._low:
            self._waiting_bytes -= self._waiting.popleft()[1]
        if self._disk is None or not self._disk.is_read():
            return
        self._announced = max(self._announced, self._low)
        while self._waiting_bytes < AHEAD_BYTES:
            if self._announced == self._planned and (
                len(self._pieces) >= MOST_PIECES or not self._plan()
            ):
                return
            first, piece = next(
                each for each in reversed(self._pieces) if each[0] <= self._announced
            )
            soon = slice(self._announced - first, self._announced - first + self._at_once)
            n_bytes = self._announce(piece.shard[soon], piece.row[soon])
            self._announced += len(piece.row[soon])
            self._waiting.append((self._announced, n_bytes))
            self._waiting_bytes += n_bytes

    def _plan(self) -> bool:
        """Take the next piece; False if there is none."""
        piece = next(self._source, None)
        if piece is None:
            return False
        self._pieces.append((self._planned, piece))
        self._planned += len(piece.row)
        return True


def _read_so_far() -> Numbers:
    """Page faults that waited for the disk, and bytes read from it, by this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([usage.ru_majflt, usage.ru_inblock * _BLOCK])
