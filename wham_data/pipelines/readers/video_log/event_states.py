"""Events become states: what was held after each of them, and what is not known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import latest_at
from wham_data.pipelines.readers.kit.column_guesses import text
from wham_data.pipelines.readers.kit.keys.names import is_sign, key_in_log
from wham_data.pipelines.readers.video_log.log_clock import each_twice, strictly_rising, unwrapped
from wham_data.pipelines.readers.video_log.log_table import LogTable
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput, printable

UNPLUGGED: Final = -2
PLUGGED: Final = -3
SNAPSHOT_NS: Final = SECOND_NS // 10
SNAPSHOT_PACE_NS: Final = 5_000_000
SNAPSHOT_CONTROLS: Final = 3
_DEVICE_WORD: Final = re.compile(
    r"(?:sdl)?(?:event)?(?:on)?(?:(?:joystick|joy|gamepad|pad|gamecontroller|controller|device|hid|usb|"
    r"xinput|input|player)\d*)*(?:(?P<leaves>disconnect|disconnected|disconnection|unplug|unplugged|remove|"
    r"removed|removal|detach|detached|lost|gone)|(?P<comes>connect|connected|connection|reconnect|"
    r"reconnected|present)|(?P<added>plug|plugged|pluggedin|added|attach|attached|arrived|arrival))(?:event)?",
    re.ASCII,
)

VIDEO_START: Final = "videostart"
"""The control whose row says when the video started: its letters and digits, in either case."""


SHIFTS: Final = frozenset(
    f"key_{name}"
    for name in (
        "left_shift",
        "right_shift",
        "left_alt",
        "right_alt",
        "left_ctrl",
        "right_ctrl",
        "caps_lock",
    )
)


@dataclass(frozen=True, slots=True)
class Events:
    """What happened, in the order in which it did.

    times_ns  int64   [N]  non-decreasing
    places    int64   [N]  positions in the space; UNPLUGGED or PLUGGED for the device itself
    values    float64 [N]  not finite: from here on the control is not known
    devices   int64   [N]  which device it came from
    """

    times_ns: Nanos
    places: Index
    values: NDArray[np.float64]
    devices: Index

    def only(self, which: NDArray[np.bool_] | slice) -> Events:
        """Some of them."""
        return Events(
            self.times_ns[which], self.places[which], self.values[which], self.devices[which]
        )


def from_video_start(table: LogTable, first_frame_ns: int | None) -> LogTable:
    """An event log whose clock has its zero at the video's first frame, without the row that marks it.

    The marker may stand anywhere in the file, as its time is not that of an action. A log without one
    stays as it is, but for a counter that wraps, which is counted on.

    Args:
        table: of an event log, as read.
        first_frame_ns: time of the first frame, on the video's own clock; None: metadata say when the
            video starts, and the marker says nothing.

    Raises:
        RefusedInput: LOG_CLOCK, several rows mark a start, at different times.
    """
    times_ns, notes = unwrapped(table.times_ns)
    names = ["".join(filter(str.isalnum, name.lower())) for name in table.control_names]
    marks = np.array([name == VIDEO_START for name in names], np.bool_)[table.controls]
    if not marks.any() or marks.all():
        return replace(table, times_ns=times_ns, notes=(*table.notes, *notes))
    starts_ns = np.unique(times_ns[marks])
    if len(starts_ns) > 1 and first_frame_ns is not None:
        some = ", ".join(f"{start / SECOND_NS:.3f}" for start in starts_ns[:3])
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"{len(starts_ns)} rows video_start, at {some} s: a log is of one video. Delete the "
            "others, or cut the log",
        )
    zero_ns = 0 if first_frame_ns is None else int(starts_ns[0]) - first_frame_ns
    note = f"the video starts at the log's row video_start, {starts_ns[0] / SECOND_NS:.3f} s"
    if first_frame_ns is None:
        note = "row video_start left aside: start in the metadata counts"
    keep = ~marks
    kept, controls = np.unique(table.controls[keep], return_inverse=True)
    return replace(
        table,
        times_ns=times_ns[keep] - zero_ns,
        numbers=table.numbers[keep],
        control_names=tuple(table.control_names[code] for code in kept.tolist()),
        controls=controls,
        words=table.words[keep] if len(table.words) else table.words,
        devices=table.devices[keep] if len(table.devices) else table.devices,
        span_ns=table.span_ns and (table.span_ns[0] - zero_ns, table.span_ns[1] - zero_ns),
        notes=(*table.notes, *notes, note),
    )


def device_word(name: str) -> str | None:
    """What a control says of the device itself: "leaves", "comes" or "added"; None for any other one.

    `disconnected`, `SDL_EVENT_GAMEPAD_REMOVED`, `JOYDEVICEADDED`, `pad_connected`.
    """
    word = "".join(letter for letter in name[:64].lower() if letter.isalnum())
    match = _DEVICE_WORD.fullmatch(word)
    return match.lastgroup if match else None


def comings_and_goings(name: str, values: NDArray[np.float64]) -> Index | None:
    """PLUGGED or UNPLUGGED for each event of a control that says whether the device is there.

    Args:
        name: of the control.
        values: float64 [N], its events; 0 turns `connected` into a going. Beside `added` and
            `removed` stands the number of the device, or nothing of use.

    Returns:
        int64 [N]; None for any other control.
    """
    word = device_word(name)
    if word == "comes":
        return np.where(values == 0, UNPLUGGED, PLUGGED)
    there = {"leaves": UNPLUGGED, "added": PLUGGED}.get(word or "")
    return None if there is None else np.full(len(values), there)


def own_releases(
    names: Sequence[str], places: Index, controls: Index, values: NDArray[np.float64]
) -> tuple[Index, list[str]]:
    """The controls of a key log, where a release whose sign Shift has changed is that of its key.

    A sign that is released and was never pressed belongs to the one key that went down before, is
    never released under its own name, and saw Shift (Alt, Ctrl) change since: the 2 that Shift turns
    into a quotation mark on a German keyboard.

    Args:
        names: of the controls.
        places: int64 [C], what they mean; negative: nothing.
        controls: int64 [N], the control of each row, in the order in which things happened.
        values: float64 [N], 0 for a release.

    Returns:
        Controls int64 [N], and notes.

    Raises:
        RefusedInput: LOG_COLUMN, the key cannot be told.
    """
    signs = np.array([is_sign(name) for name in names], np.bool_)
    letters = [is_sign(name) and name.isascii() and name.strip("'").isalpha() for name in names]
    shifts = np.array([key_in_log(name) in SHIFTS for name in names], np.bool_)
    keys = np.where(places >= 0, places, places.max() + 1 + np.arange(len(places)))
    rows = np.flatnonzero((signs | shifts)[controls] & np.isfinite(values)).tolist()
    released_next: dict[int, bool | None] = {}
    follows: dict[int, bool] = {}
    for row in reversed(rows):
        key = int(keys[controls[row]])
        released_next[row] = follows.get(key)
        follows[key] = values[row] == 0
    held: dict[int, tuple[int, int]] = {}  # key -> changes of Shift when it went down, its last row
    changes, taken, mended = 0, dict[str, str](), controls.copy()
    for row in rows:
        control = int(controls[row])
        key = int(keys[control])
        if shifts[control]:
            changes += 1
        elif values[row] != 0:
            held[key] = (held.get(key, (changes, row))[0], row)
        elif held.pop(key, None) is None:
            stuck = {
                other: int(controls[last])
                for other, (_, last) in held.items()
                if not released_next[last] and not (letters[control] and letters[controls[last]])
            }
            shifted = [other for other in stuck if held[other][0] < changes]
            if len(shifted) == 1:
                mended[row] = stuck[shifted[0]]
                taken[names[control]] = names[stuck[shifted[0]]]
                del held[shifted[0]]
            elif shifted or (stuck and places[control] < 0):
                raise _whose_release(names[control], [names[other] for other in stuck.values()])
    pairs = ", ".join(f"{sign} is {key}" for sign, key in list(taken.items())[:8])
    note = f"released under another sign, as Shift was pressed or released meanwhile: {pairs}"
    return mended, [printable(note)] if taken else []


def _whose_release(sign: str, keys: Sequence[str]) -> RefusedInput:
    return RefusedInput(
        Reason.LOG_COLUMN,
        f"{listed([sign])} is released and was never pressed, while {listed(keys)} never comes up: Shift may "
        f"have changed the sign. Say under [columns] which key it is, such as {text(sign)} = "
        f'"key_1", or ignore = [{text(sign)}]',
    )


def without_repeated(events: Events, motions: frozenset[int]) -> tuple[Events, list[str]]:
    """Drop events that say what the line above says; of motion only where every line stands twice."""
    same = (np.diff(events.times_ns) == 0) & (np.diff(events.places) == 0)
    same &= events.values[1:] == events.values[:-1]
    moves = np.isin(events.places[1:], list(motions)) & (events.values[1:] != 0)
    again = each_twice(same) if (same & moves).any() else None
    if again is None:
        again = np.append(False, same & ~moves)
    if not again.any():
        return events, []
    return events.only(~again), [f"{int(again.sum())} duplicate rows dropped"]


def states_of(
    events: Events, space: ActionSpace, until_ns: int
) -> tuple[Nanos, NDArray[np.float64], list[str]]:
    """What was held after each event.

    Events of one instant make one row: of motion the sum. Where a control changes twice at one
    instant, as in a tap within one tick of the clock, there is a row for each change, 1 ns apart.
    A device that goes, or is replaced by another, takes with it what it held: while it may have
    been gone, that is not known.

    Args:
        events: N > 0.
        space: what the controls mean.
        until_ns: when the log ends; a control whose only word is a release there was not held.

    Returns:
        Times int64 [R], strictly increasing, states float64 [R, A], and notes.
    """
    changed = np.append(False, np.diff(events.devices) != 0)
    changed |= np.isin(events.places, (UNPLUGGED, PLUGGED))
    changed |= np.append(False, events.places[:-1] == UNPLUGGED)
    changed[0] = True
    starts = np.flatnonzero(changed)
    rows, times_ns = _rows(events, np.cumsum(changed), space)
    values = np.zeros((len(times_ns), space.size))
    notes: list[str] = []
    for start, stop in zip(starts, [*starts[1:].tolist(), len(changed)], strict=True):
        mine = events.only(slice(start, stop))
        first, last = int(rows[start]), int(rows[stop - 1])
        states, said = _carried(mine, rows[start:stop] - first, last - first + 1, space, until_ns)
        if mine.places[0] == UNPLUGGED:
            states[:] = np.nan
        elif stop < len(changed) and events.places[stop] != UNPLUGGED:
            states[-1] = _unknown_if_held(states[-1], space)
        values[first : last + 1] = states
        notes += said
    if len(starts) > 1:
        at_s = events.times_ns[starts[1]] / SECOND_NS
        notes.append(
            f"the device goes or is replaced {len(starts) - 1} times, first at {at_s:.3f} s: "
            "what it held is not known while it may be gone, and not held afterwards"
        )
    return times_ns, values, notes


def _unknown_if_held(state: NDArray[np.float64], space: ActionSpace) -> NDArray[np.float64]:
    """The last state of a device that is replaced: nobody saw what it held come to rest."""
    held = state.copy()
    held[space.of_kind("delta")] = 0.0
    return np.full_like(state, np.nan) if (held != 0).any() else state


def _rows(events: Events, segments: Index, space: ActionSpace) -> tuple[Index, Nanos]:
    """The row of each event, int64 [N], non-decreasing, and the time of each row.

    Args:
        events: N of them.
        segments: int64 [N], non-decreasing; events of two segments never share a row.
        space: says which controls are motion, which adds up within an instant.
    """
    count = len(events.times_ns)
    instant = np.cumsum(np.append(0, np.diff(events.times_ns) > 0))
    begins = np.append(True, (np.diff(instant) > 0) | (np.diff(segments) > 0))
    placed = np.lexsort((np.arange(count), events.places, instant))
    same = (np.diff(instant[placed]) == 0) & (np.diff(events.places[placed]) == 0)
    before = np.full(count, -1)  # the event of the same control at the same instant, if any
    before[placed[1:][same]] = placed[:-1][same]
    before[np.isin(events.places, space.of_kind("delta"))] = -1
    row_start = 0
    for event in np.flatnonzero(before >= 0).tolist():
        if before[event] >= row_start:
            begins[event], row_start = True, event
    rows = np.cumsum(begins) - 1
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return rows, strictly_rising(events.times_ns[starts])


def _carried(
    events: Events, rows: Index, count: int, space: ActionSpace, until_ns: int
) -> tuple[NDArray[np.float64], list[str]]:
    """States of one device from rest, float64 [count, A], and notes."""
    values = np.zeros((count, space.size))
    motions = set(space.of_kind("delta").tolist())
    buttons = set(space.of_kind("button").tolist())
    snapshot = _opening_snapshot(events)
    held, lost, ended = list[str](), list[str](), list[str]()
    for dimension in range(space.size):
        mine = np.flatnonzero(events.places == dimension)
        if not len(mine):
            continue
        if dimension in motions:
            np.add.at(values[:, dimension], rows[mine], events.values[mine])
            continue
        begins = int(rows[mine[0]])
        latest = latest_at(rows[mine], np.arange(begins, count))
        values[begins:, dimension] = events.values[mine][latest]
        if begins == 0 or events.values[mine[0]] != 0 or mine[0] < snapshot:
            continue
        name = space.names[dimension]
        if events.times_ns[mine[0]] >= until_ns:
            ended.append(name)
        elif dimension in buttons and not _releases_twice(events.values[mine]):
            values[:begins, dimension] = 1.0
            held.append(name)
        else:
            values[:begins, dimension] = np.nan
            lost.append(name)
    notes = [f"{', '.join(held[:8])}: the first event is a release, so held until then"] * bool(
        held
    )
    if lost:
        notes.append(
            f"{', '.join(lost[:8])}: the first event is a return to rest, unknown before "
            "(an event at the start would say what it was)"
        )
    if ended:
        notes.append(f"{', '.join(ended[:8])}: one event, rest at the log's end: taken as unused")
    return values, notes


def _releases_twice(values: NDArray[np.float64]) -> bool:
    """Whether the log repeats releases, so that a release does not prove a press."""
    return bool(((values[1:] == 0) & (values[:-1] == 0)).any())


def _opening_snapshot(events: Events) -> int:
    """How many events at the start only list controls at rest: a recorder's first look at the pad."""
    other = np.flatnonzero(
        (events.values != 0)
        | (events.times_ns > events.times_ns[0] + SNAPSHOT_NS)
        | (np.diff(events.times_ns, prepend=events.times_ns[0]) > SNAPSHOT_PACE_NS)
    )
    count = int(other[0]) if len(other) else len(events.values)
    return count if len(np.unique(events.places[:count])) >= SNAPSHOT_CONTROLS else 0
