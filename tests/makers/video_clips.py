"""Clips for the video tests: every frame carries its number, drawn as a row of black and white cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

BITS = 12
MILLISECONDS = Fraction(1, 1000)


def stamped(number: int, width: int = 192, height: int = 112, seed: int = 0) -> Frames:
    """A noisy moving picture with `number` in its top half: twelve cells of two, white for 1."""
    rng = np.random.default_rng((seed, number))
    frame = np.full((height, width, 3), 96, np.uint8)
    frame[height // 2 :] = rng.integers(60, 130, (height - height // 2, width, 3), np.uint8)
    left = number * 7 % max(1, width - 16)
    frame[height // 2 :, left : left + 16] = (200, 40, 40)
    cell = width // BITS
    for bit in range(BITS):
        lit = number >> bit & 1
        frame[: height // 4, bit * cell : (bit + 1) * cell] = 235 if lit else 20
        # The complement below lets the reader notice a frame that is two frames mixed.
        frame[height // 4 : height // 2, bit * cell : (bit + 1) * cell] = 20 if lit else 235
    return frame


def read_stamp(frame: Frames) -> int:
    """The number drawn by `stamped`, from a frame of any size; -1 where it cannot be read."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(BITS):
        column = frame[:, int((bit + 0.5) * (width // BITS))].mean(axis=-1)
        upper, lower = column[height // 8], column[height * 3 // 8]
        if abs(float(upper) - float(lower)) < 80:
            return -1
        number |= int(upper > lower) << bit
    return number


def write_clip(
    path: Path,
    times: Sequence[int],
    *,
    codec: str = "libx264",
    time_base: Fraction = MILLISECONDS,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    size: tuple[int, int] = (192, 112),
    frames: Iterator[Frames] | None = None,
    rate: Fraction = Fraction(30),
    muxed_times: Sequence[int] | None = None,
    format: str | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Frame k of the clip shows number k at times[k] (in `time_base`).

    `muxed_times` replaces the times on the way into the file, for codecs without reordering: so it can
    hold what no encoder would accept.
    """
    restamp = iter(muxed_times) if muxed_times is not None else None
    with av.open(str(path), "w", format=format, options=muxer or {}) as out:
        out.metadata.update(tags or {})
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        pictures = frames or (stamped(k, *size) for k in range(len(times)))
        for time, picture in zip(times, pictures, strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=pixel_format
            )
            frame.pts, frame.time_base = time, time_base
            _mux(out, stream.encode(frame), restamp, time_base)
        _mux(out, stream.encode(None), restamp, time_base)
    return path


def write_sizes(
    path: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    each: int = 10,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """A clip of 30 frames per second whose pictures change their size after `each` frames."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *sizes[0], pixel_format
        stream.time_base = Fraction(1, 30)
        stream.codec_context.open()
        for part, size in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, pixel_format
            encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
            encoder.options = options or {}
            packets: list[av.Packet] = []
            for number in range(part * each, (part + 1) * each):
                picture = av.VideoFrame.from_ndarray(stamped(number, *size), format="rgb24")
                frame = picture.reformat(format=pixel_format)
                frame.pts, frame.time_base = number, Fraction(1, 30)
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream = stream
                out.mux(packet)
    return path


def cut_off(whole: Path, path: Path, packets: int) -> Path:
    """The clip without its first packets; none of the others counts as a key frame."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= packets:
                packet.stream, packet.is_keyframe = stream, False
                out.mux(packet)
    return path


def _mux(
    out: av.container.OutputContainer,
    packets: list[av.Packet],
    restamp: Iterator[int] | None,
    time_base: Fraction,
) -> None:
    for packet in packets:
        if restamp is not None:
            packet.time_base = time_base
            packet.pts = packet.dts = next(restamp)
        out.mux(packet)
