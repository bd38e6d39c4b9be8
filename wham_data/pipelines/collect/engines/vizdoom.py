"""VizDoom: the levels of Freedoom, and the scenarios that come with VizDoom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import load_space
from wham_data.schemas.recording import Frames, Provenance

USUAL_SIZE: Final = (640, 360)
NEAR: Final = 14.0
"""Value of the depth buffer (0 to 255) below which a wall is near."""
LOOK_EVERY: Final = 5
"""Tics between two times at which a scripted player examines the screen."""
DEAF_TICS: Final = 14
"""Tics skipped at the start. A level ignores input for 7 tics; VizDoom's own scenarios skip 14."""
ENEMIES: Final = frozenset(("Monster", "Boss", "Enemy"))
TURN, LOOK = "TURN_LEFT_RIGHT_DELTA", "LOOK_UP_DOWN_DELTA"

_LEVEL: Final = re.compile(r"(MAP\d\d|E\dM\d)", re.ASCII)


class VizDoom:
    """One game of Doom. It starts again when the player dies or leaves the level."""

    rate = Fraction(35)
    fingers = (
        Finger("walk", (Option("MOVE_FORWARD", "MOVE_FORWARD"), Option("MOVE_BACKWARD", "MOVE_BACKWARD"))),
        Finger("sidestep", (Option("MOVE_LEFT", "MOVE_LEFT"), Option("MOVE_RIGHT", "MOVE_RIGHT"))),
        Finger("turn", (Option("TURN_LEFT", TURN, -180.0), Option("TURN_RIGHT", TURN, 180.0))),
        Finger("look", (Option("LOOK_DOWN", LOOK, -30.0, False), Option("LOOK_UP", LOOK, 30.0, False))),
        Finger("attack", (Option("ATTACK", "ATTACK"),)),
        Finger("use", (Option("USE", "USE"),)),
        Finger("speed", (Option("SPEED", "SPEED", 1.0, False),)),
        Finger("jump", (Option("JUMP", "JUMP", 1.0, False),)),
        Finger("weapon", (Option("SELECT_NEXT_WEAPON", "SELECT_NEXT_WEAPON", 1.0, False),)),
    )  # fmt: skip

    def __init__(self, start: Start) -> None:
        import vizdoom

        self.space = load_space("vizdoom")
        game = vizdoom.DoomGame()
        scenarios, wads = Path(vizdoom.scenarios_path), Path(vizdoom.__file__).parent
        if _LEVEL.fullmatch(start.scenario):
            wad = "freedoom1" if start.scenario.startswith("E") else "freedoom2"
            game.set_doom_game_path(str(wads / f"{wad}.wad"))
            game.set_doom_map(start.scenario)
            game.set_doom_skill(2)
            game.set_episode_start_time(DEAF_TICS)
        elif (
            config := scenarios / f"{start.scenario}.cfg"
        ).is_file() and config.parent == scenarios:
            wad = "freedoom2"
            game.load_config(str(config))
        else:
            known = sorted(path.stem for path in scenarios.glob("*.cfg"))
            raise KIND.no_such("level", start.scenario, ["MAP01", "...", "E1M1", "...", *known])
        self.about = Provenance(
            game=wad,
            map=start.scenario,
            license="Freedoom levels and art: BSD-3-Clause; VizDoom: MIT",
        )
        width, height = start.size or USUAL_SIZE
        sizes: dict[str, Any] = {
            name.removeprefix("RES_").lower(): size
            for name, size in vizdoom.ScreenResolution.__members__.items()
        }
        if f"{width}x{height}" not in sizes:
            raise KIND.no_such("size", f"{width}x{height}", sizes)
        game.set_screen_resolution(sizes[f"{width}x{height}"])
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_available_buttons([vizdoom.Button.__members__[name] for name in self.space.names])
        for name in (TURN, LOOK):
            game.set_button_max_value(vizdoom.Button.__members__[name], 0)
        game.set_depth_buffer_enabled(start.scripted)
        game.set_labels_buffer_enabled(start.scripted)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_render_hud(True)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_seed(start.seed)
        game.init()
        self._game, self._evading, self._tics = game, 0.0, 0
        self._reflex: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._game.new_episode()
        self._state = self._game.get_state()

    def screen(self) -> Frames:
        """The view with its status bar."""
        screen: Frames = self._state.screen_buffer
        return screen

    def tic(self, action: Action) -> bool:
        """One tic of the engine, a thirty-fifth of a second."""
        self._tics += 1
        self._game.make_action(action.tolist())
        if self._game.is_episode_finished() or self._game.is_player_dead():
            self._begin()
            return False
        self._state = self._game.get_state()
        return True

    def reflex(self) -> Mapping[str, float]:
        """Turn to enemies and fire, turn away from walls, otherwise walk forward."""
        if self._tics % LOOK_EVERY == 0:
            self._reflex = self._look()
        return self._reflex

    def _look(self) -> dict[str, float]:
        depth = self._state.depth_buffer
        middle = depth[depth.shape[0] * 2 // 5 : depth.shape[0] * 3 // 5].astype(np.float32)
        left, ahead, right = (float(np.median(part)) for part in np.array_split(middle, 3, axis=1))
        enemies = [
            label
            for label in self._state.labels
            if label.object_category in ENEMIES and label.width > depth.shape[1] // 80
        ]
        if enemies:
            nearest = max(enemies, key=lambda label: label.height)
            bearing = 2 * (nearest.x + nearest.width / 2) / depth.shape[1] - 1
            return {TURN: 5 * bearing, "MOVE_FORWARD": 0, "ATTACK": float(abs(bearing) < 0.2)}
        if min(left, ahead, right) < NEAR:
            self._evading = self._evading or (4.0 if right >= left else -4.0)
            walks = float(ahead > NEAR)
            return {TURN: self._evading, "MOVE_FORWARD": walks, "MOVE_BACKWARD": 0, "ATTACK": 0}
        self._evading = 0.0
        return {"MOVE_FORWARD": 1, "MOVE_BACKWARD": 0, "ATTACK": 0}

    def close(self) -> None:
        """End the game."""
        self._game.close()


KIND: Final = EngineKind(
    name="vizdoom",
    about="Doom with the levels of Freedoom (MAP01, E1M1) or a scenario of VizDoom (basic)",
    scenarios=("MAP01", "E1M1", "deadly_corridor"),
    package="vizdoom",
    extra="vizdoom",
    start=VizDoom,
    script={"MOVE_BACKWARD": 0.05, "TURN_LEFT": 0.2, "TURN_RIGHT": 0.2, "USE": 0.1},
)
