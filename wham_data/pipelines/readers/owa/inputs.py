"""Keyboard and mouse events of a desktop recorder, as a track of the space `desktop`."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from wham_data.pipelines.readers.kit.keys.names import key_of_code
from wham_data.pipelines.readers.owa.start import HeldAtStart
from wham_data.schemas.actions import clamp, load_space
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack

SPACE: Final = load_space("desktop")
MOTIONS: Final = ("mouse_dx", "mouse_dy", "wheel", "wheel_x")
BUTTONS: Final = SPACE.names[: SPACE.size - len(MOTIONS)]
MOUSE_BUTTONS: Final = {
    "left": "mouse_left",
    "right": "mouse_right",
    "middle": "mouse_middle",
    "x1": "mouse_back",
    "x2": "mouse_forward",
}
KEYS: Final = frozenset(BUTTONS).difference(MOUSE_BUTTONS.values())
RAW_BUTTONS: Final = tuple(MOUSE_BUTTONS.values())
"""In the order of the bits of Windows' RAWMOUSE: two for each, pressed and released."""
RAW_WHEEL, RAW_WHEEL_X, RAW_ABSOLUTE, NOTCH = 0x400, 0x800, 1, 120
SETTLED_NS: Final = 50_000_000
"""A snapshot says nothing of a button that changed less than this before it."""
MOST_EVENTS: Final = 20_000_000
MOST_ROWS: Final = 400_000


class Event(NamedTuple):
    """One message: what kind it is, when it was logged, and what it says."""

    kind: str
    time_ns: int
    content: dict[str, Any]


@dataclass(slots=True)
class InputTrack:
    """What is down, from one event to the next, and how far the mouse moved at each.

    merge_ns  motion this close after the last row, with the same buttons down, is added to that row
    """

    merge_ns: int = 0
    times_ns: array[int] = field(default_factory=lambda: array("q"))
    held: list[int] = field(default_factory=list)
    moved: dict[str, array[float]] = field(
        default_factory=lambda: {name: array("d") for name in MOTIONS}
    )
    down: int = 0

    def at(self, time_ns: int, **motion: float) -> None:
        """A row with what is down now and how far the mouse has moved."""
        last_ns = self.times_ns[-1] if self.times_ns else time_ns - 1
        if self.held and self.held[-1] == self.down and time_ns < last_ns + self.merge_ns:
            for name, value in motion.items():
                self.moved[name][-1] += value
            return
        if len(self.times_ns) >= MOST_ROWS * 2:
            raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_ROWS * 2} changes of input")
        self.times_ns.append(max(time_ns, last_ns + 1))
        self.held.append(self.down)
        for name in MOTIONS:
            self.moved[name].append(motion.get(name, 0.0))

    def hold(self, names: Iterable[str]) -> None:
        """These buttons are down, and no others: what was so when it began."""
        self.down = sum(1 << BUTTONS.index(name) for name in names)

    def press(self, time_ns: int, name: str, pressed: bool) -> None:
        """A button goes down or up; nothing happens where it already is."""
        bit = 1 << BUTTONS.index(name)
        wanted = self.down | bit if pressed else self.down & ~bit
        if wanted != self.down:
            self.down = wanted
            self.at(time_ns)

    def track(self, end_ns: int) -> ActionTrack:
        """All rows, up to `end_ns`."""
        size = (len(BUTTONS) + 7) // 8
        packed = b"".join(held.to_bytes(size, "little") for held in self.held)
        bits = np.frombuffer(packed, np.uint8).reshape(-1, size)
        values = np.zeros((len(self.held), SPACE.size))
        values[:, : len(BUTTONS)] = np.unpackbits(
            bits, axis=1, count=len(BUTTONS), bitorder="little"
        )
        for place, name in enumerate(MOTIONS, start=len(BUTTONS)):
            values[:, place] = np.frombuffer(self.moved[name], np.float64)
        times_ns = np.frombuffer(self.times_ns, np.int64)
        values, clamped = clamp(SPACE, values)
        return ActionTrack(SPACE, times_ns, values, max(end_ns, int(times_ns[-1])), None, clamped)


