"""Single pictures and clips: encoding, and decoding of stored pictures."""

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

from wham_data.pipelines.video.bitstream import JPEG, PNG, image_size
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
"""The UUID of the box of an mp4 that holds an XMP packet."""


def encode_jpeg(frame: Frames) -> bytes:
    """uint8 [H, W, 3] RGB as a JPEG, 4:4:4, with the finest tables: slightly above quality 95."""
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
        format="yuvj444p",
        dst_colorspace=int(Colorspace.ITU601),
        src_color_range=int(ColorRange.JPEG),
        dst_color_range=int(ColorRange.JPEG),
    )
    return _encode_image(picture, "mjpeg", {"qmin": "1", "qmax": "1"})


def encode_png(frame: Frames) -> bytes:
    """uint8 [H, W, 3] RGB as a PNG, exactly."""
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
    """A PNG or JPEG as uint8 [H, W, 3] RGB.

    Raises:
        RefusedInput: neither of the two, damaged, or of more than `MAX_IMAGE_PIXELS`.
    """
    size = image_size(data)
    if size is None or not (data.startswith(PNG) or data.startswith(JPEG)):
        raise RefusedInput(Reason.CORRUPT, "not a PNG or JPEG picture")
    limits = VideoLimits(max_pixels=MAX_IMAGE_PIXELS)
    check_image_header(data, limits)
    context = av.CodecContext.create("png" if data.startswith(PNG) else "mjpeg", "r")
    context.thread_count = 1
    context.options = {"max_pixels": str(MAX_IMAGE_PIXELS), "err_detect": "explode"}
    try:
        frames = [*context.decode(Packet(data)), *context.decode(None)]
    except av.error.FFmpegError as error:
        raise RefusedInput(Reason.CORRUPT, f"picture cannot be decoded: {plain(error)}") from error
    if not frames:
        raise RefusedInput(Reason.CORRUPT, "picture cannot be decoded")
    matrix, full = ("bt601", True) if data.startswith(JPEG) else colour_of(frames[0])
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


def write_video(
    path: Path,
    frames: Iterable[Frames],
    rate: Fraction,
    *,
    crf: int = 18,
    preset: str = "medium",
    tags: Mapping[str, str] | None = None,
    xmp: str = "",
) -> int:
    """Write frames as H.264, 4:2:0, BT.709 limited range, in an mp4; returns how many.

    Args:
        path: the file to make.
        frames: uint8 [H, W, 3] RGB, all of one size. 4:2:0 wants even sizes: an odd edge is doubled.
        rate: frames per second.
        crf: constant rate factor of x264; smaller is better and larger in bytes.
        preset: of x264.
        tags: metadata of the whole file by name, any names (ffprobe: format tags; exiftool: Keys).
        xmp: an XMP packet for a box at the end of the file, or nothing.
    """
    count = 0
    flags = "faststart+use_metadata_tags" if tags else "faststart"
    with av.open(str(path.absolute()), mode="w", format="mp4", options={"movflags": flags}) as out:
        out.metadata.update(tags or {})
        stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = int(Colorspace.ITU709), int(ColorRange.MPEG)
        context.color_primaries = context.color_trc = 1
        reformatter = VideoReformatter()
        for frame in frames:
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if count == 0:
                stream.width, stream.height = even.shape[1], even.shape[0]
            picture = reformatter.reformat(
                VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24"),
                format="yuv420p",
                dst_colorspace=int(Colorspace.ITU709),
                src_color_range=int(ColorRange.JPEG),
                dst_color_range=int(ColorRange.MPEG),
                interpolation=AREA,
            )
            picture.pts, picture.time_base = count, 1 / rate
            out.mux(stream.encode(picture))
            count += 1
        if count:
            out.mux(stream.encode(None))
    if xmp:
        box = XMP_BOX + xmp.encode()
        with path.open("ab") as file:
            file.write(struct.pack(">I4s", 8 + len(box), b"uuid") + box)
    return count


def encode_image(frame: Frames, kind: Literal["jpeg", "png"]) -> bytes:
    """`encode_jpeg` or `encode_png`."""
    return encode_jpeg(frame) if kind == "jpeg" else encode_png(frame)
