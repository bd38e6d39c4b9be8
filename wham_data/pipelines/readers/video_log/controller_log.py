"""A controller log becomes a track of states: one row per instant at which the hands are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import DEFAULT_MAX_GAP_NS, latest_at
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.video_log.frame_numbers import rows_by_frame
from wham_data.pipelines.readers.video_log.log_metadata import (
    ColumnRoles,
    LogMetadata,
    assign_columns,
    listed,
    match_controls,
)
from wham_data.pipelines.readers.video_log.log_parquet import ParquetLog
from wham_data.pipelines.readers.video_log.log_table import (
    LogFile,
    LogTable,
    TimeUnit,
    WantedColumns,
)
from wham_data.pipelines.readers.video_log.log_text import open_text_log
from wham_data.schemas.actions import ActionSpace, clamp
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack

MAX_MISSING_SHARE: Final = 0.01
MAX_TIME_NS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class ControllerLog:
    """A log in the video's time.

    track    what the hands did
    frames   int64 [N], the video frame on screen at each row of the track, -1 where the log does
             not say; None if it never does
    tics     int64 [N], the tic of the engine at each row of the track; None where it is not counted
    sampled  one row per sample; False for a log of events
    unit     what the time column counts in
    notes    what a person should know
    """

    track: ActionTrack
    frames: Index | None
    tics: Index | None
    sampled: bool
    unit: TimeUnit
    notes: tuple[str, ...]


def read_controller_log(
    path: Path,
    metadata: LogMetadata,
    space: ActionSpace | None,
    frame_times_ns: Nanos,
    frame_end_ns: int,
) -> ControllerLog:
    """Read a log, correct its clock, bring its rows into order and its values into range.

    Args:
        path: a .csv, .jsonl or .parquet file (text forms also gzipped).
        metadata: of the log.
        space: the action space; None works it out from the columns.
        frame_times_ns: int64 [F], the video's own clock, for a log that numbers frames instead of
            telling the time.
        frame_end_ns: when the last frame ends.

    Raises:
        RefusedInput: the log cannot be read as one, or is not to be trusted.
    """
    parquet = path.name.lower().endswith(".parquet")
    file: LogFile = ParquetLog.open(path) if parquet else open_text_log(path)
    roles, space = assign_columns(file.columns, metadata.columns, space)
    if roles.control is not None and roles.value is not None:
        wanted = WantedColumns(roles.time, roles.unit, (roles.value,), roles.control)
        return _event_log(file.read(wanted), roles, metadata, space)
    assert space is not None
    columns = tuple(roles.dimensions[name] for name in space.names)
    extra = tuple(name for name in (roles.frame or roles.tick,) if name is not None)
    wanted = WantedColumns(roles.time, roles.unit, columns + extra)
    table = file.read(wanted)
    if roles.numbered:
        return _numbered_log(table, roles, metadata, space, frame_times_ns, frame_end_ns)
    return _sampled_log(table, roles, metadata, space)


def _numbered_log(
    table: LogTable,
    roles: ColumnRoles,
    metadata: LogMetadata,
    space: ActionSpace,
    frame_times_ns: Nanos,
    frame_end_ns: int,
) -> ControllerLog:
    """A log with a row per frame, which acts after it."""
    if metadata.offset_ns or metadata.drift_ppm:
        raise RefusedInput(
            Reason.METADATA,
            f"offset_ms and drift_ppm are of a clock, and the log has none: its column "
            f"{roles.time} numbers frames",
        )
    notes = [*table.notes, *_ignored_note("columns", roles.ignored)]
    notes += _check_finite(table.numbers, space)
    rows, frame_notes = rows_by_frame(table.times_ns, table.numbers, len(frame_times_ns))
    try:
        track = per_frame_track(space, frame_times_ns, frame_end_ns, rows)
    except RefusedInput as error:
        raise RefusedInput(error.reason, f"value out of range: {error.message}") from None
    return ControllerLog(track, None, None, False, roles.unit, (*notes, *frame_notes))


def _sampled_log(
    table: LogTable, roles: ColumnRoles, metadata: LogMetadata, space: ActionSpace
) -> ControllerLog:
    """A log with the state of every dimension in each row."""
    values, frames, tics = table.numbers[:, : space.size], None, None
    if roles.frame is not None:
        frames = _frame_numbers(table.numbers[:, space.size])
    elif roles.tick is not None:
        tics = _tics(table.numbers[:, space.size])
    notes = [*table.notes, *_ignored_note("columns", roles.ignored)]
    notes += _check_finite(values, space)
    values, clamped = _clamped(space, values)
    times_ns = correct_clock(table.times_ns, metadata.offset_ns, metadata.drift_ppm)

    rows, order_notes = _time_order(times_ns)
    times_ns, values = times_ns[rows], values[rows]
    frames = frames[rows] if frames is not None else None
    tics = tics[rows] if tics is not None else None
    keep, duplicate_notes = _drop_repeated(times_ns, values, frames)
    times_ns, values = times_ns[keep], values[keep]
    frames = frames[keep] if frames is not None else None
    tics = tics[keep] if tics is not None else None
    track = ActionTrack(space, times_ns, values, int(times_ns[-1]), DEFAULT_MAX_GAP_NS, clamped)
    notes += [*order_notes, *duplicate_notes]
    return ControllerLog(track, frames, tics, True, roles.unit, tuple(notes))


def _event_log(
    table: LogTable, roles: ColumnRoles, metadata: LogMetadata, space: ActionSpace | None
) -> ControllerLog:
    """A log with one changed control per row: states are carried forward from rest.

    Events at one instant make one row: of two events of one control the later line counts, of
    motion the sum. A value that is not finite leaves its control unknown until its next event.
    """
    places, ignored, space = match_controls(table.control_names, metadata.columns, space)
    place = np.array(places, np.int64)[table.controls]
    notes = [*table.notes, *_ignored_note("columns", roles.ignored)]
    notes += _ignored_note("controls", ignored)
    meant = place >= 0
    place, happened = place[meant], table.numbers[meant, 0]
    times_ns = correct_clock(table.times_ns[meant], metadata.offset_ns, metadata.drift_ppm)

    events = np.zeros((len(place), space.size))
    events[np.arange(len(place)), place] = happened
    notes += _check_finite(events, space)
    events, clamped = _clamped(space, events)
    happened = events[np.arange(len(place)), place]

    rows, order_notes = _time_order(times_ns)
    times_ns, place, happened = times_ns[rows], place[rows], happened[rows]
    keep, duplicate_notes = _drop_repeated_events(times_ns, place, happened)
    times_ns, place, happened = times_ns[keep], place[keep], happened[keep]

    row_times_ns, row = np.unique(times_ns, return_inverse=True)
    values = np.zeros((len(row_times_ns), space.size))
    motions = set(space.of_kind("delta").tolist())
    for dimension in range(space.size):
        mine = np.flatnonzero(place == dimension)
        if not len(mine):
            continue
        if dimension in motions:
            np.add.at(values[:, dimension], row[mine], happened[mine])
            continue
        latest = latest_at(row[mine], np.arange(row[mine[0]], len(row_times_ns)))
        values[row[mine[0]] :, dimension] = happened[mine][latest]
    track = ActionTrack(space, row_times_ns, values, int(row_times_ns[-1]), None, clamped)
    notes += [*order_notes, *duplicate_notes]
    return ControllerLog(track, None, None, False, roles.unit, tuple(notes))


def correct_clock(times_ns: Nanos, offset_ns: int, drift_ppm: float) -> Nanos:
    """t_true = (t_log - offset) / (1 + drift): only the small correction passes through a float.

    Raises:
        RefusedInput: LOG_CLOCK, a time is beyond 146 years.
    """
    low, high = int(times_ns.min()), int(times_ns.max())
    if min(low, low - offset_ns) < -MAX_TIME_NS or max(high, high - offset_ns) > MAX_TIME_NS:
        raise RefusedInput(Reason.LOG_CLOCK, f"times of {high} ns are no possible clock")
    since_ns = times_ns - np.int64(offset_ns)
    drift = drift_ppm * 1e-6
    lag_ns = np.rint(since_ns * (drift / (1.0 + drift))).astype(np.int64)
    corrected: Nanos = since_ns - lag_ns
    return corrected


def _ignored_note(what: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    return [f"extra {what} ignored: {listed(names)}"]


def _frame_numbers(column: NDArray[np.float64]) -> Index:
    """Whole frame numbers, -1 where the log does not say."""
    said = np.isfinite(column)
    numbers = np.where(said, column, -1.0)
    wrong = said & ((numbers != np.floor(numbers)) | (numbers < 0) | (numbers > 2**31))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RefusedInput(
            Reason.LOG_TYPE,
            f"row {row + 1}: column frame holds {column[row]:g}, expected a frame number from 0",
        )
    return numbers.astype(np.int64)


def _tics(column: NDArray[np.float64]) -> Index | None:
    """Whole tics of an engine; None where the column holds something else."""
    if not (np.isfinite(column) & (np.abs(column) < 2**52) & (column % 1 == 0)).all():
        return None
    return column.astype(np.int64)


def _check_finite(values: NDArray[np.float64], space: ActionSpace) -> list[str]:
    """Refuse a log with too many missing samples; mention a few."""
    lost = ~np.isfinite(values)
    lost_rows = lost.any(axis=1)
    count = int(lost_rows.sum())
    if not count:
        return []
    row = int(np.flatnonzero(lost_rows)[0])
    name = space.names[int(np.flatnonzero(lost[row])[0])]
    first = f"first in row {row + 1}, {name}"
    if count >= 2 and count > MAX_MISSING_SHARE * len(values):
        raise RefusedInput(
            Reason.LOG_NOT_FINITE,
            f"{count} of {len(values)} rows have values that are missing or not finite "
            f"(nan, inf, null), limit {MAX_MISSING_SHARE:.0%}; {first}",
        )
    return [f"{count} rows with missing values: their actions are not known ({first})"]


def _clamped(space: ActionSpace, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    try:
        return clamp(space, values)
    except RefusedInput as error:
        raise RefusedInput(error.reason, f"value out of range: {error.message}") from None


def _time_order(times_ns: Nanos) -> tuple[Index, list[str]]:
    """Positions that bring rows into time order (rows of one time keep theirs), and a note.

    Shuffled rows are sorted: they are a permutation of a sound log. A clock that was set back is
    not: long stretches of rising time then lie over one another, and which row was when is lost.

    Raises:
        RefusedInput: LOG_CLOCK, the clock was set back.
    """
    falls = np.flatnonzero(np.diff(times_ns) < 0) + 1
    if not len(falls):
        return np.arange(len(times_ns)), []
    order = np.argsort(times_ns, kind="stable")
    stretch = np.searchsorted(falls, order, side="right")
    switches = int(np.count_nonzero(np.diff(stretch)))
    long_stretches = len(falls) * 10 < len(times_ns)
    if long_stretches and switches > 8 * (len(falls) + 1):
        row = int(falls[0])
        back_s = (times_ns[row - 1] - times_ns[row]) / SECOND_NS
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"the clock was set back: row {row + 1} is {back_s:g} s before the row above it",
        )
    return order, [f"rows were not in time order: sorted ({len(falls)} steps back)"]


def _drop_repeated(
    times_ns: Nanos, values: NDArray[np.float64], frames: Index | None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which rows to keep of a sorted log: identical rows of one time are one row.

    Raises:
        RefusedInput: LOG_CLOCK, two different rows have one time.
    """
    keep = np.append(True, np.diff(times_ns) > 0)
    if keep.all():
        return keep, []
    above = np.flatnonzero(~keep) - 1
    here = above + 1
    differs = ((values[above] != values[here])
               & ~(np.isnan(values[above]) & np.isnan(values[here]))).any(axis=1)  # fmt: skip
    if frames is not None:
        differs |= frames[above] != frames[here]
    if differs.any():
        at_ns = int(times_ns[here[np.flatnonzero(differs)[0]]])
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"conflicting duplicate rows: two different ones at {at_ns / SECOND_NS:.9g} s",
        )
    return keep, [f"{len(here)} duplicate rows dropped"]


def _drop_repeated_events(
    times_ns: Nanos, place: Index, happened: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which events to keep of a sorted log: an event that the row above says already is dropped."""
    same = (np.diff(times_ns) == 0) & (np.diff(place) == 0) & (happened[1:] == happened[:-1])
    keep = np.append(True, ~same)
    return keep, [f"{int(same.sum())} duplicate rows dropped"] if same.any() else []
