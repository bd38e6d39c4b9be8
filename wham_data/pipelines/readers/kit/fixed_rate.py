"""Recordings of a source that keeps no times: rows at a fixed rate, with pictures or without.

Most readers of arrays need nothing else: see docs/add-a-reader.md.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.frame_actions import even_times, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    NO_DATA,
    PicturelessRecording,
    PictureRecording,
    Pictures,
    audit_clock,
    check_length,
    check_pixels,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, OpenRecording


def open_fixed_rate(
    count: int,
    rate: Fraction,
    limits: VideoLimits,
    data: FrameData = NO_DATA,
    *,
    space: ActionSpace,
    values: NDArray[np.float64],
    pictures: Pictures | None = None,
    size: tuple[int, int] = (1, 1),
    notes: tuple[str, ...] = (),
) -> OpenRecording:
    """A recording whose rows follow one another at a fixed rate; a note says at which.

    Args:
        count: rows, which are frames or, without pictures, instants.
        rate: of rows, in Hz.
        limits: how long and how large it may be.
        data: what else the source knows of each row; its `actions` come from `values`.
        space: what the columns of `values` mean.
        values: actions, float64 [count, A], or [count - 1, A] where the last row has none. Row i
            acts after frame i; a row with a NaN is not known.
        pictures: the pictures at some positions; None: actions alone.
        size: (width, height) of the pictures.
        notes: what else a person should know.

    Raises:
        RefusedInput: the recording is too long or too large, or its columns differ in length.
    """
    times_ns, end_ns = even_times(count, rate)
    check_length(count, end_ns, limits)
    for name in ("states", "rewards", "texts"):
        column = getattr(data, name)
        if column is not None and len(column) != count:
            raise RefusedInput(Reason.LOG_COVERAGE, f"{len(column)} {name} for {count} frames")
    data = replace(data, actions=per_frame_track(space, times_ns, end_ns, values))
    clock = audit_clock(times_ns)
    notes = (f"no clock in the files: taken as {float(rate):g} frames/s", *notes)
    if pictures is None:
        return PicturelessRecording(
            frame_times_ns=times_ns, frame_end_ns=end_ns, clock=clock, data=data, notes=notes
        )
    check_pixels(*size, limits)
    return PictureRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=clock,
        data=data,
        notes=notes,
        pictures=pictures,
        limits=limits,
    )
