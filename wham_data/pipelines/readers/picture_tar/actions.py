"""The actions beside the pictures of a tar file: class numbers, vectors, or numbers with names.

.cls    a whole number as text: the number of an action
.npy    a vector; a single whole number is the number of an action
.json   under a field: a list is a vector, a whole number the number of an action, and an object of
        numbers and booleans has a dimension for each of its keys
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.json_lines import json_value
from wham_data.files.npz import array_header
from wham_data.pipelines.readers.kit.declared_actions import ActionPart, space_of
from wham_data.pipelines.readers.kit.frame_actions import one_hot
from wham_data.schemas.actions import MOST_DIMENSIONS, ActionSpace, load_space, space_names
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput

FIELDS: Final = ("action", "actions")
LARGEST_CODE: Final = 1 << 31
MOST_BYTES: Final = 1 << 20
MOST_NAME: Final = 80
_WHOLE: Final = re.compile(rb"\s*([0-9]{1,10})\s*")


@dataclass(frozen=True, slots=True)
class Action:
    """What stands beside one picture.

    values    float64 [A]; for the number of an action [1]
    names     of the values; () for a vector or the number of an action
    is_code   whether it is the number of an action
    switches  for each name, whether its value is a boolean
    """

    values: NDArray[np.float64]
    names: tuple[str, ...] = ()
    is_code: bool = False
    switches: tuple[bool, ...] = ()

    @property
    def form(self) -> tuple[object, ...]:
        """What all actions of an episode have in common."""
        return len(self.values), self.is_code, frozenset(self.names)

    @property
    def words(self) -> str:
        """The form, for messages."""
        if self.is_code:
            return "the number of an action"
        return f"{len(self.values)} {'named ' if self.names else ''}numbers"


def read_action(data: bytes, name: str, field: str) -> Action:
    """The action in a file.

    Args:
        data: its content, at most `MOST_BYTES`.
        name: its name, whose last ending says what it is.
        field: the field of a JSON, with `/` between a field and one in it; "" for no choice.

    Raises:
        RefusedInput: LOG_SYNTAX, LOG_TYPE, LOG_COLUMN, PICKLED_OBJECTS and the like.
    """
    ending = name.rpartition(".")[2].lower()
    if ending == "cls":
        found = _WHOLE.fullmatch(data)
        if found is None:
            raise RefusedInput(
                Reason.LOG_TYPE, f"{name} holds {data[:20]!r}, expected the number of an action"
            )
        return _code(int(found[1]), name)
    if ending == "npy":
        return _from_array(data, name)
    return _from_json(json_value(data, name), name, field)


def _code(number: int, name: str) -> Action:
    if not 0 <= number < LARGEST_CODE:
        raise RefusedInput(Reason.LOG_RANGE, f"{name}: no action has the number {number}")
    return Action(np.array([float(number)]), is_code=True)


def _from_array(data: bytes, name: str) -> Action:
    stream = io.BytesIO(data)
    shape, dtype, column_major = array_header(stream, name)
    if dtype.kind not in "fiub" or len(shape) > 2 or not 1 <= math.prod(shape) <= MOST_DIMENSIONS:
        raise RefusedInput(
            Reason.LOG_TYPE,
            f"{name} is {dtype} {shape}, expected 1 to {MOST_DIMENSIONS} numbers in one or two "
            "dimensions",
        )
    rest = stream.read()
    if len(rest) != math.prod(shape) * dtype.itemsize:
        raise RefusedInput(Reason.TRUNCATED, f"{name} has {len(rest)} bytes for {dtype} {shape}")
    array: NDArray[Any] = np.frombuffer(rest, dtype).reshape(
        shape, order="F" if column_major else "C"
    )
    if dtype.kind in "iu" and array.size == 1:
        return _code(int(array.reshape(-1)[0]), name)
    return Action(array.reshape(-1).astype(np.float64))


def _from_json(content: object, name: str, field: str) -> Action:
    value, where = _field_in(content, name, field)
    match value:
        case bool():
            pass
        case int():
            return _code(value, where)
        case list() if 1 <= len(value) <= MOST_DIMENSIONS and all(map(_is_value, value)):
            return Action(np.array(value, np.float64))
        case dict() if 1 <= len(value) <= MOST_DIMENSIONS and all(map(_is_value, value.values())):
            names = tuple(value)
            if all(len(each) <= MOST_NAME for each in names):
                switches = tuple(isinstance(each, bool) for each in value.values())
                return Action(np.array([*value.values()], np.float64), names, False, switches)
    raise RefusedInput(
        Reason.LOG_TYPE,
        f"{where} is {ascii(value)[:60]}, expected a whole number, a list of numbers or an object of "
        "numbers with names",
    )


def _is_value(value: object) -> bool:
    return isinstance(value, bool) or is_number(value)


def _field_in(content: object, name: str, field: str) -> tuple[object, str]:
    """The value of the action, and where it is; without a choice a usual field, or all of it."""
    if field:
        for part in field.split("/"):
            if not isinstance(content, dict) or part not in content:
                raise RefusedInput(
                    Reason.LOG_COLUMN, f"{name} has no field {field[:80]}; {_fields(content)}"
                )
            content = content[part]
        return content, f"{field[:80]} of {name}"
    if isinstance(content, dict):
        usual = next((each for each in FIELDS if each in content), None)
        if usual is not None:
            return content[usual], f"{usual} of {name}"
        if not content or not all(map(_is_value, content.values())):
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"{name} has no field action; {_fields(content)}. Name the action: --option "
                "field=NAME, or a/b for b in a",
            )
    return content, name


def _fields(content: object) -> str:
    if not isinstance(content, dict):
        return "it is no object"
    return f"there are {', '.join(ascii(each)[1:-1][:40] for each in list(content)[:12]) or 'none'}"


def in_space(
    actions: Sequence[Action | None],
    chosen: ActionSpace | None,
    target: ActionSpace | None,
) -> tuple[ActionSpace, NDArray[np.float64], tuple[str, ...]]:
    """The action space, the values in it, float64 [N, A], and notes.

    Args:
        actions: one for each frame, all of one form; None: not known.
        chosen: the space that the user declared for them; None: no choice.
        target: the space of the corpus, taken for numbers of actions, and for names that are its own.

    Raises:
        RefusedInput: LOG_TYPE, numbers of actions without a space that says what they are, or actions
            of different forms; LOG_COLUMN, they do not fit the chosen space; LOG_RANGE.
    """
    known = [each for each in actions if each is not None]
    first = known[0]
    for place, each in enumerate(actions):
        if each is not None and each.form != first.form:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"the action of frame {place} is {each.words}, but that of the first {first.words}"
                + (": with other names" if each.words == first.words else ""),
            )
    if first.is_code:
        return _of_codes(actions, chosen or target)
    if first.names:
        return _of_names(actions, first, chosen, target)
    space = chosen or load_space(f"numbers{len(first.values)}")
    if space.size != len(first.values):
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"actions of {len(first.values)} numbers, but {space.name} has {space.size}",
        )
    return space, _table((each.values if each else None for each in actions), space.size), ()


def _of_codes(
    actions: Sequence[Action | None], space: ActionSpace | None
) -> tuple[ActionSpace, NDArray[np.float64], tuple[str, ...]]:
    if space is None or any(each.kind != "button" for each in space.dimensions):
        has = "" if space is None else f", and {space.name} has more than buttons"
        raise RefusedInput(
            Reason.LOG_TYPE,
            f"actions are numbers of actions{has}: say what they number, such as --actions atari18, "
            "procgen15, or discrete5 for five without names",
        )
    codes = np.array([-1 if each is None else int(each.values[0]) for each in actions], np.int64)
    note = f"action 0 is {space.names[0]}, and so on as in {space.name}"
    return space, one_hot(codes, space.size), (note,)


def _of_names(
    actions: Sequence[Action | None],
    first: Action,
    chosen: ActionSpace | None,
    target: ActionSpace | None,
) -> tuple[ActionSpace, NDArray[np.float64], tuple[str, ...]]:
    names, notes = first.names, tuple[str, ...]()
    if chosen is not None:
        missing = [name for name in chosen.names if name not in names]
        if missing:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"no {', '.join(missing[:8])} among the action's names, which {chosen.name} has",
            )
        space = chosen
        if left := [name for name in names if name not in space.names]:
            notes = (f"left out of the action: {', '.join(map(str, left[:8]))}",)
    else:
        bundled = (load_space(name) for name in space_names())
        likely = (each for each in (target, *bundled) if each is not None)
        same = next((each for each in likely if set(each.names) == set(names)), None)
        space = same or space_of(_parts(actions, first), "picture_tar")
        names = space.names if same else names
    order = space.names if chosen is not None else names
    rows = (None if each is None else _picked(each, order) for each in actions)
    return space, _table(rows, space.size), notes


def _picked(action: Action, order: Sequence[str]) -> NDArray[np.float64]:
    values = dict(zip(action.names, action.values, strict=True))
    return np.array([values[name] for name in order])


def _parts(actions: Sequence[Action | None], first: Action) -> list[ActionPart]:
    """A switch for a name whose values are all booleans, else a number without limits."""
    parts = []
    for place, name in enumerate(first.names):
        always = all(each.switches[each.names.index(name)] for each in actions if each is not None)
        parts.append(
            ActionPart.switches(name, 1)
            if first.switches[place] and always
            else ActionPart.numbers(name, -np.inf, np.inf, 1)
        )
    return parts


def _table(rows: Iterable[NDArray[np.float64] | None], size: int) -> NDArray[np.float64]:
    unknown = np.full(size, np.nan)
    return np.stack([unknown if row is None else row for row in rows])
