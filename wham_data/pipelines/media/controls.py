"""What the hands do, drawn step by step: a lamp for each button, a curve for everything else.

The dimensions of an action space say what is drawn. Each button is a lamp, lit while it is down.
Everything else is a curve over time: up to the cursor as it was, after it faintly as it will be. Two
dimensions NAME_x and NAME_y share a lane, beside which a dial shows where they are now. What is not
known is hatched, with a question mark: it never looks like rest. What there is no room for is counted;
what is in use comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.media.canvas import Box, Canvas, Colour, Point
from wham_data.pipelines.media.picture import FAINT, INK, LIT, PAPER
from wham_data.schemas.actions import UNKNOWN_RANGE, ActionSpace
from wham_data.schemas.clock import TEN_HZ, runs_of

WIDTH, HEIGHT = 640, 150
"""Of the whole drawing, in units."""
LANES: Box = (70, 19, 432, 131)
"""Where the lanes are, one below the other; a dial stands left of its lane."""
TALLEST_LANE, MOST_LANES = 46, 4
DIAL_X, DIAL_RADIUS = 36, 23
NAME_WIDTH, LETTER_WIDTH = 48, 6
LAMPS, LAMP, LAMP_STEP, LAMPS_ACROSS = (451, 19), (38, 30), (46, 41), 4
"""The first lamp's corner, a lamp's size, and from one to the next, where there are up to 12."""
SMALL, LETTER = 7.0, 0.66
"""Height of the smallest letters; width of a letter as a share of its height."""
LAMP_TABLES = ((4, 3), (6, 4), (8, 6))
"""Lamps across and down; more lamps are smaller ones."""

PANEL, RULE, QUIET, HATCH = (34, 37, 43), (58, 63, 72), (150, 155, 165), (92, 62, 62)
X_COLOUR, Y_COLOUR = LIT, (90, 200, 250)
TO_COME = 0.36
"""How much of its colour a curve has after the cursor."""
AT_REST = 0.05
"""A stick pushed less than this far is drawn at rest."""
SPAN = 150
"""Steps in sight at a time; in a longer stretch they move along with the cursor."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The steps in sight, [first, last], over the columns from `left` to `right`."""

    first: int
    last: int
    left: float
    right: float

    @classmethod
    def around(cls, step: int, steps: int, span: int, left: float, right: float) -> Self:
        """All `steps`, or the `span` of them around `step`."""
        first = max(0, min(step - span // 2, steps - span))
        return cls(first, min(steps, first + span) - 1, left, right)

    def column(self, step: float) -> float:
        """Where `step` is."""
        share = (step - self.first) / max(self.last - self.first, 1)
        return self.left + share * (self.right - self.left)


class Controls:
    """Draws the actions of a stretch of steps one by one, `WIDTH` x `HEIGHT` units.

    Args:
        actions: float32 [K, A] measured; NaN where not known.
        space: of the actions.
        rate: steps per second.
        start: time of step 0 in seconds, for the labels.
        span: steps in sight at a time.
        height: units; more than `HEIGHT` makes higher lanes.
    """

    def __init__(
        self,
        actions: NDArray[np.float32],
        space: ActionSpace,
        *,
        rate: Fraction = TEN_HZ,
        start: Fraction = Fraction(0),
        span: int = SPAN,
        height: float = HEIGHT,
    ) -> None:
        used: NDArray[np.bool_] = np.any(np.nan_to_num(actions) != 0, axis=0)
        self._names = space.names
        self._actions = np.clip(actions / _reach(actions, space), -1.0, 1.0)
        self._lanes, self._lanes_left_out = _lanes(space, used, height)
        self._lamps = _LampTable.of(space, used)
        self._rate, self._start, self._span = rate, start, span

    @property
    def left_out(self) -> tuple[int, int]:
        """Buttons and other dimensions that there is no room for."""
        return self._lamps.left_out, self._lanes_left_out

    def draw(self, canvas: Canvas, step: int, top: float = 0) -> None:
        """Draw one step, counted from 0, below `top` on the canvas."""
        for lane, axes in self._lanes:
            self._lane(canvas, _down(lane, top), axes, step)
        self._time(canvas, step, top)
        self._buttons(canvas, step, top)

    def _sight(self, step: int, lane: Box) -> Sight:
        left, _, right, _ = lane
        return Sight.around(step, len(self._actions), self._span, left + 6, right - 6)

    def _lane(self, canvas: Canvas, lane: Box, axes: tuple[int, ...], step: int) -> None:
        """One dimension over time, or the two of a stick, with a dial of where it is now."""
        left, top, right, bottom = lane
        middle, reach = (top + bottom) / 2, (bottom - top) / 2 - 4
        if len(axes) == 2:
            x, y = (float(value) for value in self._actions[step, list(axes)])
            _dial(canvas, (DIAL_X, middle), x, y, min(DIAL_RADIUS, (bottom - top) / 2))

        canvas.panel(lane, PANEL)
        sight = self._sight(step, lane)
        unknown = np.isnan(self._actions[sight.first : sight.last + 1][:, list(axes)]).any(axis=1)
        for first, stop in runs_of(unknown):
            edges = (sight.column(sight.first + at - 0.5) for at in (first, stop))
            from_x, to_x = (min(max(edge, left), right) for edge in edges)
            canvas.hatch((from_x, top, to_x, bottom), HATCH)
        canvas.line([(left, middle), (right, middle)], RULE, 1)
        now = sight.column(step)
        canvas.line([(now, top), (now, bottom)], QUIET, 1)
        for colour, axis in reversed(tuple(zip((X_COLOUR, Y_COLOUR), axes, strict=False))):
            values = self._actions[:, axis]
            for first, last, shade in (
                (step, sight.last, _blend(colour, PANEL, TO_COME)),
                (sight.first, step, colour),
            ):
                for points in _runs(values, first, last):
                    canvas.line(
                        [(sight.column(k), middle - reach * v) for k, v in points], shade, 1.8
                    )
            if np.isfinite(values[step]):
                canvas.disc((now, middle - reach * float(values[step])), 3, colour)
        heading, at = top - 8, left
        for colour, axis in zip((X_COLOUR, Y_COLOUR), axes, strict=False):
            canvas.text((at, heading), self._names[axis], colour)
            at += max(NAME_WIDTH, LETTER_WIDTH * (len(self._names[axis]) + 1))

    def _time(self, canvas: Canvas, step: int, top: float) -> None:
        """The step over the lanes; under them whole seconds, as many as can be read."""
        _, first_lane, right, _ = _down(LANES, top)
        digits = 1 if self._rate <= TEN_HZ else 2
        seconds = float(self._start + step / self._rate)
        count = f"step {step + 1} of {len(self._actions)}   {seconds:.{digits}f} s"
        canvas.text((right, first_lane - 8), count, QUIET, anchor="rm")
        if not self._lanes:
            return
        lane = _down(self._lanes[-1][0], top)
        if self._lanes_left_out:
            more = f"and {self._lanes_left_out} more"
            canvas.text((right, lane[1] - 8), more, QUIET, anchor="rm")
        sight = self._sight(step, lane)
        every = next((n for n in (1, 2, 5) if sight.last - sight.first <= 8 * n * self._rate), 10)
        first, last = (self._start + at / self._rate for at in (sight.first, sight.last))
        for second in range(math.ceil(first), math.floor(last) + 1):
            if second % every == 0:
                at = sight.column(float((second - self._start) * self._rate)), lane[3] + 10
                canvas.text(at, f"{second} s", QUIET, size=10, anchor="mm")

    def _buttons(self, canvas: Canvas, step: int, top: float) -> None:
        """The buttons; a lit one is down, a hatched one is not known."""
        known = np.isfinite(self._actions[step]).all()
        heading = self._lamps.heading if known else "action not known"
        canvas.text((LAMPS[0], LAMPS[1] + top - 8), heading, QUIET)
        for place, index in self._lamps.boxes:
            box, value = _down(place, top), float(self._actions[step, index])
            name, size = self._lamps.label(self._names[index])
            down = value > 0.5
            canvas.panel(box, LIT if down else PANEL, rim=LIT if down else RULE, radius=5)
            if math.isnan(value):
                canvas.hatch((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), HATCH)
                name = "?"
            canvas.text(middle_of(box), name, PAPER if down else QUIET, size=size, anchor="mm")


@dataclass(frozen=True, slots=True)
class _LampTable:
    """Where the lamps of the buttons are.

    boxes     of each lamp, and which dimension it shows
    width     of a lamp
    left_out  buttons that there is no room for
    """

    boxes: tuple[tuple[Box, int], ...]
    width: float
    left_out: int

    @classmethod
    def of(cls, space: ActionSpace, used: NDArray[np.bool_]) -> Self:
        """The smallest table that holds the buttons of a space, else as many as fit the largest.

        Args:
            space: the action space.
            used: bool [A], which dimensions are not at rest all the time; these come first where
                there is no room for all.
        """
        buttons = [int(index) for index in space.of_kind("button")]
        fitting = (table for table in LAMP_TABLES if table[0] * table[1] >= len(buttons))
        across, down = next(fitting, LAMP_TABLES[-1])
        smaller = LAMPS_ACROSS / across, LAMP_TABLES[0][1] / down
        lamp, step = ((size[0] * smaller[0], size[1] * smaller[1]) for size in (LAMP, LAMP_STEP))
        shown = sorted(sorted(buttons, key=lambda index: not used[index])[: across * down])
        boxes = []
        for number, index in enumerate(shown):
            row, column = divmod(number, across)
            x, y = LAMPS[0] + step[0] * column, LAMPS[1] + step[1] * row
            boxes.append(((x, y, x + lamp[0], y + lamp[1]), index))
        return cls(tuple(boxes), lamp[0], len(buttons) - len(boxes))

    @property
    def heading(self) -> str:
        """What stands over them."""
        if not self.boxes:
            return ""
        return f"buttons, and {self.left_out} more" if self.left_out else "buttons"

    def label(self, name: str) -> tuple[str, float]:
        """A button's name as it fits into a lamp, on one line or two, and the size of its letters."""
        short = name.removeprefix("button_").removeprefix("key_")
        if LETTER * SMALL * len(short) > self.width:
            short = short.replace("_", "\n", 1)
        lines = short.split("\n")
        size = max(SMALL, min(12.0, self.width / (LETTER * max(map(len, lines)))))
        return "\n".join(line[: int(self.width / (LETTER * size) + 0.01)] for line in lines), size


def _lanes(
    space: ActionSpace, used: NDArray[np.bool_], height: float
) -> tuple[tuple[tuple[Box, tuple[int, ...]], ...], int]:
    """The lanes with the dimensions that each shows, and how many dimensions there is no room for.

    Args:
        space: the action space.
        used: bool [A]; lanes in which something moves come first where there is no room for all.
        height: of the whole drawing, in units.
    """
    curves = [int(index) for index in space.of_kind("axis", "trigger", "delta")]
    names = {space.names[index]: index for index in curves}
    groups: list[tuple[int, ...]] = []
    for name, index in names.items():
        stem, end = name[:-2], name[-2:]
        if end == "_x" and f"{stem}_y" in names:
            groups.append((index, names[f"{stem}_y"]))
        elif not (end == "_y" and f"{stem}_x" in names):
            groups.append((index,))
    shown = sorted(sorted(groups, key=lambda group: not used[list(group)].any())[:MOST_LANES])
    left, first, right, last = LANES
    gap = 20 if len(shown) <= 2 else 16
    tall = (last + height - HEIGHT - first + gap) / max(len(shown), 1) - gap
    tops = [first + (tall + gap) * number for number in range(len(shown))]
    boxes = [(left, top, right, top + min(tall, TALLEST_LANE)) for top in tops]
    return tuple(zip(boxes, shown, strict=True)), len(curves) - sum(map(len, shown))


def _reach(actions: NDArray[np.float32], space: ActionSpace) -> NDArray[np.float32]:
    """The value of each dimension that is drawn as far out as can be, float32 [A].

    That is the end of its range. A delta is summed over a step and may leave its range, and some
    spaces don't know their ranges: of these it is the greatest value in the stretch.
    """
    reach = np.abs(space.ranges()).max(axis=1)
    seen = np.abs(np.nan_to_num(actions)).max(axis=0, initial=0)
    unknown = reach >= UNKNOWN_RANGE
    unknown[space.of_kind("delta")] = True
    reach[unknown] = np.where(seen > 0, seen, 1)[unknown]
    return np.asarray(reach, np.float32)


def _dial(canvas: Canvas, centre: Point, x: float, y: float, radius: float) -> None:
    """A stick seen from above; +y is up."""
    canvas.disc(centre, radius, PANEL, ring=RULE)
    if not (np.isfinite(x) and np.isfinite(y)):
        canvas.text(centre, "?", QUIET, size=13, anchor="mm")
        return
    push = (radius - 6) / max(1.0, np.hypot(x, y))
    knob = centre[0] + x * push, centre[1] - y * push
    colour = INK if np.hypot(x, y) > AT_REST else FAINT
    canvas.line([centre, knob], colour, 2)
    canvas.disc(knob, 5, colour)


def _runs(values: NDArray[np.float32], first: int, last: int) -> list[list[tuple[int, float]]]:
    """Stretches of two or more known values from `first` to `last`, each value with its step."""
    runs: list[list[tuple[int, float]]] = [[]]
    for step in range(first, last + 1):
        value = float(values[step])
        if np.isfinite(value):
            runs[-1].append((step, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]


def _down(box: Box, by: float) -> Box:
    """A box `by` units further down."""
    return box[0], box[1] + by, box[2], box[3] + by


def middle_of(box: Box) -> Point:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _blend(colour: Colour, ground: Colour, share: float) -> Colour:
    """`share` of `colour` over `ground`."""
    red, green, blue = (round(g + share * (c - g)) for c, g in zip(colour, ground, strict=True))
    return red, green, blue
