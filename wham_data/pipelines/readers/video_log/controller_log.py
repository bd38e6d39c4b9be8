"""A controller log becomes a track of states: one row per instant at which the hands are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import DEFAULT_MAX_GAP_NS
from wham_data.pipelines.readers.kit.column_guesses import is_hat_name, key
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.video_log.column_roles import (
    ColumnRoles,
    assign_columns,
    match_controls,
)
from wham_data.pipelines.readers.video_log.devices import check_other_columns, one_device
from wham_data.pipelines.readers.video_log.event_states import (
    Events,
    comings_and_goings,
    from_video_start,
    own_releases,
    states_of,
    without_repeated,
)
from wham_data.pipelines.readers.video_log.frame_numbers import counts_as_many, rows_by_frame
from wham_data.pipelines.readers.video_log.log_clock import (
    event_order,
    of_one_time,
    of_two_pads,
    sampled_order,
    unwrapped,
)
from wham_data.pipelines.readers.video_log.log_format import UNIT_NAMES, LogFormat
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.pipelines.readers.video_log.log_rows import (
    THERE,
    held_between,
    hushed,
    in_nanoseconds,
    lapses,
    one_button_each,
    open_log,
    scales_of,
    split_hat,
    spread_hat,
    ticking,
    with_rest,
    with_vector,
    without_absent,
)
from wham_data.pipelines.readers.video_log.log_table import (
    LogFile,
    LogTable,
    TimeUnit,
    WantedColumns,
)
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.pipelines.readers.video_log.scales import brought_to_scale, only_at
from wham_data.pipelines.readers.video_log.time_column import (
    check_start,
    found_unit,
    unit_in_row,
)
from wham_data.schemas.actions import ActionSpace
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
    format   how the file was understood
    notes    what a person should know
    """

    track: ActionTrack
    frames: Index | None
    tics: Index | None
    sampled: bool
    unit: TimeUnit
    format: LogFormat
    notes: tuple[str, ...]


def read_controller_log(
    path: Path,
    metadata: LogMetadata,
    space: ActionSpace | None,
    frame_times_ns: Nanos,
    frame_end_ns: int,
    part: str = "",
    target: ActionSpace | None = None,
) -> ControllerLog:
    """Read a log, correct its clock, bring its rows into order and its values into range.

    Args:
        path: a .csv, .tsv, .jsonl, .json or .parquet file (text forms also gzipped).
        metadata: of the log.
        space: the action space; None works it out from the columns.
        frame_times_ns: int64 [F], the video's own clock, for a log that numbers frames instead of
            telling the time.
        frame_end_ns: when the last frame ends.
        part: of the recording: which of the log's devices it is of; "": there is one.
        target: the space of the corpus, taken where the log fits several; None: not known.

    Raises:
        RefusedInput: the log cannot be read as one, or is not to be trusted.
    """
    file = open_log(path, metadata)
    return understood_log(file, metadata, space, frame_times_ns, frame_end_ns, part, target)


def understood_log(
    opened: LogFile,
    metadata: LogMetadata,
    space: ActionSpace | None,
    frame_times_ns: Nanos,
    frame_end_ns: int,
    part: str = "",
    target: ActionSpace | None = None,
) -> ControllerLog:
    """The same for a log that is open. Arguments and errors are those of `read_controller_log`."""
    opened, space = with_vector(opened, metadata.columns, space)
    file: LogFile = one_device(opened, metadata.columns, metadata.ignore, metadata.only, part)
    mapping = metadata.columns
    if metadata.tick_rate is not None:
        mapping = ticking(file.columns, mapping)
    roles, space = assign_columns(
        file.columns, mapping, space, file.format.time_column, metadata.at_rest, target
    )
    roles = _with_unit(roles, file, frame_end_ns - int(frame_times_ns[0]))
    if roles.control is not None and roles.value is not None:
        wanted = WantedColumns(roles.time, roles.unit, (roles.value,), roles.control, roles.keys)
        table = _read(file, wanted, roles, metadata)
        video_ns = int(frame_times_ns[0]), frame_end_ns
        first_ns = None if metadata.start_zone is not None else video_ns[0]
        table = from_video_start(table, first_ns)
        return _event_log(table, roles, metadata, space, video_ns, target)
    assert space is not None
    columns = tuple(roles.dimensions[name] for name in space.names if name in roles.dimensions)
    there = next((name for name in roles.ignored if THERE.fullmatch(name)), None)
    extra = tuple(name for name in (roles.action, roles.frame or roles.tick, there) if name)
    once = columns + extra if roles.hat is None else tuple(dict.fromkeys(columns + extra))
    wanted = WantedColumns(roles.time, roles.unit, once)
    table = _read(file, wanted, roles, metadata)
    table = spread_hat(table, columns + extra, roles, metadata.hat_form)
    table = with_rest(table, roles, space)
    if roles.action is not None:
        table = replace(table, numbers=one_button_each(table.numbers, space.size))
    elif len(table.words):
        _check_words(table.words[:, : space.size], space, space.names)
    if there is not None:
        table = without_absent(table, there)
    check_other_columns(file, roles.ignored, table.numbers[:, : space.size])
    if roles.numbered:
        return _numbered_log(table, roles, metadata, space, frame_times_ns, frame_end_ns)
    return _sampled_log(table, roles, metadata, space)


