"""Actions, and pictures, as a source declares them: numbered choices, switches and numbers, one or several by name.

    parts = (ActionPart.choice("", (5,)),)                        # one of five numbered actions
    space_of(parts, "toy")                                        # discrete5
    values_of(parts, {"": np.array([1, 4, 0])})                   # float64 [3, 5], a button each

An action without names becomes `discreteN`, `vectorN` (all of it lies in -1..1) or `numbersN`; one of
several parts gets a space of its own, in which every number is named for its part.
"""

from __future__ import annotations

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
    """An entry of what a data set declares.

    Attributes:
        path: where it lies: names joined with "/".
    """

    @property
    def path(self) -> str: ...  # noqa: D102


N = TypeVar("N", bound=Named)


def chosen_picture(pictures: Sequence[N], path: str, where: str) -> N | None:
    """The entry that is taken as the picture: the one of this path, or the first.

    Args:
        pictures: the entries that can be one.
        path: of the wanted entry; "": the first, or None where there is none.
        where: what the entries are part of, for the message.

    Raises:
        RefusedInput: METADATA, none has this path.
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
    """One entry of an action; a step of it is `width` numbers in the source.

    path    where it lies: names joined with "/"; "" for an action that is nothing else
    kind    "choice": each number is one of `sizes[i]` actions, of which the first is `starts[i]`;
            "switch": each number is 0 or 1; "number": each lies in [low[i], high[i]]
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
        """Numbers that each say which of some actions was taken."""
        first = tuple(starts) if starts is not None else (0,) * len(sizes)
        return cls(path, "choice", len(sizes), sizes=tuple(sizes), starts=first)

    @classmethod
    def switches(cls, path: str, width: int) -> ActionPart:
        """Numbers that are 0 or 1."""
        return cls(path, "switch", width)

    @classmethod
    def numbers(
        cls, path: str, low: Sequence[float] | float, high: Sequence[float] | float, width: int
    ) -> ActionPart:
        """Numbers in a range, which may be infinite; one that lacks 0, where a hand rests, gets it."""
        lows = np.clip(np.nan_to_num(np.broadcast_to(low, width)), -UNKNOWN_RANGE, 0.0)
        highs = np.clip(np.nan_to_num(np.broadcast_to(high, width)), 0.0, UNKNOWN_RANGE)
        return cls(path, "number", width, low=tuple(lows.tolist()), high=tuple(highs.tolist()))

    @property
    def size(self) -> int:
        """How many dimensions it has in the action space."""
        return sum(self.sizes) if self.kind == "choice" else self.width


def space_of(parts: Sequence[ActionPart], name: str) -> ActionSpace:
    """The action space of the parts, in their order.

    Args:
        parts: one with the path "", or any number with names.
        name: what to call a space that is made for them.

    Raises:
        RefusedInput: METADATA, the parts make no space of 1 to 1024 dimensions with names of their own.
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
        parts: as given to `space_of`.
        arrays: for each path, numbers or booleans [N, ...] of the part's width.

    Raises:
        RefusedInput: LOG_COLUMN, rows of another width; LOG_TYPE, a choice that is no whole number;
            LOG_RANGE, one that there is not; LOG_COVERAGE, parts of different lengths.
    """
    columns: list[Numbers] = []
    for part in parts:
        values = arrays[part.path].reshape(len(arrays[part.path]), -1)
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
        # A number that is always 0 still needs a range to lie in.
        Dimension(name, "axis", low, high if high > low else 1.0)
        for name, low, high in zip(names, part.low, part.high, strict=True)
    ]
