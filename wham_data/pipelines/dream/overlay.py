"""The sheet on which a dream is judged: truth left, dream right, the controls below.

The dimensions of the model's action space say what is drawn. Each button is a lamp, lit while it is
down. Everything else is a curve over time: up to the cursor as it was, after it faintly as it will
be. Two dimensions NAME_x and NAME_y share a lane, beside which a dial shows where they are now. What
there is no room for is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wham_data.pipelines.media.canvas import Box, Canvas, Colour, Point
from wham_data.pipelines.media.picture import FAINT, INK, LIT, PAPER
from wham_data.schemas.actions import UNKNOWN_RANGE, ActionSpace
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.recording import Frames

WIDTH, HEIGHT = 640, 360
PICTURE = (300, 180)
TRUTH, DREAM = (13, 26, 313, 206), (327, 26, 627, 206)
CAPTION_Y = 13
LANES: Box = (70, 229, 432, 341)
"""Where the lanes are, one below the other; a dial stands left of its lane."""
TALLEST_LANE, MOST_LANES = 46, 4
DIAL_X, DIAL_RADIUS = 36, 23
NAME_WIDTH, LETTER_WIDTH = 48, 6
LAMPS, LAMP, LAMP_STEP, LAMPS_ACROSS = (451, 229), (38, 30), (46, 41), 4
"""The first lamp's corner, a lamp's size, and from one to the next, where there are up to 12."""
LAMP_TABLES = ((4, 3), (6, 4), (8, 6))
"""Lamps across and down; more lamps are smaller ones."""

PANEL, RULE, QUIET = (34, 37, 43), (58, 63, 72), (150, 155, 165)
X_COLOUR, Y_COLOUR = LIT, (90, 200, 250)
TO_COME = 0.36
"""How much of its colour a curve has after the cursor."""
AT_REST = 0.05
"""A stick pushed less than this far is drawn at rest."""
SPAN = 150
"""Steps in sight at a time; in a longer dream they move along with the cursor."""
STEPS_A_SECOND = int(TEN_HZ)


@dataclass(frozen=True, slots=True)
class Sight:
    """The steps in sight, [first, last], over the columns from `left` to `right`."""

    first: int
    last: int
    left: float
    right: float

    @classmethod
    def around(cls, step: int, steps: int, left: float, right: float) -> Self:
        """All `steps`, or the `SPAN` of them around `step`."""
        first = max(0, min(step - SPAN // 2, steps - SPAN))
        return cls(first, min(steps, first + SPAN) - 1, left, right)

    def column(self, step: float) -> float:
        """Where `step` is."""
        share = (step - self.first) / max(self.last - self.first, 1)
        return self.left + share * (self.right - self.left)


class Overlay:
    """Draws the steps of a dream one by one, 640 x 360 times `scale`.

    Args:
        actions: float32 [K, A] measured; NaN where not known.
        space: of the actions.
        model: its name, over the dream.
        scale: whole factor, at least 1.
    """

    def __init__(
        self, actions: NDArray[np.float32], space: ActionSpace, model: str, scale: int
    ) -> None:
        self._names = space.names
        self._actions = np.clip(actions / _reach(actions, space), -1.0, 1.0)
        self._lanes, self._lanes_left_out = _lanes(space)
        self._lamps = _LampTable.of(space)
        self._model, self._scale = model, scale

    @property
    def left_out(self) -> tuple[int, int]:
        """Buttons and other dimensions that there is no room for."""
        return self._lamps.left_out, self._lanes_left_out

    def fitted(self, frame: Frames) -> Frames:
        """`frame`, uint8 [h, w, 3], as large as its panel allows, its sides in proportion."""
        height, width = frame.shape[:2]
        factor = min(PICTURE[0] / width, PICTURE[1] / height) * self._scale
        size = max(1, round(width * factor)), max(1, round(height * factor))
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))

    def sheet(self, step: int, truth: Frames | None, dream: Frames) -> Frames:
        """One step, uint8 [360 * scale, 640 * scale, 3].

        Args:
            step: from 0.
            truth: what was recorded at this step, as `fitted` made it; None if nothing was.
            dream: what was dreamt, as `fitted` made it.
        """
        canvas = Canvas(WIDTH, HEIGHT, self._scale, PAPER)
        canvas.text((TRUTH[0], CAPTION_Y), "recorded", INK, size=12)
        canvas.text((DREAM[0], CAPTION_Y), "dreamt", INK, size=12)
        canvas.text((DREAM[2], CAPTION_Y), self._model, QUIET, anchor="rm")
        for box, picture in ((TRUTH, truth), (DREAM, dream)):
            canvas.panel(box, PANEL, radius=0)
            if picture is None:
                canvas.text(_middle(box), "no recording", FAINT, size=13, anchor="mm")
            else:
                canvas.picture(_middle(box), picture)
        for lane, axes in self._lanes:
            self._lane(canvas, lane, axes, step)
        self._time(canvas, step)
        self._buttons(canvas, step)
        return canvas.pixels()

    def _lane(self, canvas: Canvas, lane: Box, axes: tuple[int, ...], step: int) -> None:
        """One dimension over time, or the two of a stick, with a dial of where it is now."""
        left, top, right, bottom = lane
        middle, reach = (top + bottom) / 2, (bottom - top) / 2 - 4
        if len(axes) == 2:
            x, y = (float(value) for value in self._actions[step, list(axes)])
            _dial(canvas, (DIAL_X, middle), x, y, min(DIAL_RADIUS, (bottom - top) / 2))

        canvas.panel(lane, PANEL)
        canvas.line([(left, middle), (right, middle)], RULE, 1)
        sight = Sight.around(step, len(self._actions), left + 6, right - 6)
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

    def _time(self, canvas: Canvas, step: int) -> None:
        """The step over the lanes; under them whole seconds, as many as can be read."""
        left, top, right, _ = LANES
        count = f"step {step + 1} of {len(self._actions)}   {float(step / TEN_HZ):.1f} s"
        canvas.text((right, top - 8), count, QUIET, anchor="rm")
        if not self._lanes:
            return
        _, last, _, bottom = self._lanes[-1][0]
        if self._lanes_left_out:
            more = f"and {self._lanes_left_out} more"
            canvas.text((right, last - 8), more, QUIET, anchor="rm")
        sight = Sight.around(step, len(self._actions), left + 6, right - 6)
        seconds = (sight.last - sight.first) / TEN_HZ
        every = next((n for n in (1, 2, 5) if seconds <= 8 * n), 10)
        first = -(-sight.first // STEPS_A_SECOND)
        for second in range(first, sight.last // STEPS_A_SECOND + 1):
            if second % every == 0:
                at = sight.column(second * STEPS_A_SECOND), bottom + 10
                canvas.text(at, f"{second} s", QUIET, size=10, anchor="mm")

    def _buttons(self, canvas: Canvas, step: int) -> None:
        """The buttons; a lit one is down."""
        left, top = LAMPS
        known = np.isfinite(self._actions[step]).all()
        heading = self._lamps.heading if known else "action not known"
        canvas.text((left, top - 8), heading, QUIET)
        for box, index in self._lamps.boxes:
            name, size = self._lamps.label(self._names[index])
            down = self._actions[step, index] > 0.5
            canvas.panel(box, LIT if down else PANEL, rim=LIT if down else RULE, radius=5)
            canvas.text(_middle(box), name, PAPER if down else QUIET, size=size, anchor="mm")


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
    def of(cls, space: ActionSpace) -> Self:
        """The smallest table that holds the buttons of a space, else as many as fit the largest."""
        buttons = [int(index) for index in space.of_kind("button")]
        fitting = (table for table in LAMP_TABLES if table[0] * table[1] >= len(buttons))
        across, down = next(fitting, LAMP_TABLES[-1])
        smaller = LAMPS_ACROSS / across, LAMP_TABLES[0][1] / down
        lamp, step = ((size[0] * smaller[0], size[1] * smaller[1]) for size in (LAMP, LAMP_STEP))
        boxes = []
        for number, index in enumerate(buttons[: across * down]):
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
        """A button's name as it fits into a lamp, and the size of its letters."""
        short = name.removeprefix("button_").removeprefix("key_")
        size = max(7.0, min(12.0, self.width / (0.6 * len(short))))
        return short[: int(self.width / (0.6 * size))], size


