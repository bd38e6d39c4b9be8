"""Procgen: sixteen games with levels generated from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np

from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import load_space
from wham_data.schemas.recording import Frames, Provenance

SIZES: Final = ((512, 512), (64, 64))
GAMES: Final = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
MOVES_ONLY: Final = frozenset(
    ("chaser", "climber", "coinrun", "fruitbot", "heist", "jumper", "leaper", "maze", "miner")
)
"""Games in which the six actions after the nine directions do nothing."""
DIRECTIONS: Final = 9
LEVELS: Final = 1000
"""Number of levels for each seed; no level belongs to two seeds."""


class Procgen:
    """One game of Procgen, one level after another."""

    rate = Fraction(15)

    def __init__(self, start: Start) -> None:
        if start.scenario not in GAMES:
            raise KIND.no_such("game", start.scenario, GAMES)
        size = start.size or SIZES[0]
        if size not in SIZES:
            raise KIND.no_such("size", f"{size[0]}x{size[1]}", [f"{w}x{h}" for w, h in SIZES])
        from procgen import ProcgenGym3Env

        self.space = load_space("procgen15")
        self.about = Provenance(
            game=start.scenario,
            map=f"levels {start.seed * LEVELS} to {start.seed * LEVELS + LEVELS - 1}",
            license="Procgen and its assets: MIT",
        )
        count = DIRECTIONS if start.scenario in MOVES_ONLY else self.space.size
        names = self.space.names
        options = tuple(Option(name, name, 1.0, i < count) for i, name in enumerate(names))
        self.fingers = (Finger("keys", options, rests=False),)
        self._full = size == SIZES[0]
        self._env = ProcgenGym3Env(
            num=1,
            env_name=start.scenario,
            start_level=start.seed * LEVELS,
            num_levels=LEVELS,
            rand_seed=start.seed,
            **({"render_mode": "rgb_array"} if self._full else {}),
        )

    def screen(self) -> Frames:
        """The large picture for people, or the small picture for agents."""
        picture: Frames = (
            self._env.get_info()[0]["rgb"] if self._full else self._env.observe()[1]["rgb"][0]
        )
        return picture

    def tic(self, action: Action) -> bool:
        """One step of the game; the next level begins when one ends."""
        self._env.act(np.array([int(action.argmax())]))
        return not bool(self._env.observe()[2][0])

    def reflex(self) -> Mapping[str, float]:
        """No reflexes: the shares of the script are enough."""
        return {}

    def close(self) -> None:
        """End the game."""
        self._env.close()


KIND: Final = EngineKind(
    name="procgen",
    about="sixteen games with levels drawn from a seed: coinrun, starpilot, ...",
    scenarios=("coinrun", "starpilot"),
    package="procgen",
    extra="procgen",
    start=Procgen,
    script={"RIGHT": 0.35, "RIGHT_UP": 0.35, "NOOP": 0.02, "LEFT": 0.05},
)
