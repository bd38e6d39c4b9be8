"""Recordings that wait to be ingested: found in one thread, taken in another, small while they wait."""

from __future__ import annotations

import pickle
import threading
import zlib
from collections import deque
from typing import Final

from wham_data.pipelines.ingest.intake.inputs import Found

BLOCK: Final = 64
"""So many recordings are packed together."""


class Backlog:
    """A queue without a limit, in which a recording takes about a hundred bytes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next: deque[Found] = deque()
        self._packed: deque[bytes] = deque()
        self._last: list[Found] = []
        self._ended = False

    def put(self, found: Found) -> None:
        """Add a recording at the end."""
        with self._changed:
            if not self._packed and len(self._next) < BLOCK:
                self._next.append(found)
            else:
                self._last.append(found)
                if len(self._last) == BLOCK:
                    self._packed.append(zlib.compress(pickle.dumps(self._last), 1))
                    self._last.clear()
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no more will be added."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        with self._changed:
            return not (self._next or self._packed or self._last)

    def first(self) -> list[Found]:
        """The first recordings that wait, at most `BLOCK`; they go on waiting."""
        with self._changed:
            return list(self._next)

    def take(self, timeout_s: float) -> Found | None:
        """The first recording; None: there is none, and none came in that time."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._next or self._last, timeout_s)
            if not self._next and self._packed:
                self._next.extend(pickle.loads(zlib.decompress(self._packed.popleft())))
            elif not self._next:
                self._next.extend(self._last)
                self._last.clear()
            return self._next.popleft() if self._next else None
