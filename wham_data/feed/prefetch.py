"""Reading ahead in a thread. Copying windows releases the GIL, so that other threads can run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """The same items, up to `depth` of them made in a thread before they are asked for.

    An error comes where its item would have come. Closing the generator ends the thread.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(thing: tuple[Item] | BaseException | None) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(thing, timeout=0.1)
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
        while (thing := ready.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing[0]
    finally:
        stop.set()
        thread.join()
