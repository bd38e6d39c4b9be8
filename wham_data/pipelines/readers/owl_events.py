"""The events of an owl-control recording: its `inputs.csv`, as a track of keyboard and mouse or of a pad."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wham_data.files.json_lines import text_lines
from wham_data.pipelines.readers.kit.keys.names import key_of_code
from wham_data.pipelines.readers.owa.inputs import NOTCH, InputTrack
from wham_data.pipelines.readers.owa.start import HeldAtStart
from wham_data.schemas.actions import clamp, load_space
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, plain_number
from wham_data.schemas.recording import ActionTrack

HEADER: Final = ("timestamp", "event_type", "event_args")
MOST_EVENTS: Final = 20_000_000
JITTER_NS: Final = 1_000_000
"""Threads write side by side: a row may be this much before the row above it."""
PAD: Final = load_space("xinput")
PAD_BUTTONS: Final = {
    1: "a", 2: "b", 4: "y", 5: "x", 7: "left_shoulder", 8: "right_shoulder", 11: "back",
    12: "start", 13: "guide", 14: "left_thumb", 15: "right_thumb", 16: "up", 17: "down",
    18: "left", 19: "right",
}  # fmt: skip
PAD_TRIGGERS: Final = {9: "left_trigger", 10: "right_trigger"}
PAD_AXES: Final = {1: "left_x", 2: "left_y", 4: "right_x", 5: "right_y"}
PAD_HATS: Final = {7: ("left", "right"), 8: ("down", "up")}
MOUSE: Final = {
    1: "mouse_left", 2: "mouse_right", 4: "mouse_middle", 5: "mouse_back", 6: "mouse_forward",
}  # fmt: skip
KEYBOARD_MOUSE: Final = frozenset({"KEYBOARD", "MOUSE_BUTTON", "MOUSE_MOVE", "SCROLL"})
GAMEPAD: Final = frozenset({"GAMEPAD_BUTTON", "GAMEPAD_BUTTON_VALUE", "GAMEPAD_AXIS"})
WORDS: Final = frozenset(
    {"START", "END", "VIDEO_START", "VIDEO_END", "HOOK_START", "FOCUS", "REFOCUS", "UNFOCUS"}
)
ARGUMENTS: Final = {
    "KEYBOARD": 2, "MOUSE_BUTTON": 2, "MOUSE_MOVE": 2, "SCROLL": 1,
    "GAMEPAD_BUTTON": 2, "GAMEPAD_BUTTON_VALUE": 2, "GAMEPAD_AXIS": 2,
}  # fmt: skip
BIN_NS: Final = SECOND_NS // 10
_ROW: Final = re.compile(r'([^,]+),\s*"?([A-Z_]+)"?\s*,\s*"?\s*\[(.*)\]\s*"?', re.ASCII)
_BARE: Final = re.compile(r'([^,]+),\s*"?([A-Z_]+)"?\s*,?\s*(?:"")?', re.ASCII)
_FLAGS: Final = {"true": 1.0, "false": 0.0}


class Event(NamedTuple):
    """One row: what happened when, and its numbers; a flag is 1 or 0."""

    kind: str
    time_ns: int
    numbers: tuple[float, ...]


@dataclass(slots=True)
class Events:
    """All rows of a log, in order of time.

    strange  rows that mean nothing here, by what they are
    notes    what a person should know of the file
    """

    rows: list[Event] = field(default_factory=list)
    strange: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def times_of(self, *kinds: str) -> list[int]:
        """When there were events of these kinds."""
        return [row.time_ns for row in self.rows if row.kind in kinds]

    def bins_of(self, kinds: frozenset[str]) -> int:
        """In how many tenths of a second something of these kinds happened."""
        return len({row.time_ns // BIN_NS for row in self.rows if row.kind in kinds})


def is_owl_log(path: Path) -> bool:
    """Whether a file begins with the columns of owl-control's log."""
    try:
        _, first = next(text_lines(path), ("", b""))
    except RefusedInput:
        return False
    names = first.decode("utf-8-sig", "replace").strip().replace('"', "").split(",")
    return tuple(name.strip() for name in names) == HEADER


