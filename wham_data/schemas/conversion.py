"""Conversions: how actions of one space become actions of another, and which information is lost.

The bundled conversions are TOML files in `conversions/`, beside this module. They connect spaces
whose dimensions have the same meaning. Users can declare their own. `mappings/` holds examples for
keyboard and mouse, which have no single correct conversion to a gamepad.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import (
    MOST_DIMENSIONS,
    MOST_TEXT,
    ActionSpace,
    Dimension,
    Values,
    load_space,
)
from wham_data.schemas.clock import Index
from wham_data.schemas.declarations import (
    bundled_names,
    is_number,
    is_text,
    known_keys,
    read_bundled,
    read_toml,
)
from wham_data.schemas.errors import UsageError

Combine = Literal["max", "sum"]
ROUNDING: Final = 1e-6
"""Share of a range by which a value may exceed it without being called clipped."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one dimension of the target is computed from dimensions of the source.

    target      name of the dimension
    sources     names of dimensions; each value is multiplied by its scale, then all are combined
    scales      one number for each source, not 0
    combine     "max": the largest value; "sum": the sum of all
    offset      added to the combined value, before `pressed_at`
    pressed_at  turn the result into a button that is down at this value and above; None: keep the
                result
    full_at     turn the speed of a delta into an axis: at this much motion per second the axis is
                at its end; None: keep the result
    """

    target: str
    sources: tuple[str, ...]
    scales: tuple[float, ...]
    combine: Combine = "max"
    pressed_at: float | None = None
    full_at: float | None = None
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Conversion:
    """How actions of one space become actions of another.

    source  the space of the given actions
    target  the space of the converted actions
    rules   at most one for each dimension of the target
    notes   for people: the choices that were made, one sentence each

    Raises:
        UsageError: a rule makes no sense, or a dimension has two rules.
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
        """Dimensions of the target without a rule; they are always at rest."""
        filled = {rule.target for rule in self.rules}
        return tuple(name for name in self.target.names if name not in filled)

    @property
    def lost(self) -> tuple[str, ...]:
        """The information of the source that the target cannot hold, one sentence each.

        Changing a sign or a unit loses nothing.
        """
        used = {name for rule in self.rules for name in rule.sources}
        dropped = [name for name in self.source.names if name not in used]
        sentences = [_sentence(dropped, "is dropped", "are dropped")] if dropped else []
        whole = {
            rule.sources[0]
            for rule in self.rules
            if len(rule.sources) == 1
            and rule.pressed_at is None
            and rule.full_at is None
            and not self._overflows(rule)
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
        elif rule.full_at is not None:
            unit = self.source.dimensions[self.source.index(rule.sources[0])].unit
            how = f"only the mean speed over a step, up to {rule.full_at:g} {unit}/s, as {rule.target}"
            sentences.append(_sentence(rule.sources, f"keeps {how}", f"keep {how}"))
        elif self._overflows(rule):
            how = f"cut where {rule.target} ends, at {goal.low:g} and {goal.high:g}"
            sentences.append(_sentence(rule.sources, f"is {how}", f"are {how}"))
        return sentences

    def _overflows(self, rule: Rule) -> bool:
        """Whether the rule can exceed the range of its target, so that `apply` clips the value."""
        goal = self.target.dimensions[self.target.index(rule.target)]
        if rule.pressed_at is not None or rule.full_at is not None or goal.kind == "delta":
            return False
        columns = [self.source.index(name) for name in rule.sources]
        reach = np.sort(self.source.ranges()[columns] * np.array(rule.scales)[:, None], axis=1)
        ends = reach.max(axis=0) if rule.combine == "max" else reach.sum(axis=0)
        low, high = ends + rule.offset
        return bool(low < goal.low or high > goal.high)

    @property
    def rules_json(self) -> str:
        """The two spaces' names and all rules, without the notes, as one line of JSON.

        A corpus keeps it in its settings, so equal rules must always give equal text.
        """
        ends = {"source": self.source.name, "target": self.target.name}
        return json.dumps({**ends, "rules": [_said(rule) for rule in self.rules]})

    @property
    def speeds(self) -> Index:
        """Positions in the target of the axes that are computed from speeds, int64 [K]."""
        made = [rule.target for rule in self.rules if rule.full_at is not None]
        return np.array([self.target.index(name) for name in made], np.int64)

    @property
    def without_speeds(self) -> Conversion:
        """The same conversion with the axes of `speeds` at rest, so that it needs no durations."""
        kept = tuple(rule for rule in self.rules if rule.full_at is None)
        return replace(self, rules=kept)

    def apply(self, values: Values, seconds: NDArray[np.float64] | float | None = None) -> Values:
        """The same actions in the target space.

        Button thresholds are compared in float32, so that actions give the same result before and
        after they are stored. Values outside the target's range are clipped, except deltas.

        Args:
            values: float32 or float64 [T, A of the source]. A row with a NaN is a missing action.
            seconds: the duration of each row in seconds, one number or float64 [T]. Required if
                `speeds` is not empty.

        Returns:
            [T, A of the target], the same dtype. A missing action is a row of NaN.

        Raises:
            UsageError: a wrong number of columns, or speeds without `seconds`.
        """
        converted = np.zeros((len(values), self.target.size), np.float64)
        for at, goal, total in self._made(values, seconds):
            if goal.kind != "delta":
                total = np.clip(total, goal.low, goal.high)
            converted[:, at] += total  # adding to 0.0 turns the -0.0 of a flipped sign into 0.0
        converted[np.isnan(values).any(axis=1)] = np.nan
        return converted.astype(values.dtype)

    def cut_off(
        self, values: Values, seconds: NDArray[np.float64] | float | None = None
    ) -> dict[str, int]:
        """In how many rows `apply` clips each dimension of the target; those without are left out.

        Arguments and errors are those of `apply`.
        """
        counts = {}
        for _, goal, total in self._made(values, seconds):
            slack = ROUNDING * (goal.high - goal.low)
            beyond = (total < goal.low - slack) | (total > goal.high + slack)
            if goal.kind != "delta" and beyond.any():
                counts[goal.name] = int(np.count_nonzero(beyond))
        return counts

    def _made(
        self, values: Values, seconds: NDArray[np.float64] | float | None
    ) -> Iterator[tuple[int, Dimension, NDArray[np.float64]]]:
        """For each rule the position of its target, the target, and its values before clipping."""
        if len(self.speeds) and seconds is None:
            raise UsageError(
                f"{self.target.names[self.speeds[0]]} is computed from a speed: pass `seconds`, the "
                "duration of a row"
            )
        if values.ndim != 2 or values.shape[1] != self.source.size:
            raise UsageError(
                f"actions of shape {values.shape}: {self.source.name} needs [T, {self.source.size}]"
            )
        for rule in self.rules:
            columns = [self.source.index(name) for name in rule.sources]
            parts = values[:, columns].astype(np.float64) * rule.scales
            total = parts.max(axis=1) if rule.combine == "max" else parts.sum(axis=1)
            total += rule.offset
            if rule.pressed_at is not None:
                total = (total.astype(np.float32) >= np.float32(rule.pressed_at)).astype(np.float64)
            elif rule.full_at is not None and seconds is not None:
                total = total / (seconds * rule.full_at)
            at = self.target.index(rule.target)
            yield at, self.target.dimensions[at], total


def _said(rule: Rule) -> dict[str, Any]:
    """A rule for a corpus to keep; an offset only where there is one, as older corpora have none."""
    fields = asdict(rule)
    return fields if rule.offset else {key: fields[key] for key in fields if key != "offset"}


def _problem(rule: Rule, sources: Sequence[Dimension], target: Dimension) -> str | None:
    """Why the rule makes no sense, or None."""
    if not sources or len(rule.scales) != len(sources):
        return "needs one scale for each of its sources, and at least one source"
    if not all(is_number(scale) and scale != 0 for scale in rule.scales):
        return "a scale must be a finite number and not 0"
    if not is_number(rule.offset):
        return "offset must be a finite number"
    if rule.combine not in get_args(Combine):
        return f"combine must be one of {', '.join(get_args(Combine))}"
    deltas = [source.kind == "delta" for source in sources]
    if any(deltas) and rule.offset:
        return "a delta has no offset: without motion it is 0"
    if rule.full_at is not None:
        if not (all(deltas) and target.kind == "axis" and rule.pressed_at is None):
            return "full_at makes an axis of the speed of deltas, and nothing else"
        if not is_number(rule.full_at) or rule.full_at <= 0:
            return "full_at is a speed above 0, in the delta's unit a second"
    elif any(deltas) != (target.kind == "delta") or any(deltas) != all(deltas):
        return (
            "a delta can only come from deltas and feed a delta, or an axis by its speed "
            "(full_at): anything else needs a rate"
        )
    if target.kind == "delta" and rule.pressed_at is not None:
        return "pressed_at makes a button, not a delta"
    if any(deltas) and rule.combine != "sum" and len(sources) > 1:
        return 'several deltas add up: combine = "sum"'
    if rule.pressed_at is not None:
        if target.kind != "button" or not is_number(rule.pressed_at) or rule.pressed_at <= 0:
            return "pressed_at is a number above 0, which is rest, and makes a button"
    elif target.kind == "button" and not (
        all(source.kind == "button" for source in sources)
        and all(scale == 1 for scale in rule.scales)
        and rule.combine == "max"
        and rule.offset == 0
    ):
        return "needs pressed_at: the value at and above which the button is down"
    return None


def _sentence(names: Sequence[str], singular: str, plural: str) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last} {plural}." if some else f"{last} {singular}."


