"""Read from a Matroska or WebM file what its demuxer does not tell: lost bytes, and times below zero.

Matroska has no table of its frames. A demuxer that finds damage skips to the next cluster without an
error, and the frames in between are lost. So the bytes between two packets are read element by element
(RFC 8794, section 4 and RFC 9559, section 5). If they are anything other than well-formed elements
without frames, frames were lost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wham_data.schemas.clock import Index

ROOM = 64
"""Bytes between two packets that are taken for headers of blocks and clusters, and are not checked."""

# Elements that contain blocks: only their headers are skipped, not their content.
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
    """Whether the bytes between two blocks may have contained frames.

    Args:
        read: function from (offset, count) to the bytes of the file; fewer at the end of the file.
        block: offset of the content of the first block, after its identifier and size.
        next_block: offset of the content of the second block.
    """
    offset = _end_of_block(read, block)
    while offset is not None and offset < next_block:
        header = read(offset, 12)
        identifier, length = _number(header, keep_marker=True)
        size, size_length = _number(header[length:], keep_marker=False)
        if not length or not size_length:
            return True
        offset += length + size_length
        if identifier in _BLOCKS:
            break
        if identifier in _WITHOUT_FRAMES:
            offset += size
        elif identifier not in _OPENED:
            return True
    return offset != next_block


def times_below_zero(read: Callable[[int, int], bytes], offsets: Index, pts: Index) -> Index | None:
    """The presentation times of the blocks before zero, for which FFmpeg gives none if they are H.264.

    A block stores its time from that of its cluster, which a block with a known time of the same
    cluster gives away.

    Args:
        read: as in `hides_frames`.
        offsets: int64 [N], offset of the content of each block, the last one with a known time.
        pts: the time of the last one, int64 [1] in units of the time base.

    Returns:
        int64 [N - 1], all below zero; None if the file does not tell them.
    """
    relative = [_block_time(read(offset, 10)) for offset in offsets.tolist()]
    if None in relative:
        return None
    times = np.array(relative, np.int64)
    below = times[:-1] + (pts - times[-1])
    return below if (below < 0).all() else None


def _block_time(content: bytes) -> int | None:
    """The time in the header of a block, from that of its cluster; None if it is cut off."""
    _, length = _number(content, keep_marker=False)
    if not length or len(content) < length + 2:
        return None
    return int.from_bytes(content[length : length + 2], "big", signed=True)


def _end_of_block(read: Callable[[int, int], bytes], block: int) -> int | None:
    """The end of the block whose content starts at `block`, from the identifier and size before it."""
    before = read(max(0, block - 9), min(9, block))
    for length in range(1, len(before)):
        size, n_bytes = _number(before[-length:], keep_marker=False)
        if n_bytes == length and before[-length - 1] in _BLOCKS:
            return block + size
    return None


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """The variable-length number at the start of `data`, and its bytes; (0, 0) if there is none."""
    if not data or not data[0]:
        return 0, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return value if keep_marker else value & ((1 << 7 * length) - 1), length
