"""Decoding on an NVIDIA GPU (NVDEC): for which streams, and with the same frames as on the CPU.

H.264, HEVC and VP9 define every bit of their pictures, so a GPU gives those of the CPU, only in another
layout (NV12 or P010). They are brought to the CPU's layout, which loses nothing, and are then scaled
as always. A stream that a GPU cannot take, or whose first pictures differ, is decoded on the CPU.

One thing a GPU does not tell: whether a picture is damaged inside. So a stream with a known defect is
always decoded on the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final, Literal

import av.error
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from wham_data.pipelines.video.audit import DecodeAudit
from wham_data.pipelines.video.joined import Pieces
from wham_data.pipelines.video.scale import Frames, PictureFormat
from wham_data.pipelines.video.source import Decoder, Source, VideoLimits, plain
from wham_data.schemas.errors import MissingPartError, Reason, RefusedInput

DecoderUsed = Literal["cpu", "nvdec"]

LIBRARIES: Final = ("libcuda.so.1", "libnvcuvid.so.1")
"""The driver, and its part for videos."""
COMPARED: Final = 8
"""Pictures at the start of a stream that are decoded in both ways and compared."""
WORTH_PIXELS, WORTH_SECONDS = 1280 * 720, 60.0
"""A GPU is worth its start from here on. An estimate: nothing was measured on a GPU yet."""


@dataclass(frozen=True, slots=True)
class _Abilities:
    """What every NVDEC from the year 2016 on decodes of a codec.

    formats   pixel formats of the CPU's decoder
    smallest, largest  pixels of a side
    """

    formats: frozenset[str]
    smallest: int
    largest: int


_EIGHT_BITS: Final = frozenset({"yuv420p", "yuvj420p"})
_ABILITIES: Final = {
    "h264": _Abilities(_EIGHT_BITS, 48, 4096),
    "hevc": _Abilities(_EIGHT_BITS | {"yuv420p10le"}, 144, 4096),
    "vp9": _Abilities(_EIGHT_BITS | {"yuv420p10le"}, 128, 4096),
}
"""Without AV1, whose decoder in PyAV's FFmpeg is libdav1d, which knows no GPU."""


@dataclass(frozen=True, slots=True)
class Video:
    """A stream, as far as the choice of its decoder depends on it.

    codec    FFmpeg's name
    picture  format of its pictures as the CPU's decoder gives them
    seconds  its length
    defect   what is not as it should be, as a short phrase; None: nothing that is known
    """

    codec: str
    picture: PictureFormat
    seconds: float
    defect: str | None = None

    @property
    def unfit(self) -> str | None:
        """Why a GPU cannot decode it with certainty, as a short phrase; None: it can."""
        able = _ABILITIES.get(self.codec)
        if able is None:
            return f"NVDEC is used for {', '.join(_ABILITIES)}, not for {self.codec}"
        if self.picture.pixel_format not in able.formats:
            formats = ", ".join(sorted(able.formats))
            return (
                f"NVDEC is used for {self.codec} in {formats}, not in {self.picture.pixel_format}"
            )
        size = (self.picture.width, self.picture.height)
        if size[0] < able.smallest or size[1] < able.smallest or max(size) > able.largest:
            return (
                f"pictures of {size[0]}x{size[1]}: for {self.codec}, sides of {able.smallest} to "
                f"{able.largest} pixels are decoded with NVDEC"
            )
        return self.defect

    @property
    def worthwhile(self) -> bool:
        """Whether decoding takes so much of an ingest that a GPU gains more than its start costs."""
        pixels = self.picture.width * self.picture.height
        return pixels >= WORTH_PIXELS and self.seconds >= WORTH_SECONDS


def why_no_gpu() -> str | None:
    """Why this machine cannot decode on a GPU; None if driver and FFmpeg have what it needs."""
    if "cuda" not in hwdevices_available():
        return "the FFmpeg of PyAV was built without CUDA"
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            return f"{name} cannot be loaded"
    return None


def need_gpu() -> None:
    """Refuse a machine that cannot decode on a GPU.

    Raises:
        MissingPartError: the driver or its part for videos is not there.
    """
    if why := why_no_gpu():
        raise MissingPartError(
            f"--decoder nvdec: {why}. It needs NVIDIA's driver with its video part; in a container "
            "set NVIDIA_DRIVER_CAPABILITIES=compute,video,utility. Or use --decoder cpu"
        )


def on_gpu(path: Path, limits: VideoLimits, stream: int, pieces: Pieces = ()) -> Source:
    """Open a stream, which the CPU can decode, on the first GPU.

    Raises:
        RefusedInput: the GPU or its driver cannot take it; the message is FFmpeg's.
    """
    device = HWAccel("cuda", allow_software_fallback=False)
    try:
        source = Source(path, limits, stream, pieces=pieces, hwaccel=device)
    except RuntimeError as error:  # no stream of the file has such a decoder
        raise RefusedInput(Reason.UNSUPPORTED_CODEC, str(error)) from error
    if source.context.is_hwaccel:
        return source
    source.container.close()
    raise RefusedInput(Reason.UNSUPPORTED_CODEC, "this stream's decoder knows no GPU")


