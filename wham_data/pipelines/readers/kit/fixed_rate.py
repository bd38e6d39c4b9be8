"""Episodes of a source that keeps no times: rows at a steady rate, with pictures or without."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.frame_actions import even_times, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
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
from wham_data.schemas.recording import OpenRecording


def open_steady(
    count: int,
    rate: Fraction,
    limits: VideoLimits,
    max_gap_ns: int,
    *,
    space: ActionSpace,
    values: NDArray[np.float64],
    states: NDArray[np.float32] | None = None,
    rewards: NDArray[np.float32] | None = None,
    texts: Sequence[str | None] | None = None,
    pictures: Pictures | None = None,
    size: tuple[int, int] = (1, 1),
    notes: tuple[str, ...] = (),
) -> OpenRecording:
    """An episode as an open recording, with a note that says at which rate it was taken.

    Args:
        count: rows, which are frames or, without pictures, instants.
        rate: of rows, in Hz.
        limits: how long and how large it may be.
        max_gap_ns: longest time without a new frame that is no gap.
        space, values: actions, see `per_frame_track`; a row acts after its frame.
        states, rewards, texts: as in `OpenRecording`.
        pictures, size: how to get at the pictures, and their (width, height).
        notes: what else a person should know.

    Raises:
        RefusedInput: the recording is too long or too large, or its columns differ in length.
    """
    times_ns, end_ns = even_times(count, rate)
    check_length(count, end_ns, limits)
    for name, column in (("states", states), ("rewards", rewards), ("texts", texts)):
        if column is not None and len(column) != count:
            raise RefusedInput(Reason.LOG_COVERAGE, f"{len(column)} {name} for {count} frames")
    clock = audit_clock(times_ns, end_ns, max_gap_ns)
    track = per_frame_track(space, times_ns, end_ns, values)
    notes = (f"no clock in the files: taken as {float(rate):g} frames/s", *notes)
    if pictures is None:
        return PicturelessRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=clock,
            actions=track,
            states=states,
            rewards=rewards,
            texts=texts,
            notes=notes,
        )
    check_pixels(*size, limits)
    return PictureRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=clock,
        actions=track,
        states=states,
        rewards=rewards,
        texts=texts,
        notes=notes,
        pictures=pictures,
        limits=limits,
    )
