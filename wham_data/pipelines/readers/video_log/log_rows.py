"""Small steps between a log's columns and its track: open it, count its ticks, drop what is absent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import DEFAULT_MAX_GAP_NS, typical_interval
from wham_data.pipelines.readers.kit.column_guesses import key
from wham_data.pipelines.readers.kit.frame_actions import one_hot
from wham_data.pipelines.readers.kit.hats import (
    DIRECTIONS,
    HAT_FORMS,
    HatForm,
    hat_buttons,
    hat_form,
)
from wham_data.pipelines.readers.video_log.column_roles import (
    ACTION_COLUMNS,
    HAT,
    ColumnRoles,
    way_of,
)
from wham_data.pipelines.readers.video_log.log_cells import number_of
from wham_data.pipelines.readers.video_log.log_format import LogFormat
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.pipelines.readers.video_log.log_parquet import ParquetLog
from wham_data.pipelines.readers.video_log.log_table import (
    LogFile,
    LogTable,
    WantedColumns,
    check_room,
)
from wham_data.pipelines.readers.video_log.log_text import open_text_log
from wham_data.pipelines.readers.video_log.log_words import KEY_COLUMNS, listed, named_like
from wham_data.pipelines.readers.video_log.scales import Scale
from wham_data.schemas.actions import ActionSpace, generic_space
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

THERE: Final = re.compile(r"(?:.*[._])?(?:is_?)?(?:connected|plugged|attached)", re.IGNORECASE)
TICK_COLUMNS: Final = ("time_ticks", "qpc", "ticks", "timestamp", "time")
UNEVEN: Final = 1.5
UNEVEN_SHARE: Final = 0.2
MANY_SILENCES: Final = 5
_EXACT: Final = re.compile(r"Decimal\('([^']*)'\)")
"""How a number of a JSON list is shown as a label."""
_NUMBERS: Final = re.compile(r"\s*[\s,;]\s*")
NOISY_COLUMNS: Final = 4
MOSTLY: Final = 0.8
NEARLY_ALL: Final = 0.9
POLLED_NS: Final = 50_000_000
LONG_SILENCE_NS: Final = SECOND_NS // 4
LONG_SILENCE_ROWS: Final = 15


def open_log(path: Path, metadata: LogMetadata) -> LogFile:
    """A log in any of its forms (text forms also gzipped), its column names read.

    Args:
        path: the file.
        metadata: may declare what separates cells and marks decimals.

    Raises:
        RefusedInput: it is no sound file of its form.
    """
    if path.name.lower().endswith(".parquet"):
        return ParquetLog.open(path)
    return open_text_log(path, metadata.delimiter, metadata.decimal)


def as_understood(path: Path, metadata: LogMetadata) -> tuple[str, ...]:
    """How a log that is refused was understood, as a note; none where it cannot be opened at all."""
    try:
        file = open_log(path, metadata)
    except (RefusedInput, OSError):
        return ()
    return (f"understood as {file.format.summary}; columns {listed(file.columns)}",)


def ticking(columns: tuple[str, ...], mapping: Mapping[str, str]) -> dict[str, str]:
    """The pairs of [columns], with the column that counts ticks read as whole numbers.

    Raises:
        RefusedInput: LOG_COLUMN, there is none.
    """
    pairs = dict(mapping)
    for left, right in mapping.items():
        if "time_ticks" in (left, right):
            del pairs[left]
            return {**pairs, (left if right == "time_ticks" else right): "time_ns"}
    found = [name for name in TICK_COLUMNS if name in columns]
    if len(found) != 1:
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f'tick_rate: which column counts ticks? Write COLUMN = "time_ticks" under [columns]; '
            f"the log has {listed(columns)}",
        )
    return {**pairs, found[0]: "time_ns"}


def in_nanoseconds(table: LogTable, tick_rate: int | None) -> LogTable:
    """Times that count ticks, such as those of QueryPerformanceCounter, as nanoseconds."""
    if tick_rate is None:
        return table

    def converted(ticks: Nanos) -> Nanos:
        whole, rest = np.divmod(ticks, tick_rate)
        times_ns: Nanos = whole * SECOND_NS + rest * SECOND_NS // tick_rate
        return times_ns

    span = table.span_ns
    if span is not None:
        low, high = converted(np.array(span, np.int64)).tolist()
        span = (low, high)
    note = f"times count ticks, {tick_rate} a second"
    return replace(
        table,
        times_ns=converted(table.times_ns),
        span_ns=span,
        notes=(*table.notes, note),
        format=replace(table.format, time_kind="ticks"),
    )


def one_button_each(numbers: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Numbers of actions as buttons of which one is down; the other columns follow.

    Args:
        numbers: float64 [N, 1 + C], the action of each row first, NaN where it is not known.
        size: how many actions there are.

    Raises:
        RefusedInput: LOG_RANGE, a number that is no action.
    """
    action = numbers[:, 0]
    wrong = np.flatnonzero(np.isfinite(action) & ((action < 0) | (action % 1 != 0)))
    if len(wrong):
        raise RefusedInput(
            Reason.LOG_RANGE,
            f"value out of range: action {action[wrong[0]]:g} in row {wrong[0]} (the first is 0): "
            f"expected 0 to {size - 1}",
        )
    codes = np.where(np.isfinite(action), action, -1).astype(np.int64)
    return np.hstack([one_hot(codes, size), numbers[:, 1:]])


