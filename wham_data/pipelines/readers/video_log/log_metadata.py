"""What is said about a log beside it (NAME.toml or NAME.json), and which column means what."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Final

from wham_data.files.found import read_whole
from wham_data.files.json_lines import check_json_depth, check_surrogates
from wham_data.pipelines.readers.video_log.column_guesses import (
    guessed_columns,
    missing_columns,
    nearest_space,
    what_to_write,
)
from wham_data.pipelines.readers.video_log.column_guesses import listed as listed
from wham_data.pipelines.readers.video_log.column_rules import read_columns
from wham_data.pipelines.readers.video_log.log_table import TIME_DIGITS, TimeUnit
from wham_data.pipelines.readers.video_log.scales import Scale
from wham_data.schemas.actions import ActionSpace, generic_space, load_space, space_names
from wham_data.schemas.declarations import nearest
from wham_data.schemas.errors import Reason, RefusedInput, UsageError, printable
from wham_data.schemas.mask import Mask, parse_masks
from wham_data.schemas.recording import Provenance

MAX_METADATA_BYTES: Final = 1 << 20
MAX_TEXT: Final = 1000
MAX_DRIFT_PPM: Final = 100_000
MAX_OFFSET_MS: Final = Decimal(10) ** 15
PROVENANCE_KEYS: Final = ("game", "map", "match", "player", "subject", "license")
KNOWN_KEYS: Final = (
    *(*PROVENANCE_KEYS, "actions", "offset_ms", "drift_ppm", "columns", "mask"),
    *("ignore", "only", "hold", "tick_rate"),
    "collect",  # how `wham-data collect` made a recording: of no concern to a reader
)
MAX_TICK_RATE: Final = 9_000_000_000
EVENT_COLUMNS: Final = ("control", "value")
ACTION_COLUMNS: Final = ("action", "actions", "action_id", "act")
COUNTING_COLUMNS: Final = ("frame", "step")
TICK: Final = "tick"

_TIME_NAME: Final = re.compile(r"(?:.*\.)?(?:t|timestamp)(?:_\w+)?_(s|ms|us|ns)", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogMetadata:
    """What NAME.toml or NAME.json says.

    actions    name of a bundled space, or the file name of one that lies beside the metadata
    offset_ns, drift_ppm  t_log = t_true * (1 + drift_ppm / 10^6) + offset_ns
    columns    names of log columns (or controls) paired with what they mean, either way round
    scales     column, control or dimension -> the scale on which the log gives it
    ignore     columns that mean nothing
    only       column -> value: rows with another value do not count
    hold       rows are written on change only, so that each holds until the next; None: not said
    tick_rate  ticks of the time column in a second; None: it counts in what its name says
    masks      what is to be black in every picture
    notes      what a person should know
    """

    provenance: Provenance = field(default_factory=Provenance)
    actions: str | None = None
    offset_ns: int = 0
    drift_ppm: float = 0.0
    columns: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    only: Mapping[str, str] = field(default_factory=dict)
    hold: bool | None = None
    tick_rate: int | None = None
    masks: tuple[Mask, ...] = ()
    notes: tuple[str, ...] = ()

    def declares(self, name: str) -> bool:
        """Whether [columns] names a column or a meaning so."""
        return name in self.columns or name in self.columns.values()


def read_metadata(path: Path) -> LogMetadata:
    """Read and check a metadata file; unknown keys become a note.

    Raises:
        RefusedInput: METADATA, when it cannot be parsed or a value has the wrong type.
    """
    content = read_whole(path, MAX_METADATA_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        if path.suffix.lower() == ".json":
            check_json_depth(content, f"{path.name}: ")
            table = json.loads(content.decode("utf-8"), parse_float=Decimal)
            check_surrogates(content, table)
        else:
            table = tomllib.loads(content.decode("utf-8"), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise RefusedInput(
            Reason.METADATA, f"{path.name}: {str(error).splitlines()[0][:200]}"
        ) from None
    if not isinstance(table, dict):
        raise RefusedInput(Reason.METADATA, f"{path.name}: expected a table of settings")
    unknown = [key for key in table if key not in KNOWN_KEYS]
    notes = (printable(f"{path.name}: unknown keys ignored: {listed(unknown)}"),) if unknown else ()
    try:
        columns, scales = read_columns(table.get("columns", {}))
    except ValueError as error:
        raise _wrong(path, "columns", str(error)) from None
    drift_ppm = _number(path, table, "drift_ppm", Decimal(MAX_DRIFT_PPM))
    return LogMetadata(
        provenance=Provenance(**{key: _text(path, table, key) for key in PROVENANCE_KEYS}),
        actions=_text(path, table, "actions"),
        offset_ns=round(_number(path, table, "offset_ms", MAX_OFFSET_MS) * 1_000_000),
        drift_ppm=float(drift_ppm),
        columns=columns,
        scales=scales,
        ignore=_ignored(path, table),
        only=_only(path, table),
        hold=_hold(path, table),
        tick_rate=_tick_rate(path, table),
        masks=_masks(path, table),
        notes=notes,
    )


def _masks(path: Path, table: Mapping[str, Any]) -> tuple[Mask, ...]:
    """`mask`: a text as for --mask, or several."""
    said = table.get("mask", [])
    texts = [said] if isinstance(said, str) else said
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong(path, "mask", 'a text such as "0,0,120,40", or several')
    try:
        return parse_masks(texts)
    except UsageError as error:
        raise RefusedInput(Reason.METADATA, f"{path.name}: {error}") from None


def _ignored(path: Path, table: Mapping[str, Any]) -> tuple[str, ...]:
    """`ignore`: columns of the log that mean nothing."""
    said = table.get("ignore", [])
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _wrong(path, "ignore", 'a list of columns, such as ["frame"]')
    return tuple(names)


def _only(path: Path, table: Mapping[str, Any]) -> dict[str, str]:
    """`only`: the value that a column has in the rows that count."""
    said = table.get("only", {})
    values = said.values() if isinstance(said, dict) else [None]
    if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
        raise _wrong(path, "only", "a table such as { pad = 0 }")
    return {column: str(value) for column, value in said.items()}


def _hold(path: Path, table: Mapping[str, Any]) -> bool | None:
    said = table.get("hold")
    if said is None or isinstance(said, bool):
        return said
    raise _wrong(path, "hold", "true or false")


def _tick_rate(path: Path, table: Mapping[str, Any]) -> int | None:
    said = table.get("tick_rate")
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | Decimal) or said != int(said):
        raise _wrong(path, "tick_rate", "a whole number of ticks a second, such as 10000000")
    if not 1 <= said <= MAX_TICK_RATE:
        raise _wrong(path, "tick_rate", f"between 1 and {MAX_TICK_RATE}")
    return int(said)


def _wrong(path: Path, key: str, expected: str) -> RefusedInput:
    return RefusedInput(Reason.METADATA, f"{path.name}: {key} must be {expected}")


def _text(path: Path, table: Mapping[str, Any], key: str) -> str | None:
    """A text that is not too long; whole numbers (`player = 7`) are texts as well."""
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _wrong(path, key, "a text")
    text = str(value)
    if len(text) > MAX_TEXT:
        raise _wrong(path, key, f"a text of at most {MAX_TEXT} characters")
    return text or None


def _number(path: Path, table: Mapping[str, Any], key: str, most: Decimal) -> Decimal:
    value = table.get(key, 0)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        number = Decimal(value)
        if number.is_finite() and abs(number) <= most:
            return number
    raise _wrong(path, key, f"a number between -{most:g} and {most:g}")


def space_file(metadata_path: Path, actions: str | None) -> Path | None:
    """The file in which the metadata says the action space is, None if that is a bundled one.

    Raises:
        RefusedInput: UNSAFE_PATH, when it lies outside the folder of the metadata.
    """
    if actions is None or not actions.endswith(".toml"):
        return None
    inner = PurePosixPath(actions)
    if inner.is_absolute() or ".." in inner.parts or "\0" in actions:
        raise RefusedInput(
            Reason.UNSAFE_PATH,
            f"{metadata_path.name}: actions = {ascii(actions)[:80]} leads out of its folder",
        )
    return metadata_path.parent / inner


def load_named_space(metadata_path: Path | None, actions: str) -> ActionSpace:
    """The space that the metadata names.

    Raises:
        RefusedInput: METADATA, when there is no such space or its file is no space.
    """
    file = space_file(metadata_path, actions) if metadata_path is not None else None
    if file is not None:
        read_whole(file, MAX_METADATA_BYTES)  # a regular file that is not too large, or refused
    try:
        return load_space(str(file) if file is not None else actions)
    except UsageError as error:
        raise RefusedInput(Reason.METADATA, str(error).replace(str(file), actions)) from None


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """Which column of a log plays which part.

    time, unit   the time column and what it counts in
    numbered     there is no time column: `time` is the number of the frame that a row belongs to
    frame        the column that names the video frame on screen, if there is one
    tick         the column that counts the engine's tics, where nothing else tells the time
    dimensions   dimension -> column (a sampled log; empty for an event log)
    action       the column that numbers the actions of a space `discreteN`
    control, value  the columns of an event log, None for a sampled log
    ignored      columns that mean nothing here
    """

    time: str
    unit: TimeUnit
    numbered: bool = False
    frame: str | None = None
    tick: str | None = None
    action: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    control: str | None = None
    value: str | None = None
    ignored: tuple[str, ...] = ()


def assign_columns(
    columns: tuple[str, ...], mapping: Mapping[str, str], space: ActionSpace | None
) -> tuple[ColumnRoles, ActionSpace | None]:
    """Decide what every column of a log means.

    A dimension is the column that `mapping` gives it, else the column of its name, else the only
    column whose name ends in `.` and its name. Without a `time_*` column the only `t_*` or
    `timestamp_*` column with a unit at its end tells the time (`t_ns`, `t_input_ns`); without that
    too, a column `frame` or `step` says which frame a row belongs to.

    Args:
        columns: names found in the log.
        mapping: column -> meaning, or meaning -> column.
        space: the action space; None takes the one bundled space all of whose dimensions are
            columns (the largest of several). An event log needs its controls for that: None stays.

    Raises:
        RefusedInput: LOG_COLUMN, when a column is missing, ambiguous or there twice.
    """
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise RefusedInput(Reason.LOG_COLUMN, f"duplicate column: {listed(twice)} is there twice")
    spaces = [space] if space is not None else [load_space(name) for name in space_names()]
    meanings = {*TIME_DIGITS, "frame", *EVENT_COLUMNS}.union(*(s.names for s in spaces))
    mapped, unused = _mapped_columns(columns, mapping, meanings)

    def column_of(meaning: str) -> str | None:
        if meaning in mapped:
            return mapped[meaning]
        if meaning in columns and meaning not in mapped.values():
            return meaning
        last = [name for name in columns if name.rpartition(".")[2] == meaning]
        return last[0] if len(last) == 1 and last[0] not in mapped.values() else None

    control, value = map(column_of, EVENT_COLUMNS)
    is_event_log = control is not None and value is not None
    time, unit, numbered = _time_column(columns, mapped, column_of, may_count=not is_event_log)
    if is_event_log:
        used: set[str | None] = {time, control, value}
        return ColumnRoles(
            time, unit, control=control, value=value, ignored=_others(columns, used)
        ), space
    if unused:
        _refuse_unused(unused, columns, meanings, space)
    if space is None:
        present = {m: column for m in meanings if (column := column_of(m)) is not None}
        space = _space_of_columns(spaces, present, columns)
    found = {name: column_of(name) for name in space.names}
    dimensions = {name: column for name, column in found.items() if column is not None}
    action = None if dimensions else _action_column(columns, space)
    if len(dimensions) < space.size and action is None:
        raise RefusedInput(Reason.LOG_COLUMN, missing_columns(columns, spaces, space, dimensions))
    frame = None if numbered else column_of("frame")
    tick = TICK if TICK in columns and not (mapping or numbered or frame) else None
    used = {time, *dimensions.values(), frame, tick, action}
    return ColumnRoles(
        time, unit, numbered, frame, tick, action, dimensions, ignored=_others(columns, used)
    ), space


def _action_column(columns: tuple[str, ...], space: ActionSpace) -> str | None:
    """The column that numbers the actions of a space `discreteN`, None where there is none."""
    if space != generic_space(space.name) or not space.name.startswith("discrete"):
        return None
    return next((name for name in ACTION_COLUMNS if name in columns), None)


def match_controls(
    controls: tuple[str, ...], mapping: Mapping[str, str], space: ActionSpace | None
) -> tuple[tuple[int, ...], tuple[str, ...], ActionSpace]:
    """Decide what the controls of an event log mean.

    Returns:
        For each control its position in the space (-1: means nothing here), the controls that
        mean nothing, and the space: the given one, or the only bundled one that has all controls.

    Raises:
        RefusedInput: LOG_COLUMN, when no control, or no single space, is meant.
    """
    spaces = [space] if space is not None else [load_space(name) for name in space_names()]
    named = [name.strip() for name in controls]
    meanings = set[str]().union(*(s.names for s in spaces))
    mapped, unused = _mapped_columns(tuple(named), mapping, meanings)
    meaning_of = {column: meaning for meaning, column in mapped.items()}
    meant = [meaning_of.get(n, n if n in meanings else n.rpartition(".")[2]) for n in named]
    for column, meaning in unused.items():
        if column not in meanings and meaning not in meanings | {*TIME_DIGITS, *EVENT_COLUMNS}:
            _refuse_unused({column: meaning}, controls, meanings, space)
    if space is None:
        fitting = [s for s in spaces if set(meant) <= set(s.names)]
        if len(fitting) != 1:
            which = listed([s.name for s in fitting]) or "no bundled space"
            how = "say which space is meant with `actions = ...` beside the log"
            if not fitting:
                how = what_to_write(*nearest_space(named, spaces))
            raise RefusedInput(
                Reason.LOG_COLUMN, f"{which} has the controls {listed(named)}; {how}"
            )
        space = fitting[0]
    places = tuple(space.names.index(name) if name in space.names else -1 for name in meant)
    ignored = tuple(name for name, place in zip(named, places, strict=True) if place < 0)
    if all(place < 0 for place in places):
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"no control is one of {space.name}: the log has {listed(named)}. "
            f"{what_to_write(space, guessed_columns(named, space))}",
        )
    return places, ignored, space


def _mapped_columns(
    columns: tuple[str, ...], mapping: Mapping[str, str], meanings: set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Meaning -> column for the pairs that name a column and a meaning, and the other pairs."""
    mapped: dict[str, str] = {}
    unused: dict[str, str] = {}
    for left, right in mapping.items():
        if left in columns and right in meanings:
            meaning, column = right, left
        elif right in columns and left in meanings:
            meaning, column = left, right
        else:
            unused[left] = right
            continue
        if mapped.setdefault(meaning, column) != column:
            raise RefusedInput(
                Reason.METADATA,
                f"columns: both {listed([mapped[meaning], column])} are said to be {meaning}",
            )
    return mapped, unused