def decoder_for(
    wanted: Decoder,
    video: Video,
    opened: Callable[[], tuple[Source, Source]],
    obstacle: Callable[[], str | None] = why_no_gpu,
) -> tuple[DecoderUsed, str | None]:
    """What decodes a stream, and a note if it is not what was asked for.

    Args:
        wanted: "auto" asks for a GPU only where it is there, fit for the stream, and faster.
        video: what is known of the stream.
        opened: opens it twice, on the CPU and on the GPU.
        obstacle: why no stream can be decoded on a GPU here; None: nothing is in the way.
    """
    if wanted == "cpu" or (wanted == "auto" and not video.worthwhile):
        return "cpu", None
    why = video.unfit or obstacle()
    if why is None:
        try:
            cpu, gpu = opened()
        except RefusedInput as error:
            why = f"the GPU cannot be used ({error.message})"
        else:
            with cpu, gpu:
                why = why_not_the_same(cpu, gpu, video.picture.pixel_format)
    if why is None:
        return "nvdec", None
    return "cpu", f"decoded on the CPU: {why}" if wanted == "nvdec" else None


def checked_by_cpu(
    gpu: Callable[[DecodeAudit], Iterator[Frames]],
    cpu: Callable[[], Iterator[Frames]],
    audit: DecodeAudit | None,
) -> Iterator[Frames]:
    """The frames of a GPU. If anything is amiss there, the CPU decodes all and has the last word.

    Args:
        gpu: decodes into the audit that it gets.
        cpu: decodes the same frames in the same batches, into `audit`.
        audit: receives the counts of the one whose word counts.

    Raises:
        RefusedInput: from `cpu`.
    """
    given, counts = 0, DecodeAudit()
    with suppress(RefusedInput):
        for frames in gpu(counts):
            if counts.amiss:
                break
            yield frames
            given += 1
        if not counts.amiss:
            if audit is not None:
                audit.add(counts)
            return
    yield from islice(cpu(), given, None)


def like_cpu(picture: VideoFrame, pixel_format: str) -> VideoFrame:
    """A picture of a GPU in the layout that the CPU's decoder gives; every value stays the same.

    Args:
        picture: NV12 or P010, or already in `pixel_format`.
        pixel_format: "yuv420p", "yuvj420p" or "yuv420p10le".
    """
    if picture.format.name == pixel_format:
        return picture
    # Both ranges are given, and equal, because swscale would convert between two that it guesses.
    scale = "JPEG" if pixel_format.startswith("yuvj") else "MPEG"
    return VideoReformatter().reformat(
        picture, format=pixel_format, src_color_range=scale, dst_color_range=scale, threads=1
    )


def why_not_the_same(cpu: Source, gpu: Source, pixel_format: str) -> str | None:
    """Why a stream, opened twice, is not decoded on the GPU; None if its first pictures are equal.

    Both are read from where they are.
    """
    compared = 0
    try:
        for expected, found in zip_longest(_pictures(cpu), _pictures(gpu)):
            if expected is None or found is None:
                return f"the {'CPU' if expected is None else 'GPU'} gives only {compared} pictures"
            if not _equal(expected, like_cpu(found, pixel_format)):
                return f"picture {compared} of the GPU differs from that of the CPU"
            compared += 1
    except (av.error.FFmpegError, ValueError) as error:
        return f"the GPU fails ({plain(error)})"
    return None if compared else "the GPU gives no picture"


def _pictures(source: Source) -> Iterator[VideoFrame]:
    """The first pictures of a stream."""

    def decoded() -> Iterator[VideoFrame]:
        for packet in source.packets():
            yield from source.context.decode(packet)
        yield from source.context.decode(None)

    return islice(decoded(), COMPARED)


def _equal(one: VideoFrame, other: VideoFrame) -> bool:
    """Whether two pictures have the same time, size and values."""
    if (one.pts, one.width, one.height) != (other.pts, other.width, other.height):
        return False
    return one.format.name == other.format.name and all(
        np.array_equal(*planes) for planes in zip(_planes(one), _planes(other), strict=True)
    )


def _planes(picture: VideoFrame) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.uint8]]]:
    """The bytes of each plane, [rows, bytes of a row]; without what pads a row."""
    for plane, component in zip(picture.planes, picture.format.components, strict=True):
        row_bytes = plane.width * (2 if component.bits > 8 else 1)
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        yield rows[: plane.height, :row_bytes]
