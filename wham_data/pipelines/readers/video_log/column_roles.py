"""Which column of a log plays which part, and which control of an event log is which dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from wham_data.pipelines.readers.kit.column_guesses import (
    NO_COLUMNS,
    columns_line,
    control_of,
    guessed_columns,
    nearest_space,
    text,
)
from wham_data.pipelines.readers.kit.hats import DIRECTIONS
from wham_data.pipelines.readers.kit.keys.log import keys_meant
from wham_data.pipelines.readers.kit.keys.spellings import PREFIX
from wham_data.pipelines.readers.video_log.event_states import device_word
from wham_data.pipelines.readers.video_log.log_table import TIME_DIGITS, TimeUnit
from wham_data.pipelines.readers.video_log.log_words import (
    KEY_COLUMNS,
    VERB_COLUMNS,
    listed,
    named_like,
)
from wham_data.pipelines.readers.video_log.time_column import TIME, time_column
from wham_data.schemas.actions import ActionSpace, generic_space, load_space, space_names
from wham_data.schemas.conversion import mapping_hint, spaces_mapped_to
from wham_data.schemas.declarations import nearest
from wham_data.schemas.errors import Reason, RefusedInput

EVENT_COLUMNS: Final = ("control", "value")
ACTION_COLUMNS: Final = ("action", "actions", "action_id", "act")
TICK: Final = "tick"
HAT: Final = "hat"
EVERY_OTHER: Final = ("*",)
"""In place of names: all dimensions without a column."""
FEWEST: Final = 2
MOST_ODD: Final = 24


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """Which column of a log plays which part.

    time, unit   the time column and what it counts in
    unit_known   False: the column's name does not say what it counts in
    numbered     there is no time column: `time` is the number of the frame that a row belongs to
    frame        the column that names the video frame on screen, if there is one
    tick         the column that counts the engine's tics, where nothing else tells the time
    dimensions   dimension -> column (a sampled log; empty for an event log)
    action       the column that numbers the actions of a space `discreteN`
    control, value  the columns of an event log, None for a sampled log
    keys         an event log of keys (time, key, event)
    at_rest      dimensions without a column, which were never touched
    hat          the column (or control) that gives a d-pad as one number; in a sampled log it is the
                 column of each direction
    ignored      columns that mean nothing here
    """

    time: str
    unit: TimeUnit
    unit_known: bool = True
    numbered: bool = False
    frame: str | None = None
    tick: str | None = None
    action: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    control: str | None = None
    value: str | None = None
    keys: bool = False
    hat: str | None = None
    at_rest: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def assign_columns(
    columns: tuple[str, ...],
    mapping: Mapping[str, str],
    space: ActionSpace | None,
    stamps: str = "",
    at_rest: Sequence[str] = (),
    target: ActionSpace | None = None,
) -> tuple[ColumnRoles, ActionSpace | None]:
    """Decide what every column of a log means.

    A dimension is the column that `mapping` gives it, else the column of its name, else the only
    column whose name ends in `.` and its name. Without a `time_*` column the only `t_*` or
    `timestamp_*` column with a unit at its end tells the time (`t_ns`, `t_input_ns`); without that
    too, a column `frame` or `step` says which frame a row belongs to; and without one, the only
    column `time`, `timestamp`, `t` or the like tells the time in a unit that is still to be found.
    In place of `control` a column `key` (or `code`) makes a log of keys, and in place of `value` one
    `event` (or `action`, `type`) will do, unless columns are called as dimensions.

    Args:
        columns: names found in the log.
        mapping: column -> meaning, or meaning -> column.
        space: the action space; None takes the one bundled space all of whose dimensions are
            columns (the largest of several). An event log needs its controls for that: None stays.
        stamps: the only column whose type says that it holds time stamps; "": there is none.
        at_rest: dimensions that need no column; EVERY_OTHER: all, if there is a column for one.
        target: the space of the corpus, taken where several fit alike; None: not known.

    Raises:
        RefusedInput: LOG_COLUMN, when a column is missing, ambiguous or there twice.
    """
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise RefusedInput(Reason.LOG_COLUMN, f"duplicate column: {listed(twice)} is there twice")
    spaces = [space] if space is not None else [load_space(name) for name in space_names()]
    meanings = {*TIME_DIGITS, TIME, "frame", HAT, *EVENT_COLUMNS}.union(*(s.names for s in spaces))
    mapped, unused = _mapped_columns(columns, mapping, meanings)
    hat = mapped.get(HAT)

    def column_of(meaning: str) -> str | None:
        if meaning in mapped:
            return mapped[meaning]
        if meaning in columns and meaning not in mapped.values():
            return meaning
        last = [name for name in columns if name.rpartition(".")[2] == meaning]
        found = last[0] if len(last) == 1 and last[0] not in mapped.values() else None
        return hat if found is None and hat and way_of(meaning) else found

    control, value = map(column_of, EVENT_COLUMNS)
    key = named_like(columns, KEY_COLUMNS) if control is None else None
    verb = named_like(columns, VERB_COLUMNS) if value is None else None
    if (control or key) and (value or verb) and not _sampled(space, spaces, column_of):
        control, value = control or key, value or verb
    is_event_log = control is not None and value is not None and control != value
    time, unit, numbered, known = time_column(columns, mapped, column_of, not is_event_log, stamps)
    if is_event_log:
        used: set[str | None] = {time, control, value}
        others = _others(columns, used)
        return ColumnRoles(
            time, unit, known, control=control, value=value, keys=control == key, ignored=others
        ), space
    if unused:
        _refuse_unused(unused, columns, meanings, space)
    if space is None:
        present = {m: column for m in meanings if (column := column_of(m)) is not None}
        space = _space_of_columns(spaces, present, columns, target)
    found = {name: column_of(name) for name in space.names}
    dimensions = {name: column for name, column in found.items() if column is not None}
    action = None if dimensions else _action_column(columns, space)
    resting = tuple(n for n in space.names if n not in dimensions and _may_rest(n, at_rest))
    resting = resting if dimensions else ()
    if len(dimensions) + len(resting) < space.size and action is None:
        raise RefusedInput(
            Reason.LOG_COLUMN,
            missing_columns(columns, spaces, space, dimensions | {n: n for n in resting}),
        )
    frame = None if numbered else column_of("frame")
    tick = TICK if TICK in columns and not (mapping or numbered or frame) else None
    used = {time, *dimensions.values(), frame, tick, action}
    return ColumnRoles(
        time,
        unit,
        known,
        numbered,
        frame,
        tick,
        action,
        dimensions,
        hat=hat if hat in dimensions.values() else None,
        at_rest=resting,
        ignored=_others(columns, used),
    ), space


def _may_rest(name: str, at_rest: Sequence[str]) -> bool:
    return name in at_rest or tuple(at_rest) == EVERY_OTHER


def way_of(dimension: str) -> str | None:
    """The direction of a d-pad that a dimension is, one of DIRECTIONS; None for another."""
    control = control_of(dimension)[:1]
    return control[0] if control and control[0] in DIRECTIONS else None


def _sampled(
    space: ActionSpace | None, spaces: list[ActionSpace], column_of: Callable[[str], str | None]
) -> bool:
    """Whether columns are called as dimensions: some of the space, or all of a bundled one."""
    if space is not None:
        return any(column_of(name) for name in space.names)
    return any(all(column_of(name) for name in each.names) for each in spaces)


def _action_column(columns: tuple[str, ...], space: ActionSpace) -> str | None:
    """The column that numbers the actions of a space `discreteN`, None where there is none."""
    if space != generic_space(space.name) or not space.name.startswith("discrete"):
        return None
    return next((name for name in ACTION_COLUMNS if name in columns), None)


@dataclass(frozen=True, slots=True)
class Controls:
    """What the controls of an event log mean.

    places   for each control its position in the space, -1: it means nothing here
    space    the action space
    ignored  controls that mean nothing here
    notes    what was guessed
    """

    places: tuple[int, ...]
    space: ActionSpace
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()


def match_controls(
    controls: tuple[str, ...],
    mapping: Mapping[str, str],
    space: ActionSpace | None,
    keys: str | None = None,
    ignore: Sequence[str] = (),
    target: ActionSpace | None = None,
) -> Controls:
    """Decide what the controls of an event log mean.

    Where keys are meant (`keys`, or `space` has some), a control may be called as libraries and
    browsers call keys; see `keys_meant`. A log of keys needs no space: it is the smallest bundled
    one that has the most of them. Otherwise it is the only bundled one that has all controls; of
    several, the one whose dimensions all the others have too. The target is taken before others.

    Args:
        controls: their names.
        mapping: control -> meaning, or meaning -> control.
        space: the action space; None: any bundled one.
        keys: the column of a log of keys that names them; None: the log may have other controls.
        ignore: controls that mean nothing.
        target: the space of the corpus; None: not known.

    Raises:
        RefusedInput: LOG_COLUMN, when no control, or no single space, is meant, or when a key has
            a name that nobody knows.
    """
    spaces = [space] if space is not None else [load_space(name) for name in space_names()]
    if keys is not None and space is None:
        spaces = [s for s in spaces if "key_w" in s.names]
    named = [name if name == " " else name.strip() for name in controls]
    meanings = set[str]().union(*(s.names for s in spaces))
    mapped, unused = _mapped_columns(tuple(named), mapping, meanings)
    meaning_of = {column: meaning for meaning, column in mapped.items()}
    nested = [n if n in meanings or PREFIX.match(n) else n.rpartition(".")[2] for n in named]
    meant = [meaning_of.get(n, last) for n, last in zip(named, nested, strict=True)]
    notes: tuple[str, ...] = ()
    acting = [n for n in named if n and n not in ignore and not device_word(n)]
    in_space = meant if space is None else space.names
    if keys is not None or any(name.startswith("key_") for name in in_space):
        free = [n for n, m in zip(named, meant, strict=True) if m not in meanings and n in acting]
        found = keys_meant(free, keys or "")
        notes = found.notes
        _check_odd([n for n in found.odd if keys is not None or PREFIX.match(n)])
        meant = [found.buttons.get(n, m) for n, m in zip(named, meant, strict=True)]
    for column, meaning in unused.items():
        if column not in meanings and meaning not in meanings | {
            *TIME_DIGITS,
            TIME,
            HAT,
            *EVENT_COLUMNS,
        }:
            _refuse_unused({column: meaning}, controls, meanings, space)
    if keys is not None and space is None:
        space = _fewest_keys(spaces, set(meant), target)
    if space is None:
        acted = [m for n, m in zip(named, meant, strict=True) if n in acting]
        space = _space_of_controls(acting, acted, target)
    places = tuple(
        space.names.index(m) if m in space.names and n in acting else -1
        for n, m in zip(named, meant, strict=True)
    )
    ignored = tuple(name for name, place in zip(named, places, strict=True) if place < 0)
    if all(place < 0 for place in places):
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"no control is one of {space.name}: the log has {listed(named)}. "
            f"{what_to_write(space, guessed_columns(named, space))}",
        )
    return Controls(places, space, ignored, notes)


def _fewest_keys(
    spaces: list[ActionSpace], meant: set[str], target: ActionSpace | None
) -> ActionSpace:
    """The smallest of the spaces that have the most of the controls, or the target, if it has."""
    return min(
        spaces, key=lambda space: (-len(meant & set(space.names)), space != target, space.size)
    )


def _space_of_controls(
    named: Sequence[str], meant: Sequence[str], target: ActionSpace | None
) -> ActionSpace:
    """The only bundled space that has all controls, or the target, if it has them."""
    if target is not None and set(meant) <= set(target.names):
        return target
    spaces = [load_space(name) for name in space_names()]
    fitting = within_all([s for s in spaces if set(meant) <= set(s.names)])
    if len(fitting) == 1:
        return fitting[0]
    which = listed([s.name for s in fitting]) or "no bundled space"
    how = "say which space is meant with --actions, or with `actions = ...` beside the log"
    if not fitting:
        how = what_to_write(*nearest_space(named, spaces))
    raise RefusedInput(Reason.LOG_COLUMN, f"{which} has the controls {listed(named)}; {how}")


def _check_odd(names: Sequence[str]) -> None:
    """Refuse keys that nobody knows: otherwise they would never be pressed."""
    if names:
        lines = ", ".join(map(text, names[:MOST_ODD]))
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"no key is known as {listed(names)}: pair it with one under [columns], such as "
            f'{text(names[0])} = "key_a", or say ignore = [{lines}] if it means nothing',
        )


def within_all(spaces: list[ActionSpace]) -> list[ActionSpace]:
    """The space whose dimensions all of the others have too, alone; all of them if there is none."""
    smallest = [a for a in spaces if all(set(a.dimensions) <= set(b.dimensions) for b in spaces)]
    return smallest if len(smallest) == 1 else spaces


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


def _space_of_columns(
    spaces: list[ActionSpace],
    present: Mapping[str, str],
    columns: tuple[str, ...],
    target: ActionSpace | None,
) -> ActionSpace:
    """The largest bundled space all of whose dimensions are there; of equally large ones the target."""
    whole = sorted(
        (s for s in spaces if set(s.names) <= present.keys()), key=lambda s: s.size, reverse=True
    )
    if whole and (len(whole) == 1 or whole[0].size > whole[1].size):
        return whole[0]
    if whole:
        tied = [s.name for s in whole if s.size == whole[0].size]
        if target is not None and target.name in tied:
            return target
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"the columns fit {listed(tied)} alike; say which with `actions = ...` beside the log",
        )
    raise RefusedInput(Reason.LOG_COLUMN, missing_columns(columns, spaces, None, present))


def missing_columns(
    columns: Sequence[str],
    spaces: Sequence[ActionSpace],
    asked: ActionSpace | None,
    known: Mapping[str, str] = NO_COLUMNS,
) -> str:
    """What a log lacks, and what to write beside it: one line.

    Args:
        columns: names found in the log.
        spaces: those that may be meant.
        asked: the space that somebody asked for; None: none fits by its columns.
        known: dimension -> column, as far as it is known.
    """
    space, guesses = nearest_space(columns, spaces if asked is None else [asked], known)
    lacking = [name for name in space.names if name not in known]
    if asked is None and len(guesses) < FEWEST:
        said = f"the columns fit no bundled action space; the log has {listed(columns)}"
        guesses = {}
    elif asked is None:
        said = f"the columns fit no bundled action space; nearest is {space.name}, of which "
        said += f"{listed(lacking)} is missing; the log has {listed(columns)}"
    else:
        said = f"no column for {listed(lacking)} of {space.name}; the log has {listed(columns)}"
    left = [name for name in space.names if name not in guesses]
    return f"{said}{_other_space(columns, asked)}. {what_to_write(space, guesses, left)}"


def what_to_write(space: ActionSpace, guesses: Mapping[str, str], left: Sequence[str] = ()) -> str:
    """A line for the metadata by the names of the columns, and what it leaves open.

    Args:
        space: what they may mean.
        guesses: dimension -> column or control.
        left: dimensions that no name is like.
    """
    line = columns_line(guesses)
    if not line and left and guesses:
        return (
            f'NAME.toml beside the log may say actions = "{space.name}" and at_rest = true if '
            f"{listed(left)} were never touched, or pair them with columns under [columns]"
        )
    if not line:
        return (
            "Name the space with `actions = ...` and map the names under [columns] in NAME.toml beside "
            "the log"
        )
    rest = f"; no name is like {listed(left)} (at_rest = true if never touched)" if left else ""
    return (
        f'NAME.toml beside the log may say actions = "{space.name}" and, by the names, {line}{rest}; '
        "`wham-data ingest --explain FILE` shows all of it"
    )


def _other_space(columns: Sequence[str], asked: ActionSpace | None) -> str:
    """Where the columns are rather those of a space with a shipped mapping to the one asked for."""
    starts = [load_space(name) for name in spaces_mapped_to(asked.name)] if asked else []
    if asked is None or not starts:
        return ""
    near, guesses = nearest_space(columns, starts)
    if len(guesses) <= max(1, len(guessed_columns(columns, asked))):
        return ""
    return (
        f"; its columns are rather those of {near.name}: leave {asked.name} out and take it with "
        f"{mapping_hint(near.name, asked.name)}"
    )


def _others(columns: tuple[str, ...], used: set[str | None]) -> tuple[str, ...]:
    return tuple(name for name in columns if name not in used)
