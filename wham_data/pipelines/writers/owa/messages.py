"""The messages of a desktop recording that mean the actions of an episode's steps.

A step's action acts from its frame to the next one: what is down in it goes down just after its frame
comes on screen, the mouse moves right after that, and what is up in the next step goes up just before
the next frame. So a reader that sorts events by the frames around them finds the same actions.

Source of names, types and signs: the package `owa-msgs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.keys.names import code_of_key
from wham_data.pipelines.readers.owa.inputs import (
    KEYS,
    MOTIONS,
    NOTCH,
    RAW_BUTTONS,
    RAW_WHEEL,
    RAW_WHEEL_X,
)
from wham_data.pipelines.writers.owa.mcap_file import Topic
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import Nanos

_WHOLE: Final = {"type": "integer"}
_SIZE: Final = {"type": "array", "items": _WHOLE, "minItems": 2, "maxItems": 2}
_TIMES: Final = {"timestamp": _WHOLE}
SCREEN: Final = Topic(
    "screen",
    "desktop/ScreenCaptured",
    {
        "utc_ns": _WHOLE,
        "source_shape": _SIZE,
        "shape": _SIZE,
        "media_ref": {
            "type": "object",
            "properties": {"uri": {"type": "string"}, "pts_ns": _WHOLE},
            "required": ["uri"],
        },
    },
    ("media_ref",),
)
KEYBOARD: Final = Topic(
    "keyboard",
    "desktop/KeyboardEvent",
    {"event_type": {"enum": ["press", "release"]}, "vk": _WHOLE, **_TIMES},
    ("event_type", "vk"),
)
KEYBOARD_STATE: Final = Topic(
    "keyboard/state",
    "desktop/KeyboardState",
    {"buttons": {"type": "array", "items": _WHOLE}, **_TIMES},
    ("buttons",),
)
MOUSE: Final = Topic(
    "mouse/raw",
    "desktop/RawMouseEvent",
    {
        **dict.fromkeys(("last_x", "last_y", "us_flags", "button_flags", "button_data"), _WHOLE),
        **_TIMES,
    },
    ("last_x", "last_y"),
)
TOPICS: Final = (SCREEN, KEYBOARD, KEYBOARD_STATE, MOUSE)
APART_NS: Final = 1000
"""Between two events around the same frame."""
WHEELS: Final = {"wheel": RAW_WHEEL, "wheel_x": RAW_WHEEL_X}


class Message(NamedTuple):
    """One message of input."""

    topic: str
    time_ns: int
    content: Mapping[str, Any]


def input_of(
    actions: NDArray[np.float32], space: ActionSpace, edges_ns: Nanos
) -> Iterator[list[Message]]:
    """The messages of each step in order of time; those of the last step end with what is held then.

    Args:
        actions: float32 [T, A] in `desktop`, or in a space of some of its dimensions.
        space: theirs.
        edges_ns: int64 [T + 1]; step k covers [edges_ns[k], edges_ns[k + 1]).
    """
    buttons = np.array([name for name in space.names if name not in MOTIONS])
    down = actions[:, [space.index(name) for name in buttons.tolist()]] > 0
    moves = {name: whole_motion(actions, space, name) for name in MOTIONS if name in space.names}
    before = np.zeros(len(buttons), np.bool_)
    for step, held in enumerate(down):
        start_ns, end_ns = int(edges_ns[step]), int(edges_ns[step + 1])
        is_last = step + 1 == len(down)
        after = held if is_last else down[step + 1]
        begun = [_change(name, True) for name in buttons[held & ~before].tolist()]
        begun += _motions({name: int(column[step]) for name, column in moves.items()})
        ended = [_change(name, False) for name in buttons[held & ~after].tolist()]
        messages = [] if step else [_state(start_ns, ())]
        for number, (topic, content) in enumerate(begun, start=1):
            messages.append(_message(topic, start_ns + number * APART_NS, content))
        for number, (topic, content) in enumerate(ended):
            messages.append(_message(topic, end_ns - (len(ended) - number) * APART_NS, content))
        yield [*messages, _state(end_ns, buttons[held].tolist())] if is_last else messages
        before = held


def whole_motion(actions: NDArray[np.float32], space: ActionSpace, name: str) -> NDArray[np.int64]:
    """A motion in whole counts, or in 120ths of a notch, int64 [T].

    What rounding takes from a step the next one gets, so that the way as a whole stays the same.
    """
    unit = NOTCH if name in WHEELS else 1
    so_far = np.cumsum(actions[:, space.index(name)].astype(np.float64) * unit)
    return np.asarray(np.diff(np.rint(so_far), prepend=0), np.int64)


def _message(topic: Topic, time_ns: int, content: Mapping[str, Any]) -> Message:
    return Message(topic.name, time_ns, {**content, "timestamp": time_ns})


def _state(time_ns: int, held: Sequence[str]) -> Message:
    keys = [code_of_key(name) for name in held if name in KEYS]
    return _message(KEYBOARD_STATE, time_ns, {"buttons": keys})


def _change(name: str, pressed: bool) -> tuple[Topic, Mapping[str, Any]]:
    """A button goes down or up."""
    if name in KEYS:
        how = "press" if pressed else "release"
        return KEYBOARD, {"event_type": how, "vk": code_of_key(name)}
    return MOUSE, _mouse(button_flags=1 << 2 * RAW_BUTTONS.index(name) + (not pressed))


def _motions(moved: Mapping[str, int]) -> Iterator[tuple[Topic, Mapping[str, Any]]]:
    """The reports of a step's motion: one of the way, and one of each wheel."""
    way = {f"last_{axis}": moved.get(f"mouse_d{axis}", 0) for axis in "xy"}
    if any(way.values()):
        yield MOUSE, _mouse(**way)
    for name, flag in WHEELS.items():
        if turned := moved.get(name, 0):
            yield MOUSE, _mouse(button_flags=flag, button_data=turned)


def _mouse(**told: int) -> Mapping[str, int]:
    return {"last_x": 0, "last_y": 0, "us_flags": 0, "button_flags": 0, "button_data": 0} | told
