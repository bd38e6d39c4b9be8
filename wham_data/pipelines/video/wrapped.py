"""Coded pictures that lie in another file, each by itself, as a video file that is never written.

    stream = WrappedStream("h264", times_ns, sizes, keys, source)
    index_video(path, limits, stream)

FFmpeg reads containers. So the pictures are given to it as a Matroska file (RFC 9559), made while it is
read: a head with a table of the key frames, then for each picture a cluster with one block. All numbers
have a fixed width, so that each byte has its place before any picture is read. Times are in nanoseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.in_parts import InParts
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

CODEC_IDS: Final = {
    "h264": b"V_MPEG4/ISO/AVC",
    "hevc": b"V_MPEGH/ISO/HEVC",
    "av1": b"V_AV1",
    "vp9": b"V_VP9",
}
"""FFmpeg's names of the codecs that can be wrapped, and Matroska's."""
EBML, DOC_TYPE, SEGMENT, INFO, SCALE = 0x1A45DFA3, 0x4282, 0x18538067, 0x1549A966, 0x2AD7B1
TRACKS, TRACK, TRACK_NUMBER, TRACK_UID = 0x1654AE6B, 0xAE, 0xD7, 0x73C5
TRACK_TYPE, CODEC_ID, VIDEO, WIDTH, HEIGHT = 0x83, 0x86, 0xE0, 0xB0, 0xBA
CUES, CUE, CUE_TIME, CUE_PLACE, CUE_TRACK, CUE_CLUSTER = 0x1C53BB6B, 0xBB, 0xB3, 0xB7, 0xF7, 0xF1
CLUSTER, CLUSTER_TIME, BLOCK = 0x1F43B675, 0xE7, 0xA3
KEY_FRAME: Final = 0x80
BEFORE_DATA: Final = 35
"""Bytes of a cluster before the data of its picture."""

OpenSource = Callable[[], Callable[[int], bytes]]
"""Opens where the pictures lie: gives a function from the number of a picture to its bytes."""


@dataclass(frozen=True, eq=False, slots=True)
class WrappedStream:
    """Coded pictures, in the order in which they are decoded.

    codec     a key of CODEC_IDS; H.264 and HEVC with start codes (Annex B)
    times_ns  int64 [N]  when each is shown, not decreasing, the first at 0 or later
    sizes     int64 [N]  its bytes
    keys      bool  [N]  whether decoding can start at it
    source    opens where they lie
    gaps      numbers of pictures before which others are missing: what builds on them is damaged
    """

    codec: str
    times_ns: Nanos
    sizes: Index
    keys: NDArray[np.bool_]
    source: OpenSource
    gaps: tuple[int, ...] = ()

    def open(self) -> WrappedFile:
        """The file from its beginning."""
        return WrappedFile(self)


class WrappedFile(InParts):
    """The bytes of the Matroska file."""

    def __init__(self, stream: WrappedStream) -> None:
        """Open the source of the pictures."""
        self._stream = stream
        self._picture = stream.source()
        self._head = _head(stream)
        ends = len(self._head) + np.cumsum(stream.sizes + BEFORE_DATA)
        super().__init__([len(self._head), *ends.tolist()])
        self._number, self._cluster = -1, b""

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, of the head or of one cluster; none at the end.

        Raises:
            RefusedInput: CHANGED_WHILE_READ, a picture has another size than before.
        """
        number = bisect_right(self._starts, self._at) - 1
        if number < 0:
            part, start = self._head, 0
        elif number < len(self._stream.sizes):
            part, start = self._cluster_of(number), self._starts[number]
        else:
            return b""
        stop = len(part) if size < 0 else self._at - start + size
        data = part[self._at - start : stop]
        self._at += len(data)
        return data

    def _cluster_of(self, number: int) -> bytes:
        if number != self._number:
            data, size = self._picture(number), int(self._stream.sizes[number])
            if len(data) != size:
                raise RefusedInput(Reason.CHANGED_WHILE_READ, "the file changed while it was read")
            head = _cluster_head(
                int(self._stream.times_ns[number]), bool(self._stream.keys[number]), size
            )
            self._number, self._cluster = number, head + data
        return self._cluster


def _head(stream: WrappedStream) -> bytes:
    """All that comes before the first picture."""
    video = _element(VIDEO, _number(WIDTH, 1) + _number(HEIGHT, 1))
    track = b"".join(
        (
            _number(TRACK_NUMBER, 1),
            _number(TRACK_UID, 1),
            _number(TRACK_TYPE, 1),
            _element(CODEC_ID, CODEC_IDS[stream.codec]),
            video,
        )
    )
    info = _element(INFO, _number(SCALE, 1))
    tracks = _element(TRACKS, _element(TRACK, track))
    ebml = _element(EBML, _element(DOC_TYPE, b"matroska"))
    keys = np.flatnonzero(stream.keys)
    places = np.cumsum(stream.sizes + BEFORE_DATA) - (stream.sizes + BEFORE_DATA)
    cue = partial(_cue, start=len(info) + len(tracks) + len(_cues([_cue(0, 0)] * len(keys))))
    times_ns = stream.times_ns[keys].tolist()
    cues = _cues([cue(*each) for each in zip(times_ns, places[keys].tolist(), strict=True)])
    size = len(info) + len(tracks) + len(cues) + int((stream.sizes + BEFORE_DATA).sum())
    return ebml + _start(SEGMENT, size) + info + tracks + cues


def _cues(cues: list[bytes]) -> bytes:
    """The table of the key frames; nothing for a stream that names none."""
    return _element(CUES, b"".join(cues)) if cues else b""


def _cue(time_ns: int, place: int, start: int = 0) -> bytes:
    """An entry of the table of the key frames.

    Args:
        time_ns: of the picture.
        place: where its cluster begins, after the first one.
        start: where the first cluster begins, after the head of the segment.
    """
    where = _number(CUE_TRACK, 1) + _number(CUE_CLUSTER, start + place)
    return _element(CUE, _number(CUE_TIME, time_ns) + _element(CUE_PLACE, where))


def _cluster_head(time_ns: int, key: bool, size: int) -> bytes:
    """The bytes of a cluster before its picture: BEFORE_DATA of them."""
    block = b"\x81\0\0" + bytes([KEY_FRAME if key else 0])  # track 1, at the time of the cluster
    inner = _number(CLUSTER_TIME, time_ns) + _start(BLOCK, len(block) + size) + block
    return _start(CLUSTER, len(inner) + size) + inner


def _number(identifier: int, value: int) -> bytes:
    """A whole number, in 8 bytes."""
    return _name(identifier) + b"\x88" + value.to_bytes(8, "big")


def _element(identifier: int, content: bytes) -> bytes:
    return _start(identifier, len(content)) + content


def _start(identifier: int, size: int) -> bytes:
    """The identifier and the size of an element, the latter in 8 bytes."""
    return _name(identifier) + (size | 1 << 56).to_bytes(8, "big")


def _name(identifier: int) -> bytes:
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
