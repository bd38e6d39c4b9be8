"""The scale on which a log gives its sticks and triggers: declared, recognised, or refused.

A pad is read by many libraries, and they disagree: a trigger rests at 0 or at -1, a stick runs
from -1 to 1, from 0 to 1 with rest at 0.5, over a byte or over 16 bits. A value beyond the range
of its dimension is an overshoot only if it is small and rare. Otherwise the log is on another
scale, which its sticks (or its triggers) show together: by where they rest and where they end.
"""

from __future__ import annotations

from collections.abc import Mapping
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
OFTEN: Final = 0.05
FEWEST_ROWS: Final = 6


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


@dataclass(frozen=True, slots=True)
class Habit:
    """A scale that recorders use: its ends, where it rests, and whether it has whole numbers."""

    low: float
    high: float
    rest: float
    whole: bool


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
    for place, dimension in enumerate(space.dimensions):
        if dimension.name in declared:
            raw = values[:, place]
            scaled = declared[dimension.name].apply(raw, dimension)
            values[:, place] = np.where(given[:, place], scaled, raw)
    for kind, habits in (("axis", STICKS), ("trigger", TRIGGERS)):
        group = [
            place
            for place, dimension in enumerate(space.dimensions)
            if dimension.kind == kind
            and dimension.name not in declared
            and (dimension.low, dimension.high) == USUAL_RANGE[kind]
            and (given[:, place] & np.isfinite(values[:, place])).any()
        ]
        notes += _recognise(space, values, given, group, habits)
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
) -> list[str]:
    """Bring a group of controls to scale where the scale is certain; refuse where it is not."""
    columns = {p: values[given[:, p] & np.isfinite(values[:, p]), p] for p in group}
    if not group or not (_half_at_rest(space, columns) or _outside(space, columns)):
        return []
    fits = [habit for habit in habits if _fits(habit, list(columns.values()))]
    if len(fits) != 1:
        odd = [p for p in group if _overshoot(space.dimensions[p], columns[p])]
        if odd or _half_at_rest(space, columns):
            place = (odd or group)[0]
            raise _another_scale(space.dimensions[place], columns[place], habits)
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
        values[mine, place] = scale.apply(raw[mine], space.dimensions[place])
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


def _outside(space: ActionSpace, columns: Mapping[int, NDArray[np.float64]]) -> bool:
    """Whether a control leaves its range by more than rounding."""
    return any(
        _beyond(space.dimensions[place], column).max() > ROUNDING
        for place, column in columns.items()
    )


def _half_at_rest(space: ActionSpace, columns: Mapping[int, NDArray[np.float64]]) -> bool:
    """Whether no stick is ever below 0 and all of them rest near 0.5."""
    sticks = [c for place, c in columns.items() if space.dimensions[place].kind == "axis"]
    touched = [_touched(column) for column in sticks if column.any()]
    enough = len(touched) >= 2 and sum(map(len, touched)) >= FEWEST_ROWS
    return enough and all(
        column.min() >= 0 and abs(_rest(column) - 0.5) < AROUND_REST for column in touched
    )


def _touched(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the first value on that is not 0."""
    return column[int(np.argmax(column != 0)) :]


def _rest(column: NDArray[np.float64]) -> float:
    """Where a control mostly is: its most common value if that is common, else its median."""
    distinct, counts = np.unique(column, return_counts=True)
    if counts.max() >= COMMON * len(column):
        return float(distinct[np.argmax(counts)])
    return float(np.median(column))


def _fits(habit: Habit, columns: list[NDArray[np.float64]]) -> bool:
    """Whether all controls of a group live on one scale, rest where it does, and reach an end."""
    span = habit.high - habit.low
    touched = [_touched(column) for column in columns if column.any()]
    low, high = min(c.min() for c in touched), max(c.max() for c in touched)
    if low < habit.low - ROUNDING * span or high > habit.high + ROUNDING * span:
        return False
    if habit.whole and not all((c == np.rint(c)).all() and np.abs(c).max() > 1 for c in touched):
        return False
    at_high, at_low = high >= habit.high - NEAR * span, low <= habit.low + NEAR * span
    if habit.rest != habit.low:
        about = [abs(_rest(column) - habit.rest) <= AROUND_REST * span for column in touched]
        return bool((at_high or at_low) and all(about))
    if habit.rest == 0:
        return bool(at_high)
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


def _another_scale(
    dimension: Dimension, column: NDArray[np.float64], habits: tuple[Habit, ...] = ()
) -> RefusedInput:
    low, high, rest = (float(n) + 0.0 for n in (column.min(), column.max(), _rest(column)))
    near = [h for h in habits if h.low <= low and 0.8 * h.high <= high <= h.high]
    ends = (near[0].low, near[0].high) if near else (low, high)
    if dimension.low == 0 and not near and high - rest < rest - low:
        ends = (high, low)
    return RefusedInput(
        Reason.LOG_RANGE,
        f"value out of range: {dimension.name} goes from {low:g} to {high:g} and rests at "
        f"{rest:g}, expected {dimension.low:g} to {dimension.high:g} with rest at 0. Is "
        "it on another scale? Write its true ends under [columns] beside the log, such as "
        f"{dimension.name} = {{ range = [{ends[0]:g}, {ends[1]:g}] }}",
    )


def only_at(columns: Index, total: int) -> NDArray[np.bool_]:
    """bool [N, total], True in the column that each of N rows gives."""
    given = np.zeros((len(columns), total), np.bool_)
    given[np.arange(len(columns)), columns] = True
    return given
