"""Action spaces: what each number of an action means.

A space is an ordered list of named dimensions. The bundled spaces are TOML files in `spaces/`,
beside this module. Users can write their own TOML file and pass its path.

The kind of a dimension decides how its samples become one value per step of the grid:

    button   0 or 1                  1 if the button was down at any instant of the step
    axis     a stick, rests at 0     time-weighted mean over the step (or the chosen axis rule)
    trigger  0 at rest to 1 pulled   as an axis
    delta    motion since the last sample  summed over the step
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import Index
from wham_data.schemas.declarations import (
    bundled_names,
    check_name,
    is_number,
    is_text,
    known_keys,
    nearest,
    read_bundled,
    read_toml,
)
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

Values = TypeVar("Values", NDArray[np.float32], NDArray[np.float64])
Kind = Literal["button", "axis", "trigger", "delta"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
NO_ACTIONS: Final = "none"
"""Name of the action space of a corpus in which no action is known."""
MOST_DIMENSIONS: Final = 1024
MOST_TEXT: Final = 2_000
MOST_LABEL: Final = 32
UNKNOWN_RANGE: Final = float(np.finfo(np.float32).max)
USUAL_RANGE: Final[Mapping[str, tuple[float, float]]] = {
    "button": (0.0, 1.0),
    "axis": (-1.0, 1.0),
    "trigger": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number of an action.

    low, high  range of one sample, both ends included. 0 means rest and must lie in the range. A
               delta is summed over a step, so the value of a step may exceed the range of a sample
    unit       "" for a button, "fraction" of full deflection, "degree", "count", ...
    sign       the direction in which the value grows: "up", "down", "right", "pulled", ...;
               "" for a button

    Raises:
        UsageError: a field is out of its limits.
    """

    name: str
    kind: Kind
    low: float
    high: float
    unit: str = ""
    sign: str = ""

    def __post_init__(self) -> None:
        what = f"dimension {check_name(self.name, 'dimension')}"
        if self.kind not in KINDS:
            raise UsageError(f"{what}: kind {str(self.kind)[:40]!r} is none of {', '.join(KINDS)}")
        if not (is_number(self.low) and is_number(self.high) and self.low < self.high):
            raise UsageError(f"{what}: low and high must be finite numbers, and low < high")
        if not self.low <= 0 <= self.high:
            raise UsageError(f"{what}: rest is 0, which is outside {self.low:g} to {self.high:g}")
        if self.kind == "button" and (self.low, self.high) != (0, 1):
            raise UsageError(f"{what}: a button is 0 or 1, not {self.low:g} to {self.high:g}")
        for text in (self.unit, self.sign):
            if not (is_text(text, MOST_LABEL) and text.isprintable()):
                raise UsageError(
                    f"{what}: unit and sign must be printable, at most {MOST_LABEL} characters"
                )


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """The dimensions of an action, in order, each with a name and a range.

    Two spaces are equal if their names and dimensions are equal. `title` and `source` do not count:
    they are for people.

    title   one line
    source  where the layout comes from, and what is not known about it

    Raises:
        UsageError: no dimension, too many, a name that occurs twice, or a text that is too long.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    title: str = field(default="", compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        what = f"action space {check_name(self.name, 'action space')}"
        if not 1 <= self.size <= MOST_DIMENSIONS:
            raise UsageError(f"{what}: {self.size} dimensions, expected 1 to {MOST_DIMENSIONS}")
        if len(set(self.names)) != self.size:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UsageError(f"{what}: two dimensions are called {twice}")
        for text in (self.title, self.source):
            if not is_text(text, MOST_TEXT):
                raise UsageError(
                    f"{what}: title and source must be texts below {MOST_TEXT} characters"
                )

    @property
    def size(self) -> int:
        """A, the count of numbers in an action."""
        return len(self.dimensions)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the dimensions, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    def index(self, name: str) -> int:
        """Position of the dimension `name`, from 0.

        Raises:
            UsageError: no dimension has this name; the message suggests the most similar one.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UsageError(
                f"action space {self.name} has no dimension {name[:80]!r}"
                + nearest(name, self.names, "dimensions")
            ) from None

    def of_kind(self, *kinds: Kind) -> Index:
        """Positions of the dimensions of these kinds, int64 [K], increasing."""
        return np.array(
            [i for i, dimension in enumerate(self.dimensions) if dimension.kind in kinds], np.int64
        )

    def ranges(self) -> NDArray[np.float64]:
        """Lowest and highest value of one sample for each dimension, float64 [A, 2]."""
        return np.array([(dimension.low, dimension.high) for dimension in self.dimensions])

    def null(self) -> NDArray[np.float32]:
        """The resting action, float32 [A]: nothing pressed, pulled, tilted or moved.

        This action is known. An action that is not known is a row of NaN.
        """
        return np.zeros(self.size, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives the same space back."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "dimensions": [asdict(dimension) for dimension in self.dimensions],
        }

    @classmethod
    def from_dict(cls, data: object) -> ActionSpace:
        """The space that `to_dict` wrote.

        Args:
            data: the content of a JSON file; it may be of any type and everything is checked.

        Raises:
            UsageError: a field is missing, unknown, of the wrong type or out of its limits.
        """
        table = known_keys(data, ("name", "title", "source", "dimensions"), "an action space")
        rows = table.get("dimensions")
        if not isinstance(rows, list) or len(rows) > MOST_DIMENSIONS:
            raise UsageError(
                f"an action space: dimensions must be a list of 1 to {MOST_DIMENSIONS} tables"
            )
        return cls(
            name=table.get("name", ""),
            title=table.get("title", ""),
            source=table.get("source", ""),
            dimensions=tuple(_dimension_from(row) for row in rows),
        )