def read_events(path: Path) -> Events:
    """The rows of a log.

    Raises:
        RefusedInput: LOG_SYNTAX, LOG_TYPE, LOG_CLOCK or LOG_EMPTY, naming the line; TOO_LARGE.
    """
    events = Events()
    lines = text_lines(path)
    next(lines, None)
    last_ns = -1
    for where, line in lines:
        try:
            event = _event(line.decode("utf-8", "replace").strip(), where)
        except RefusedInput:
            if line.endswith(b"\n") or next(lines, None) is not None:
                raise
            events.notes.append(f"{where} is torn: left out")
            break
        if event is None and not line.endswith(b"\n"):
            events.notes.append(f"{where} is torn: left out")
            break
        if event is None:
            events.strange[line.split(b",")[1][:24].decode("ascii", "replace")] += 1
            continue
        if event.time_ns < last_ns - JITTER_NS:
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"{where}: the clock goes back by {plain_number((last_ns - event.time_ns) / SECOND_NS)} s. "
                "Cut the log there",
            )
        last_ns = max(last_ns, event.time_ns)
        events.rows.append(event._replace(time_ns=last_ns))
        if len(events.rows) > MOST_EVENTS:
            raise RefusedInput(Reason.TOO_LARGE, f"{path.name}: over {MOST_EVENTS} rows")
    if not events.rows:
        raise RefusedInput(Reason.LOG_EMPTY, f"{path.name}: no rows under its header")
    return events


