"""Action spaces: what each number of an action means.

A space is an ordered list of named dimensions. Spaces ship as TOML beside this module
(`spaces/`) and are read at run time; anyone can write one more and pass its path.

The kind of a dimension says how its samples become one value per step of the grid:

    button   0 or 1                  1 if it was down at any instant of the step
    axis     a stick, rests at 0     time-weighted mean over the step (or the chosen axis rule)
    trigger  0 at rest to 1 pulled   as an axis
    delta    motion since last time  summed over the step
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
MOST_DIMENSIONS: Final = 1024
MOST_TEXT: Final = 2_000
MOST_LABEL: Final = 32
USUAL_RANGE: Final[Mapping[str, tuple[float, float]]] = {
    "button": (0.0, 1.0),
    "axis": (-1.0, 1.0),
    "trigger": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number of an action.

    low, high  the range of one sample, both ends included; 0 is rest and lies in it. A delta is
               summed over a step, so a step's value may exceed the range of one sample
    unit       "" for a button, "fraction" of full deflection, "degree", "count", ...
    sign       the direction in which the value grows: "up", "down", "right", "pulled", ...;
               "" for a button
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
            raise UsageError(f"{what}: low and high must be finite numbers, low the smaller one")
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
    """The named, ordered, ranged dimensions of an action.

    Two spaces are equal if their names and dimensions are; title and source are for people.

    title   one line
    source  where the layout comes from and what is not known of it
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
            raise UsageError(f"{what}: the dimension {twice} is there twice")
        for text in (self.title, self.source):
            if not is_text(text, MOST_TEXT):
                raise UsageError(
                    f"{what}: title and source must be texts below {MOST_TEXT} characters"
                )

    @property
    def size(self) -> int:
        """How many numbers an action has."""
        return len(self.dimensions)

    @property
    def names(self) -> tuple[str, ...]:
        """The dimensions' names, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    def index(self, name: str) -> int:
        """Position of the dimension `name`.

        Raises:
            UsageError: there is none; the message names the nearest.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UsageError(
                f"action space {self.name} has no dimension {name[:80]!r}"
                + nearest(name, self.names, "dimensions")
            ) from None

    def of_kind(self, *kinds: Kind) -> Index:
        """Positions of the dimensions of these kinds, int64, increasing."""
        return np.array(
            [i for i, dimension in enumerate(self.dimensions) if dimension.kind in kinds], np.int64
        )

    def ranges(self) -> NDArray[np.float64]:
        """Lowest and highest value of one sample, float64 [A, 2]."""
        return np.array([(dimension.low, dimension.high) for dimension in self.dimensions])

    def null(self) -> NDArray[np.float32]:
        """The resting action, float32 [A]: nothing pressed, pulled, tilted or moved.

        It is a known action. An action that is not known is NaN instead.
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
            data: whatever a JSON file held; nothing about it is trusted.

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
        # JSON and TOML write a whole number without its point; a wrong type is left to the check.
        low=float(low) if is_number(low) else cast(float, low),
        high=float(high) if is_number(high) else cast(float, high),
        unit=table.get("unit", ""),
        sign=table.get("sign", ""),
    )


def space_names() -> tuple[str, ...]:
    """Names of the bundled spaces, sorted."""
    return bundled_names("spaces")


def load_space(ref: str) -> ActionSpace:
    """The action space called `ref`, or declared in the file `ref` if that ends in .toml.

    Raises:
        UsageError: no such space (the message names the known ones and the nearest), a bad file,
            or a file that gives a bundled space's name to something else.
    """
    if ref in space_names():
        return _space_from_toml(read_bundled("spaces", ref), ref)
    if not ref.endswith(".toml"):
        raise UsageError(
            f"no action space called {ref[:80]!r}{nearest(ref, space_names(), 'spaces')}. "
            "`wham-data schema list` shows them; a path to a .toml file declares one more."
        )
    space = _space_from_toml(read_toml(Path(ref)), ref)
    if space.name in space_names() and space != load_space(space.name):
        raise UsageError(
            f"{ref}: the bundled space {space.name} has other dimensions; choose another name"
        )
    return space


def _space_from_toml(table: Mapping[str, Any], where: str) -> ActionSpace:
    """The space of a file; one [[dimensions]] table holds the `names` of all that are alike."""
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


Combine = Literal["max", "sum"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one dimension of the target comes from dimensions of the source.

    sources     names; their values are multiplied by `scales`, then combined
    combine     "max": the greatest; "sum": all together
    pressed_at  turn the result into a button that is down from this value on; None: keep the value
    """

    target: str
    sources: tuple[str, ...]
    scales: tuple[float, ...]
    combine: Combine = "max"
    pressed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """How actions of one space are said in another.

    notes  what a person should know of the choices made, one sentence each
    """

    source: ActionSpace
    target: ActionSpace
    rules: tuple[Rule, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        what = f"conversion from {self.source.name} to {self.target.name}"
        filled = [rule.target for rule in self.rules]
        for rule in self.rules:
            if filled.count(rule.target) > 1:
                raise UsageError(f"{what}: {rule.target} has two rules")
            problem = _problem(
                rule,
                [self.source.dimensions[self.source.index(name)] for name in rule.sources],
                self.target.dimensions[self.target.index(rule.target)],
            )
            if problem:
                raise UsageError(f"{what}: {rule.target}: {problem}")

    @property
    def unfilled(self) -> tuple[str, ...]:
        """Dimensions of the target that no rule fills; they stay at rest."""
        filled = {rule.target for rule in self.rules}
        return tuple(name for name in self.target.names if name not in filled)

    @property
    def lost(self) -> tuple[str, ...]:
        """What the source knew and the target does not say, one sentence each.

        A sign that flips or a unit that is scaled loses nothing.
        """
        used = {name for rule in self.rules for name in rule.sources}
        dropped = [name for name in self.source.names if name not in used]
        sentences = [_sentence(dropped, "is dropped", "are dropped")] if dropped else []
        whole = {
            rule.sources[0]
            for rule in self.rules
            if len(rule.sources) == 1 and rule.pressed_at is None and not self._overflows(rule)
        }
        for rule in self.rules:
            if not whole.issuperset(rule.sources):
                sentences += self._lost_by(rule)
        return tuple(sentences)

    def _lost_by(self, rule: Rule) -> list[str]:
        goal = self.target.dimensions[self.target.index(rule.target)]
        kinds = {self.source.dimensions[self.source.index(name)].kind for name in rule.sources}
        sentences = []
        if len(rule.sources) > 1:
            combined = {"max": "greatest", "sum": "sum"}[rule.combine]
            how = f"cannot be told apart: their {combined} is {rule.target}"
            sentences.append(_sentence(rule.sources, how, how))
        if rule.pressed_at is not None and kinds != {"button"}:
            how = f"only whether {rule.pressed_at:g} is reached, as {rule.target}"
            sentences.append(_sentence(rule.sources, f"keeps {how}", f"keep {how}"))
        elif self._overflows(rule):
            how = f"cut where {rule.target} ends, at {goal.low:g} and {goal.high:g}"
            sentences.append(_sentence(rule.sources, f"is {how}", f"are {how}"))
        return sentences

    def _overflows(self, rule: Rule) -> bool:
        """Whether the rule can leave the range of its target, so that `apply` cuts it."""
        goal = self.target.dimensions[self.target.index(rule.target)]
        if rule.pressed_at is not None or goal.kind == "delta":
            return False
        columns = [self.source.index(name) for name in rule.sources]
        reach = np.sort(self.source.ranges()[columns] * np.array(rule.scales)[:, None], axis=1)
        low, high = reach.max(axis=0) if rule.combine == "max" else reach.sum(axis=0)
        return bool(low < goal.low or high > goal.high)

    def apply(self, values: Values) -> Values:
        """The same actions in the target space.

        Button thresholds are compared in float32, so that a track gives the same actions before
        and after it is stored. What leaves the target's range is cut at its edge, except deltas.

        Args:
            values: float32 or float64 [T, A of the source]. A row with a NaN is a missing action.

        Returns:
            [T, A of the target], the same dtype; missing rows are all NaN.

        Raises:
            UsageError: another number of columns.
        """
        if values.ndim != 2 or values.shape[1] != self.source.size:
            raise UsageError(
                f"actions of shape {values.shape}: {self.source.name} needs [T, {self.source.size}]"
            )
        converted = np.zeros((len(values), self.target.size), np.float64)
        for rule in self.rules:
            columns = [self.source.index(name) for name in rule.sources]
            parts = values[:, columns].astype(np.float64) * rule.scales
            total = parts.max(axis=1) if rule.combine == "max" else parts.sum(axis=1)
            at = self.target.index(rule.target)
            goal = self.target.dimensions[at]
            if rule.pressed_at is not None:
                total = (total.astype(np.float32) >= np.float32(rule.pressed_at)).astype(np.float64)
            elif goal.kind != "delta":
                total = np.clip(total, goal.low, goal.high)
            converted[:, at] += total  # adding to 0.0 turns the -0.0 of a flipped sign into 0.0
        converted[np.isnan(values).any(axis=1)] = np.nan
        return converted.astype(values.dtype)


def _problem(rule: Rule, sources: Sequence[Dimension], target: Dimension) -> str | None:
    """Why the rule makes no sense, or None."""
    if not sources or len(rule.scales) != len(sources):
        return "needs one scale for each of its sources, and at least one source"
    if not all(is_number(scale) and scale != 0 for scale in rule.scales):
        return "a scale must be a finite number other than 0"
    if rule.combine not in get_args(Combine):
        return f"combine must be one of {', '.join(get_args(Combine))}"
    deltas = [source.kind == "delta" for source in sources]
    if any(deltas) != (target.kind == "delta") or any(deltas) != all(deltas):
        return "a delta can only come from deltas and feed a delta: anything else needs a rate"
    if target.kind == "delta" and rule.pressed_at is not None:
        return "pressed_at makes a button, not a delta"
    if target.kind == "delta" and rule.combine != "sum" and len(sources) > 1:
        return 'several deltas add up: combine = "sum"'
    if rule.pressed_at is not None:
        if target.kind != "button" or not is_number(rule.pressed_at) or rule.pressed_at <= 0:
            return "pressed_at is a number above 0, which is rest, and makes a button"
    elif target.kind == "button" and not (
        all(source.kind == "button" for source in sources)
        and all(scale == 1 for scale in rule.scales)
        and rule.combine == "max"
    ):
        return "say from which value on the button is down: pressed_at"
    return None


def _sentence(names: Sequence[str], singular: str, plural: str) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last} {plural}." if some else f"{last} {singular}."


