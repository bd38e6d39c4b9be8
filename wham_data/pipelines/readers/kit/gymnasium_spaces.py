"""Gymnasium's spaces in Minari's JSON form: the parts of observations and actions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.files.json_lines import check_json_depth, check_surrogates
from wham_data.pipelines.readers.kit.declared_actions import ActionPart
from wham_data.pipelines.readers.kit.open_recordings import Picture
from wham_data.schemas.actions import MOST_DIMENSIONS
from wham_data.schemas.errors import Reason, RefusedInput

MOST_ENTRIES: Final = 256
SMALLEST_SIDE: Final = 32
"""Like Minari, treat a table of bytes without channels as a picture if it has at least this size."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an observation or an action.

    path   names joined with "/"; "" if the observation or action has no other entry
    space  Gymnasium's description of it, never a Dict or Tuple
    """

    path: str
    space: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a Box; () for other spaces."""
        shape = self.space.get("shape")
        if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
            return ()
        return tuple(shape)

    @property
    def is_numbers(self) -> bool:
        """Whether its values are numbers."""
        return self.space.get("type") in ("Box", "Discrete", "MultiDiscrete", "MultiBinary")

    @property
    def channels(self) -> Literal["last", "first", "none"] | None:
        """The axis of a picture's channels; None if the entry is not a picture."""
        if self.space.get("type") != "Box" or self.space.get("dtype") != "uint8":
            return None
        match self.shape:
            case (_, _, 1 | 3 | 4):
                return "last"
            case (1 | 3 | 4, _, _):
                return "first"
            case (height, width) if min(height, width) >= SMALLEST_SIDE:
                return "none"
        return None

    @property
    def is_colour(self) -> bool:
        """Whether it is a picture of three channels."""
        return (self.channels == "last" and self.shape[-1] == 3) or (
            self.channels == "first" and self.shape[0] == 3
        )

    @property
    def is_map(self) -> bool:
        """Whether it has a value for each pixel, as a depth map or a mask has, or is a picture."""
        large = sum(side >= SMALLEST_SIDE for side in self.shape)
        return self.channels is not None or (self.space.get("type") == "Box" and large >= 2)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture."""
        height, width = self.shape[1:] if self.channels == "first" else self.shape[:2]
        return width, height

    def rgb(self, values: NDArray[Any]) -> Picture:
        """A picture as uint8 [H, W, 3].

        Raises:
            RefusedInput: NOT_A_VIDEO, the values differ from the declaration.
        """
        if values.shape != self.shape or values.dtype != np.uint8:
            raise RefusedInput(
                Reason.NOT_A_VIDEO,
                f"pictures {self.path} are {values.dtype} {values.shape}, declared uint8 {self.shape}",
            )
        if self.channels == "first":
            values = values.transpose(1, 2, 0)
        elif self.channels == "none":
            values = values[:, :, None]
        return np.ascontiguousarray(np.broadcast_to(values[:, :, :3], (*values.shape[:2], 3)))


def space_in(declared: Mapping[str, object], name: str) -> dict[str, Any]:
    """The space that is declared under a name, as an object or as the JSON text of an object.

    Raises:
        RefusedInput: METADATA, it is neither.
    """
    value = declared.get(name)
    if isinstance(value, str):
        text = value.encode("utf-8", "replace")
        check_json_depth(text, f"{name}: ")
        try:
            value = json.loads(value)
            check_surrogates(text, value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise RefusedInput(Reason.METADATA, f"{name} is not declared")
    return value


def entries_of(space: Mapping[str, Any]) -> list[Entry]:
    """The entries of a space, in the order of the declaration.

    Raises:
        RefusedInput: METADATA, the declaration is invalid or has over `MOST_ENTRIES` entries.
    """
    found: list[Entry] = []
    for entry in _entries(space, ""):
        found.append(entry)
        if len(found) > MOST_ENTRIES:
            raise RefusedInput(Reason.METADATA, f"a space of over {MOST_ENTRIES} entries")
    return found


def _entries(space: object, path: str) -> Iterator[Entry]:
    if not isinstance(space, dict) or not isinstance(space.get("type"), str):
        raise RefusedInput(Reason.METADATA, f"no space is declared for {path or 'all of it'}")
    inner = space.get("subspaces")
    match space["type"], inner:
        case "Dict", dict():
            parts = list(inner.items())
        case "Tuple", list():
            parts = [(f"_index_{place}", each) for place, each in enumerate(inner)]
        case "Dict" | "Tuple", _:
            raise RefusedInput(Reason.METADATA, f"{path or 'a space'} has no subspaces")
        case _:
            yield Entry(path, space)
            return
    for name, each in parts:
        yield from _entries(each, f"{path}/{name}" if path else str(name))


def action_part(entry: Entry) -> ActionPart:
    """The part of an action that an entry declares.

    Raises:
        RefusedInput: METADATA, the entry is not made of numbers (such as a text), is too large for an
            action, or is invalid.
    """
    space, path = entry.space, entry.path
    try:
        match space["type"]:
            case "Discrete":
                return ActionPart.choice(
                    path, [_count(space["n"])], [_whole(space.get("start", 0))]
                )
            case "MultiDiscrete":
                sizes = [_count(n) for n in _flat(space["nvec"])]
                starts = [_whole(n) for n in _flat(space.get("start", [0] * len(sizes)))]
                return ActionPart.choice(path, sizes, starts)
            case "MultiBinary":
                shape = space["n"] if isinstance(space["n"], list) else [space["n"]]
                return ActionPart.switches(path, _count(math.prod(map(_count, shape))))
            case "Box" if not entry.channels:
                width = _count(math.prod(entry.shape))
                if space.get("dtype") == "bool":
                    return ActionPart.switches(path, width)
                low, high = _flat(space["low"]), _flat(space["high"])
                return ActionPart.numbers(path, low, high, width)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise RefusedInput(
        Reason.METADATA,
        f"actions {path} of the space {str(space.get('type'))[:40]} are not understood",
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or abs(value) >= 1 << 62:
        raise ValueError
    return value


def _count(value: object) -> int:
    if not 1 <= _whole(value) <= MOST_DIMENSIONS:
        raise ValueError
    return _whole(value)


def _flat(value: object) -> list[Any]:
    """The numbers in nested lists."""
    if not isinstance(value, list):
        return [value]
    return [number for each in value for number in _flat(each)]
