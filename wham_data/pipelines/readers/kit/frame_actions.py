"""Actions of which there is one per frame, and frames at a steady rate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import ActionSpace, clamp
from wham_data.schemas.clock import Grid, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack


def even_times(count: int, rate: Fraction, start_ns: int = 0) -> tuple[Nanos, int]:
    """The time at which each of `count` frames at a steady rate begins, and the end of the last.

    Times are rounded up to whole nanoseconds: see `OpenRecording.frame_times_ns`.

    Returns:
        The times in nanoseconds, int64 [count], and the end.
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
    """A track with one row per frame: row k is the action between frame k and frame k + 1.

    Some sources have no action for the last frame, because it is the observation after the last
    action. That action is unknown: a missing sample, not rest.

    Args:
        space: the action space of the columns.
        frame_times_ns: int64 [N].
        frame_end_ns: the frames cover [frame_times_ns[0], frame_end_ns).
        values: float64 [N, A] or [N - 1, A]; a row with a NaN is a missing sample.
        leads: row i led to frame i: it acted between frame i - 1 and frame i. `values` must then
            have N rows, and the first one is ignored.

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
    known = values[1:] if leads else values[:frames]
    rows = np.full((frames, space.size), np.nan)
    rows[: len(known)] = known
    rows, clamped = clamp(space, rows)
    return ActionTrack(space, frame_times_ns, rows, frame_end_ns, None, clamped)


def one_hot(codes: Index, size: int) -> NDArray[np.float64]:
    """Numbers of actions as buttons, of which exactly one is down, float64 [N, size].

    Args:
        codes: int64 [N], each in [0, size), or -1 for an unknown action.
        size: number of actions.

    Raises:
        RefusedInput: LOG_RANGE, a code is out of range.
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
