"""Encode pictures and clips, and decode stored pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from wham_data.pipelines.video.bitstream import JPEG, PNG, image_size, is_webp
from wham_data.pipelines.video.scale import (
    AREA,
    COEFFICIENTS,
    Frames,
    colour_of,
    interleave,
    rgb_format,
)
from wham_data.pipelines.video.source import VideoLimits, check_image_header, plain
from wham_data.schemas.errors import Reason, RefusedInput

MAX_IMAGE_PIXELS = 3840 * 2160
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""UUID of the mp4 box that holds an XMP packet."""


def encode_jpeg(frame: Frames) -> bytes:
    """Encode a frame, uint8 [H, W, 3] RGB, as a 4:4:4 JPEG of slightly more than quality 95."""
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
        format="yuvj444p",
        dst_colorspace=int(Colorspace.ITU601),
        src_color_range=int(ColorRange.JPEG),
        dst_color_range=int(ColorRange.JPEG),
    )
    return _encode_image(picture, "mjpeg", {"qmin": "1", "qmax": "1"})


def encode_png(frame: Frames) -> bytes:
    """Encode a frame, uint8 [H, W, 3] RGB, as a PNG without loss."""
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return _encode_image(picture, "png", {"compression_level": "1", "pred": "mixed"})


def _encode_image(
    picture: VideoFrame, codec: Literal["mjpeg", "png"], options: dict[str, str]
) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height = picture.width, picture.height
    context.pix_fmt = picture.format.name
    context.time_base = Fraction(1, 1)
    context.thread_count = 1
    context.options = options
    picture.pts, picture.time_base = 0, Fraction(1, 1)
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])


def decode_image(data: bytes) -> Frames:
    """Decode a PNG, JPEG or WebP. Transparency is ignored.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        RefusedInput: not such a picture, or a moving one, damaged, or larger than `MAX_IMAGE_PIXELS` pixels.
    """
    size = image_size(data)
    codec = _codec_of(data)
    if size is None or codec is None:
        raise RefusedInput(Reason.CORRUPT, "not a PNG, JPEG or still WebP picture")
    limits = VideoLimits(max_pixels=MAX_IMAGE_PIXELS)
    check_image_header(data, limits)
    context = av.CodecContext.create(codec, "r")
    context.thread_count = 1
    context.options = {"max_pixels": str(MAX_IMAGE_PIXELS), "err_detect": "explode"}
    try:
        frames = [*context.decode(Packet(data)), *context.decode(None)]
    except av.error.FFmpegError as error:
        raise RefusedInput(Reason.CORRUPT, f"picture cannot be decoded: {plain(error)}") from error
    if not frames:
        raise RefusedInput(Reason.CORRUPT, "picture cannot be decoded")
    matrix, full = colour_of(frames[0]) if codec == "png" else ("bt601", codec == "mjpeg")
    return interleave(
        VideoReformatter().reformat(
            frames[0],
            format=rgb_format(frames[0], (frames[0].width, frames[0].height)),
            src_colorspace=int(COEFFICIENTS[matrix]),
            src_color_range=int(ColorRange.JPEG if full else ColorRange.MPEG),
            dst_color_range=int(ColorRange.JPEG),
            interpolation=AREA,
            threads=1,
        )
    )


def _codec_of(data: bytes) -> Literal["png", "mjpeg", "webp"] | None:
    if data.startswith(PNG):
        return "png"
    if data.startswith(JPEG):
        return "mjpeg"
    return "webp" if is_webp(data) else None


Codec = Literal["h264", "mpeg4"]