@dataclass(frozen=True, slots=True)
class Sources:
    """Which of a recording's two mice tells what: the raw device, or the pointer on the screen.

    Both tell the same things, each at its own time; only one of them must count.

    absolute  reports of the raw device that tell places, as a tablet or a remote desktop sends them
    held      buttons that were down when the recording began
    """

    raw_motion: bool
    raw_buttons: bool
    raw_wheel: bool
    events: int
    absolute: int = 0
    held: frozenset[str] = frozenset()

    @classmethod
    def of(cls, events: Iterable[Event]) -> Sources:
        """What the raw device tells at all, by messages in any order.

        Reports of places are no measure of motion. They are left out, unless most reports are such
        and the pointer moves: then its motion is taken.
        """
        presses = wheels = places = moves = pointer = count = 0
        start = HeldAtStart(SETTLED_NS)
        for event in events:
            count += 1
            if count > MOST_EVENTS:
                raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_EVENTS} messages")
            if event.kind == "RawMouseEvent":
                flags = _whole(event.content.get("button_flags"))
                presses += bool(flags & 0x3FF)
                wheels += bool(flags & (RAW_WHEEL | RAW_WHEEL_X))
                is_place = bool(_whole(event.content.get("us_flags")) & RAW_ABSOLUTE)
                places += is_place
                moves += not is_place
            pointer += event.kind == "MouseEvent" and event.content.get("event_type") == "move"
            _note_start(start, event, presses > 0)
        raw_motion = moves > 0 and (moves >= places or not pointer)
        return cls(raw_motion, presses > 0, wheels > 0, count, places, start.down())


