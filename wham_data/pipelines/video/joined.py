"""A video that is not in one file of its own, such as the chunks of a DASH recording, read as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, BinaryIO

from wham_data.files import elsewhere
from wham_data.files.found import open_regular
from wham_data.files.in_parts import InParts
from wham_data.pipelines.video.wrapped import WrappedFile, WrappedStream

Pieces = tuple[Path, ...] | WrappedStream
"""Where the bytes of a video are if not in one file: in files that are read one after the other, or in
another file, picture by picture. (): they are in one file."""


class JoinedFile(InParts):
    """Files read one after the other as one; at most one of them is open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the files.

        Args:
            paths: in order, at least one.

        Raises:
            OSError: one of them is gone.
        """
        self._paths = tuple(paths)
        super().__init__([0, *accumulate(path.stat().st_size for path in paths)])
        self._number = -1
        self._file: BinaryIO | None = None

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, of one of the files; none at the end of the last.

        Raises:
            RefusedInput: a file is gone, or no regular file any more.
        """
        number = bisect_right(self._starts, self._at) - 1
        if number >= len(self._paths):
            return b""
        if number != self._number or self._file is None:
            self.close_file()
            self._file, self._number = open_regular(self._paths[number]), number
        left = self._starts[number + 1] - self._at
        self._file.seek(self._at - self._starts[number])
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def close_file(self) -> None:
        """Close the file that is open, if one is."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def close(self) -> None:
        """Close it."""
        self.close_file()
        super().close()


def open_pieces(pieces: Pieces) -> JoinedFile | WrappedFile:
    """The bytes of a video that is not in one file."""
    return pieces.open() if isinstance(pieces, WrappedStream) else JoinedFile(pieces)


def open_bytes(path: Path, pieces: Pieces) -> IO[bytes] | JoinedFile | WrappedFile:
    """The bytes of a video: of `path`, or of the pieces if there are any."""
    if pieces:
        return open_pieces(pieces)
    return elsewhere.opened(path) or path.open("rb")