@dataclass(frozen=True, slots=True)
class VectorLog:
    """A log whose column `column` holds all numbers of an action: a column for each of `names`."""

    file: LogFile
    column: str
    names: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*(name for name in self.file.columns if name != self.column), *self.names)

    @property
    def format(self) -> LogFormat:
        """See `LogFile.format`."""
        return self.file.format

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        return self.file.labels(column)

    def read(self, wanted: WantedColumns) -> LogTable:
        """See `LogFile.read`.

        Raises:
            RefusedInput: LOG_COLUMN, a row has another count of numbers.
        """
        others = tuple(name for name in wanted.numbers if name not in self.names)
        table = self.file.read(replace(wanted, numbers=others))
        if len(others) == len(wanted.numbers):
            return table
        texts, codes = self.file.labels(self.column)
        check_room(len(codes), len(self.names))
        vectors = np.array([vector_in(text, self.column, len(self.names)) for text in texts])[codes]
        columns = dict(zip(others, table.numbers.T, strict=True))
        columns |= dict(zip(self.names, vectors.T, strict=True))
        numbers = np.stack([columns[name] for name in wanted.numbers], axis=1)
        return replace(table, numbers=numbers, words=np.zeros((0, 0), np.bool_))


def vector_in(text: str, column: str, size: int | None) -> NDArray[np.float64]:
    """The numbers of a cell such as "[0.5, -1]" or "0.5 -1", float64 [size]; NaN for an empty cell.

    Args:
        text: the cell.
        column: its column, for messages.
        size: how many numbers there must be; None: any count from 1.

    Raises:
        RefusedInput: LOG_TYPE, it is none; LOG_COLUMN, it has another count of numbers.
    """
    if text.lower() in ("", "none", "null", "nan"):
        return np.full(size or 1, np.nan)
    cells = _NUMBERS.split(_EXACT.sub(r"\1", text).strip("[]() \n"))
    if size not in (None, len(cells)):
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"column {listed([column])} holds {len(cells)} numbers ({ascii(text)[:40]}), "
            f"expected {size}",
        )
    return np.array([number_of(cell, column, "a row") for cell in cells])


def with_vector(
    file: LogFile, mapping: Mapping[str, str], space: ActionSpace | None
) -> tuple[LogFile, ActionSpace | None]:
    """A log with a column for each number of an action that it has in one column, and its space.

    Without a space it is `numbersN` where the column `action` holds lists of N numbers.

    Args:
        file: the log.
        mapping: the pairs of [columns].
        space: the action space; None: it is not declared.
    """
    column = next((name for name in ACTION_COLUMNS if name in file.columns), None)
    paired = {*mapping, *mapping.values()}
    events = named_like(file.columns, (*KEY_COLUMNS, "control")) or "control" in paired
    own = {name.rpartition(".")[2] for name in file.columns}
    numbered = space is not None and space == generic_space(f"discrete{space.size}")
    if column is None or events or column in paired or numbered:
        return file, space
    if space is not None and not own.isdisjoint(space.names):
        return file, space
    texts, _ = file.labels(column)
    first = next((text for text in texts if text[:1] in ("[", "(")), None)
    if first is None and (space is None or not _has(texts, space.size)):
        return file, space
    if space is None and first is not None:
        space = generic_space(f"numbers{len(vector_in(first, column, None))}")
    return (file, None) if space is None else (VectorLog(file, column, space.names), space)


def _has(texts: tuple[str, ...], size: int) -> bool:
    """Whether a cell has so many numbers, without brackets."""
    return any(len(_NUMBERS.split(text)) == size for text in texts[:2])