def converts_to(source: str) -> tuple[str, ...]:
    """The names of the target spaces of all bundled conversions from `source`, sorted."""
    start = f"{source}-to-"
    known = bundled_names("conversions")
    return tuple(name.removeprefix(start) for name in known if name.startswith(start))


def spaces_mapped_to(target: str) -> tuple[str, ...]:
    """The names of the spaces from which a shipped mapping, an example to edit, leads to `target`."""
    ends = f"-to-{target}"
    names = bundled_names("mappings")
    return tuple(name.removesuffix(ends) for name in names if name.endswith(ends))


def mapping_hint(source: str, target: str) -> str:
    """How to take recordings in one space into another by a shipped mapping; "" if there is none.

    `source` may also be a space that converts to the one from which the mapping leads.
    """
    starts = (source, *converts_to(source))
    fitting = [start for start in starts if start in spaces_mapped_to(target)]
    if not fitting:
        return ""
    name = f"{fitting[0]}-to-{target}"
    return (
        f"--mapping {name}.toml, which `wham-data schema mapping {name} > {name}.toml` writes for you "
        "to edit"
    )


def find_conversion(source: ActionSpace, target: ActionSpace) -> Conversion:
    """The bundled conversion from `source` to `target`. Conversions are never chained.

    Two equal spaces give a conversion that changes nothing.

    Raises:
        UsageError: there is no such conversion; the message lists those that exist and tells how to
            declare another.
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
        f"{', '.join(converts_to(source.name)) or 'nothing'}. Write a TOML file that states which "
        f"dimension becomes which, and try it: `wham-data schema convert {pair} --mapping "
        "FILE.toml`; docs/action-spaces.md shows an example."
    )


def load_conversion(path: Path) -> Conversion:
    """The conversion that a TOML file declares. Paths in the file are relative to its folder.

    Raises:
        UsageError: the file cannot be read, or its content makes no sense.
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
            raise UsageError("a [rules] table must state which dimension comes from which")
        spaces = [_space_beside(table.get(end), end, folder) for end in ("source", "target")]
        made = tuple(_rule_from(*rule, spaces[1]) for rule in rules.items())
        return Conversion(spaces[0], spaces[1], made, tuple(notes))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _space_beside(ref: object, end: str, folder: Path) -> ActionSpace:
    if not isinstance(ref, str):
        raise UsageError(f"{end} must be the name of an action space or the path of its .toml file")
    return load_space(str(folder / ref) if ref.endswith(".toml") else ref)


