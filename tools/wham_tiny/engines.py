"""Games that run without a person; each engine maps the virtual pad to its own controls."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from pad import Pad


@dataclass(frozen=True)
class Sight:
    """What a scripted player sees of the game.

    left, ahead, right   free distance in a third of the view; below 14 a wall is near
    enemy                bearing of the nearest enemy, -1 (left edge) to 1 (right edge), or None
    """

    left: float
    ahead: float
    right: float
    enemy: float | None = None


class Engine(Protocol):
    """One running game. `rate` is its tics per second, and so the video's frames per second."""

    rate: Fraction
    game: str
    license: str

    def screen(self) -> np.ndarray:
        """The picture on screen, uint8 [H, W, 3]."""

    def sight(self) -> Sight | None:
        """The information for a scripted player; None if the engine gives none."""

    def tic(self, pad: Pad) -> None:
        """Play one tic with this state of the pad. A game that ends starts again."""

    def close(self) -> None:
        """End the game."""


class Doom:
    """VizDoom with the Freedoom levels, 640x360; `place` is a map, E1M1 or MAP01.

    Left stick: move. Right stick: turn. Right trigger: fire. a: use. y: next weapon.
    """

    rate = Fraction(35)
    license = "Freedoom levels and art: BSD-3-Clause; VizDoom: MIT"

    def __init__(self, place: str, seed: int) -> None:
        import vizdoom as vzd

        self.game = "freedoom1" if place.startswith("E") else "freedoom2"
        game = vzd.DoomGame()
        game.set_doom_game_path(str(Path(vzd.__file__).parent / f"{self.game}.wad"))
        game.set_doom_map(place)
        game.set_doom_skill(2)
        game.set_screen_resolution(vzd.ScreenResolution.RES_640X360)
        game.set_screen_format(vzd.ScreenFormat.RGB24)
        game.set_depth_buffer_enabled(True)
        game.set_labels_buffer_enabled(True)
        game.set_window_visible(False)
        game.set_render_hud(True)
        game.set_render_crosshair(True)
        game.set_mode(vzd.Mode.PLAYER)
        game.set_seed(seed)
        button = vzd.Button
        game.set_available_buttons(
            [
                button.MOVE_FORWARD_BACKWARD_DELTA,
                button.MOVE_LEFT_RIGHT_DELTA,
                button.TURN_LEFT_RIGHT_DELTA,
                button.ATTACK,
                button.USE,
                button.SELECT_NEXT_WEAPON,
            ]
        )
        game.init()
        game.send_game_command("give all")
        self._game = game
        self._restart()

    def _restart(self) -> None:
        self._game.new_episode()
        self._game.send_game_command("give weapons")
        self._game.send_game_command("give ammo")
        self._state = self._game.get_state()

    def screen(self) -> np.ndarray:
        """The whole screen with its status bar."""
        return self._state.screen_buffer

    def sight(self) -> Sight:
        """From the depth buffer around the horizon, and the labels of monsters."""
        depth = self._state.depth_buffer[150:200].astype(np.float32)
        left, ahead, right = (float(np.median(part)) for part in np.array_split(depth, 3, axis=1))
        living = [
            label
            for label in self._state.labels
            if label.object_category in ("Monster", "Boss", "Enemy") and label.width > 8
        ]
        if not living:
            return Sight(left, ahead, right)
        nearest = max(living, key=lambda label: label.height)
        return Sight(left, ahead, right, (nearest.x + nearest.width / 2) / 320 - 1)

    def tic(self, pad: Pad) -> None:
        """Play one tic; the level starts again when the player dies or leaves it."""
        fire = float(pad["right_trigger"] > 0.5)
        self._game.make_action(
            [24 * pad["left_y"], 20 * pad["left_x"], 6 * pad["right_x"], fire, pad["a"], pad["y"]]
        )
        if self._game.is_episode_finished() or self._game.is_player_dead():
            self._restart()
        else:
            self._state = self._game.get_state()

    def close(self) -> None:
        """End the game."""
        self._game.close()


