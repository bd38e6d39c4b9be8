"""Items taken from an iterable in a thread, for a loop that must not wait for the next one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Any, Final, Generic

from wham_data.pipelines.run.runner import In

MOST: Final = 64
"""So many items are held at most."""
POLL_SECONDS: Final = 0.2


class Ahead(Generic[In]):
    """The next items of an iterable that may be slow to give them."""

    def __init__(self, items: Iterable[In]) -> None:
        """Begin to take items."""
        self._queue: queue.Queue[In] = queue.Queue(MOST)
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._run, args=(items,), name="items", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether every item was taken.

        Raises:
            BaseException: what the iterable raised.
        """
        ended = self._done.is_set() and self._queue.empty()
        if ended and self._error is not None:
            raise self._error
        return ended

    @property
    def count(self) -> int:
        """How many items are held."""
        return self._queue.qsize()

    def take(self, most: int) -> list[In]:
        """The next items that are there."""
        return [self._queue.get_nowait() for _ in range(min(most, self.count))]

    def close(self) -> None:
        """Take no more items."""
        self._closed.set()

    def _run(self, items: Iterable[Any]) -> None:
        try:
            for item in items:
                while not self._closed.is_set():
                    try:
                        self._queue.put(item, timeout=POLL_SECONDS)
                        break
                    except queue.Full:
                        continue
                if self._closed.is_set():
                    return
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()