def _with_unit(roles: ColumnRoles, file: LogFile, video_ns: int) -> ColumnRoles:
    """What the time column counts in, found out where its name does not say it.

    Raises:
        RefusedInput: LOG_COLUMN, it cannot be, or a row of units says something else than the name.
    """
    said = unit_in_row(dict(file.format.units), roles.time)
    if not roles.unit_known and said is None:
        return replace(roles, unit=found_unit(file, roles.time, video_ns))
    if not roles.unit_known and said is not None:
        return replace(roles, unit=said, unit_known=True)
    if said not in (None, roles.unit) and not roles.numbered:
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"column {listed([roles.time])} counts {UNIT_NAMES[roles.unit]} by its name, and "
            f"{UNIT_NAMES[said or roles.unit]} by the row of units: mend the wrong one",
        )
    return roles


def _read(
    file: LogFile, wanted: WantedColumns, roles: ColumnRoles, metadata: LogMetadata
) -> LogTable:
    """The wanted columns, and notes on how the log was understood."""
    table = file.read(wanted)
    kind = table.format.time_kind
    dates = kind.startswith("dates")
    if not roles.unit_known and not dates:
        guessed = (*table.format.guessed, "time_kind")
        table = replace(table, format=replace(table.format, guessed=guessed))
    if roles.numbered:
        table = replace(table, format=replace(table.format, time_kind="frames"))
    if dates and metadata.tick_rate is not None:
        raise RefusedInput(
            Reason.METADATA, f"tick_rate: column {listed([roles.time])} holds dates, not ticks"
        )
    table = in_nanoseconds(table, metadata.tick_rate)
    if kind and not roles.numbered:
        check_start(kind, metadata.start_zone, int(table.times_ns[0]))
    return replace(table, notes=(*table.format.notes(), *table.notes))


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
    values = table.numbers[:, : space.size]
    notes += _check_finite(values, space)
    table = replace(table, numbers=_to_scale(table, values, roles, metadata, space, notes))
    rows, frame_notes = rows_by_frame(table.times_ns, table.numbers, len(frame_times_ns))
    first, last = int(table.times_ns.min()), int(table.times_ns.max())
    if not metadata.declares("frame") and not counts_as_many(first, last, len(frame_times_ns)):
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"column {roles.time} numbers {first} to {last}, the video has {len(frame_times_ns)} "
            f"frames: do they belong together? If so, say under [columns] "
            f'{roles.time} = "frame"',
        )
    try:
        track = per_frame_track(space, frame_times_ns, frame_end_ns, rows)
    except RefusedInput as error:
        raise RefusedInput(error.reason, f"value out of range: {error.message}") from None
    notes += frame_notes
    return ControllerLog(track, None, None, False, roles.unit, table.format, tuple(notes))


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
    unwrapped_ns, wrap_notes = unwrapped(table.times_ns, sampled=True)
    times_ns = correct_clock(unwrapped_ns, metadata.offset_ns, metadata.drift_ppm)

    rows, order_notes = sampled_order(times_ns)
    times_ns, values = times_ns[rows], values[rows]
    frames = frames[rows] if frames is not None else None
    tics = tics[rows] if tics is not None else None
    values, clamped, scale_notes = brought_to_scale(
        space, values, np.ones(values.shape, np.bool_), scales_of(roles, metadata)
    )
    if "device" not in metadata.ignore and of_two_pads(values):
        raise RefusedInput(
            Reason.LOG_COLUMN,
            "rows seem to be of two devices in turn: every other row is alike, and neighbours are not; "
            "keep one device per log, or name the device in a column `device`; if it is one, say "
            'ignore = ["device"]',
        )
    keep, times_ns, duplicate_notes = of_one_time(
        times_ns, rows, values, frames, space.of_kind("delta")
    )
    values = values[keep]
    frames = frames[keep] if frames is not None else None
    tics = tics[keep] if tics is not None else None
    held, hold_notes = held_between(times_ns, values, metadata.hold)
    lapse_ns = np.zeros(0, np.int64)
    if not held and metadata.hold is None and tics is None:
        lapse_ns = hushed(times_ns, values)
    if len(lapse_ns):
        notes.append(
            f"{len(lapse_ns)} silences of a quarter of a second or more in a log of steady rows, the first at "
            f"{lapse_ns[0] / SECOND_NS:.3f} s: what was held is not known (hold = true says otherwise)"
        )
    if len(table.devices):
        devices = table.devices[rows][keep]
        lapse_ns = np.union1d(lapse_ns, lapses(times_ns, devices))
        notes += [f"the device is replaced {int(np.count_nonzero(np.diff(devices)))} times"]
    if len(lapse_ns):
        order = np.argsort(np.append(times_ns, lapse_ns), kind="stable")
        times_ns = np.append(times_ns, lapse_ns)[order]
        values = np.vstack([values, np.full((len(lapse_ns), space.size), np.nan)])[order]
        frames = None if frames is None else np.append(frames, np.full(len(lapse_ns), -1))[order]
        tics = None
    most_ns = None if held else DEFAULT_MAX_GAP_NS
    track = ActionTrack(space, times_ns, values, int(times_ns[-1]), most_ns, clamped)
    notes += [*wrap_notes, *order_notes, *duplicate_notes, *scale_notes]
    notes += hold_notes
    return ControllerLog(track, frames, tics, not held, roles.unit, table.format, tuple(notes))