def input_track(
    events: Iterable[Event], sources: Sources, start_ns: int, end_ns: int
) -> tuple[ActionTrack, tuple[str, ...]]:
    """The track of a recording's events, and what a person should know.

    Args:
        events: in order of time.
        sources: what `Sources.of` says of them.
        start_ns, end_ns: what the log covers.
    """
    merge_ns = 0
    if sources.events > MOST_ROWS:
        merge_ns = -(-(end_ns - start_ns) // MOST_ROWS)
    track = InputTrack(merge_ns)
    track.hold(sources.held)
    track.at(start_ns)
    changed_ns: dict[str, int] = {}
    strange: Counter[str] = Counter()
    pointer: tuple[float, float] | None = None

    def press(time_ns: int, name: str | None, pressed: bool, what: object) -> None:
        if name is None:
            strange[str(what)[:20]] += 1
        else:
            changed_ns[name] = time_ns
            track.press(time_ns, name, pressed)

    def settle(time_ns: int, group: Iterable[str], down: set[str | None]) -> None:
        for name in group:
            if time_ns - changed_ns.get(name, -SETTLED_NS) >= SETTLED_NS:
                track.press(time_ns, name, name in down)

    for kind, time_ns, content in events:
        if kind == "KeyboardEvent":
            code, wanted = content.get("vk"), content.get("event_type")
            if wanted in ("press", "release"):
                press(time_ns, key_of_code(_whole(code)), wanted == "press", f"key {code}")
        elif kind == "KeyboardState":
            settle(time_ns, KEYS, {key_of_code(_whole(code)) for code in _list(content)})
        elif kind == "MouseState":
            settle(time_ns, RAW_BUTTONS, {MOUSE_BUTTONS.get(str(each)) for each in _list(content)})
            pointer = _point(content) or pointer
        elif kind == "RawMouseEvent":
            _raw_mouse(track, press, time_ns, content, sources)
        elif kind == "MouseEvent":
            here = _point(content) or pointer
            motion: dict[str, float] = {}
            if not sources.raw_motion and pointer is not None and here is not None:
                motion = {"mouse_dx": here[0] - pointer[0], "mouse_dy": here[1] - pointer[1]}
            pointer = here
            if content.get("event_type") == "click" and not sources.raw_buttons:
                button = content.get("button")
                name = MOUSE_BUTTONS.get(str(button))
                press(time_ns, name, content.get("pressed") is True, f"mouse {button}")
            elif content.get("event_type") == "scroll" and not sources.raw_wheel:
                motion |= {
                    "wheel": _number(content.get("dy")),
                    "wheel_x": _number(content.get("dx")),
                }
            if any(motion.values()):
                track.at(time_ns, **motion)
    notes = [] if sources.raw_motion else ["mouse motion is the pointer's, in pixels"]
    if sources.raw_motion and sources.absolute:
        notes.append(f"{sources.absolute} absolute mouse reports (us_flags 1) left out")
    if sources.held:
        notes.append(f"held when it began: {', '.join(sorted(sources.held))}")
    if strange:
        names = ", ".join(name for name, _ in strange.most_common(5))
        notes.append(f"{strange.total()} presses of keys that have no place here: {names}")
    if merge_ns:
        notes.append(f"mouse motion summed over {merge_ns / 1e6:.1f} ms: too many events")
    return track.track(end_ns), tuple(notes)


def _note_start(start: HeldAtStart, event: Event, raw_buttons: bool) -> None:
    """What a message tells of what was down before it.

    The pointer's clicks count only where the raw device tells of none before them.
    """
    kind, time_ns, told = event
    if kind == "KeyboardState":
        keys = {key_of_code(_whole(code)) for code in _list(told)}
        start.snapshot("keyboard", time_ns, frozenset(filter(None, keys)))
    elif kind == "MouseState":
        buttons = {MOUSE_BUTTONS.get(str(each)) for each in _list(told)}
        start.snapshot("mouse", time_ns, frozenset(filter(None, buttons)))
    elif kind == "KeyboardEvent" and told.get("event_type") in ("press", "release"):
        name = key_of_code(_whole(told.get("vk")))
        if name is not None:
            start.change(name, time_ns, told["event_type"] == "press")
    elif kind == "MouseEvent" and told.get("event_type") == "click" and not raw_buttons:
        name = MOUSE_BUTTONS.get(str(told.get("button")))
        if name is not None:
            start.change(name, time_ns, told.get("pressed") is True)
    elif kind == "RawMouseEvent":
        flags = _whole(told.get("button_flags"))
        for place, name in enumerate(RAW_BUTTONS):
            if flags >> 2 * place & 3:
                start.change(name, time_ns, bool(flags >> 2 * place & 1))


def _raw_mouse(
    track: InputTrack, press: Any, time_ns: int, content: dict[str, Any], sources: Sources
) -> None:
    """One report of the device: motion, then buttons down, then buttons up, then the wheel."""
    flags, turned = _whole(content.get("button_flags")), _whole(content.get("button_data"))
    if sources.raw_motion and not _whole(content.get("us_flags")) & RAW_ABSOLUTE:
        dx, dy = _number(content.get("last_x")), _number(content.get("last_y"))
        if dx or dy:
            track.at(time_ns, mouse_dx=dx, mouse_dy=dy)
    for shift, pressed in ((0, True), (1, False)):
        for place, name in enumerate(RAW_BUTTONS):
            if flags >> (2 * place + shift) & 1:
                press(time_ns, name, pressed, name)
    notches = (((turned & 0xFFFF) ^ 0x8000) - 0x8000) / NOTCH
    for bit, name in ((RAW_WHEEL, "wheel"), (RAW_WHEEL_X, "wheel_x")):
        if flags & bit and notches:
            track.at(time_ns, **{name: notches})


def _whole(value: object) -> int:
    """A whole number; 0 for what is none, or is beyond 32 bits."""
    return value if isinstance(value, int) and abs(value) < 1 << 32 else 0


def _number(value: object) -> float:
    return float(value) if is_number(value) else 0.0


def _list(content: dict[str, Any]) -> list[Any]:
    buttons = content.get("buttons")
    return buttons if isinstance(buttons, list) else []


def _point(content: dict[str, Any]) -> tuple[float, float] | None:
    x, y = content.get("x"), content.get("y")
    return (float(x), float(y)) if is_number(x) and is_number(y) else None