def _lanes(space: ActionSpace) -> tuple[tuple[tuple[Box, tuple[int, ...]], ...], int]:
    """The lanes with the dimensions that each shows, and how many dimensions there is no room for."""
    curves = [int(index) for index in space.of_kind("axis", "trigger", "delta")]
    names = {space.names[index]: index for index in curves}
    groups: list[tuple[int, ...]] = []
    for name, index in names.items():
        stem, end = name[:-2], name[-2:]
        if end == "_x" and f"{stem}_y" in names:
            groups.append((index, names[f"{stem}_y"]))
        elif not (end == "_y" and f"{stem}_x" in names):
            groups.append((index,))
    shown = groups[:MOST_LANES]
    left, first, right, last = LANES
    gap = 20 if len(shown) <= 2 else 16
    height = (last - first + gap) / max(len(shown), 1) - gap
    tops = [first + (height + gap) * number for number in range(len(shown))]
    boxes = [(left, top, right, top + min(height, TALLEST_LANE)) for top in tops]
    return tuple(zip(boxes, shown, strict=True)), len(curves) - sum(map(len, shown))


def _reach(actions: NDArray[np.float32], space: ActionSpace) -> NDArray[np.float32]:
    """The value of each dimension that is drawn as far out as can be, float32 [A].

    That is the end of its range. A delta is summed over a step and may leave its range, and some
    spaces don't know their ranges: of these it is the greatest value in the dream.
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


def _middle(box: Box) -> Point:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _blend(colour: Colour, ground: Colour, share: float) -> Colour:
    """`share` of `colour` over `ground`."""
    red, green, blue = (round(g + share * (c - g)) for c, g in zip(colour, ground, strict=True))
    return red, green, blue
