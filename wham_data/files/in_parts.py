"""A file that can be read at any place and whose bytes come in parts."""

from __future__ import annotations

import io
from collections.abc import Sequence


class InParts(io.RawIOBase):
    """The place in a file that is read only. A subclass adds `read`.

    Args:
        starts: where each part begins, in bytes; the last is the end of the file.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        """At the beginning of the file."""
        self._starts = starts
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in all parts together."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at
