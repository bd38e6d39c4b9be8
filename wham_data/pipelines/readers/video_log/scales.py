"""The scale on which a log gives its sticks and triggers: declared, recognised, or refused.

A pad is read by many libraries, and they disagree: a trigger rests at 0 or at -1, a stick runs
from -1 to 1, from 0 to 1 with rest at 0.5, over a byte or over 16 bits. A value beyond the range
of its dimension is an overshoot only if it is small and rare. Otherwise the log is on another
scale, which its sticks (or its triggers) show together: by where they rest and where they end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import USUAL_RANGE, ActionSpace, Dimension, clamp
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

ROUNDING: Final = 0.02
MOST_OVERSHOOT: Final = 0.05
MOST_OVERSHOT_ROWS: Final = 0.25
NEAR: Final = 0.03
AROUND_REST: Final = 0.15
COMMON: Final = 0.2
FEWEST_EQUAL: Final = 2
OFTEN: Final = 0.05
FEWEST_ROWS: Final = 6
SURELY_HALF: Final = 0.02
PERCENTS: Final = (100.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """How a value of the log becomes one of the space.

    factor, offset  value = raw * factor + offset
    range           (low, high) of the log, which become the ends of the dimension; instead of the
                    two above
    invert          the value grows the other way round
    """

    factor: float = 1.0
    offset: float = 0.0
    range: tuple[float, float] | None = None
    invert: bool = False

    def apply(self, raw: NDArray[np.float64], dimension: Dimension) -> NDArray[np.float64]:
        """Values of the space, float64 [N]; what is not finite stays so."""
        if self.range is None:
            values = raw * self.factor + self.offset
        else:
            low, high = self.range
            span = dimension.high - dimension.low
            values = dimension.low + (raw - low) * (span / (high - low))
        return dimension.low + dimension.high - values if self.invert else values

    @property
    def only_turned(self) -> bool:
        """Whether it says that the value grows the other way, and nothing of its ends."""
        return self.invert and self.range is None and (self.factor, self.offset) == (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Habit:
    """A scale that recorders use: its ends, where it rests, and whether it has whole numbers."""

    low: float
    high: float
    rest: float
    whole: bool

    @property
    def middle(self) -> float:
        """How far from `rest` a stick is still at rest: of a byte, both 127 and 128 are."""
        return 0.5 if self.whole else 0.5 / 255


STICKS: Final = (
    Habit(0, 1, 0.5, whole=False),
    Habit(0, 255, 127.5, whole=True),
    Habit(-128, 127, 0, whole=True),
    Habit(-32768, 32767, 0, whole=True),
    Habit(0, 65535, 32767.5, whole=True),
)
TRIGGERS: Final = (
    Habit(-1, 1, -1, whole=False),
    Habit(0, 255, 0, whole=True),
    Habit(0, 1023, 0, whole=True),
    Habit(0, 32767, 0, whole=True),
    Habit(0, 65535, 0, whole=True),
    Habit(-32768, 32767, -32768, whole=True),
)


def brought_to_scale(
    space: ActionSpace,
    values: NDArray[np.float64],
    given: NDArray[np.bool_],
    declared: Mapping[str, Scale],
) -> tuple[NDArray[np.float64], int, list[str]]:
    """Values of a log on the scale of the space.

    Args:
        space: what the columns mean.
        values: float64 [N, A], as the log has them, in time order.
        given: bool [N, A], where the log says something (an event log has one value per row).
        declared: dimension -> its scale, from the metadata.

    Returns:
        float64 [N, A], unknown (NaN) where nothing is known yet; how many small overshoots were
        clamped; and what was recognised.

    Raises:
        RefusedInput: LOG_RANGE, naming the control, where it rests, its range and the line to
            write; as `clamp` for buttons and far outliers.
    """
    values = np.where(np.isinf(values), np.nan, values)
    notes: list[str] = []
    turned = {name for name, scale in declared.items() if scale.only_turned}
    for place, dimension in enumerate(space.dimensions):
        if dimension.name in declared and dimension.name not in turned:
            raw = values[:, place]
            scaled = declared[dimension.name].apply(raw, dimension)
            values[:, place] = np.where(given[:, place], scaled, raw)
    for kind, habits in (("axis", STICKS), ("trigger", TRIGGERS)):
        group = [
            place
            for place, dimension in enumerate(space.dimensions)
            if dimension.kind == kind
            and (dimension.name not in declared or dimension.name in turned)
            and (dimension.low, dimension.high) == USUAL_RANGE[kind]
            and (given[:, place] & np.isfinite(values[:, place])).any()
        ]
        upside_down = any(
            scale.invert and kind == space.dimensions[space.index(name)].kind
            for name, scale in declared.items()
        )
        if kind == "trigger":
            _check_rest(space, values, given, group, turned, alone=upside_down)
        notes += _recognise(space, values, given, group, habits, turned)
    for place, dimension in enumerate(space.dimensions):
        if dimension.name in turned:
            mine = given[:, place]
            values[mine, place] = Scale(invert=True).apply(values[mine, place], dimension)
    _check_overshoot(space, values, given)
    try:
        values, clamped = clamp(space, values)
    except RefusedInput as error:
        raise RefusedInput(error.reason, f"value out of range: {error.message}") from None
    return values, clamped, notes


def _recognise(
    space: ActionSpace,
    values: NDArray[np.float64],
    given: NDArray[np.bool_],
    group: list[int],
    habits: tuple[Habit, ...],
    turned: Collection[str],
) -> list[str]:
    """Bring a group of controls to scale where the scale is certain; refuse where it is not."""
    columns = _columns(values, given, group)
    ways = [space.names[place] in turned for place in group]
    if not group or not (_half_at_rest(space, columns) or _outside(space, columns)):
        return []
    fits = [habit for habit in habits if _fits(habit, list(columns.values()), ways)]
    if len(fits) != 1:
        odd = [p for p in group if _overshoot(space.dimensions[p], columns[p])]
        if odd or _half_at_rest(space, columns):
            place = (odd or group)[0]
            raise _another_scale(space.dimensions[place], columns[place])
        return []
    habit = fits[0]
    names = [space.names[place] for place in group]
    notes = [
        f"{', '.join(names[:8])}: on a scale of {habit.low:g} to {habit.high:g} with rest at "
        f"{habit.rest:g}, by their values: brought to the space's own"
    ]
    scale = Scale(range=(habit.low, habit.high))
    for place in group:
        raw, mine = values[:, place].copy(), given[:, place]
        scaled = scale.apply(raw[mine], space.dimensions[place])
        middle = habit.rest != habit.low and np.abs(raw[mine] - habit.rest) <= habit.middle
        values[mine, place] = np.where(middle, 0.0, scaled)
        if habit.rest:
            notes += _before_first_touch(space.names[place], values[:, place], raw, mine)
    return notes


def _before_first_touch(
    name: str, values: NDArray[np.float64], raw: NDArray[np.float64], given: NDArray[np.bool_]
) -> list[str]:
    """Zeros of a control that does not rest at 0, changed in `values`: it was not touched yet."""
    rows = np.flatnonzero(given)
    touched = np.flatnonzero(raw[rows] != 0)
    if not len(touched):
        values[rows] = 0.0
        return [f"{name} is 0 throughout: never touched, taken as at rest"]
    if not touched[0]:
        return []
    values[rows[: touched[0]]] = np.nan
    return [f"{name} is 0 until row {rows[touched[0]] + 1}: not touched yet, so not known"]


def _columns(
    values: NDArray[np.float64], given: NDArray[np.bool_], group: list[int]
) -> dict[int, NDArray[np.float64]]:
    """What the log says of each control of a group, by its place."""
    return {p: values[given[:, p] & np.isfinite(values[:, p]), p] for p in group}


def _check_rest(
    space: ActionSpace,
    values: NDArray[np.float64],
    given: NDArray[np.bool_],
    group: list[int],
    turned: Collection[str],
    *,
    alone: bool,
) -> None:
    """Refuse triggers that all rest at the end where a trigger is pulled.

    One of them alone may be held: a car is driven so. Two rest there where both begin and end there
    and are there more often than anywhere else, or are there for more than half of the log.

    Args:
        space, values, given, group, turned: as for `_recognise`.
        alone: another trigger is declared to grow the other way, so that one is enough.
    """
    columns = {
        place: column
        for place, column in _columns(values, given, group).items()
        if column.any() and space.names[place] not in turned
    }
    enough = sum(map(len, columns.values())) >= FEWEST_ROWS
    if len(columns) < (1 if alone else 2) or not enough:
        return
    if not all(_rests_high(column) for column in columns.values()):
        return
    names = [space.names[place] for place in columns]
    top = max(float(column.max()) for column in columns.values())
    ends = [_known_ends(column, TRIGGERS, turned=True) for column in columns.values()]
    lines = [f"{name} = {{ {end}, invert = true }}" for name, end in zip(names, ends, strict=True)]
    raise RefusedInput(
        Reason.LOG_RANGE,
        f"value out of range: {' and '.join(names)} rest at {top:g}, the "
        f"end where a trigger is pulled: they seem to grow the other way. If so, write under [columns] "
        f"{', '.join(lines[:4])} (a line each); if they were held, leave out invert",
    )


def _rests_high(column: NDArray[np.float64]) -> bool:
    """Whether a trigger rests at the upper end of what it does."""
    low, high = float(column.min()), float(column.max())
    near = NEAR * (high - low)
    top = column >= high - near
    share = np.count_nonzero(top) / len(column)
    begins_so = bool(top[0] and top[-1]) and abs(_rest(column) - high) <= near and share >= COMMON
    return bool(high > max(low, 0.0) and (share > 0.5 or begins_so))


def _outside(space: ActionSpace, columns: Mapping[int, NDArray[np.float64]]) -> bool:
    """Whether a control leaves its range by more than rounding."""
    return any(
        _beyond(space.dimensions[place], column).max() > ROUNDING
        for place, column in columns.items()
    )


def _half_at_rest(space: ActionSpace, columns: Mapping[int, NDArray[np.float64]]) -> bool:
    """Whether no stick is ever below 0, and all of them rest near 0.5 or two are often there.

    The others may be held: a stick that is pushed forward in a whole clip never rests.
    """
    sticks = [c for place, c in columns.items() if space.dimensions[place].kind == "axis"]
    touched = [_touched(column) for column in sticks if column.any()]
    enough = len(touched) >= 2 and sum(map(len, touched)) >= FEWEST_ROWS
    if not enough or any(column.min() < 0 for column in touched):
        return False
    near = [abs(_rest(column) - 0.5) for column in touched]
    common = [_often_at(column, 0.5, SURELY_HALF) for column in touched]
    return all(distance < AROUND_REST for distance in near) or sum(common) >= 2


def _often_at(column: NDArray[np.float64], rest: float, within: float) -> bool:
    """Whether some value that is common in a column is that of a rest."""
    distinct, counts = np.unique(column, return_counts=True)
    often = distinct[counts >= max(FEWEST_EQUAL, COMMON * len(column))]
    return bool((np.abs(often - rest) <= within).any())


def _touched(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the first value on that is not 0."""
    return column[int(np.argmax(column != 0)) :]


