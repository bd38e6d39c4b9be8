"""Conversions: how actions of one space become actions of another, and what is lost.

Those between spaces that mean the same ship as TOML beside this module (`conversions/`). Anyone can
declare one more; `mappings/` has some to start from, for keys and mouse, which have no honest image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

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


@dataclass(frozen=True, slots=True)
class Rule:
    """How one dimension of the target comes from dimensions of the source.

    sources     names; their values are multiplied by `scales`, then combined
    combine     "max": the greatest; "sum": all together
    pressed_at  turn the result into a button that is down from this value on; None: keep the value
    full_at     turn a delta into an axis by its speed: this much motion a second is all the way
    """

    target: str
    sources: tuple[str, ...]
    scales: tuple[float, ...]
    combine: Combine = "max"
    pressed_at: float | None = None
    full_at: float | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """How actions of one space become actions of another.

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
        """What of the source the target cannot express, one sentence each.

        A sign that flips or a unit that is scaled loses nothing.
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
        """Whether the rule can leave the range of its target, so that `apply` cuts it."""
        goal = self.target.dimensions[self.target.index(rule.target)]
        if rule.pressed_at is not None or rule.full_at is not None or goal.kind == "delta":
            return False
        columns = [self.source.index(name) for name in rule.sources]
        reach = np.sort(self.source.ranges()[columns] * np.array(rule.scales)[:, None], axis=1)
        low, high = reach.max(axis=0) if rule.combine == "max" else reach.sum(axis=0)
        return bool(low < goal.low or high > goal.high)

    @property
    def said(self) -> str:
        """All of it but the notes as one line of JSON, for a corpus to keep."""
        ends = {"source": self.source.name, "target": self.target.name}
        return json.dumps({**ends, "rules": [asdict(rule) for rule in self.rules]})

    @property
    def speeds(self) -> Index:
        """Positions in the target of the axes that are made of speeds, int64."""
        made = [rule.target for rule in self.rules if rule.full_at is not None]
        return np.array([self.target.index(name) for name in made], np.int64)

    @property
    def without_speeds(self) -> Conversion:
        """The same with those axes at rest: it needs no times."""
        kept = tuple(rule for rule in self.rules if rule.full_at is None)
        return replace(self, rules=kept)

    def apply(self, values: Values, seconds: NDArray[np.float64] | float | None = None) -> Values:
        """The same actions in the target space.

        Button thresholds are compared in float32, so that a track gives the same actions before
        and after it is stored. What leaves the target's range is cut at its edge, except deltas.

        Args:
            values: float32 or float64 [T, A of the source]. A row with a NaN is a missing action.
            seconds: how long each lasts, one number or float64 [T]; only speeds need it.

        Returns:
            [T, A of the target], the same dtype; missing rows are all NaN.

        Raises:
            UsageError: another number of columns, or speeds without `seconds`.
        """
        if len(self.speeds) and seconds is None:
            raise UsageError(
                f"{self.target.names[self.speeds[0]]} is made of a speed: say how long a row lasts"
            )
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
            elif rule.full_at is not None and seconds is not None:
                total = np.clip(total / (seconds * rule.full_at), goal.low, goal.high)
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


def _rule_from(target: str, source: object) -> Rule:
    """A rule as written: `target = "source"`, or `target = { from = ..., scale = ..., ... }`."""
    if isinstance(source, str):
        return Rule(target, (source,), (1.0,))
    what = f"the rule for {target[:80]!r}"
    known = ("from", "scale", "combine", "pressed_at", "full_at")
    table = known_keys(source, known, what)
    sources = table.get("from")
    sources = [sources] if isinstance(sources, str) else sources
    if not isinstance(sources, list) or not all(isinstance(name, str) for name in sources):
        raise UsageError(f"{what}: `from` must be the name of a dimension or a list of them")
    if len(sources) > 1 and "combine" not in table:
        raise UsageError(f'{what}: say how its {len(sources)} sources combine: "max" or "sum"')
    scale = table.get("scale", 1.0)
    scales = scale if isinstance(scale, list) else [scale] * len(sources)
    combine = table.get("combine", "max")
    return Rule(
        target,
        tuple(sources),
        tuple(scales),
        combine,
        table.get("pressed_at"),
        table.get("full_at"),
    )