def _refuse_unused(
    unused: Mapping[str, str],
    columns: tuple[str, ...],
    meanings: set[str],
    space: ActionSpace | None,
) -> None:
    """Say what is wrong with the first pair that names no column or no meaning."""
    left, right = next(iter(unused.items()))
    if right in meanings or left in meanings:
        column, meaning = (left, right) if right in meanings else (right, left)
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"column {listed([column])}, said to be {meaning}, is missing; "
            f"the log has {listed(columns)}",
        )
    target = right if left in columns else left
    where = space.name if space is not None else "any bundled space"
    known = space.names if space is not None else tuple(sorted(meanings))
    hint = nearest(target, known, "dimensions").partition(" known ")[0].rstrip(";")
    raise RefusedInput(
        Reason.METADATA, f"columns: {listed([target])} is no dimension of {where}{hint}"
    )


def _time_column(
    columns: tuple[str, ...],
    mapped: Mapping[str, str],
    column_of: Callable[[str], str | None],
    *,
    may_count: bool,
) -> tuple[str, TimeUnit, bool]:
    """The one time column, its unit, and whether it numbers frames instead.

    A mapping that names one outranks the others.
    """
    named: list[TimeUnit] = [unit for unit in TIME_DIGITS if unit in mapped]
    found = [(unit, column_of(unit)) for unit in named or TIME_DIGITS]
    times = [(column, unit) for unit, column in found if column is not None]
    times = times or [(name, unit) for name in columns for unit in _unit_of(name)]
    if len(times) == 1:
        return (*times[0], False)
    if times:
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"two time columns: {listed([column for column, _ in times])}; expected exactly one",
        )
    counting = [column for column in map(column_of, COUNTING_COLUMNS) if column is not None]
    if counting and may_count:
        return counting[0], "time_ns", True
    raise RefusedInput(
        Reason.LOG_COLUMN,
        f"no time column ({', '.join(TIME_DIGITS)}); the log has {listed(columns)}; "
        "map the one that holds the time under [columns]",
    )


def _unit_of(name: str) -> tuple[TimeUnit, ...]:
    """What a column that looks like the time counts in: one unit, or none."""
    match = _TIME_NAME.fullmatch(name)
    return tuple(unit for unit in TIME_DIGITS if match and unit == f"time_{match[1]}")


def _space_of_columns(
    spaces: list[ActionSpace], present: Mapping[str, str], columns: tuple[str, ...]
) -> ActionSpace:
    """The largest bundled space all of whose dimensions are there."""
    whole = sorted(
        (s for s in spaces if set(s.names) <= present.keys()), key=lambda s: s.size, reverse=True
    )
    if whole and (len(whole) == 1 or whole[0].size > whole[1].size):
        return whole[0]
    if whole:
        tied = [s.name for s in whole if s.size == whole[0].size]
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"the columns fit {listed(tied)} alike; say which with `actions = ...` beside the log",
        )
    raise RefusedInput(Reason.LOG_COLUMN, missing_columns(columns, spaces, None, present))


def _others(columns: tuple[str, ...], used: set[str | None]) -> tuple[str, ...]:
    return tuple(name for name in columns if name not in used)
