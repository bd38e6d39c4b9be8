"""Random and scripted players of the virtual pad, which move the controls like human hands."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from engines import Engine, Sight
from pad import DIMENSIONS, Pad

STICK = [-1.0, -0.5, 0.0, 0.5, 1.0]
PRESS = [0.0, 1.0]
NEAR_WALL = 14.0
LOOK_EVERY = 5
"""Tics between two queries of the game's state."""


class Finger:
    """One control: it holds a random value for 0.1 to 1.5 s and then moves to the next value."""

    def __init__(
        self,
        random_source: random.Random,
        rate: Fraction,
        choices: list[float],
        weights: list[float],
        travel_s: float = 0.12,
    ) -> None:
        self._dice, self._rate = random_source, float(rate)
        self._choices, self._weights = choices, weights
        self._step = 1 / max(1.0, travel_s * self._rate)
        self._aim = self._value = 0.0
        self._tics_left = 0

    def held(self) -> float:
        """The value at this tic; the target is chosen at random."""
        if self._tics_left <= 0:
            self._aim = self._dice.choices(self._choices, self._weights)[0]
            self._tics_left = round(self._dice.uniform(0.1, 1.5) * self._rate)
        self._tics_left -= 1
        return self.towards(self._aim)

    def towards(self, aim: float) -> float:
        """The value at this tic on the way to `aim`; it changes by at most one step per tic."""
        self._value += float(np.clip(aim - self._value, -self._step, self._step))
        return self._value


def play(policy: str, engine: Engine, seed: int) -> Iterator[Pad]:
    """Yield the state of the pad for each tic.

    Args:
        policy: "random" uses random controls; "forward" prefers moving right and jumping; "wander"
            walks forward, turns away from walls, and turns to enemies and fires.
        engine: the running game.
        seed: seed of the player.
    """
    random_source, rate = random.Random(seed), engine.rate
    wander, forward = policy == "wander", policy == "forward"
    left_x = Finger(random_source, rate, STICK, [1, 1, 3, 3, 8] if forward else [2, 1, 5, 1, 2])
    left_y = Finger(random_source, rate, STICK, [1, 1, 2, 3, 7] if wander else [2, 1, 4, 1, 3])
    right_x = Finger(
        random_source, rate, STICK, [1, 2, 14, 2, 1] if wander else [2, 3, 6, 3, 2], 0.25
    )
    trigger = Finger(random_source, rate, PRESS, [4, 1 if policy == "random" else 2], 0.05)
    jump = Finger(random_source, rate, PRESS, [3, 2 if forward else 1], 0.0)
    use = Finger(random_source, rate, PRESS, [12, 1], 0.0)
    swap = Finger(random_source, rate, PRESS, [30, 1], 0.0)
    sight: Sight | None = None
    evasion = 0.0
    tic = 0
    while True:
        if wander and tic % LOOK_EVERY == 0:
            sight = engine.sight()
        pad = dict.fromkeys(DIMENSIONS, 0.0)
        pad["left_x"] = left_x.held() * (0.4 if wander else 1)
        pad["a"], pad["y"] = jump.held(), swap.held()
        if sight is not None:
            pad["a"] = use.held()
        if sight is not None and sight.enemy is not None:
            pad["right_x"] = right_x.towards(0.9 * sight.enemy)
            pad["left_y"] = left_y.towards(0.3)
            pad["right_trigger"] = trigger.towards(float(abs(sight.enemy) < 0.2))
        elif sight is not None and min(sight.ahead, sight.left, sight.right) < NEAR_WALL:
            evasion = evasion or (0.9 if sight.right >= sight.left else -0.9)
            pad["right_x"] = right_x.towards(evasion)
            pad["left_y"] = left_y.towards(1.0 if sight.ahead > NEAR_WALL else 0.1)
        else:
            evasion = 0.0
            pad["right_x"], pad["left_y"] = right_x.held(), left_y.held()
            pad["right_trigger"] = trigger.held()
        tic += 1
        yield {name: round(value * 127) / 127 for name, value in pad.items()}
