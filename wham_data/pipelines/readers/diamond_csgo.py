"""`diamond-csgo`: the Counter-Strike episodes that DIAMOND trains its world model on, one `.pt` each.

    low_res/{train,test}/{000,100..}/{00,10..90}/{0..9}/<id>.pt    obs (T, 3, 30, 56), act (T, 51), ...

They are Pearce and Zhu's recordings (see `csgo_hdf5`), made smaller: 16 frames a second, `act[k]`
acts after `obs[k]`. `info` names the `.hdf5` file an episode was made from. That name is its match,
so that both forms of one recording fall into one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np

from wham_data.pipelines.readers.csgo_hdf5 import provenance_of
from wham_data.pipelines.readers.diamond_episode import DiamondEpisode, episodes_among
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import PictureRecording
from wham_data.pipelines.readers.kit.options import rate_option
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.recording import Recording, RefusedFile


@dataclass(frozen=True, slots=True)
class DiamondCsgo:
    """Reader of DIAMOND's Counter-Strike episodes."""

    name: ClassVar[str] = "diamond-csgo"
    about: ClassVar[str] = "DIAMOND's Counter-Strike episodes, a .pt file each"
    order: ClassVar[int] = 40
    frame_rate: Fraction = rate_option("16", about="frames per second")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every file of torch.save with the members of an episode and a row of numbers per action."""
        for found in episodes_among(files, action_dimensions=2):
            if isinstance(found, RefusedFile):
                yield found
                continue
            path, content = found
            yield Recording(
                path=path,
                files=(path,),
                format=self.name,
                provenance=provenance_of(_made_from(content.get("info"))),
            )

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read everything but the pictures."""
        episode = DiamondEpisode.open(recording.path, limits, self.frame_rate)
        values = episode.array("act").astype(np.float64)
        space = load_space("csgo51")
        track = per_frame_track(space, episode.times_ns, episode.end_ns, values)
        return episode.opened(track)


def _made_from(info: object) -> str:
    """Stem of the `.hdf5` file that an episode was made from; "" where its `info` names none."""
    name = info.get("original_file_id") if isinstance(info, dict) else None
    return Path(name).stem if isinstance(name, str) else ""
