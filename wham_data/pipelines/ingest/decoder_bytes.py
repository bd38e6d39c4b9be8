"""Bytes of files on object stores for a decoder process, which has no network and no credentials.

Both ends of a socket pair: in the decoder process a file is a `FromTheParent`, whose reads are answered
by the `BytesServer` of the other one, in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from wham_data.files import elsewhere
from wham_data.schemas.errors import Reason, RefusedInput


@dataclass(frozen=True, slots=True)
class BytesWanted:
    """Asks for bytes of a file, from `start` to before `stop`; without these, for the whole in its place.

    The answer is a message of the bytes; an empty one, when the file is there.
    """

    path: Path
    start: int = 0
    stop: int = 0


class BytesServer:
    """Answers the wishes of one decoder process, one after the other.

    Args:
        connection: to it.
        kill: ends it. What goes wrong with a store is no fault of a recording, so the decoder process
            must not answer with a refusal: it is ended, and `check` raises the error.
    """

    def __init__(self, connection: Connection, kill: Callable[[], None]) -> None:
        self._connection, self._kill = connection, kill
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._seconds, self._since = 0.0, 0.0

    @property
    def seconds(self) -> float:
        """So long the decoder process has waited for bytes until now."""
        since = self._since
        return self._seconds + (time.monotonic() - since if since else 0.0)

    def start(self) -> None:
        """Begin to answer, if it has not begun. It ends with the decoder process."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="bytes", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise what has gone wrong with a store.

        Raises:
            RefusedInput: an object is gone or another one.
            WhamDataError: a store refuses, or did not answer in time.
        """
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        with suppress(EOFError, OSError), self._connection:
            while True:
                wish = self._connection.recv()
                self._since = time.monotonic()
                try:
                    data = bytes_of(wish)
                except BaseException as error:
                    self._error = error
                    self._kill()
                    return
                self._seconds, self._since = self.seconds, 0.0
                self._connection.send_bytes(data)


def bytes_of(wish: BytesWanted) -> bytes:
    """The answer to a wish.

    Raises:
        RefusedInput: the file is none of those that were laid out, an object is gone, ...
        WhamDataError: a store refuses, or did not answer in time.
    """
    remote = elsewhere.remote_of(wish.path)
    if remote is None or not 0 <= wish.start <= wish.stop <= remote.n_bytes:
        raise RefusedInput(Reason.UNSAFE_PATH, f"asks for bytes that are not in {wish.path.name}")
    if wish.stop:
        return remote.read(wish.start, wish.stop)
    remote.fetch()
    return b""


class FromTheParent:
    """A file on an object store, in a decoder process: see `files.elsewhere.Remote`."""

    def __init__(
        self, connection: Connection, turn: threading.Lock, path: Path, n_bytes: int
    ) -> None:
        self._connection, self._turn, self._path = connection, turn, path
        self.n_bytes = n_bytes

    def read(self, start: int, stop: int) -> bytes:
        """See `files.elsewhere.Remote.read`."""
        return self._answer(BytesWanted(self._path, start, stop))

    def fetch(self) -> None:
        """See `files.elsewhere.Remote.fetch`."""
        self._answer(BytesWanted(self._path))

    def _answer(self, wish: BytesWanted) -> bytes:
        with self._turn:  # recordings are decoded in several threads
            self._connection.send(wish)
            return self._connection.recv_bytes()