def _rule_from(target: str, source: object, space: ActionSpace) -> Rule:
    """The rule of one TOML line: `target = "source"` or `target = { from = ..., scale = ... }`."""
    if isinstance(source, str):
        return Rule(target, (source,), (1.0,))
    what = f"the rule for {target[:80]!r}"
    known = ("from", "scale", "offset", "range", "invert", "combine", "pressed_at", "full_at")
    table = known_keys(source, known, what)
    sources = table.get("from")
    sources = [sources] if isinstance(sources, str) else sources
    if not isinstance(sources, list) or not all(isinstance(name, str) for name in sources):
        raise UsageError(f"{what}: `from` must be the name of a dimension or a list of them")
    if len(sources) > 1 and "combine" not in table:
        raise UsageError(f'{what}: {len(sources)} sources need `combine`, which is "max" or "sum"')
    scale = table.get("scale", 1.0)
    scales = scale if isinstance(scale, list) else [scale] * len(sources)
    combine = table.get("combine", "max")
    scales, offset = _line(table, scales, space.dimensions[space.index(target)], what)
    return Rule(
        target,
        tuple(sources),
        tuple(scales),
        combine,
        table.get("pressed_at"),
        table.get("full_at"),
        offset,
    )


def _line(
    table: Mapping[str, Any], scales: list[Any], goal: Dimension, what: str
) -> tuple[list[Any], Any]:
    """Scales and offset of a rule that may say `range` and `invert` instead.

    `range = [low, high]` are the ends of the source, which become those of the target; `invert`
    turns the target round.
    """
    offset = table.get("offset", 0.0)
    if "range" in table:
        ends = table["range"]
        if "scale" in table or "offset" in table or len(scales) != 1:
            raise UsageError(f"{what}: range is of one source, and without scale and offset")
        if not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends))):
            raise UsageError(f"{what}: range is two numbers, such as [-1, 1]")
        if ends[0] == ends[1]:
            raise UsageError(f"{what}: range needs two different ends")
        scales = [(goal.high - goal.low) / (ends[1] - ends[0])]
        offset = goal.low - ends[0] * scales[0]
    invert = table.get("invert", False)
    if not isinstance(invert, bool):
        raise UsageError(f"{what}: invert is true or false")
    if invert and all(map(is_number, (*scales, offset))):
        if len(scales) > 1 and table.get("combine") == "max":
            raise UsageError(f"{what}: invert is of one source, or of a sum")
        turned = goal.kind != "delta"
        return [-scale for scale in scales], turned * (goal.low + goal.high) - offset
    return scales, offset