def spread_hat(
    table: LogTable, columns: Sequence[str], roles: ColumnRoles, form: HatForm | None
) -> LogTable:
    """A sampled log whose hat is a button for each direction, in the order of `columns`.

    Args:
        table: each column once, in order of appearance in `columns`.
        columns: of the dimensions of the space first; the hat is there once for each direction.
        roles: of the columns.
        form: of the hat; None: as its values show.

    Raises:
        RefusedInput: LOG_RANGE or METADATA, its values fit no form, or several.
    """
    if roles.hat is None:
        return table
    once = list(dict.fromkeys(columns))
    places = [once.index(column) for column in columns]
    words = table.words[:, places] if len(table.words) else table.words
    at = [place for place, column in enumerate(columns) if column == roles.hat]
    if len(words) and words[:, at[0]].any():
        raise RefusedInput(Reason.LOG_TYPE, f"column {listed([roles.hat])}, the hat, holds words")
    numbers = table.numbers[:, places]
    held, note = hat_held(roles.hat, numbers[:, at[0]], form)
    for place, name in zip(
        at, (n for n, c in roles.dimensions.items() if c == roles.hat), strict=True
    ):
        numbers[:, place] = held[:, DIRECTIONS.index(str(way_of(name)))]
    return replace(table, numbers=numbers, words=words, notes=(*table.notes, note))


def with_rest(table: LogTable, roles: ColumnRoles, space: ActionSpace) -> LogTable:
    """A sampled log with a column of zeros for each dimension that was never touched, and a note.

    Args:
        table: the columns of the other dimensions first, in the order of the space.
        roles: of the columns.
        space: of the log.
    """
    if not roles.at_rest:
        return table
    there = [place for place, name in enumerate(space.names) if name not in roles.at_rest]
    extra = table.numbers.shape[1] - len(there)
    places = [*there, *range(space.size, space.size + extra)]

    def spread(cells: NDArray[Any]) -> NDArray[Any]:
        wide = np.zeros((len(cells), space.size + extra), cells.dtype)
        wide[:, places] = cells
        return wide

    words = spread(table.words) if len(table.words) else table.words
    note = f"without a column and declared to be at rest: {listed(roles.at_rest)}"
    return replace(table, numbers=spread(table.numbers), words=words, notes=(*table.notes, note))


def hat_held(
    name: str, values: NDArray[np.float64], form: HatForm | None
) -> tuple[NDArray[np.float64], str]:
    """The directions of a hat, float64 [N, 4], and a note on how it was read.

    Raises:
        RefusedInput: LOG_RANGE or METADATA, its values fit no form, or several.
    """
    found = form or hat_form(values)
    if found is None:
        raise RefusedInput(
            Reason.METADATA,
            f"columns: the values of the hat {listed([name])} fit several forms: write under [columns] "
            f'{key(name)} = {{ is = "hat", form = "bits" }}, or one of {", ".join(HAT_FORMS)}',
        )
    how = "declared" if form else "as its values show"
    return hat_buttons(values, found), f"{listed([name])} is a d-pad in {found} ({how})"


def split_hat(
    table: LogTable, mapping: Mapping[str, str], space: ActionSpace | None, form: HatForm | None
) -> tuple[LogTable, Mapping[str, str], str | None]:
    """An event log whose hat is an event for each direction that changes; see `hat_held`.

    Returns:
        The table, the pairs of [columns] with one for each direction, and the name of the hat, whose
        own rows stay and mean nothing.
    """
    names = [
        left if right == HAT else right for left, right in mapping.items() if HAT in (left, right)
    ]
    if not names or names[0] not in table.control_names:
        return table, mapping, None
    hat, ways = names[0], {way_of(name): name for name in (space.names if space else ())}
    if None in (ways.get(way) for way in DIRECTIONS):
        raise RefusedInput(
            Reason.METADATA,
            f"columns: the hat {listed([hat])} needs a space with a d-pad: name it with `actions = ...`",
        )
    mine = np.flatnonzero(table.controls == table.control_names.index(hat))
    held, note = hat_held(hat, table.numbers[mine, 0], form)
    changed = held != np.vstack([np.zeros((1, len(DIRECTIONS))), held[:-1]])
    repeats = np.ones(len(table.controls), np.int64)
    repeats[mine] += changed.sum(axis=1)
    index = np.repeat(np.arange(len(repeats)), repeats)
    controls, numbers = table.controls[index], table.numbers[index]
    added = np.flatnonzero(np.append(False, index[1:] == index[:-1]))
    event, way = np.nonzero(changed)
    controls[added] = len(table.control_names) + way
    numbers[added, 0] = held[event, way]
    numbers[np.isin(index, mine) & (controls == table.control_names.index(hat)), 0] = 0.0
    kept = {left: right for left, right in mapping.items() if HAT not in (left, right)}
    pairs = {f"{hat} {way}": ways[way] for way in DIRECTIONS}
    split = replace(
        table,
        times_ns=table.times_ns[index],
        numbers=numbers,
        control_names=(*table.control_names, *pairs),
        controls=controls,
        words=table.words[index] if len(table.words) else table.words,
        devices=table.devices[index] if len(table.devices) else table.devices,
        notes=(*table.notes, note),
    )
    return split, {**kept, **pairs}, hat


