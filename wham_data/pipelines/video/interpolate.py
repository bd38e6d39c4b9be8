"""Motion-compensated frames between the real frames, for smoother playback."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av.error
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from wham_data.pipelines.video.scale import Frames

SMALLEST_SIDE = 16
"""Smallest width and height in pixels; the motion search needs two of its blocks on each side."""

_SEARCH = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:mb_size=8:search_param=64"
"""Options of FFmpeg's `minterpolate`: overlapping blocks of variable size and a wide search, because
at 10 fps a turn moves the picture far. At a scene cut the filter repeats the nearer real frame."""
_FORMAT = "yuv444p"
_NEEDED = 3
"""Number of frames that the filter needs before it gives the first one."""


def interpolated(frames: Iterable[Frames], rate: Fraction, factor: int) -> Iterator[Frames]:
    """Yield every frame unchanged, each followed by `factor` - 1 interpolated frames.

    The last frame has no successor and is repeated. So n frames become n * factor, and the film lasts
    the same time at `factor` * `rate`. Only a few frames are in memory at a time.

    Args:
        frames: uint8 [H, W, 3] RGB, all of one size; both sides at least `SMALLEST_SIDE`.
        rate: frames per second of `frames`.
        factor: how many times more frames, at least 1.

    Yields:
        uint8 [H, W, 3] RGB.
    """
    graph: Graph | None = None
    waiting: deque[Frames] = deque()
    n_fed = 0
    last: Frames | None = None
    for last in frames:
        graph = graph or _graph(last, rate, factor)
        _feed(graph, last, n_fed, rate)
        waiting.append(last)
        n_fed += 1
        yield from _ready_frames(graph, waiting, factor)
    if graph is None or last is None:
        return
    for repeat in range(
        max(1, _NEEDED - n_fed)
    ):  # the filter needs one frame after the last interval
        _feed(graph, last, n_fed + repeat, rate)
        yield from _ready_frames(graph, waiting, factor)
    for _ in range(factor - 1):
        yield last


def _graph(frame: Frames, rate: Fraction, factor: int) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.shape[1], height=frame.shape[0], format=VideoFormat(_FORMAT), time_base=1 / rate
    )
    search = graph.add("minterpolate", f"fps={rate * factor}:{_SEARCH}")
    source.link_to(search)
    search.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _feed(graph: Graph, frame: Frames, position: int, rate: Fraction) -> None:
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    picture = picture.reformat(format=_FORMAT)
    picture.pts, picture.time_base = position, 1 / rate
    graph.push(picture)


def _ready_frames(graph: Graph, waiting: deque[Frames], factor: int) -> Iterator[Frames]:
    """The frames that the filter has ready, with the real frames from `waiting` in place of its copies.

    Stops after the last real frame, because what the filter gives then are repetitions of it.
    """
    while waiting:
        try:
            picture = graph.pull()
        except (BlockingIOError, av.error.EOFError):
            return
        assert isinstance(picture, VideoFrame)
        assert picture.pts is not None
        if picture.pts % factor == 0:
            yield waiting.popleft()
        else:
            yield np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
