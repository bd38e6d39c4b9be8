"""MiniWorld: rooms and mazes in first person. Needs a display; use `xvfb-run` without one."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np

from wham_data.pipelines.collect.engine import Action, EngineKind, Finger, Option, Start
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.recording import Frames, Provenance

USUAL_SIZE: Final = (480, 288)
NEAR: Final = 1.2
STRIDE: Final = 0.05
"""Metres per tic."""
TICS_PER_ROOM: Final = 3600


class MiniWorld:
    """One scene. It gets a new layout every minute."""

    rate = Fraction(60)
    space = ActionSpace(
        name="miniworld",
        dimensions=(
            *(
                Dimension(name, "button", 0, 1)
                for name in ("move_forward", "move_back", "move_left", "move_right")
            ),
            Dimension("turn", "delta", -180, 180, "degree", "right"),
        ),
        title="Four steps, and turning",
    )
    fingers = (
        Finger("walk", (Option("move_forward", "move_forward"), Option("move_back", "move_back"))),
        Finger("sidestep", (Option("move_left", "move_left"), Option("move_right", "move_right"))),
        Finger("turn", (Option("turn_left", "turn", -120.0), Option("turn_right", "turn", 120.0))),
    )

    def __init__(self, start: Start) -> None:
        import gymnasium
        import miniworld  # noqa: F401  (registers the scenes)

        width, height = start.size or USUAL_SIZE
        scenes = [name for name in gymnasium.registry if name.startswith("MiniWorld-")]
        known = [name.removeprefix("MiniWorld-").rpartition("-")[0] for name in scenes]
        if start.scenario not in known:
            raise KIND.no_such("scene", start.scenario, known)
        self.about = Provenance(
            game="miniworld",
            map=start.scenario,
            license="MiniWorld and its textures: Apache-2.0",
        )
        env = gymnasium.make(
            scenes[known.index(start.scenario)], obs_width=width, obs_height=height
        )
        self._env = env.unwrapped
        self._env.reset(seed=start.seed)
        self._tics = 0

    def screen(self) -> Frames:
        """The view of the agent."""
        return np.ascontiguousarray(self._env.render_obs())

    def tic(self, action: Action) -> bool:
        """One sixtieth of a second."""
        forward, back, left, right, turn = action.tolist()
        self._env.turn_agent(-turn)
        self._env.move_agent(STRIDE * (forward - back), STRIDE * (right - left))
        self._tics += 1
        if self._tics % TICS_PER_ROOM == 0:
            self._env.reset()
            return False
        return True

    def reflex(self) -> Mapping[str, float]:
        """Turn away from walls, and walk forward."""
        depth = self._env.render_depth()
        middle = depth[depth.shape[0] * 9 // 20 : depth.shape[0] * 3 // 5, :, 0]
        left, ahead, right = (float(np.median(part)) for part in np.array_split(middle, 3, axis=1))
        if min(left, ahead, right) < NEAR:
            turn = 2.0 if right >= left else -2.0
            return {"turn": turn, "move_forward": float(ahead > NEAR), "move_back": 0}
        return {"move_forward": 1, "move_back": 0}

    def close(self) -> None:
        """End the scene."""
        self._env.close()


KIND: Final = EngineKind(
    name="miniworld",
    about="rooms and mazes of MiniWorld seen from within: Maze, FourRooms, ...; needs a display",
    scenarios=("Maze", "FourRooms"),
    package="miniworld",
    extra="miniworld",
    start=MiniWorld,
    script={"turn_left": 0.2, "turn_right": 0.2},
)
