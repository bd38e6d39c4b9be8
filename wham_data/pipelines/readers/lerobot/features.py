"""Which features of a LeRobot dataset are its actions and states, and what the numbers of an action are.

LeRobot declares the names of numbers, but neither their ranges nor their units: radians, degrees,
-100 to 100, metres. So a number of an action has no limits, and keeps its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wham_data.schemas.actions import (
    MOST_DIMENSIONS,
    UNKNOWN_RANGE,
    ActionSpace,
    Dimension,
    load_space,
    space_names,
)
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

Features = Mapping[str, Mapping[str, Any]]

ACTIONS: Final = ("action", "actions")
STATES: Final = ("observation.state", "state", "observation.states", "states")
REWARDS: Final = ("next.reward", "reward", "rewards")
TASK, STAMP = "task_index", "timestamp"
COUNTERS: Final = frozenset({"frame_index", "episode_index", "index", TASK, STAMP})
SPACE: Final = "action_space"
"""In the `info` of a feature: its action space, as `wham-data export` writes it."""
MOST_LISTED: Final = 12
LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Roles:
    """Features by what they are for.

    actions, states  whose numbers stand side by side in this order; () where there are none
    reward           None where there is none
    notes            what was taken from an unusual place, and what was left out
    """

    actions: tuple[str, ...]
    states: tuple[str, ...]
    reward: str | None
    notes: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """The features that are read."""
        reward = () if self.reward is None else (self.reward,)
        return tuple(dict.fromkeys([*self.actions, *self.states, *reward]))


def roles_of(
    features: Features,
    columns: Sequence[str],
    actions: Sequence[str] = (),
    states: Sequence[str] = (),
) -> Roles:
    """Decide which columns are actions, states and rewards.

    Without a choice of the user: the column with LeRobot's own name, else one with a name that
    others give it (openpi: `actions`, `state`), else all that lie below (`action.arm`, `action.hand`).

    Args:
        features: of `info.json`.
        columns: names of the columns of the rows.
        actions: the features that the user chose; () for no choice.
        states: likewise.

    Raises:
        RefusedInput: METADATA, there is no feature that the user chose.
    """
    numbers = [name for name in columns if name not in COUNTERS and _is_numbers(features.get(name))]
    for name in (*actions, *states):
        if name not in columns:
            raise RefusedInput(
                Reason.METADATA, f"no feature {name[:80]}; numbers there: {_listed(numbers)}"
            )
    acts = tuple(actions) or _called(ACTIONS, columns, numbers)
    seen = tuple(states) or _called(STATES, columns, numbers)
    reward = next((name for name in REWARDS if name in columns), None)
    notes = [
        f"{usual} taken from {_listed(names)}"
        for usual, names in ((ACTIONS[0], acts), (STATES[0], seen), (REWARDS[0], (reward,)))
        if names and names[0] is not None and names != (usual,)
    ]
    if not acts:
        notes.append("no feature is called action or actions: actions are not known")
    taken = {*acts, *seen, reward}
    others = [name for name in numbers if name not in taken and not name.startswith("next.")]
    if others:
        notes.append(
            f"left out: {_listed(others)} (--option action=NAME,... or state=NAME,... takes others)"
        )
    return Roles(acts, seen, reward, tuple(notes))


def _called(
    usual: Sequence[str], columns: Sequence[str], numbers: Sequence[str]
) -> tuple[str, ...]:
    for name in usual:
        if name in columns:
            return (name,)
    for name in usual:
        if below := tuple(each for each in numbers if each.startswith(f"{name}.")):
            return below
    return ()


def _is_numbers(feature: Mapping[str, Any] | None) -> bool:
    dtype = str((feature or {}).get("dtype"))
    return dtype.startswith(("float", "int", "uint", "bool"))


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(str(name)[:80] for name in names[:MOST_LISTED])
    more = f", ... ({len(names)} in all)" if len(names) > MOST_LISTED else ""
    return f"{shown}{more}" or "none"


@dataclass(frozen=True, slots=True)
class Vector:
    """A feature whose numbers belong to an action.

    width     numbers in each row
    names     of its numbers; () where nobody says
    switches  each number is 0 or 1
    declared  the action space that a corpus wrote beside it
    """

    feature: str
    width: int
    names: tuple[str, ...] = ()
    switches: bool = False
    declared: ActionSpace | None = None

    @classmethod
    def of(cls, feature: str, declared: Mapping[str, Any], width: int) -> Vector:
        """By the entry of `info.json`. Names that are not one for each number are none.

        Raises:
            RefusedInput: METADATA, the action space beside it is none.
        """
        names = tuple(_leaves(declared.get("names")))
        if len(names) != width:
            names = ()
        said = declared.get("info")
        space = said.get(SPACE) if isinstance(said, dict) else None
        try:
            beside = None if space is None else ActionSpace.from_dict(space)
        except UsageError as error:
            raise RefusedInput(Reason.METADATA, f"info.json: {feature}: {error}") from None
        return cls(feature, width, names, declared.get("dtype") == "bool", beside)


def _leaves(names: object) -> Iterator[str]:
    """The names in lists and tables: ["x", "y"], [["x", "y"]], {"motors": ["x", "y"]}, {"x": 0, "y": 1}.

    Below several keys each name begins with its key: {"left": ["x"], "right": ["x"]}.
    """
    match names:
        case str():
            yield names
        case list():
            for each in names:
                yield from _leaves(each)
        case dict() if all(type(place) is int for place in names.values()):
            yield from sorted(names, key=lambda name: names[name])
        case dict():
            for key, each in names.items():
                below = _leaves(each)
                yield from (below if len(names) == 1 else (f"{key}.{name}" for name in below))


def space_of(
    vectors: Sequence[Vector], robot: object = None
) -> tuple[ActionSpace, tuple[str, ...]]:
    """What the numbers of an action are, and notes.

    A bundled space where the names are just its own; `numbersN` where there are no names; else a
    space of the robot's name, whose numbers are called as in `info.json` and have no limits.

    Args:
        vectors: the features of the action, in order, at least one.
        robot: `robot_type` of the dataset.

    Raises:
        RefusedInput: METADATA, the action is too large.
    """
    size = sum(vector.width for vector in vectors)
    if not 1 <= size <= MOST_DIMENSIONS:
        raise RefusedInput(
            Reason.METADATA, f"an action of {size} numbers, expected 1 to {MOST_DIMENSIONS}"
        )
    first = vectors[0]
    if len(vectors) == 1 and first.declared is not None and first.declared.names == first.names:
        return first.declared, ()
    said = tuple(name for vector in vectors for name in vector.names)
    for space in map(load_space, space_names()):
        if space.names == said:
            return space, ()
    switches = [vector.switches for vector in vectors for _ in range(vector.width)]
    if not said and len(vectors) == 1 and not any(switches):
        return load_space(f"numbers{size}"), ()
    wanted = [name for vector in vectors for name in _names_in(vector, len(vectors) > 1)]
    names = _fitting(wanted)
    changed = [f"{a} as {b}" for a, b in zip(wanted, names, strict=True) if a != b]
    kind = "_".join(["lerobot", *([robot] if isinstance(robot, str) and robot else [])])
    space = ActionSpace(
        _fitting([kind])[0],
        tuple(
            Dimension(name, "button", 0.0, 1.0)
            if switch
            else Dimension(name, "axis", -UNKNOWN_RANGE, UNKNOWN_RANGE)
            for name, switch in zip(names, switches, strict=True)
        ),
        title="The actions of a LeRobot dataset",
        source="Named as in its info.json, which gives neither ranges nor units.",
    )
    return space, ((f"names made to fit: {_listed(changed)}",) if changed else ())


def _names_in(vector: Vector, several: bool) -> list[str]:
    """The names of a feature's numbers; beside other features they begin with the feature's own."""
    stem = re.sub(r"^actions?\.", "", vector.feature)
    if vector.names:
        return [f"{stem}.{name}" if several else name for name in vector.names]
    return [stem] if vector.width == 1 else [f"{stem}_{i}" for i in range(vector.width)]


def _fitting(names: Sequence[str]) -> list[str]:
    """The names as a dimension may be called, each another one."""
    fitted: list[str] = []
    taken: set[str] = set()
    for name in names:
        clean = re.sub(r"[^A-Za-z0-9_.]", "_", name)
        clean = clean if re.match("[A-Za-z_]", clean) else f"_{clean}"
        fit, count = clean[:LONGEST_NAME], 1
        while fit in taken:
            count += 1
            fit = f"{clean[: LONGEST_NAME - 8]}_{count}"
        taken.add(fit)
        fitted.append(fit)
    return fitted
