"""One pass over the packets of a video: their table, and the pictures that tell its format."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import av.error
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from wham_data.pipelines.video.bitstream import inspector, size_marker
from wham_data.pipelines.video.joined import Pieces, open_bytes
from wham_data.pipelines.video.matroska import hides_frames, times_below_zero
from wham_data.pipelines.video.packets import MISSING, PacketTable
from wham_data.pipelines.video.source import Source, VideoLimits, check_image_header, plain
from wham_data.pipelines.video.wrapped import WrappedStream
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

KEY, DISCARD, CORRUPT = 1, 2, 4
MOST_BELOW_ZERO: Final = 10_000
"""Pictures whose time below zero is read from the file: the times of one cluster reach 33 s back."""
MOST_UNTIL_WHOLE: Final = 1000
"""Packets that are decoded in search of the first whole picture: refreshing takes at most seconds."""


class Scan:
    """One pass over the packets: their table, and the first picture of each size.

    pictures  number of the packet and picture: the first that can be decoded, then those at which the
              size changes
    """

    MAX_TRIES = 8
    """Key frames that are decoded in search of the first picture."""
    MAX_LOOKS = 64
    """Key frames that are decoded because their headers promise another size."""

    def __init__(self, source: Source, path: Path, limits: VideoLimits, pieces: Pieces) -> None:
        self.pictures: list[tuple[int, VideoFrame]] = []
        self.first_error = "the decoder gives no picture"
        self.demux_error: str | None = None
        max_frames = int(limits.max_hours * 3600 * limits.max_fps)
        pts, dts, duration, size, place = (array("q") for _ in range(5))
        picture, flags = array("i"), array("B")
        inspect = inspector(source.codec, source.context.extradata or b"")
        size_mark = size_marker(source.codec, source.context.extradata or b"")
        mark: bytes | None = None
        tries = looks = 0
        try:
            for packet in source.packets_of_all():
                picture_flags = inspect(memoryview(packet))
                pts.append(MISSING if packet.pts is None else packet.pts)
                dts.append(MISSING if packet.dts is None else packet.dts)
                duration.append(packet.duration or 0)
                size.append(packet.size)
                place.append(-1 if packet.pos is None else packet.pos)
                picture.append(picture_flags)
                flags.append(
                    packet.is_keyframe * KEY
                    | packet.is_discard * DISCARD
                    | packet.is_corrupt * CORRUPT
                )
                if packet.is_keyframe:
                    before, mark = mark, size_mark(memoryview(packet)) or mark
                    if not self.pictures and tries < self.MAX_TRIES:
                        tries += 1
                        self._look_at(source.context, packet, len(pts) - 1, limits)
                    elif looks < self.MAX_LOOKS and (
                        mark != before or packet.has_sidedata("new_extradata")
                    ):
                        looks += 1
                        self._look_at(source.context, packet, len(pts) - 1, limits)
                if len(pts) > max_frames:
                    message = f"too long: more than {max_frames} frames ({limits.max_hours:g} h)"
                    raise RefusedInput(Reason.TOO_LONG, message)
        except av.error.FFmpegError as error:
            self.demux_error = plain(error)
        bits = np.array(flags, np.uint8)
        self.after_holes: list[int] = []
        pts_read = np.array(pts, np.int64)
        if source.is_matroska:
            self.after_holes = _after_holes(source, path, pieces)
            _set_times_below_zero(pts_read, np.array(place, np.int64), path, pieces)
        bits[[at for at in self.after_holes if at < len(bits)]] |= CORRUPT
        self.table = PacketTable(
            pts=pts_read,
            dts=np.array(dts, np.int64),
            duration=np.array(duration, np.int64),
            size=np.array(size, np.int64),
            picture=np.array(picture, np.int32),
            key=(bits & KEY) != 0,
            discard=(bits & DISCARD) != 0,
            corrupt=(bits & CORRUPT) != 0,
        )

    def _look_at(
        self,
        context: VideoCodecContext,
        packet: Packet[VideoStream],
        number: int,
        limits: VideoLimits,
    ) -> None:
        """Decode a packet alone, and keep its picture if it is the first or of another size."""
        data = bytes(packet)
        check_image_header(data, limits)
        try:
            # A copy is decoded, because an edit list may have marked the packet itself as hidden.
            copy = Packet(data)
            if packet.has_sidedata("new_extradata"):
                copy.set_sidedata(packet.get_sidedata("new_extradata"))
            for picture in [*context.decode(copy), *context.decode(None)][:1]:
                sizes = [(old.width, old.height) for _, old in self.pictures[-1:]]
                if sizes != [(picture.width, picture.height)]:
                    self.pictures.append((number, picture))
        except av.error.FFmpegError as error:
            self.first_error = plain(error)
        finally:
            context.flush_buffers()


@contextmanager
def _bytes_of(path: Path, pieces: Pieces) -> Iterator[Callable[[int, int], bytes]]:
    """A function from (offset, count) to the bytes of a video."""
    with open_bytes(path, pieces) as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        yield read


def _after_holes(source: Source, path: Path, pieces: Pieces) -> list[int]:
    """Numbers of the packets before which frames are missing, judged by the bytes between packets."""
    if isinstance(pieces, WrappedStream):
        return list(pieces.gaps)
    with _bytes_of(path, pieces) as read:
        return [at for start, stop, at in source.holes if hides_frames(read, start, stop)]


def _set_times_below_zero(pts: Index, places: Index, path: Path, pieces: Pieces) -> None:
    """Fill in times before zero that the demuxer does not give, in place; see `times_below_zero`."""
    missing, known = np.flatnonzero(pts == MISSING), np.flatnonzero(pts != MISSING)
    if not len(missing) or len(missing) > MOST_BELOW_ZERO or not len(known):
        return
    blocks = np.append(missing, known[0])
    if (places[blocks] < 0).any():
        return
    with _bytes_of(path, pieces) as read:
        below = times_below_zero(read, places[blocks], pts[known[:1]])
    if below is not None:
        pts[missing] = below


def first_whole_picture(
    path: Path, limits: VideoLimits, stream: int, pieces: Pieces
) -> tuple[int | None, VideoFrame | None]:
    """The first picture that FFmpeg gives if it decodes from the first packet, and its packet's number.

    A stream of H.264 may be cut between key frames, or have none: its pictures are refreshed in stripes.
    FFmpeg gives its pictures from the first whole one on. (None, None) if there is none soon.
    """
    with Source(path, limits, stream, pieces=pieces) as source, suppress(av.error.FFmpegError):
        for number, packet in zip(range(MOST_UNTIL_WHOLE), source.packets(), strict=False):
            packet.pts, packet.dts = number, None
            with suppress(av.error.FFmpegError):
                for picture in source.context.decode(packet):
                    return picture.pts, picture
    return None, None