def _dimension_from(row: object) -> Dimension:
    table = known_keys(row, tuple(f.name for f in fields(Dimension)), "a dimension")
    kind = table.get("kind", "")
    low, high = USUAL_RANGE.get(kind, (None, None)) if isinstance(kind, str) else (None, None)
    low, high = table.get("low", low), table.get("high", high)
    return Dimension(
        name=table.get("name", ""),
        kind=cast(Kind, kind),
        # JSON and TOML write 1 for 1.0. `Dimension` refuses a value of a wrong type.
        low=float(low) if is_number(low) else cast(float, low),
        high=float(high) if is_number(high) else cast(float, high),
        unit=table.get("unit", ""),
        sign=table.get("sign", ""),
    )


def space_names() -> tuple[str, ...]:
    """The names of the bundled spaces, sorted."""
    return bundled_names("spaces")


def generic_space(ref: str) -> ActionSpace | None:
    """The action space for a source whose actions have no names.

    discreteN  N buttons action_0 ..., exactly one of them down: the source numbers its actions
    vectorN    N axes action_0 ... in [-1, 1]: an action of the source is a vector
    numbersN   N axes action_0 ... without limits: a vector whose range the source does not state
    none       one button that is never known, because an action needs a number: no action is known

    Args:
        ref: one of the names above, with N from 1 to 1024.

    Returns:
        The space; None if `ref` is not such a name.
    """
    if ref == NO_ACTIONS:
        return ActionSpace(
            name=NO_ACTIONS,
            title="No action is known",
            source="Of recordings without a log, or whose log is not used.",
            dimensions=(Dimension("not_known", "button", 0, 1),),
        )
    match = re.fullmatch(r"(discrete|vector|numbers)([1-9]\d{0,3})", ref)
    if match is None or int(match[2]) > MOST_DIMENSIONS:
        return None
    kind: Kind = "button" if match[1] == "discrete" else "axis"
    low, high = USUAL_RANGE[kind]
    unit = "fraction" if match[1] == "vector" else ""
    if match[1] == "numbers":
        low, high = -UNKNOWN_RANGE, UNKNOWN_RANGE
    return ActionSpace(
        name=ref,
        title=f"{match[2]} {'numbered actions' if kind == 'button' else 'numbers'} without names",
        source="Of a source that does not say what its actions mean.",
        dimensions=tuple(
            Dimension(f"action_{i}", kind, low, high, unit) for i in range(int(match[2]))
        ),
    )


