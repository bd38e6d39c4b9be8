"""A watch over calls into codecs, which can hang where nothing can interrupt them."""

from __future__ import annotations

import contextlib
import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path

STALL_SECONDS = 25.0

_expendable = False


def this_process_is_expendable() -> None:
    """From here on `stall_watch` may end this process: a worker that its runner replaces."""
    global _expendable
    _expendable = True


@contextlib.contextmanager
def stall_watch(seconds: float = STALL_SECONDS) -> Iterator[None]:
    """End this process if the block takes longer, where a runner has said that it is expendable.

    The watch is a C thread that does not need the interpreter, so a hang inside a codec that holds
    the GIL is caught too.
    """
    if not _expendable:
        yield
        return
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