def converts_to(source: str) -> tuple[str, ...]:
    """Names of the spaces that the space `source` has a bundled conversion to, sorted."""
    start = f"{source}-to-"
    known = bundled_names("conversions")
    return tuple(name.removeprefix(start) for name in known if name.startswith(start))


def find_conversion(source: ActionSpace, target: ActionSpace) -> Conversion:
    """The bundled conversion from `source` to `target`, in one hop; a space converts to itself.

    Raises:
        UsageError: none is declared; the message says which are and how to declare one.
    """
    if source == target:
        return Conversion(source, target, tuple(Rule(n, (n,), (1.0,)) for n in source.names))
    if target.name in converts_to(source.name):
        name = f"{source.name}-to-{target.name}"
        conversion = _conversion_from(read_bundled("conversions", name), name, Path())
        if (conversion.source, conversion.target) == (source, target):
            return conversion
    pair = f"{source.name} {target.name}"
    raise UsageError(
        f"no conversion from {source.name} to {target.name} is declared; {source.name} converts to "
        f"{', '.join(converts_to(source.name)) or 'nothing'}. Say in a TOML file which dimension "
        f"becomes which: `wham-data schema convert {pair} --mapping FILE.toml`; "
        "docs/action-spaces.md shows one."
    )


def load_conversion(path: Path) -> Conversion:
    """The conversion declared in a TOML file; paths of spaces in it are relative to the file.

    Raises:
        UsageError: it cannot be read, or what it says makes no sense.
    """
    return _conversion_from(read_toml(path), str(path), path.parent)


