"""The `.pt` files that DIAMOND keeps episodes in, of Atari and of Counter-Strike alike.

    obs uint8 (T, 3, H, W) RGB   act (T,) or (T, A)   rew float32 (T,)   end, trunc uint8 (T,)   info

`act[k]`, `rew[k]`, `end[k]` and `trunc[k]` belong to the transition from `obs[k]` to the next. Of
`info` nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.inert_pickle import TensorRecord
from wham_data.files.torch_file import TorchFile, looks_saved_by_torch
from wham_data.pipelines.readers.kit.frame_actions import even_times
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PictureRecording,
    audit_clock,
    check_length,
    check_pixels,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack, FrameData, RefusedFile

TENSORS: Final = ("obs", "act", "rew", "end", "trunc")


def is_episode(content: object, *, action_dimensions: int) -> bool:
    """Whether the content of a `.pt` file is an episode whose `act` has so many dimensions."""
    if not isinstance(content, dict):
        return False
    tensors = [content.get(name) for name in TENSORS]
    if not all(isinstance(tensor, TensorRecord) for tensor in tensors):
        return False
    obs, act = content["obs"], content["act"]
    return (
        len(obs.shape) == 4
        and obs.storage.kind == "ByteStorage"
        and len(act.shape) == action_dimensions
    )


def episodes_among(
    files: tuple[Path, ...], action_dimensions: int
) -> Iterator[tuple[Path, Mapping[str, object]] | RefusedFile]:
    """The files of torch.save that hold an episode, each with its content, or why it is refused.

    Args:
        files: to look at.
        action_dimensions: see `is_episode`.
    """
    for path in filter(looks_saved_by_torch, files):
        try:
            content = TorchFile.open(path).content
        except RefusedInput as why:
            yield RefusedFile(path, why)
            continue
        if isinstance(content, dict) and is_episode(content, action_dimensions=action_dimensions):
            yield path, content


@dataclass(frozen=True, slots=True)
class DiamondEpisode:
    """An episode; its numbers are views of the mapped file.

    times_ns  int64 [T]  when each observation came on screen
    end_ns    when the last one went
    """

    times_ns: Nanos
    end_ns: int
    limits: VideoLimits
    _file: TorchFile
    _content: Mapping[str, object]

    @classmethod
    def open(cls, path: Path, limits: VideoLimits, rate: Fraction) -> DiamondEpisode:
        """Open a file of which `is_episode` is true.

        Raises:
            RefusedInput: it is damaged, too large or too long, or its tensors differ in length.
        """
        file = TorchFile.open(path)
        if not isinstance(file.content, dict):
            raise RefusedInput(Reason.NOT_A_VIDEO, "no episode of obs, act, rew, end and trunc")
        content = file.content
        shapes: dict[str, tuple[int, ...]] = {
            name: getattr(content.get(name), "shape", ()) for name in TENSORS
        }
        obs = shapes["obs"]
        if len(obs) != 4 or obs[1] != 3:
            raise RefusedInput(Reason.NOT_A_VIDEO, f"obs is {obs}, expected (T, 3, H, W)")
        if len({shape[:1] for shape in shapes.values()}) > 1:
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise RefusedInput(Reason.LOG_COVERAGE, f"of different lengths: {told}")
        times_ns, end_ns = even_times(obs[0], rate)
        check_length(obs[0], end_ns, limits)
        check_pixels(obs[3], obs[2], limits)
        return cls(times_ns, end_ns, limits, file, content)

    def array(self, name: str) -> NDArray[Any]:
        """A tensor's numbers."""
        return self._file.array(self._content[name], name)

    def pictures(self, picks: Index) -> Iterator[Picture]:
        """See `kit.open_recordings.Pictures`."""
        obs = self.array("obs")
        if obs.dtype != np.uint8:
            raise RefusedInput(Reason.NOT_A_VIDEO, f"obs is {obs.dtype}, expected uint8")
        for pick in picks.tolist():
            yield obs[pick].transpose(1, 2, 0)

    def opened(self, actions: ActionTrack, notes: tuple[str, ...] = ()) -> PictureRecording:
        """The episode as an open recording."""
        return PictureRecording(
            frame_times_ns=self.times_ns,
            frame_end_ns=self.end_ns,
            clock=audit_clock(self.times_ns),
            data=FrameData(actions=actions, rewards=self.array("rew").astype(np.float32)),
            notes=notes,
            pictures=self.pictures,
            limits=self.limits,
        )