def load_space(ref: str) -> ActionSpace:
    """The bundled or generic action space with this name, or the one that a .toml file declares.

    Args:
        ref: a name, or a path that ends in .toml.

    Raises:
        UsageError: no space has this name (the message lists the known names and suggests the most
            similar one); the file cannot be used; or the file gives the name of a bundled space to
            other dimensions.
    """
    if ref in space_names():
        return _space_from_toml(read_bundled("spaces", ref), ref)
    if (generic := generic_space(ref)) is not None:
        return generic
    if not ref.endswith(".toml"):
        raise UsageError(
            f"no action space called {ref[:80]!r}{nearest(ref, space_names(), 'spaces')}. "
            "`wham-data schema list` shows them. For a space of your own, pass the path of a .toml "
            "file."
        )
    space = _space_from_toml(read_toml(Path(ref)), ref)
    if space.name in space_names() and space != load_space(space.name):
        raise UsageError(
            f"{ref}: the bundled space {space.name} has other dimensions; choose another name"
        )
    return space


def _space_from_toml(table: Mapping[str, Any], where: str) -> ActionSpace:
    """The space in a file. Each [[dimensions]] table lists the `names` of dimensions of one kind."""
    groups = table.get("dimensions")
    if not isinstance(groups, list):
        raise UsageError(f"{where}: an action space needs [[dimensions]] tables")
    rows: list[object] = []
    for group in groups:
        names = group.get("names") if isinstance(group, dict) else None
        if not isinstance(names, list):
            raise UsageError(f"{where}: every [[dimensions]] table needs a list `names`")
        alike = {key: value for key, value in group.items() if key != "names"}
        rows += [{**alike, "name": name} for name in names]
    try:
        return ActionSpace.from_dict({**table, "dimensions": rows})
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def clamp(space: ActionSpace, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Clamp samples that are a little outside their range.

    A value outside its range is clamped if its distance to the range is at most the width of the
    range (a worn stick may read 1.02). A value farther away means that the log uses another unit,
    such as 16-bit sticks in a -1..1 space, so the input is refused. A button must be 0 or 1.

    Args:
        space: the action space of the columns.
        values: float64 [N, A]. NaN is a missing sample and stays NaN; infinity becomes NaN.

    Returns:
        The clamped values, float64 [N, A], and the count of values that were clamped.

    Raises:
        RefusedInput: LOG_RANGE; the message names the first wrong value and its row.
    """
    low, high = space.ranges().T
    width = high - low
    values = np.where(np.isinf(values), np.nan, values)
    refused = (values < low - width) | (values > high + width)
    buttons = space.of_kind("button")
    held = values[:, buttons]
    refused[:, buttons] = ~((held == 0) | (held == 1) | np.isnan(held))
    if refused.any():
        row, column = (int(i) for i in np.argwhere(refused)[0])
        raise _out_of_range(space.dimensions[column], float(values[row, column]), row)
    outside = (values < low) | (values > high)
    return np.clip(values, low, high), int(np.count_nonzero(outside))


def _out_of_range(dimension: Dimension, value: float, row: int) -> RefusedInput:
    expected = (
        "a button is 0 or 1"
        if dimension.kind == "button"
        else f"expected {dimension.low:g} to {dimension.high:g}; is it in another unit?"
    )
    return RefusedInput(
        Reason.LOG_RANGE,
        f"{dimension.name} is {value:g} in row {row} (the first is 0): {expected}",
    )
