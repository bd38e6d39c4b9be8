"""Frames between frames, for the eye: motion-compensated, and never in place of a real one."""

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
"""Pixels; the search for motion wants two of its blocks on either side."""

_SEARCH = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:mb_size=8:search_param=64"
"""Overlapping blocks of variable size, sought far: at 10 fps a turn moves the picture a long way.
Where a cut is found, the frames between are the nearer one of the two."""
_FORMAT = "yuv444p"
_NEEDED = 3
"""Frames that the filter wants to see before it makes any."""


def interpolated(frames: Iterable[Frames], rate: Fraction, factor: int) -> Iterator[Frames]:
    """Every frame as it is, each followed by `factor` - 1 that lead to the next one.

    The last frame has none to lead to and is held: n frames become n * factor, so a film at `rate`
    lasts as long at `factor` times `rate`. A few frames are in memory at a time.

    Args:
        frames: uint8 [H, W, 3] RGB of one size, both sides at least `SMALLEST_SIDE`.
        rate: of `frames`, per second.
        factor: how many times more frames, at least 1.
    """
    graph: Graph | None = None
    waiting: deque[Frames] = deque()
    fed = 0
    last: Frames | None = None
    for last in frames:
        graph = graph or _graph(last, rate, factor)
        _feed(graph, last, fed, rate)
        waiting.append(last)
        fed += 1
        yield from _made(graph, waiting, factor)
    if graph is None or last is None:
        return
    for repeat in range(max(1, _NEEDED - fed)):  # the filter wants one more than it leads to
        _feed(graph, last, fed + repeat, rate)
        yield from _made(graph, waiting, factor)
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


def _made(graph: Graph, waiting: deque[Frames], factor: int) -> Iterator[Frames]:
    """What the filter has ready, the frames in `waiting` in place of its copies of them.

    Nothing follows the last of them: those are its repetition.
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
