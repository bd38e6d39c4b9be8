"""Open an untrusted video file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast, get_args

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from wham_data.files import elsewhere
from wham_data.files.found import stand_in_of
from wham_data.pipelines.video.bitstream import image_size
from wham_data.pipelines.video.joined import Pieces, open_bytes, open_pieces
from wham_data.pipelines.video.matroska import ROOM
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv"
CODECS = frozenset(
    [
        "h264",
        "hevc",
        "av1",
        "vp9",
        "vp8",
        "mpeg4",
        "mjpeg",
        "png",
        "ffv1",
        "qtrle",
        "huffyuv",
        "ffvhuff",
        "utvideo",
        "prores",
        "dnxhd",
        "rawvideo",
    ]
)
HEAD_BYTES = 65536
"""Bytes at the start of a file that are read to find out its type."""
REORDERING = frozenset({"h264", "hevc", "mpeg4"})
"""Codecs whose pictures may be shown in an order that differs from the coded order."""


Decoder = Literal["cpu", "auto", "nvdec"]


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Limits of a video; a video beyond them is refused.

    max_pixels   width x height of a picture
    max_hours    length in hours
    max_fps      frames per second; `max_hours` x `max_fps` limits the number of frames
    max_gap_s    longest time without a new frame, in seconds
    min_decoded  smallest share of the frames that must be present and decode, 0 to 1
    allow_synthetic  take pictures whose own metadata say that a world model made them
    decoder      what decodes its pictures; the frames do not depend on it. "nvdec": a GPU, where it can;
                 "auto": a GPU where that is faster too (see `hardware.py`)

    Raises:
        UsageError: another decoder.
    """

    max_pixels: int = 3840 * 2160
    max_hours: float = 8.0
    max_fps: float = 240.0
    max_gap_s: float = 3600.0
    min_decoded: float = 0.995
    allow_synthetic: bool = False
    decoder: Decoder = "cpu"

    def __post_init__(self) -> None:
        if self.decoder not in (known := get_args(Decoder)):
            raise UsageError(f"decoder {self.decoder!r}: expected {', '.join(known)}")


_LOOKS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "html"),
    (b"<html", "html"),
    (b"<?xml", "xml"),
    (b"<svg", "xml"),
    (b"\x89png", "a png picture"),
    (b"\xff\xd8\xff", "a jpeg picture"),
    (b"gif8", "a gif picture"),
    (b"pk\x03\x04", "a zip archive"),
    (b"%pdf", "a pdf"),
    (b"rar!", "a rar archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"id3", "an mp3"),
)
_PLAYLISTS: tuple[tuple[bytes, str], ...] = (
    (b"#extm3u", "hls"),
    (b"ffconcat", "concat"),
    (b"v=0", "sdp"),
    (b"[playlist]", "pls"),
    (b"[reference]", "asx"),
    (b"rtsptext", "rtsp"),
)


def read_head(path: Path, pieces: Pieces = ()) -> bytes:
    """The first HEAD_BYTES bytes of a video, or as many as are read at once.

    Raises:
        RefusedInput: it is not a regular file or cannot be read.
    """
    if not pieces and not path.is_file():
        raise RefusedInput(Reason.UNREADABLE, "not a regular file")
    try:
        with open_bytes(path, pieces) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror}") from error


def refuse_by_content(head: bytes) -> None:
    """Refuse a file that is not a video container, judged by its first bytes only.

    Args:
        head: result of `read_head`.

    Raises:
        RefusedInput: the file is empty, a playlist, a bare stream, or of another known type.
    """
    if not head:
        raise RefusedInput(Reason.EMPTY_FILE, "empty file")
    stand_in = stand_in_of(head)
    text = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, kind in _PLAYLISTS:
        if text.startswith(start):
            raise RefusedInput(Reason.FORMAT_NOT_ALLOWED, f"format not allowed: playlist ({kind})")
    if b"<mpd" in text[:1024] or b"<smoothstreamingmedia" in text[:1024]:
        raise RefusedInput(Reason.FORMAT_NOT_ALLOWED, "format not allowed: playlist (dash)")
    for start, kind in _LOOKS:
        if text.startswith(start):
            more = f": {stand_in}" if stand_in else ""
            raise RefusedInput(Reason.NOT_A_VIDEO, f"not a video (looks like {kind}){more}")
    if stand_in is not None:
        raise RefusedInput(Reason.NOT_DOWNLOADED, stand_in)
    if head[:4] == b"\0\0\0\1" or head[:3] == b"\0\0\1":
        message = "format not allowed: a bare stream without a container has no timestamps"
        raise RefusedInput(Reason.FORMAT_NOT_ALLOWED, message)


