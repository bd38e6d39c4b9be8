"""Looping GIFs in which every frame has its own palette."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from wham_data.pipelines.video.scale import Frames

HUNDREDTH = Fraction(1, 100)
"""A GIF's unit of time, in seconds."""
_FOREVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
_XMP = b"!\xff\x0bXMP DataXMP"
_PAST_XMP = bytes([1, *range(255, -1, -1), 0])
"""Ends an XMP packet: a reader that takes the packet for sub-blocks finds its way to the end."""


def write_gif(
    path: Path, frames: Iterable[Frames], rate: Fraction, *, comment: str = "", xmp: str = ""
) -> int:
    """Write frames as a GIF that loops for ever; return the number of frames.

    Every frame gets a palette of 256 colours with error diffusion, so each frame is needed only once
    and none is kept in memory.

    Args:
        path: the file to write.
        frames: uint8 [H, W, 3] RGB, all of one size.
        rate: frames per second; the time of a frame must be whole hundredths of a second.
        comment: text for the comment extension; characters outside ASCII are escaped.
        xmp: XMP packet for the XMP application extension; "": none.
    """
    extensions = _FOREVER
    if comment:
        extensions += b"!\xfe" + _sub_blocks(comment.encode("ascii", "backslashreplace"))
    if xmp:
        extensions += _XMP + xmp.encode() + _PAST_XMP
    with TemporaryFile(dir=path.absolute().parent) as bare, path.open("wb") as out:
        count = _write_bare(bare, frames, rate)
        bare.seek(0)
        _copy_with(extensions, bare, out)
    return count


def _write_bare(file: BinaryIO, frames: Iterable[Frames], rate: Fraction) -> int:
    """Write the GIF without extensions; return the number of frames."""
    delay = {"loop": "-1", "final_delay": str(int(1 / rate / HUNDREDTH))}
    count = 0
    with av.open(file, mode="w", format="gif", options=delay) as out:
        stream = out.add_stream("gif", rate=rate)
        stream.pix_fmt = "pal8"
        for picture in _with_palettes(frames, rate):
            if count == 0:
                stream.width, stream.height = picture.width, picture.height
            picture.pts, picture.time_base = count, 1 / rate
            out.mux(stream.encode(picture))
            count += 1
        if count:
            out.mux(stream.encode(None))
    return count


def _with_palettes(frames: Iterable[Frames], rate: Fraction) -> Iterator[VideoFrame]:
    graph: Graph | None = None
    for position, frame in enumerate(frames):
        graph = graph or _graph(frame, rate)
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = position, 1 / rate
        graph.push(picture)
        yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _graph(frame: Frames, rate: Fraction) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.shape[1], height=frame.shape[0], format=VideoFormat("rgb24"), time_base=1 / rate
    )
    both = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    source.link_to(both)
    both.link_to(use, 0, 0)
    both.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            picture = graph.pull()
        except (BlockingIOError, av.error.EOFError):
            return
        assert isinstance(picture, VideoFrame)
        yield picture


def _copy_with(extensions: bytes, bare: BinaryIO, out: BinaryIO) -> None:
    """Copy a GIF, with `extensions` after its header and global palette."""
    head = bare.read(13)
    has_palette, bits = head[10] & 0x80, head[10] & 0x07
    out.write(head + bare.read(3 << bits + 1 if has_palette else 0) + extensions)
    shutil.copyfileobj(bare, out)


def _sub_blocks(data: bytes) -> bytes:
    """`data` in pieces of at most 255 bytes, each after a byte with its length; then a 0 byte."""
    pieces = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