def _conversion_from(table: Mapping[str, Any], where: str, folder: Path) -> Conversion:
    try:
        known_keys(table, ("source", "target", "notes", "rules"), "a conversion")
        notes = table.get("notes", [])
        if not isinstance(notes, list) or not all(is_text(note, MOST_TEXT) for note in notes):
            raise UsageError(f"notes must be a list of texts below {MOST_TEXT} characters")
        rules = table.get("rules")
        if not isinstance(rules, dict) or not 1 <= len(rules) <= MOST_DIMENSIONS:
            raise UsageError("a [rules] table must say which dimension comes from which")
        spaces = [_space_beside(table.get(end), end, folder) for end in ("source", "target")]
        return Conversion(
            spaces[0], spaces[1], tuple(_rule_from(*rule) for rule in rules.items()), tuple(notes)
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _space_beside(ref: object, end: str, folder: Path) -> ActionSpace:
    if not isinstance(ref, str):
        raise UsageError(f"{end} must be the name of an action space or the path of its .toml file")
    return load_space(str(folder / ref) if ref.endswith(".toml") else ref)


def _rule_from(target: str, said: object) -> Rule:
    """A rule as written: `target = "source"`, or `target = { from = ..., scale = ..., ... }`."""
    if isinstance(said, str):
        return Rule(target, (said,), (1.0,))
    what = f"the rule for {target[:80]!r}"
    table = known_keys(said, ("from", "scale", "combine", "pressed_at"), what)
    sources = table.get("from")
    sources = [sources] if isinstance(sources, str) else sources
    if not isinstance(sources, list) or not all(isinstance(name, str) for name in sources):
        raise UsageError(f"{what}: `from` must be the name of a dimension or a list of them")
    if len(sources) > 1 and "combine" not in table:
        raise UsageError(f'{what}: say how its {len(sources)} sources combine: "max" or "sum"')
    scale = table.get("scale", 1.0)
    scales = scale if isinstance(scale, list) else [scale] * len(sources)
    combine = table.get("combine", "max")
    return Rule(target, tuple(sources), tuple(scales), combine, table.get("pressed_at"))


def clamp(space: ActionSpace, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Bring samples that overshoot a little to the edge of their range.

    A value is clamped while it is beyond its range by no more than the range's own width (a worn
    stick reads 1.02). Farther out the log is in another unit, such as 16-bit sticks in a -1..1
    space, and is refused. A button is 0 or 1 and nothing else.

    Args:
        space: what the columns mean.
        values: float64 [N, A]; NaN stays, infinity becomes NaN: both are missing samples.

    Returns:
        float64 [N, A] and how many values were clamped.

    Raises:
        RefusedInput: LOG_RANGE, naming the first offending row.
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