def _why_not_opened(head: bytes, error: Exception) -> RefusedInput:
    """The error for a file that FFmpeg could not open, with the cause guessed from its first bytes."""
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"free", b"wide", b"skip"):
        return RefusedInput(Reason.TRUNCATED, "truncated or invalid mp4: no usable moov index")
    if head[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):
        return RefusedInput(
            Reason.TRUNCATED, "truncated or invalid: the container's header cannot be read"
        )
    printable = sum(32 <= byte < 127 or byte in (9, 10, 13) for byte in head[:512])
    if printable > 0.95 * len(head[:512]):
        return RefusedInput(Reason.NOT_A_VIDEO, "not a video (looks like text)")
    return RefusedInput(
        Reason.NOT_A_VIDEO,
        f"not a video in a container we read (mp4, mov, mkv, webm, avi, ts): {plain(error)}",
    )


def plain(error: Exception) -> str:
    """FFmpeg's text for an error, in lower case, without its number and path."""
    words = getattr(error, "strerror", None) or type(error).__name__
    return str(words).split(":")[0].lower()


class Source:
    """One open file with its video stream and a decoder that uses one thread.

    Attributes:
        container: the open file.
        stream: the video stream that is read.
        context: the decoder of the stream.
        notes: remarks for a person.
        other_streams_end_ns: end of the other streams, as far as `packets_of_all` has read.
        empty_packets: AVI packets without data, which repeat the picture before them.
        holes: see `packets_of_all`.
    """

    def __init__(
        self,
        path: Path,
        limits: VideoLimits,
        stream: int | None,
        head: bytes = b"",
        pieces: Pieces = (),
        hwaccel: HWAccel | None = None,
    ) -> None:
        """Open a file.

        Args:
            path: the file.
            limits: limits of the picture size.
            stream: number of the stream to read; None: the one with the largest pictures.
            head: first bytes of the file, used only for a better error message.
            pieces: what is read instead of `path`; (): nothing.
            hwaccel: the device that decodes; None: the CPU.

        Raises:
            RefusedInput: not a container or codec on the list, no video stream, or too many pixels.
        """
        options = {
            "format_whitelist": CONTAINERS,
            "protocol_whitelist": "file",
            "max_pixels": str(limits.max_pixels),
            "max_streams": "64",
            # Opening a file runs decoders to probe the streams: allow only the codecs on our list.
            "codec_whitelist": ",".join(sorted(CODECS | {"libdav1d"})),
        }
        try:
            # An absolute path cannot be mistaken for a protocol ("data:video.mp4").
            there = open_pieces(pieces) if pieces else elsewhere.opened(path)
            file = str(path.absolute()) if there is None else there
            self.container: InputContainer = av.open(
                file, mode="r", options=options, metadata_errors="replace", hwaccel=hwaccel
            )
        except (av.error.FFmpegError, ValueError, UnicodeError) as error:
            if hwaccel is not None:
                raise RefusedInput(Reason.UNSUPPORTED_CODEC, plain(error)) from error
            raise _why_not_opened(head, error) from error
        try:
            self.notes: list[str] = []
            self.other_streams_end_ns = 0
            self.empty_packets = 0
            self.holes: list[tuple[int, int, int]] = []
            self.stream = self._choose(stream)
            self.context = self._decoder(limits)
        except BaseException:
            self.container.close()
            raise

    def _choose(self, number: int | None) -> VideoStream:
        attached = av.stream.Disposition.attached_pic
        videos = [s for s in self.container.streams.video if not s.disposition & attached]
        if number is not None:
            videos = [s for s in videos if s.index == number]
        if not videos:
            raise RefusedInput(Reason.NO_VIDEO_STREAM, "no video stream")

        def area(stream: VideoStream) -> int:
            context = stream.codec_context
            return context.width * context.height if context is not None else 0

        largest = max(videos, key=area)
        if len(videos) > 1:
            self.notes.append(
                f"{len(videos)} video streams, used the largest (number {largest.index})"
            )
        return largest

    def _decoder(self, limits: VideoLimits) -> VideoCodecContext:
        context = self.stream.codec_context
        if context is None:
            raise RefusedInput(Reason.UNSUPPORTED_CODEC, "unknown or encrypted codec")
        name = context.codec.canonical_name
        if name not in CODECS:
            raise RefusedInput(
                Reason.UNSUPPORTED_CODEC, f"codec {name} is not on the list we decode"
            )
        if context.width * context.height > limits.max_pixels:
            raise too_many_pixels(context.width, context.height, limits)
        context.thread_count = 1
        # "explode": a damaged slice raises an error instead of being concealed. "strict": H.264 waits
        # for the full reorder depth if the stream does not state it, so no picture comes out late.
        options = {"max_pixels": str(limits.max_pixels), "err_detect": "explode"}
        context.options = options | ({"strict": "1"} if name == "h264" else {})
        return context

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec; the same for all decoders of the codec."""
        return self.context.codec.canonical_name

    def tags(self) -> list[str]:
        """The values of the tags of the container and of the stream."""
        return [*self.container.metadata.values(), *self.stream.metadata.values()]

    @property
    def is_matroska(self) -> bool:
        """Whether the container is Matroska or WebM."""
        return self.container.format.name.startswith("matroska")

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the stream, from the current position in the file."""
        for packet in self.container.demux(self.stream):
            if packet.size:
                yield packet

    def packets_of_all(self) -> Iterator[Packet[VideoStream]]:
        """As `packets`; also records where the other streams end, and large holes between packets.

        `holes` gets an entry for two neighbouring packets (of any stream) if there are more bytes
        between them than headers need: the offsets of both packets, and how many packets of the
        video stream come before the hole.
        """
        matroska, count, last, end_of_last = self.is_matroska, 0, -1, 0
        for packet in self.container.demux():
            if packet.pos is not None and packet.size:
                if matroska and last >= 0 and packet.pos - end_of_last > ROOM:
                    self.holes.append((last, packet.pos, count))
                # Audio packets of the same block have the same offset.
                end_of_last = packet.size + (end_of_last if packet.pos == last else packet.pos)
                last = packet.pos
            if packet.stream is self.stream:
                if packet.size:
                    count += 1
                    yield cast("Packet[VideoStream]", packet)
                elif packet.dts is not None:  # AVI: the previous picture stays on screen
                    self.empty_packets += 1
            elif packet.pts is not None and packet.time_base:
                end = packet.pts + (packet.duration or 0)
                end_ns = int(end * packet.time_base * SECOND_NS)
                self.other_streams_end_ns = max(self.other_streams_end_ns, end_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.container.close()


def too_many_pixels(width: int, height: int, limits: VideoLimits) -> RefusedInput:
    """The error for pictures of more than `limits.max_pixels` pixels."""
    message = f"too many pixels: dimensions {width}x{height}, limit {limits.max_pixels} pixels"
    return RefusedInput(Reason.TOO_MANY_PIXELS, message)


def check_image_header(data: bytes, limits: VideoLimits) -> None:
    """Check the size in the header of a PNG or JPEG before it is decoded.

    Raises:
        RefusedInput: the header says more than `limits.max_pixels` pixels.
    """
    size = image_size(data)
    if size is not None and size[0] * size[1] > limits.max_pixels:
        raise too_many_pixels(*size, limits)


def decoders() -> dict[str, bool]:
    """Codec -> whether the installed FFmpeg can decode it, for all codecs on the list."""
    return {name: name in av.codecs_available for name in sorted(CODECS)}
