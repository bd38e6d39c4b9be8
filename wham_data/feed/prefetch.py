"""Reading ahead in a thread. Copying windows releases the GIL, so other threads can run meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """Yield the same items, computed in a thread up to `depth` items in advance.

    An error in `items` is raised in the place of the item. Closing the generator ends the thread.

    Args:
        items: the items to yield; used by the thread only.
        depth: most items that wait to be yielded, at least 1.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(message: tuple[Item] | BaseException | None) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(message, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="wham-data-feed", daemon=True)
    thread.start()
    try:
        while (message := ready.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield message[0]
    finally:
        stop.set()
        thread.join()
