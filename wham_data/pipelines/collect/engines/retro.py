"""stable-retro: console games whose ROM is installed; Airstriker is part of the package."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np

from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.recording import Frames, Provenance

AIRSTRIKER: Final = "Airstriker-Genesis-v0"
PAUSES: Final = frozenset(("START", "SELECT", "MODE", "COIN", "RESET"))
PAIRS: Final = (("LEFT", "RIGHT"), ("UP", "DOWN"))


class Retro:
    """One console game: a tic is a frame of the console."""

    rate = Fraction(60)

    def __init__(self, start: Start) -> None:
        import stable_retro

        stable = stable_retro.data.Integrations.STABLE
        known = stable_retro.data.list_games(stable)
        game = next((each for each in known if start.scenario in (each, each.split("-")[0])), None)
        if game is None:
            raise KIND.no_such("game", start.scenario, [AIRSTRIKER, "and those imported"])
        try:
            self._env = stable_retro.make(game, render_mode="rgb_array")
        except FileNotFoundError:
            raise KIND.no_such("ROM of", game, [AIRSTRIKER]) from None
        self._screen = self._env.reset(seed=start.seed)[0]
        height, width = self._screen.shape[:2]
        if start.size not in (None, (width, height)):
            raise KIND.no_such("size", "{}x{}".format(*start.size), [f"{width}x{height}"])
        buttons = [name for name in self._env.buttons if name]
        self.space = ActionSpace(
            name=f"retro_{self._env.system.lower()}",
            dimensions=tuple(Dimension(name, "button", 0, 1) for name in buttons),
            title=f"Buttons of the {self._env.system} pad, as stable-retro names them",
        )
        self.about = Provenance(
            game=game,
            license="Airstriker by Electrokinesis: freely available, non-commercial"
            if game == AIRSTRIKER
            else None,
        )
        paired = [name for pair in PAIRS for name in pair]
        self.fingers = (
            *(
                Finger("-".join(pair).lower(), tuple(Option(name, name) for name in pair))
                for pair in PAIRS
                if set(pair) <= set(buttons)
            ),
            *(
                Finger(name.lower(), (Option(name, name, 1.0, name not in PAUSES),))
                for name in buttons
                if name not in paired
            ),
        )
        self._places = [buttons.index(name) if name else -1 for name in self._env.buttons]

    def screen(self) -> Frames:
        """The picture of the console."""
        screen: Frames = self._screen
        return screen

    def tic(self, action: Action) -> bool:
        """One frame of the console; the game is reset when it is over."""
        pressed = [int(place >= 0 and action[place] > 0.5) for place in self._places]
        self._screen, _, over, cut, _ = self._env.step(np.array(pressed, np.int8))
        if over or cut:
            self._screen = self._env.reset()[0]
            return False
        return True

    def reflex(self) -> Mapping[str, float]:
        """No reflexes."""
        return {}

    def close(self) -> None:
        """End the game."""
        self._env.close()


KIND: Final = EngineKind(
    name="retro",
    about="console games of stable-retro; Airstriker comes with it",
    scenarios=("Airstriker",),
    package="stable_retro",
    extra="retro",
    start=Retro,
)
