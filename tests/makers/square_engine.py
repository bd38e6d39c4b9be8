"""A small game for tests of `collect`: a square that walks and turns, with its tics drawn on screen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction

from makers.video_clips import stamped
from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.errors import UsageError
from wham_data.schemas.recording import Frames, Provenance

SIZE = (192, 112)


class Square:
    """Scenarios: plain; ends (every 40 tics); crashes, or raises, if its seed is odd."""

    rate = Fraction(35)
    space = ActionSpace(
        "square",
        (
            *(Dimension(name, "button", 0, 1) for name in ("left", "right", "fire", "wave")),
            Dimension("turn", "delta", -90, 90, "degree", "right"),
        ),
    )
    fingers = (
        Finger("walk", (Option("left", "left"), Option("right", "right"))),
        Finger("fire", (Option("fire", "fire"),)),
        Finger("wave", (Option("wave", "wave", 1.0, False),)),
        Finger("turn", (Option("turn_left", "turn", -70.0), Option("turn_right", "turn", 70.0))),
    )
    about = Provenance(game="square", map="plain", license="CC0-1.0")

    def __init__(self, start: Start) -> None:
        if start.scenario not in ("plain", "ends", "crashes", "raises"):
            raise UsageError(f"square: no scenario {start.scenario!r}")
        self._start, self._tics, self.x = start, 0, 0.0

    def screen(self) -> Frames:
        """The number of the tic, and the square."""
        frame = stamped(self._tics, *SIZE)
        at = round(self.x) % (SIZE[0] - 8)
        frame[-16:-8, at : at + 8] = (0, 255, 0)
        return frame

    def tic(self, action: Action) -> bool:
        """Walk."""
        self._tics += 1
        self.x += float(action[1] - action[0])
        odd = self._start.seed % 2
        if odd and self._tics == 20 and self._start.scenario == "crashes":
            print("out of marbles", flush=True)
            os._exit(7)
        if odd and self._tics == 20 and self._start.scenario == "raises":
            raise ValueError("no more tics")
        return self._start.scenario != "ends" or self._tics % 40 != 0

    def reflex(self) -> Mapping[str, float]:
        """Fire whenever it stands left of the middle."""
        return {"fire": float(self.x < 0)}

    def close(self) -> None:
        """Nothing."""


SQUARE = EngineKind("square", "for tests", ("plain",), "numpy", "square", Square, {"right": 0.6})
MISSING = EngineKind("gone", "for tests", ("any",), "no_such_engine", "gone", Square)
