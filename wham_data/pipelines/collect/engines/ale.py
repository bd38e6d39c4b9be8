"""The Arcade Learning Environment: games of the Atari 2600."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np

from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import load_space
from wham_data.schemas.recording import Frames, Provenance


class Ale:
    """One Atari game: a tic is a frame of the console."""

    rate = Fraction(60)

    def __init__(self, start: Start) -> None:
        from ale_py import ALEInterface, LoggerMode, roms

        known = sorted(roms.get_all_rom_ids())
        rom = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", start.scenario).lower()
        if rom not in known:
            raise KIND.no_such("game", start.scenario, known)
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale = ALEInterface()
        self._ale.setInt("random_seed", start.seed)
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.loadROM(str(roms.get_rom_path(rom)))
        height, width = self._ale.getScreenDims()
        if start.size not in (None, (width, height)):
            raise KIND.no_such("size", "{}x{}".format(*start.size), [f"{width}x{height}"])
        self.space = load_space("atari18")
        self.about = Provenance(game=start.scenario, license="Atari ROM as ale-py ships it")
        actions = {action.name: action for action in self._ale.getMinimalActionSet()}
        self._actions = [actions.get(name) for name in self.space.names]
        options = tuple(Option(name, name) for name in self.space.names if name in actions)
        self.fingers = (Finger("joystick", options, rests=False),)

    def screen(self) -> Frames:
        """The picture of the console."""
        screen: Frames = self._ale.getScreenRGB()
        return screen

    def tic(self, action: Action) -> bool:
        """One frame of the console; the game is reset when it is over."""
        self._ale.act(self._actions[int(np.argmax(action))])
        if self._ale.game_over():
            self._ale.reset_game()
            return False
        return True

    def reflex(self) -> Mapping[str, float]:
        """No reflexes."""
        return {}

    def close(self) -> None:
        """Does nothing."""


KIND: Final = EngineKind(
    name="ale",
    about="games of the Atari 2600: breakout, ms_pacman, ...",
    scenarios=("breakout", "ms_pacman"),
    package="ale_py",
    extra="ale",
    start=Ale,
)