def _rest(column: NDArray[np.float64]) -> float:
    """Where a control mostly is: its most common value if that is common, else its median."""
    distinct, counts = np.unique(column, return_counts=True)
    if counts.max() >= COMMON * len(column):
        return float(distinct[np.argmax(counts)])
    return float(np.median(column))


def _fits(habit: Habit, columns: list[NDArray[np.float64]], turned: list[bool]) -> bool:
    """Whether all controls of a group live on one scale, rest where it does, and reach an end.

    Of sticks at least half have to rest: the others may be held.

    Args:
        habit: the scale.
        columns: what the log says of each control.
        turned: which of them grow the other way.
    """
    span = habit.high - habit.low
    touched = [
        habit.low + habit.high - _touched(column) if other_way else _touched(column)
        for column, other_way in zip(columns, turned, strict=True)
        if column.any()
    ]
    low, high = min(c.min() for c in touched), max(c.max() for c in touched)
    if low < habit.low - ROUNDING * span or high > habit.high + ROUNDING * span:
        return False
    if habit.whole and not all((c == np.rint(c)).all() and np.abs(c).max() > 1 for c in touched):
        return False
    at_high, at_low = high >= habit.high - NEAR * span, low <= habit.low + NEAR * span
    if habit.rest != habit.low:
        within = AROUND_REST * span
        about = [
            abs(_rest(column) - habit.rest) <= within
            or _often_at(column, habit.rest, SURELY_HALF * span)
            for column in touched
        ]
        return bool((at_high or at_low) and 2 * sum(about) >= len(about))
    if habit.rest == 0:
        return bool(at_high and (at_low or not any(turned)))
    return all(_rests_low(habit, column) for column in touched)