class VideoWriter:
    """Writes an mp4 or mkv frame by frame, each frame with its time; 4:2:0, limited range.

    Args:
        path: the file to write; `.mkv` is Matroska, whose times are whole milliseconds, all else mp4.
        rate: frames per second, for a video of uneven ones about so many.
        unit: the unit of the frames' times in seconds; None: that of a frame, 1 / rate.
        codec: "h264" in BT.709; or "mpeg4", MPEG-4 Part 2 at its best quality, in BT.601.
        crf: constant rate factor of x264; a smaller number means better quality and a larger file.
        preset: preset of x264.
        reproducible: the same frames give the same bytes. x264 then uses one thread and no macroblock
            tree, because with the tree and B-frames the bytes differ from run to run.
        tags: metadata of the file: name -> text (ffprobe shows them as format tags, exiftool as Keys).
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        *,
        unit: Fraction | None = None,
        codec: Codec = "h264",
        crf: int = 18,
        preset: str = "medium",
        reproducible: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        flags = "faststart+use_metadata_tags" if tags else "faststart"
        format, settings = "mp4", {"movflags": flags}
        if (
            path.suffix == ".mkv"
        ):  # which writes the program's version and a random number otherwise
            format, settings = "matroska", {"fflags": "+bitexact"}
        self._out = av.open(str(path.absolute()), mode="w", format=format, options=settings)
        self._out.metadata.update(tags or {})
        if codec == "h264":
            options, self._matrix = {"crf": str(crf), "preset": preset}, int(Colorspace.ITU709)
            options |= {"x264-params": "mbtree=0"} if reproducible else {}
            self._stream = self._out.add_stream("libx264", rate=rate, options=options)
        else:
            options, self._matrix = {"qmin": "1", "qmax": "1"}, int(Colorspace.ITU601)
            self._stream = self._out.add_stream("mpeg4", rate=rate, options=options)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace, context.color_range = self._matrix, int(ColorRange.MPEG)
        context.color_primaries = context.color_trc = 1 if codec == "h264" else 2
        if reproducible:
            context.thread_count = 1
        self._reformatter = VideoReformatter()
        self._unit = context.time_base = unit or 1 / rate
        self._has_frames = False

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._has_frames:
            self._out.mux(self._stream.encode(None))
        self._out.close()

    def add(self, frame: Frames, time: int) -> None:
        """Write a frame.

        Args:
            frame: uint8 [H, W, 3] RGB; all frames of one size. 4:2:0 needs even sizes, so the last row
                or column of an odd size is repeated.
            time: when the frame comes on screen, in units of `unit`; later than the frame before.
        """
        odd = frame.shape[0] % 2, frame.shape[1] % 2
        if any(odd):
            frame = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
        if not self._has_frames:
            self._stream.height, self._stream.width = frame.shape[:2]
            self._has_frames = True
        picture = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format="yuv420p",
            dst_colorspace=self._matrix,
            src_color_range=int(ColorRange.JPEG),
            dst_color_range=int(ColorRange.MPEG),
            interpolation=AREA,
        )
        picture.pts, picture.time_base = time, self._unit
        self._out.mux(self._stream.encode(picture))


def write_video(
    path: Path,
    frames: Iterable[Frames],
    rate: Fraction,
    *,
    codec: Codec = "h264",
    crf: int = 18,
    preset: str = "medium",
    reproducible: bool = False,
    tags: Mapping[str, str] | None = None,
    xmp: str = "",
) -> int:
    """Write frames at a constant rate with `VideoWriter`; return the number of frames.

    Args:
        path: the file to write.
        frames: uint8 [H, W, 3] RGB, all of one size.
        rate: frames per second.
        codec, crf, preset, reproducible, tags: see `VideoWriter`.
        xmp: XMP packet for a box at the end of the file; "": none.
    """
    count = 0
    with VideoWriter(
        path, rate, codec=codec, crf=crf, preset=preset, reproducible=reproducible, tags=tags
    ) as out:
        for frame in frames:
            out.add(frame, count)
            count += 1
    if xmp:
        box = XMP_BOX + xmp.encode()
        with path.open("ab") as file:
            file.write(struct.pack(">I4s", 8 + len(box), b"uuid") + box)
    return count


def encode_image(frame: Frames, kind: Literal["jpeg", "png"]) -> bytes:
    """Encode a frame, uint8 [H, W, 3] RGB, with `encode_jpeg` or `encode_png`."""
    return encode_jpeg(frame) if kind == "jpeg" else encode_png(frame)
