"""`matrix-game`: clips with the conditions of Matrix-Game's generator.

    <split>/<number>_recorded.mp4               H.264, 65 frames
    <split>/<number>_recorded.conditions.npz    keyboard_condition float32 (65, 6)
                                                mouse_condition float32 (65, 2)

Columns are forward, back, left, right, jump, attack; and pitch, yaw. Row i led to frame i. Row 0 is what
led to the clip's first frame; at rest at the start of an episode, where nothing did. Looking up is
positive, and 0.05 stands for the 5 degrees of one step in the labels of Matrix-Game's benchmark.

Source of names, columns, signs and length: the public code that makes Matrix-Game's conditions for its
benchmark. **Not public** are its training code, its training set and how files lie in it (the project
says that it has no plans to publish them). So the pairs of files are ours, as our reader takes them, and
a training of your own has to read them. Not known are the unit of the mouse in Matrix-Game 2.0 and 3.0,
whose steps are 0.1, and what the last two keys of 3.0 are; 2.0 takes the first four keys only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.pipelines.readers.minecraft.matrix_game import CONDITIONS, CONDITIONS_ENDING
from wham_data.pipelines.video import write_video
from wham_data.pipelines.writers.clips import clip_option, crf_option
from wham_data.pipelines.writers.minecraft.way import taken, way_to
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, cut
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace, load_space

SPACE: Final = load_space("matrixgame8")
USUAL_RATE: Final = Fraction(16)
USUAL_SIZE: Final = (1280, 720)


@dataclass(frozen=True, slots=True)
class MatrixGameWriter:
    """Writer of clips with conditions."""

    name: ClassVar[str] = "matrix-game"
    about: ClassVar[str] = "Minecraft clips of 65 frames with Matrix-Game's conditions"
    order: ClassVar[int] = 130
    demands: ClassVar[Demands] = Demands(ended=False, numbered=True)
    clip: int = clip_option(65, step=4)
    crf: int = crf_option()

    def space(self, native: ActionSpace) -> ActionSpace:
        """`matrixgame8`, or `vpt`, from which the keys are taken that the conditions have."""
        return taken(native, SPACE)

    def check(self, content: Content) -> Sequence[str]:
        """Notes what is lost, and how Matrix-Game's own clips are."""
        notes = [
            *way_to(SPACE, content.space).lost,
            f"episodes are cut into clips of {self.clip} frames, what is left over is not written",
            "Matrix-Game's training code is not public: see docs/formats/matrix-game.md",
        ]
        if (content.rate, content.size) != (USUAL_RATE, USUAL_SIZE):
            width, height = content.size
            notes.append(
                f"clips of {width}x{height} at {content.rate} Hz; those of Matrix-Game's benchmark "
                "are 1280x720 at 16 Hz"
            )
        return notes

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A clip each; `Part.shared` is whether the step before it is known."""
        for whole in stretches:
            for clip in cut([whole], self.clip):
                if clip.n_steps == self.clip:
                    yield Part(clip.name, clip.split, (clip,), shared=clip.start > whole.start)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one clip and its conditions."""
        (clip,) = part.stretches
        rows = np.zeros((clip.n_steps, SPACE.size), np.float32)
        led = replace(clip, start=clip.start - 1) if part.shared else clip
        actions = way_to(SPACE, content.space).apply(led.actions())[:-1]
        rows[len(rows) - len(actions) :] = actions
        keyboard, mouse = np.split(rows, [CONDITIONS["keyboard_condition"]], axis=1)
        path = folder / part.split / f"{place.episodes:04d}_recorded.mp4"
        path.parent.mkdir()
        write_video(path, clip.frames(), content.steady_rate, crf=self.crf, reproducible=True)
        conditions = dict(zip(CONDITIONS, (keyboard, mouse), strict=True))
        np.savez(path.with_suffix(CONDITIONS_ENDING), allow_pickle=False, **conditions)
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Does nothing: no file describes the whole export."""