def _event_log(
    table: LogTable,
    roles: ColumnRoles,
    metadata: LogMetadata,
    space: ActionSpace | None,
    video_ns: tuple[int, int],
    target: ActionSpace | None,
) -> ControllerLog:
    """A log with one changed control per row: states are carried forward; see `states_of`.

    A value that is not finite leaves its control unknown until its next event. Nobody writes a row
    when a log of keys starts: it is taken to start with the video, not known until its first event.

    Args:
        table: the columns time, control and value.
        roles, metadata, space, target: as for `read_controller_log`.
        video_ns: when the video's first frame comes and its last one goes.
    """
    table, mapping, hat = split_hat(table, metadata.columns, space, metadata.hat_form)
    key_column = roles.control if roles.keys else None
    meant = match_controls(table.control_names, mapping, space, key_column, metadata.ignore, target)
    space = meant.space
    ignored = tuple(name for name in meant.ignored if name != hat)
    place = np.array(meant.places, np.int64)[table.controls]
    moves = {name: code for code, name in enumerate(table.control_names)}
    for name in ignored:
        mine = table.controls == moves.get(name, -1)
        coming = comings_and_goings(name, table.numbers[mine, 0])
        if coming is not None:
            place[mine] = coming
            ignored = tuple(other for other in ignored if other != name)
    notes = [*table.notes, *_ignored_note("columns", roles.ignored)]
    repeats = (table.numbers[:, 0] == 2) & roles.keys
    if repeats.any():
        table = replace(table, numbers=np.where(repeats[:, None], 1.0, table.numbers))
        notes.append(f"{int(repeats.sum())} rows have the value 2: a key that repeats is held")
    if roles.keys:
        notes.append(
            f"a log of keys (columns {listed([str(roles.control), str(roles.value)])}): read as "
            f"{space.name}"
        )
    notes += _ignored_note("controls", tuple(name for name in ignored if name))
    notes += meant.notes
    rows, all_ns, order_notes = event_order(table.times_ns, table.controls)
    rows_ns = correct_clock(all_ns, metadata.offset_ns, metadata.drift_ppm)
    if roles.keys:
        places = np.array(meant.places, np.int64)
        names = ["" if name in metadata.ignore else name for name in table.control_names]
        logged = table.controls[rows]
        own, sign_notes = own_releases(names, places, logged, table.numbers[rows, 0])
        place[rows] = np.where(own == logged, place[rows], places[own])
        notes += sign_notes
    devices = table.devices if len(table.devices) else np.zeros(len(rows), np.int64)
    events = Events(rows_ns, place[rows], table.numbers[rows, 0], devices[rows])
    events = events.only(events.places != -1)
    if len(table.words):
        worded = only_at(np.maximum(place, 0), space.size)
        worded &= (table.words & (place[:, None] >= 0))[:, :1]
        _check_words(worded, space, tuple(space.names))

    acted = events.places >= 0
    place = np.maximum(events.places, 0)
    given = only_at(place, space.size) & acted[:, None]
    values = np.where(given, events.values[:, None], 0.0)
    notes += _check_finite(values, space)
    values, clamped, scale_notes = brought_to_scale(
        space, values, given, scales_of(roles, metadata, space)
    )
    happened = np.where(acted, values[np.arange(len(place)), place], 0.0)
    motions = frozenset(space.of_kind("delta").tolist())
    events, duplicate_notes = without_repeated(replace(events, values=happened), motions)

    span_ns = np.array(table.span_ns or (table.times_ns.min(), table.times_ns.max()), np.int64)
    start_ns, until_ns = correct_clock(span_ns, metadata.offset_ns, metadata.drift_ppm).tolist()
    row_times_ns, values, state_notes = states_of(events, space, until_ns)
    if start_ns < row_times_ns[0] and table.span_ns is not None:
        row_times_ns = np.append(np.int64(start_ns), row_times_ns)
        values = np.vstack([np.zeros(space.size), values])
    if roles.keys and video_ns[0] < row_times_ns[0] < video_ns[1]:
        row_times_ns = np.append(np.int64(video_ns[0]), row_times_ns)
        values = np.vstack([np.full(space.size, np.nan), values])
    end_ns = max(int(row_times_ns[-1]), until_ns if table.span_ns is not None else 0)
    track = ActionTrack(space, row_times_ns, values, end_ns, None, clamped)
    notes += [*order_notes, *duplicate_notes, *scale_notes, *state_notes]
    return ControllerLog(track, None, None, False, roles.unit, table.format, tuple(notes))


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
    hats = [
        f"suspicious: {listed([name])} is ignored and looks like a d-pad given as one number: "
        f'{key(name)} = "hat" under [columns] reads it'
        for name in names
        if is_hat_name(name)
    ]
    return [f"extra {what} ignored: {listed(names)}", *hats]


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
    """Mention missing samples; refuse a log in which infinities show that it is damaged."""
    lost = ~np.isfinite(values)
    lost_rows = lost.any(axis=1)
    count = int(lost_rows.sum())
    if not count:
        return []
    row = int(np.flatnonzero(lost_rows)[0])
    name = space.names[int(np.flatnonzero(lost[row])[0])]
    first = f"first in row {row + 1}, {name}"
    if np.isinf(values).any() and count >= 2 and count > MAX_MISSING_SHARE * len(values):
        raise RefusedInput(
            Reason.LOG_NOT_FINITE,
            f"{count} of {len(values)} rows have values that are missing or not finite "
            f"(nan, inf, null), limit {MAX_MISSING_SHARE:.0%}; {first}",
        )
    return [f"{count} rows with missing values: their actions are not known ({first})"]


def _check_words(words: NDArray[np.bool_], space: ActionSpace, names: tuple[str, ...]) -> None:
    """Refuse words such as "down" where the control is no button: there they say a direction."""
    others = space.of_kind("axis", "trigger", "delta")
    row, column = np.nonzero(words[:, others])
    if len(row):
        raise RefusedInput(
            Reason.LOG_TYPE,
            f"row {row[0] + 1}: {names[others[column[0]]]} holds a word, expected a number: only a "
            "button is pressed or released",
        )


def _to_scale(
    table: LogTable,
    values: NDArray[np.float64],
    roles: ColumnRoles,
    metadata: LogMetadata,
    space: ActionSpace,
    notes: list[str],
) -> NDArray[np.float64]:
    """Values of rows that number frames, on the scale of the space; what was found is noted."""
    order = np.argsort(table.times_ns, kind="stable")
    scaled = values.copy()
    scaled[order], _, said = brought_to_scale(
        space, values[order], np.ones(values.shape, np.bool_), scales_of(roles, metadata)
    )
    notes += said
    return scaled