def _rests_low(habit: Habit, column: NDArray[np.float64]) -> bool:
    """Whether a trigger is often at the low end of its scale, and seldom at 0."""
    near = NEAR * (habit.high - habit.low)
    at_low = np.count_nonzero(column <= habit.low + near)
    at_zero = np.count_nonzero(np.abs(column) <= near)
    return bool(at_low >= max(1, OFTEN * len(column)) and at_zero < at_low)


def _check_overshoot(
    space: ActionSpace, values: NDArray[np.float64], given: NDArray[np.bool_]
) -> None:
    """Refuse what is beyond the range by more than a worn stick is, or in too many rows."""
    for place in space.of_kind("axis", "trigger"):
        column = values[given[:, place] & np.isfinite(values[:, place]), place]
        if len(column) and _overshoot(space.dimensions[place], column):
            raise _another_scale(space.dimensions[place], column)


def _beyond(dimension: Dimension, column: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each value is out of its range, as a share of the range; below 0 inside."""
    far = np.maximum(dimension.low - column, column - dimension.high)
    share: NDArray[np.float64] = far / (dimension.high - dimension.low)
    return share


def _overshoot(dimension: Dimension, column: NDArray[np.float64]) -> bool:
    """Whether values are out of range too far, or too often, for a worn stick."""
    beyond = _beyond(dimension, column)
    often = np.count_nonzero(beyond > ROUNDING) > max(1, MOST_OVERSHOT_ROWS * len(column))
    return bool(beyond.max() > MOST_OVERSHOOT or often)


def _another_scale(dimension: Dimension, column: NDArray[np.float64]) -> RefusedInput:
    low, high, rest = (float(n) + 0.0 for n in (column.min(), column.max(), _rest(column)))
    found = (
        f"value out of range: {dimension.name} goes from {low:g} to {high:g} and rests at "
        f"{rest:g}, expected {dimension.low:g} to {dimension.high:g} with rest at 0. "
    )
    apart = NEAR * (high - low)
    if dimension.low == 0 and low < -apart and high > apart and abs(rest) <= apart:
        return RefusedInput(
            Reason.LOG_RANGE,
            f"{found}Are two triggers on this one axis? They cannot be told apart: log each in a column "
            "of its own, as XInput gives them",
        )
    turned = dimension.low == 0 and high > low and high - rest < rest - low
    ends = _known_ends(column, TRIGGERS if dimension.low == 0 else STICKS, turned=turned)
    ends += ", invert = true" if turned and ends != "range = [0, -1]" else ""
    return RefusedInput(
        Reason.LOG_RANGE,
        f"{found}Is it on another scale? Write its true ends, not those of this log alone, under "
        f"[columns] beside the log, such as {dimension.name} = {{ {ends} }}",
    )


def _known_ends(column: NDArray[np.float64], habits: tuple[Habit, ...], *, turned: bool) -> str:
    """The range to write for a control: that of the least known scale that holds it, else a blank."""
    low, high, rest = float(column.min()), float(column.max()), _rest(column)
    stick = habits is STICKS
    for percent in PERCENTS:
        if percent in (high, -low) and (-percent if stick else -NEAR) <= low and high <= percent:
            return f"range = [{-percent if stick else 0:g}, {percent:g}]"
    if not stick and (low, high) == (-1.0, 0.0):
        return "range = [0, -1]"
    ours = (Habit(0, 1, 0, whole=False), *habits) if not stick else habits
    for habit in ours:
        span = habit.high - habit.low
        at = habit.low + habit.high - habit.rest if turned else habit.rest
        whole = not habit.whole or bool((column == np.rint(column)).all())
        inside = habit.low - NEAR * span <= low and high <= habit.high + NEAR * span
        if inside and whole and abs(rest - at) <= AROUND_REST * span:
            return f"range = [{habit.low:g}, {habit.high:g}]"
    return "range = [?, ?]"


def only_at(columns: Index, total: int) -> NDArray[np.bool_]:
    """bool [N, total], True in the column that each of N rows gives."""
    given = np.zeros((len(columns), total), np.bool_)
    given[np.arange(len(columns)), columns] = True
    return given
