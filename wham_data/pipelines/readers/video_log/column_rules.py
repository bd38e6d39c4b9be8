"""Pairs under [columns] that say more than a name: `trigger_LT = { range = [-1, 1] }`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from wham_data.pipelines.readers.video_log.scales import Scale

RULE_KEYS: Final = ("is", "column", "scale", "offset", "range", "invert")


def read_columns(table: object) -> tuple[dict[str, str], dict[str, Scale]]:
    """What a [columns] table says: names paired with what they mean, and scales by name.

    `A = "B"` pairs a column with a meaning, either way round. `A = { is = "B", ... }` and
    `B = { column = "A", ... }` do the same; without either, A is a column named as its dimension.
    A scale is known by both names.

    Raises:
        ValueError: what is wrong, in words that follow "columns".
    """
    if not isinstance(table, dict):
        raise ValueError("a table of names")
    pairs: dict[str, str] = {}
    scales: dict[str, Scale] = {}
    for name, said in table.items():
        if isinstance(said, str):
            pairs[name] = said
            continue
        if not isinstance(said, dict):
            raise ValueError("a table of names")
        unknown = sorted(set(said) - set(RULE_KEYS))
        if unknown:
            raise ValueError(f"without {unknown[0]!r}: {name} can have {', '.join(RULE_KEYS)}")
        partner = said.get("is", said.get("column"))
        if partner is not None:
            if not isinstance(partner, str) or ("is" in said and "column" in said):
                raise ValueError(f"clear: {name} names one partner, with `is` or with `column`")
            pairs[name] = partner
        scale = _scale(name, said)
        scales |= dict.fromkeys((name, partner) if partner else (name,), scale)
    return pairs, scales


def _scale(name: str, said: Mapping[str, Any]) -> Scale:
    """The scale that a rule declares."""
    ends = said.get("range")
    if ends is not None:
        if "scale" in said or "offset" in said:
            raise ValueError(f"clear: {name} has a range, or scale and offset, not both")
        if not isinstance(ends, list) or len(ends) != 2:
            raise ValueError(f"clear: the range of {name} is two numbers, such as [-1, 1]")
        low, high = (_number(name, "range", end) for end in ends)
        if low == high:
            raise ValueError(f"clear: the range of {name} has two different ends")
        ends = (low, high)
    invert = said.get("invert", False)
    if not isinstance(invert, bool):
        raise ValueError(f"clear: invert of {name} is true or false")
    factor = _number(name, "scale", said.get("scale", 1))
    if factor == 0:
        raise ValueError(f"clear: scale of {name} is not 0")
    return Scale(factor, _number(name, "offset", said.get("offset", 0)), ends, invert)


def _number(name: str, key: str, value: object) -> float:
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not number or not math.isfinite(float(value)):  # type: ignore[arg-type]
        raise ValueError(f"clear: {key} of {name} needs numbers")
    return float(value)  # type: ignore[arg-type]
