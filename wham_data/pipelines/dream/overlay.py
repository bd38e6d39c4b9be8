"""The sheet on which a dream is judged: truth left, dream right, the pad below.

Of each stick there is where it is now, and both its axes over time: up to the cursor as they were,
after it faintly as they will be. Each button is a lamp, lit while it is down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wham_data.pipelines.media.canvas import Box, Canvas, Colour, Point
from wham_data.pipelines.media.picture import FAINT, INK, LIT, PAPER
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.recording import Frames

WIDTH, HEIGHT = 640, 360
PICTURE = (300, 180)
TRUTH, DREAM = (13, 26, 313, 206), (327, 26, 627, 206)
CAPTION_Y = 13
STICKS = (("left_x", "left_y"), ("right_x", "right_y"))
LANES: tuple[Box, Box] = ((70, 229, 432, 275), (70, 295, 432, 341))
"""Where the axes of each stick are drawn; the stick itself stands left of its lane."""
DIAL_X, DIAL_RADIUS = 36, 23
NAME_WIDTH = 48
LAMPS, LAMP, LAMP_STEP, LAMPS_ACROSS = (451, 229), (38, 30), (46, 41), 4

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
        actions: float32 [K, 16] measured, in `wham16`; NaN where not known.
        model: its name, over the dream.
        scale: whole factor, at least 1.
    """

    def __init__(self, actions: NDArray[np.float32], model: str, scale: int) -> None:
        names = load_space("wham16").names
        self._actions = np.clip(actions, -1.0, 1.0)
        self._sticks = [tuple(names.index(name) for name in stick) for stick in STICKS]
        self._buttons = {
            name.removeprefix("button_"): index
            for index, name in enumerate(names)
            if name.startswith("button_")
        }
        self._model, self._scale = model, scale

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
        for lane, names, axes in zip(LANES, STICKS, self._sticks, strict=True):
            self._stick(canvas, lane, names, axes, step)
        self._time(canvas, step)
        self._lamps(canvas, step)
        return canvas.pixels()

    def _stick(
        self, canvas: Canvas, lane: Box, names: tuple[str, str], axes: tuple[int, ...], step: int
    ) -> None:
        """A stick now, and its axes over time."""
        left, top, right, bottom = lane
        middle, reach = (top + bottom) / 2, (bottom - top) / 2 - 4
        x, y = (float(value) for value in self._actions[step, list(axes)])
        _dial(canvas, (DIAL_X, middle), x, y)

        canvas.panel(lane, PANEL)
        canvas.line([(left, middle), (right, middle)], RULE, 1)
        sight = Sight.around(step, len(self._actions), left + 6, right - 6)
        now = sight.column(step)
        canvas.line([(now, top), (now, bottom)], QUIET, 1)
        for colour, axis in reversed(tuple(zip((X_COLOUR, Y_COLOUR), axes, strict=True))):
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
        heading = top - 8
        canvas.text((left, heading), names[0], X_COLOUR)
        canvas.text((left + NAME_WIDTH, heading), names[1], Y_COLOUR)

    def _time(self, canvas: Canvas, step: int) -> None:
        """The step over the lanes; under them whole seconds, as many as can be read."""
        left, _, right, bottom = LANES[-1]
        count = f"step {step + 1} of {len(self._actions)}   {float(step / TEN_HZ):.1f} s"
        canvas.text((right, LANES[0][1] - 8), count, QUIET, anchor="rm")
        sight = Sight.around(step, len(self._actions), left + 6, right - 6)
        seconds = (sight.last - sight.first) / TEN_HZ
        every = next((n for n in (1, 2, 5) if seconds <= 8 * n), 10)
        first = -(-sight.first // STEPS_A_SECOND)
        for second in range(first, sight.last // STEPS_A_SECOND + 1):
            if second % every == 0:
                at = sight.column(second * STEPS_A_SECOND), bottom + 10
                canvas.text(at, f"{second} s", QUIET, size=10, anchor="mm")

    def _lamps(self, canvas: Canvas, step: int) -> None:
        """The buttons; a lit one is down."""
        left, top = LAMPS
        known = np.isfinite(self._actions[step]).all()
        canvas.text((left, top - 8), "buttons" if known else "action not known", QUIET)
        for number, (name, index) in enumerate(self._buttons.items()):
            row, column = divmod(number, LAMPS_ACROSS)
            x, y = left + LAMP_STEP[0] * column, top + LAMP_STEP[1] * row
            box = x, y, x + LAMP[0], y + LAMP[1]
            down = self._actions[step, index] > 0.5
            canvas.panel(box, LIT if down else PANEL, rim=LIT if down else RULE, radius=5)
            canvas.text(_middle(box), name, PAPER if down else QUIET, size=12, anchor="mm")


def _dial(canvas: Canvas, centre: Point, x: float, y: float) -> None:
    """A stick seen from above; +y is up."""
    canvas.disc(centre, DIAL_RADIUS, PANEL, ring=RULE)
    if not (np.isfinite(x) and np.isfinite(y)):
        return
    push = (DIAL_RADIUS - 6) / max(1.0, np.hypot(x, y))
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