class Procgen:
    """A Procgen game, the middle 512x308 of its screen; `place` is game/first level of ten.

    Left stick: the direction keys. a: up (jump). Right trigger: fire.
    """

    rate = Fraction(15)
    license = "Procgen and its assets: MIT"

    def __init__(self, place: str, seed: int) -> None:
        from procgen import ProcgenGym3Env

        self.game, first_level = place.split("/")
        self._env = ProcgenGym3Env(
            num=1,
            env_name=self.game,
            start_level=int(first_level),
            num_levels=10,
            render_mode="rgb_array",
            rand_seed=seed,
        )
        self._number = {frozenset(keys): i for i, keys in enumerate(self._env.get_combos())}

    def screen(self) -> np.ndarray:
        """The middle of the screen, so that a 5:3 picture is not squeezed."""
        return np.ascontiguousarray(self._env.get_info()[0]["rgb"][102:410])

    def sight(self) -> None:
        """Nothing to steer by."""
        return

    def tic(self, pad: Pad) -> None:
        """One tic; the next of the ten levels begins when one ends."""
        keys = set()
        if abs(pad["left_x"]) > 0.4:
            keys.add("RIGHT" if pad["left_x"] > 0 else "LEFT")
        if pad["a"] or pad["left_y"] > 0.4:
            keys.add("UP")
        elif pad["left_y"] < -0.4:
            keys.add("DOWN")
        if pad["right_trigger"] > 0.5:  # the game has no action for moving and firing at once
            keys = {"D"}
        self._env.act(np.array([self._number[frozenset(keys)]]))

    def close(self) -> None:
        """End the game."""
        self._env.close()


class Airstriker:
    """Airstriker, the Genesis game that stable-retro carries, 320x224; it has one place.

    Left stick: the direction pad. a or right trigger: fire.
    """

    rate = Fraction(60)
    game = "airstriker"
    license = "Airstriker by Electrokinesis: freely available, non-commercial"

    def __init__(self, place: str, seed: int) -> None:
        import stable_retro

        del place
        self._env = stable_retro.make("Airstriker-Genesis-v0", render_mode="rgb_array")
        self._screen = self._env.reset(seed=seed)[0]

    def screen(self) -> np.ndarray:
        """The console's picture."""
        return self._screen

    def sight(self) -> None:
        """Nothing to steer by."""
        return

    def tic(self, pad: Pad) -> None:
        """Play one tic; the game starts again when it is over."""
        held = {
            "B": pad["a"] or pad["right_trigger"] > 0.5,
            "LEFT": pad["left_x"] < -0.4,
            "RIGHT": pad["left_x"] > 0.4,
            "UP": pad["left_y"] > 0.4,
            "DOWN": pad["left_y"] < -0.4,
        }
        pressed = [int(held.get(button, False)) for button in self._env.buttons]
        self._screen, _, terminated, truncated, _ = self._env.step(pressed)
        if terminated or truncated:
            self._screen = self._env.reset()[0]

    def close(self) -> None:
        """End the game."""
        self._env.close()


class MiniWorld:
    """A MiniWorld scene, 480x288; `place` is its name. Needs a display (xvfb-run will do).

    Left stick: move. Right stick: turn.
    """

    rate = Fraction(60)
    license = "MiniWorld and its textures: Apache-2.0"
    game = "miniworld"

    _TICS_PER_ROOM = 900

    def __init__(self, place: str, seed: int) -> None:
        import gymnasium
        import miniworld  # noqa: F401  (registers the scenes)

        self._env = gymnasium.make(f"MiniWorld-{place}-v0", obs_width=480, obs_height=288).unwrapped
        self._env.reset(seed=seed)
        self._tics = 0
        self._look()

    def _look(self) -> None:
        self._screen = np.ascontiguousarray(self._env.render_obs())

    def screen(self) -> np.ndarray:
        """The view of the agent."""
        return self._screen

    def sight(self) -> Sight:
        """From the depth buffer around the horizon."""
        depth = self._env.render_depth()[130:170, :, 0]
        return Sight(*(12 * float(np.median(part)) for part in np.array_split(depth, 3, axis=1)))

    def tic(self, pad: Pad) -> None:
        """Play one tic; every 15 s a new scene is generated."""
        self._env.turn_agent(-2.5 * pad["right_x"])
        self._env.move_agent(0.05 * pad["left_y"], 0.035 * pad["left_x"])
        self._tics += 1
        if self._tics % self._TICS_PER_ROOM == 0:
            self._env.reset()
        self._look()

    def close(self) -> None:
        """End the scene."""
        self._env.close()


ENGINES = {"doom": Doom, "procgen": Procgen, "airstriker": Airstriker, "miniworld": MiniWorld}
