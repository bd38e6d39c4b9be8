"""Actions and pictures as a source declares them: numbered choices, switches, numbers; one or several.

    parts = (ActionPart.choice("", (5,)),)                        # one of five numbered actions
    space_of(parts, "toy")                                        # discrete5
    values_of(parts, {"": np.array([1, 4, 0])})                   # float64 [3, 5], a button each

An action without names becomes `discreteN`, `vectorN` (if all of it is in -1..1) or `numbersN`. An
action of several parts gets a space of its own, in which each number is named after its part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.frame_actions import one_hot
from wham_data.schemas.actions import (
    MOST_DIMENSIONS,
    UNKNOWN_RANGE,
    ActionSpace,
    Dimension,
    load_space,
)
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

Numbers = NDArray[np.float64]


class Named(Protocol):
    """An entry in the declaration of a data set.

    Attributes:
        path: where it lies: names joined with "/".
    """

    @property
    def path(self) -> str: ...  # noqa: D102


N = TypeVar("N", bound=Named)


def chosen_picture(pictures: Sequence[N], path: str, where: str) -> N | None:
    """The entry to use as the picture: the one with this path, or the first.

    Args:
        pictures: the entries that can be a picture.
        path: path of the entry; "": the first entry, or None if there are no entries.
        where: the name of the data set in error messages.

    Raises:
        RefusedInput: METADATA, no entry has this path.
    """
    if not path:
        return pictures[0] if pictures else None
    for entry in pictures:
        if entry.path == path:
            return entry
    there = ", ".join(entry.path for entry in pictures) or "none"
    raise RefusedInput(Reason.METADATA, f"no picture {path} in {where}; pictures there: {there}")


@dataclass(frozen=True, slots=True)
class ActionPart:
    """One entry of an action. In the source it has `width` numbers in each step.

    path    its place: names joined with "/"; "" if the action has no other entry
    kind    "choice": number i is one of `sizes[i]` actions, of which the first is `starts[i]`;
            "switch": each number is 0 or 1; "number": number i is in [low[i], high[i]]
    """

    path: str
    kind: Literal["choice", "switch", "number"]
    width: int
    sizes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def choice(
        cls, path: str, sizes: Sequence[int], starts: Sequence[int] | None = None
    ) -> ActionPart:
        """Choices: each number is the number of the action that was taken."""
        first = tuple(starts) if starts is not None else (0,) * len(sizes)
        return cls(path, "choice", len(sizes), sizes=tuple(sizes), starts=first)

    @classmethod
    def switches(cls, path: str, width: int) -> ActionPart:
        """Switches: each number is 0 or 1."""
        return cls(path, "switch", width)

    @classmethod
    def numbers(
        cls, path: str, low: Sequence[float] | float, high: Sequence[float] | float, width: int
    ) -> ActionPart:
        """Numbers in a range, which may be infinite. The range is extended to include 0, the rest."""
        lows = np.clip(np.nan_to_num(np.broadcast_to(low, width)), -UNKNOWN_RANGE, 0.0)
        highs = np.clip(np.nan_to_num(np.broadcast_to(high, width)), 0.0, UNKNOWN_RANGE)
        return cls(path, "number", width, low=tuple(lows.tolist()), high=tuple(highs.tolist()))

    @property
    def size(self) -> int:
        """Number of its dimensions in the action space."""
        return sum(self.sizes) if self.kind == "choice" else self.width


def space_of(parts: Sequence[ActionPart], name: str) -> ActionSpace:
    """The action space of the parts, in their order.

    Args:
        parts: one part with the path "", or any number of parts with names.
        name: the name of a space that is made for several parts.

    Raises:
        RefusedInput: METADATA, the parts do not give a space of 1 to 1024 dimensions with distinct
            names.
    """
    size = sum(part.size for part in parts)
    if not 1 <= size <= MOST_DIMENSIONS:
        raise RefusedInput(
            Reason.METADATA, f"an action of {size} numbers, expected 1 to {MOST_DIMENSIONS}"
        )
    if len(parts) == 1 and not parts[0].path:
        (part,) = parts
        if part.kind == "choice" and part.width == 1:
            return load_space(f"discrete{size}")
        if part.kind == "number":
            narrow = min(part.low) >= -1 and max(part.high) <= 1
            return load_space(f"{'vector' if narrow else 'numbers'}{size}")
    try:
        return ActionSpace(
            re.sub(r"\W", "_", f"_{name}" if name[:1].isdigit() else name, flags=re.ASCII)[:64],
            tuple(dimension for part in parts for dimension in _dimensions(part)),
            title="The actions that a data set declares",
            source="Named for the data set's own entries; what they mean is said there.",
        )
    except UsageError as error:
        raise RefusedInput(Reason.METADATA, f"no action space: {error}") from None


def values_of(parts: Sequence[ActionPart], arrays: Mapping[str, NDArray[Any]]) -> Numbers:
    """Actions in the space of the parts, float64 [N, A].

    Args:
        parts: the same parts as for `space_of`.
        arrays: for each path, numbers or booleans [N, ...] of the part's width.

    Raises:
        RefusedInput: LOG_COLUMN, rows have another width; LOG_TYPE, a choice is not a whole number;
            LOG_RANGE, a choice does not exist; LOG_COVERAGE, parts have different lengths.
    """
    columns: list[Numbers] = []
    for part in parts:
        values = arrays[part.path]
        if not len(values):  # of which the type says nothing
            values = np.zeros((0, part.width), np.int64)
        values = values.reshape(len(values), math.prod(values.shape[1:]))
        if values.shape[1] != part.width:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"actions {part.path} of {values.shape[1]} numbers, declared as {part.width}",
            )
        if part.kind != "choice":
            columns.append(values.astype(np.float64))
            continue
        if values.dtype.kind not in "iu":
            raise RefusedInput(
                Reason.LOG_TYPE, f"actions {part.path} are {values.dtype}, expected whole numbers"
            )
        for place, (size, start) in enumerate(zip(part.sizes, part.starts, strict=True)):
            codes = values[:, place].astype(np.int64) - start
            if (codes < 0).any():
                raise RefusedInput(
                    Reason.LOG_RANGE,
                    f"action {codes.min() + start}, expected {start} to {start + size - 1}",
                )
            columns.append(one_hot(codes, size))
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        raise RefusedInput(Reason.LOG_COVERAGE, f"parts of an action of lengths {lengths}")
    return np.concatenate(columns, axis=1)


def _dimensions(part: ActionPart) -> list[Dimension]:
    stem = re.sub(r"\W", "_", part.path or "action", flags=re.ASCII)
    stem = (f"_{stem}" if stem[0].isdigit() else stem)[:48]
    if part.kind == "choice":
        stems = [stem] if part.width == 1 else [f"{stem}_{i}" for i in range(part.width)]
        return [
            Dimension(f"{each}_is_{start + code}".replace("-", "minus"), "button", 0.0, 1.0)
            for each, size, start in zip(stems, part.sizes, part.starts, strict=True)
            for code in range(size)
        ]
    names = [stem] if part.width == 1 else [f"{stem}_{i}" for i in range(part.width)]
    if part.kind == "switch":
        return [Dimension(name, "button", 0.0, 1.0) for name in names]
    return [
        # A number that is always 0 still needs a range that is not empty.
        Dimension(name, "axis", low, high if high > low else 1.0)
        for name, low, high in zip(names, part.low, part.high, strict=True)
    ]
