"""`diamond-atari`: episodes as DIAMOND's Atari collector saves them, one `.pt` file each.

    <folder>/{000,100..900}/{00,10..90}/{0..9}/<id>.pt    obs, act, rew, end, trunc, info

`act[k]` was taken on `obs[k]`: it acts after it, and `rew[k]` is what it earned. Frames come 15 times
a second, each fourth one of a 60 Hz emulator. An action is a number into the game's own list of
actions, and no file says which game it is: so actions are those of the space `discrete18`, unless
the option `action_names` gives the list; then they are those of `atari18`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.pipelines.readers.diamond_episode import DiamondEpisode, episodes_among
from wham_data.pipelines.readers.kit.frame_actions import one_hot, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import PictureRecording
from wham_data.pipelines.readers.kit.options import names_option, rate_option
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import Recording, RefusedFile

ATARI_ACTIONS: Final = (
    "NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT",
    "UPFIRE", "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE",
    "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DiamondAtari:
    """Reader of DIAMOND's Atari episodes."""

    name: ClassVar[str] = "diamond-atari"
    about: ClassVar[str] = "DIAMOND's Atari episodes, a .pt file each"
    order: ClassVar[int] = 30
    frame_rate: Fraction = rate_option("15", about="frames per second")
    action_names: tuple[str, ...] = names_option(
        about="the game's actions in order, as ALE's get_action_meanings() names them",
        allowed=ATARI_ACTIONS,
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every file of torch.save with the members of an episode and one number per action."""
        for found in episodes_among(files, action_dimensions=1):
            if isinstance(found, RefusedFile):
                yield found
                continue
            path, _ = found
            yield Recording(path=path, files=(path,), format=self.name)

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read everything but the pictures."""
        episode = DiamondEpisode.open(recording.path, limits, self.frame_rate)
        space, places = self._space()
        codes = episode.array("act")
        if codes.dtype.kind not in "iu":
            raise RefusedInput(Reason.LOG_TYPE, f"act is {codes.dtype}, expected whole numbers")
        if len(wrong := codes[(codes < 0) | (codes >= len(places))]):
            raise RefusedInput(
                Reason.LOG_RANGE, f"action {wrong[0]}, expected 0 to {len(places) - 1}"
            )
        values = one_hot(places[codes], space.size)
        track = per_frame_track(space, episode.times_ns, episode.end_ns, values)
        return episode.opened(track)

    def _space(self) -> tuple[ActionSpace, Index]:
        """The action space, and the position in it of each action of the game, int64."""
        if not self.action_names:
            return load_space("discrete18"), np.arange(18)
        space = load_space("atari18")
        return space, np.array([space.index(name) for name in self.action_names], np.int64)
