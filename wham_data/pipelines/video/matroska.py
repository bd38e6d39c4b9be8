"""Bytes of a Matroska or WebM file that no packet accounts for.

Matroska has no table of its frames, and a demuxer that meets damage skips to the next cluster without a
word: the frames between are simply gone. So the space between two packets is walked element by element
(RFC 8794, section 4 and RFC 9559, section 5); where it holds anything but well-formed elements without
frames, frames were lost.
"""

from __future__ import annotations

from collections.abc import Callable

ROOM = 64
"""Bytes between two packets that the headers of blocks and clusters may take without being looked at."""

# Elements that hold others between which blocks stand: only their headers are skipped.
_OPENED = frozenset({0x1F43B675, 0xA0})  # Cluster, BlockGroup
_BLOCKS = frozenset({0xA1, 0xA3})  # Block, SimpleBlock
_WITHOUT_FRAMES = frozenset(
    {
        0xEC,  # Void
        0xBF,  # CRC-32
        0xE7,  # Timestamp
        0xA7,  # Position
        0xAB,  # PrevSize
        0x9B,  # BlockDuration
        0xFB,  # ReferenceBlock
        0x75A1,  # BlockAdditions
        0x75A2,  # DiscardPadding
        0xA4,  # CodecState
        0x114D9B74,  # SeekHead
        0x1549A966,  # Info
        0x1654AE6B,  # Tracks
        0x1C53BB6B,  # Cues
        0x1043A770,  # Chapters
        0x1941A469,  # Attachments
        0x1254C367,  # Tags
    }
)


def hides_frames(read: Callable[[int, int], bytes], block: int, next_block: int) -> bool:
    """Whether the bytes between two blocks may have held frames.

    Args:
        read: (offset, count) to the bytes of the file there, fewer at its end.
        block, next_block: where the contents of the two blocks start, behind identifier and size.
    """
    at = _end_of_block(read, block)
    while at is not None and at < next_block:
        header = read(at, 12)
        identifier, length = _number(header, keep_marker=True)
        size, size_length = _number(header[length:], keep_marker=False)
        if not length or not size_length:
            return True
        at += length + size_length
        if identifier in _BLOCKS:
            break
        if identifier in _WITHOUT_FRAMES:
            at += size
        elif identifier not in _OPENED:
            return True
    return at != next_block


def _end_of_block(read: Callable[[int, int], bytes], block: int) -> int | None:
    """Where a block ends whose contents start at `block`, from the identifier and size before it."""
    before = read(max(0, block - 9), min(9, block))
    for length in range(1, len(before)):
        size, taken = _number(before[-length:], keep_marker=False)
        if taken == length and before[-length - 1] in _BLOCKS:
            return block + size
    return None


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length and the bytes it takes; (0, 0) if it is none."""
    if not data or not data[0]:
        return 0, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return value if keep_marker else value & ((1 << 7 * length) - 1), length