def without_absent(table: LogTable, column: str) -> LogTable:
    """Rows in which the last column says that the pad is not connected are not known."""
    absent = table.numbers[:, -1] == 0
    if not absent.any():
        return table
    numbers = np.where(absent[:, None], np.nan, table.numbers)
    note = f"{int(absent.sum())} rows in which {column} is 0: nothing is known to be held"
    return replace(table, numbers=numbers, notes=(*table.notes, note))


def lapses(times_ns: Nanos, devices: Index) -> Nanos:
    """When it is no longer known what a device that another one replaces holds, int64 [L].

    That is one typical interval after its last row, where the next device's first row comes later.

    Args:
        times_ns: int64 [N], strictly increasing.
        devices: int64 [N], the device of each row.
    """
    typical = typical_interval(times_ns)
    last = np.flatnonzero(np.diff(devices) != 0)
    last = last[np.diff(times_ns)[last] > 2 * typical]
    lapse_ns: Nanos = times_ns[last] + typical
    return lapse_ns


def scales_of(
    roles: ColumnRoles, metadata: LogMetadata, space: ActionSpace | None = None
) -> dict[str, Scale]:
    """Dimension -> the scale that the metadata declares for it, by either name.

    Args:
        roles: of the columns.
        metadata: what is said.
        space: of an event log, whose controls are no columns.
    """
    columns = roles.dimensions if space is None else {name: name for name in space.names}
    scales = metadata.scales
    return {
        name: scales.get(name, scales.get(column, Scale()))
        for name, column in columns.items()
        if name in scales or column in scales
    }


def held_between(
    times_ns: Nanos, values: NDArray[np.float64], hold: bool | None
) -> tuple[bool, list[str]]:
    """Whether rows are written on change only, so that each holds until the next, and a note.

    It shows in a log with silences in which no two neighbouring rows are alike and whose rows come
    at uneven times. A polled log with one hole in it is even elsewhere, or its sticks are noisy: four
    axes that tremble in every row are never silent.

    Args:
        times_ns: int64 [N], strictly increasing.
        values: float64 [N, A].
        hold: what the metadata says; None: nothing.
    """
    if hold is not None:
        return hold, ["each row holds until the next (hold = true)"] if hold else []
    steps = np.diff(times_ns)
    silences = int(np.count_nonzero(steps > DEFAULT_MAX_GAP_NS))
    alike = (values[1:] == values[:-1]).all(axis=1)
    if not silences or alike.any() or not np.isfinite(values).all():
        return False, []
    if polled_noise(times_ns, values):
        return False, [
            "most rows change four columns or more, as a pad that is polled does: the silences are "
            "holes (hold = true says that rows are written on change only)"
        ]
    uneven = np.count_nonzero(steps > UNEVEN * typical_interval(times_ns))
    if uneven >= UNEVEN_SHARE * len(steps) or silences >= MANY_SILENCES:
        return True, [
            "no row repeats the one above and they come at uneven times: taken as written on "
            "change only, each row holds until the next (hold = false says otherwise)"
        ]
    return False, [
        "no row repeats the one above: if rows are written on change only, set hold = true"
    ]


def polled_noise(times_ns: Nanos, values: NDArray[np.float64]) -> bool:
    """Whether most rows change four columns or more, hardly one fewer than three, and soon after another.

    Args:
        times_ns: int64 [N], strictly increasing.
        values: float64 [N, A].
    """
    if len(times_ns) < 2:
        return False
    typical = typical_interval(times_ns)
    changed = np.count_nonzero(values[1:] != values[:-1], axis=1)
    soon = np.count_nonzero(np.diff(times_ns) <= 3 * typical)
    trembles = np.median(changed) >= NOISY_COLUMNS
    trembles &= np.count_nonzero(changed >= NOISY_COLUMNS - 1) >= MOSTLY * len(changed)
    return bool(trembles and soon >= MOSTLY * len(changed) and typical <= POLLED_NS)


def hushed(times_ns: Nanos, values: NDArray[np.float64]) -> Nanos:
    """When a pad that is polled steadily went silent for long, so that it may be gone, int64 [L].

    That is one typical interval after the last row before a silence of 15 intervals and a quarter of
    a second. Only a log that repeats rows, or trembles, is polled: one that is written on change is
    silent while nothing changes.

    Args:
        times_ns: int64 [N], strictly increasing.
        values: float64 [N, A].
    """
    steps, typical = np.diff(times_ns), typical_interval(times_ns)
    long = steps >= max(LONG_SILENCE_NS, LONG_SILENCE_ROWS * typical)
    steady = np.count_nonzero(np.abs(steps - typical) <= typical // 2) >= NEARLY_ALL * len(steps)
    alike = (values[1:] == values[:-1]) | ~np.isfinite(values[1:])
    polled = (steady and bool(alike.all(axis=1).any())) or polled_noise(times_ns, values)
    hush_ns: Nanos = times_ns[:-1][long & polled] + typical
    return hush_ns
