"""Rules: which kinds of steps are left out, and from which length on. A TOML file; one is bundled."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final

from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.declarations import is_number, known_keys, read_toml
from wham_data.schemas.errors import UsageError

VERSION: Final = 1
"""Of the measures: with another one, the same rules may flag other steps."""
KINDS: Final = (
    *("black", "loading", "menu", "cutscene", "frozen", "paused"),
    *("idle", "mirrored", "letterbox"),
)
"""In the order in which they win, where a step is of several kinds."""
LONGEST_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with the steps of one kind.

    leave_out      take them out of `keep`; False: only count them
    longer_than_s  a stretch counts from this length on, seconds
    """

    leave_out: bool = True
    longer_than_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules.

    of               kind -> its rule
    hud_minutes      a game's HUD is learnt from at least this much of it
    hud_share        a step is menu where less than this share of the HUD is in its place, 0 to 1
    min_play_s       what is kept between two stretches is left out too if it is shorter
    """

    of: Mapping[str, Rule] = field(default_factory=dict)
    hud_minutes: float = 10.0
    hud_share: float = 0.6
    min_play_s: float = 0.0

    @property
    def hash(self) -> str:
        """Of the rules and of the measures' version, 16 hex digits."""
        plain = {**asdict(self), "of": {name: asdict(rule) for name, rule in self.of.items()}}
        return content_hash({"version": VERSION, **plain})[:16]


def read_rules(path: Path | None = None) -> Rules:
    """The rules in a file; None: the bundled ones. What a file leaves out is as in the bundled ones.

    Raises:
        UsageError: the file cannot be read, or has an unknown or wrong field.
    """
    bundled = _rules_from(tomllib.loads(bundled_rules()), Rules(), "the bundled rules")
    return bundled if path is None else _rules_from(read_toml(path), bundled, str(path))


def bundled_rules() -> str:
    """The text of the bundled rules, with its comments."""
    return (resources.files(__package__) / "rules.toml").read_text("utf-8")


def _rules_from(data: Mapping[str, Any], base: Rules, where: str) -> Rules:
    plain = tuple(each.name for each in fields(Rules) if each.name != "of")
    table = known_keys(data, (*plain, *KINDS), where)
    numbers = {name: _number(table[name], f"{where}: {name}") for name in plain if name in table}
    if not 0 <= numbers.get("hud_share", 0.5) <= 1:
        raise UsageError(f"{where}: hud_share {numbers['hud_share']:g}: expected 0 to 1")
    of = {
        kind: _rule(table.get(kind, {}), base.of.get(kind, Rule()), f"{where}: [{kind}]")
        for kind in KINDS
    }
    return Rules(of, **{**{name: getattr(base, name) for name in plain}, **numbers})


def _rule(data: object, base: Rule, where: str) -> Rule:
    table = known_keys(data, tuple(each.name for each in fields(Rule)), where)
    leave_out = table.get("leave_out", base.leave_out)
    if not isinstance(leave_out, bool):
        raise UsageError(f"{where}: leave_out {str(leave_out)[:40]!r}: expected true or false")
    limit = _number(table.get("longer_than_s", base.longer_than_s), f"{where}: longer_than_s")
    return Rule(leave_out, limit)


def _number(value: object, where: str) -> float:
    if not is_number(value) or not 0 <= value <= LONGEST_S:
        raise UsageError(f"{where} {str(value)[:40]!r}: expected a number from 0 to {LONGEST_S:g}")
    return float(value)