def _event(text: str, where: str) -> Event | None:
    """One row; None for a kind of event that we do not know."""
    found = _ROW.fullmatch(text) or _BARE.fullmatch(text)
    if found is None:
        raise RefusedInput(
            Reason.LOG_SYNTAX, f"{where}: expected {','.join(HEADER)}, found {text[:60]!r}"
        )
    stamp, kind, *rest = (each.strip() for each in found.groups())
    if kind not in ARGUMENTS and kind not in WORDS:
        return None
    try:
        time_ns = int(Decimal(stamp) * SECOND_NS)
    except (InvalidOperation, ValueError, OverflowError):
        raise RefusedInput(Reason.LOG_TYPE, f"{where}: {stamp[:40]!r} is no time") from None
    if not 0 <= time_ns < 1 << 62:
        raise RefusedInput(Reason.LOG_CLOCK, f"{where}: {stamp[:40]} s is no time")
    wanted = ARGUMENTS.get(kind, 0)
    if not wanted:
        return Event(kind, time_ns, ())
    parts = [part.strip().lower() for part in (rest[0] if rest else "").split(",")]
    try:
        numbers = tuple(_FLAGS[part] if part in _FLAGS else float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != wanted or not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e6:
        raise RefusedInput(
            Reason.LOG_TYPE,
            f"{where}: {kind} takes {wanted} number{'s' * (wanted > 1)}, found {text[-40:]!r}",
        )
    return Event(kind, time_ns, numbers)


def keyboard_mouse_track(events: Events, end_ns: int) -> ActionTrack:
    """Keys, mouse buttons, motion and wheel in the space `desktop`, on the log's own clock."""
    rows = events.rows
    track = InputTrack(-(-(end_ns - rows[0].time_ns) // 800_000) if len(rows) > 400_000 else 0)
    start = HeldAtStart(0)
    for row in rows:
        name = _button_of(row)
        if name is not None:
            start.change(name, row.time_ns, row.numbers[1] > 0)
    track.hold(start.down())
    _note_held(events, start.down())
    track.at(rows[0].time_ns)
    notch = _notch(events)
    for row in rows:
        match row.kind:
            case "MOUSE_MOVE":
                track.at(row.time_ns, mouse_dx=row.numbers[0], mouse_dy=row.numbers[1])
            case "SCROLL":
                track.at(row.time_ns, wheel=row.numbers[0] / notch)
            case "KEYBOARD" | "MOUSE_BUTTON":
                name = _button_of(row)
                if name is None:
                    events.strange[f"{row.kind} {row.numbers[0]:g}"] += 1
                else:
                    track.press(row.time_ns, name, row.numbers[1] > 0)
            case "FOCUS" | "REFOCUS" | "UNFOCUS":
                track.at(row.time_ns)
    return track.track(end_ns)


def _button_of(row: Event) -> str | None:
    """The button of `desktop` that a row tells of."""
    if row.kind == "KEYBOARD":
        return key_of_code(int(row.numbers[0]))
    return MOUSE.get(int(row.numbers[0])) if row.kind == "MOUSE_BUTTON" else None


def _notch(events: Events) -> float:
    """What one notch of the wheel counts: Windows' 120, or 1 where every turn is of a few."""
    turns = [abs(row.numbers[0]) for row in events.rows if row.kind == "SCROLL" and row.numbers[0]]
    if turns and max(turns) <= 10:
        events.notes.append("wheel: taken as whole notches")
        return 1.0
    return float(NOTCH)


def _note_held(events: Events, held: frozenset[str]) -> None:
    if held:
        events.notes.append(f"held when it began: {', '.join(sorted(held))}")


def pad_track(events: Events, end_ns: int) -> ActionTrack:
    """Buttons, triggers and sticks in the space `xinput`, on the log's own clock; +y is up."""
    place = {name: number for number, name in enumerate(PAD.names)}
    row_now = np.zeros(PAD.size)
    start = HeldAtStart(0)
    pulled = any(
        row.kind == "GAMEPAD_BUTTON_VALUE" and int(row.numbers[0]) in PAD_TRIGGERS
        for row in events.rows
    )
    for row in events.rows:
        if row.kind == "GAMEPAD_BUTTON" and (name := PAD_BUTTONS.get(int(row.numbers[0]))):
            start.change(name, row.time_ns, row.numbers[1] > 0)
    for name in start.down():
        row_now[place[name]] = 1.0
    _note_held(events, start.down())
    times_ns, values = [events.rows[0].time_ns], [row_now.copy()]
    for row in events.rows:
        if row.kind in GAMEPAD:
            changes = _pad_changes(row, pulled)
            if changes is None:
                events.strange[f"{row.kind} {row.numbers[0]:g}"] += 1
                continue
            for name, value in changes.items():
                row_now[place[name]] = value
        elif row.kind not in ("FOCUS", "REFOCUS", "UNFOCUS"):
            continue
        times_ns.append(max(row.time_ns, times_ns[-1] + 1))
        values.append(row_now.copy())
    table, clamped = clamp(PAD, np.stack(values))
    last_ns = max(end_ns, times_ns[-1])
    return ActionTrack(PAD, np.array(times_ns, np.int64), table, last_ns, None, clamped)


def _pad_changes(row: Event, pulled: bool) -> dict[str, float] | None:
    """What a row changes, by name; None for a number that has no place on the pad.

    Args:
        row: of the pad.
        pulled: whether triggers tell how far they are pulled, so that their clicks say nothing more.
    """
    number, value = int(row.numbers[0]), row.numbers[1]
    if row.kind == "GAMEPAD_AXIS":
        if number in PAD_AXES:
            return {PAD_AXES[number]: value}
        if number in PAD_HATS:
            low, high = PAD_HATS[number]
            return {low: float(value < -0.5), high: float(value > 0.5)}
        return None
    if number in PAD_TRIGGERS:
        click = row.kind == "GAMEPAD_BUTTON"
        return {} if click and pulled else {PAD_TRIGGERS[number]: value}
    if number in PAD_BUTTONS:
        # How hard a button is pressed says nothing more than that it is.
        return {PAD_BUTTONS[number]: value} if row.kind == "GAMEPAD_BUTTON" else {}
    return None


def unfocused(events: Events, end_ns: int) -> list[tuple[int, int]]:
    """When another window had the player's input, as (from, to)."""
    spans: list[tuple[int, int]] = []
    since: int | None = None
    for row in events.rows:
        if row.kind == "UNFOCUS" and since is None:
            since = row.time_ns
        elif row.kind in ("FOCUS", "REFOCUS") and since is not None:
            spans.append((since, row.time_ns))
            since = None
    return spans if since is None else [*spans, (since, end_ns)]


def without(
    values: NDArray[np.float64], times_ns: NDArray[np.int64], spans: Sequence[tuple[int, int]]
) -> Iterator[slice]:
    """Rows that lie in spans of time are made unknown, in place; yields them."""
    for start_ns, stop_ns in spans:
        rows = slice(*np.searchsorted(times_ns, [start_ns, stop_ns]).tolist())
        values[rows] = np.nan
        yield rows
