"""DeepMind Lab2D: grid worlds for several players; the picture shows the whole world."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.recording import Frames, Provenance

MOVES: Final = ("forward", "backward", "left", "right")
"""The meaning of the engine's `move`: 1 is the first, 2 the second, ..."""
TURNS: Final = ("turn_left", "turn_right")


class Lab2d:
    """One level; all its players are played. The engine has no clock: a tic is 0.1 s."""

    rate = Fraction(10)

    def __init__(self, start: Start) -> None:
        import dmlab2d
        from dmlab2d import runfiles_helper

        level, _, players = start.scenario.partition("/")
        root = runfiles_helper.find()
        folder = Path(root, "dmlab2d/lib/game_scripts/levels")
        known = sorted(each.name for each in folder.iterdir() if (each / "init.lua").is_file())
        if level not in known or (players and not players.isdecimal()):
            raise KIND.no_such("level", start.scenario, [*known, f"{known[0]}/2 for two players"])
        settings = {"levelName": level} | ({"numPlayers": players} if players else {})
        lab = dmlab2d.Lab2d(root, settings)
        self._env = dmlab2d.Environment(lab, ["WORLD.RGB"], seed=start.seed)
        self._screen = self._env.reset().observation["WORLD.RGB"]
        height, width = self._screen.shape[:2]
        if start.size not in (None, (width, height)):
            raise KIND.no_such("size", "{}x{}".format(*start.size), [f"{width}x{height}"])
        self.fingers = tuple(
            Finger(name, tuple(Option(each, each) for each in _options(name)))
            for name in self._env.action_spec()
        )
        options = [option.name for finger in self.fingers for option in finger.options]
        self.space = ActionSpace(
            name=f"dmlab2d_{level}{players}",
            dimensions=tuple(Dimension(name, "button", 0, 1) for name in options),
            title=f"What the players of DeepMind Lab2D's {level} do",
        )
        self.about = Provenance(game=f"dmlab2d {level}", license="DeepMind Lab2D: Apache-2.0")

    def screen(self) -> Frames:
        """The picture of the whole world."""
        screen: Frames = self._screen
        return screen

    def tic(self, action: Action) -> bool:
        """One step of the world; the level starts again when it ends."""
        held = dict(zip(self.space.names, action.tolist(), strict=True))
        moves: dict[str, Any] = {}
        for finger in self.fingers:
            pressed = [held[option.name] > 0.5 for option in finger.options]
            number = 1 + pressed.index(True) if any(pressed) else 0
            moves[finger.name] = np.int32((0, -1, 1)[number] if _is_turn(finger.name) else number)
        step = self._env.step(moves)
        over = bool(step.last())
        if over:
            step = self._env.reset()
        self._screen = step.observation["WORLD.RGB"]
        return not over

    def reflex(self) -> Mapping[str, float]:
        """No reflexes."""
        return {}

    def close(self) -> None:
        """End the game."""
        self._env.close()


def _is_turn(name: str) -> bool:
    return name.endswith(".turn")


def _options(name: str) -> list[str]:
    """The options for one of the engine's actions: for `1.move` p1.forward, p1.backward, ..."""
    player, _, what = name.rpartition(".")
    parts = MOVES if what.lower() == "move" else TURNS if what == "turn" else (what,)
    return [f"p{player}.{part}" if player else part for part in parts]


KIND: Final = EngineKind(
    name="dmlab2d",
    about="grid worlds of DeepMind Lab2D for one player or several: running_with_scissors/2",
    scenarios=("running_with_scissors/2", "clean_up/3"),
    package="dmlab2d",
    extra="dmlab2d",
    start=Lab2d,
)
