"""Actions that come one per frame, and frames that come at a steady rate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import ActionSpace, clamp
from wham_data.schemas.clock import Grid, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack


def even_times(count: int, rate: Fraction, start_ns: int = 0) -> tuple[Nanos, int]:
    """When each of `count` frames at a steady rate comes on screen, and when the last one ends.

    Times are rounded up to whole nanoseconds: see `OpenRecording.frame_times_ns`.

    Returns:
        int64 [count] and the end.
    """
    edges_ns = Grid(start_ns, count, rate).edges_ns()
    return edges_ns[:-1], int(edges_ns[-1])


def per_frame_track(
    space: ActionSpace,
    frame_times_ns: Nanos,
    frame_end_ns: int,
    values: NDArray[np.float64],
    *,
    leads: bool = False,
) -> ActionTrack:
    """A track with one row per frame: row k is what was done between frame k and frame k + 1.

    Where the source has no action for the last frame, as where it keeps the observation after the
    last action, that one is not known; it is a missing sample, not rest.

    Args:
        space: what the columns mean.
        frame_times_ns: int64 [N].
        frame_end_ns: the frames cover [frame_times_ns[0], frame_end_ns).
        values: float64 [N, A] or [N - 1, A]; a row with a NaN is a missing sample.
        leads: row i led to frame i, so that it acted between frame i - 1 and frame i. Takes N
            rows, of which the first means nothing.

    Raises:
        RefusedInput: LOG_COVERAGE for another number of rows, LOG_COLUMN for another number of
            columns, LOG_RANGE for values out of their range.
    """
    frames = len(frame_times_ns)
    if values.shape[1:] != (space.size,):
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"actions of {values.shape[1:]} numbers, expected {space.size} ({space.name})",
        )
    if len(values) != frames and (leads or len(values) != frames - 1):
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{len(values)} actions for {frames} frames: do they belong together?",
        )
    acted = values[1:] if leads else values[:frames]
    rows = np.full((frames, space.size), np.nan)
    rows[: len(acted)] = acted
    rows, clamped = clamp(space, rows)
    return ActionTrack(space, frame_times_ns, rows, frame_end_ns, None, clamped)


def one_hot(codes: Index, size: int) -> NDArray[np.float64]:
    """Numbers of actions as buttons of which one is down, float64 [N, size].

    Args:
        codes: int64 [N], each in [0, size), or -1 where the action is not known.
        size: how many actions there are.

    Raises:
        RefusedInput: LOG_RANGE, another number.
    """
    wrong = np.flatnonzero((codes < -1) | (codes >= size))
    if len(wrong):
        raise RefusedInput(
            Reason.LOG_RANGE,
            f"action {codes[wrong[0]]} in row {wrong[0]} (the first is 0): expected 0 to {size - 1}",
        )
    table = np.zeros((len(codes), size))
    known = np.flatnonzero(codes >= 0)
    table[known, codes[known]] = 1.0
    table[codes < 0] = np.nan
    return table
