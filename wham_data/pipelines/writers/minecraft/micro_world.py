"""`micro-world`: what Micro-World's training code reads, videos with captioned clips of 81 frames.

    <split>/video/scene_<n>.mp4                  see `scenes.py` for both
    <split>/metadata-detection/scene_<n>.json
    <split>/video_captions_v0.csv                original video name, start frame index, end frame index,
                                                 prompt, dir

A row of the CSV is a clip: frames start to end of the video, both included, and `dir` is the folder of
the split below the folder of the data. The training code makes of a clip

    pixels      (81, 3, 352, 640)   cut out of the middle; a smaller picture gets black edges
    keyboard    (81, 7)             W S A D Space Shift Ctrl, from ws, ad and scs
    mouse       (81, 2)             pitch_delta and yaw_delta times 15, which are degrees

with rows of zeros for its first frame, because what led to it is outside the clip. It takes the keys
of an entry for up where `collision` is 1 (ws and ad) or `jump_invalid` is 1 (scs).

Source: the class `VideoGameDataset` and the scripts of training in AMD's public Micro-World code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from wham_data.pipelines.readers.minecraft.gf_minecraft import SPACE
from wham_data.pipelines.writers.clips import clip_option, crf_option
from wham_data.pipelines.writers.minecraft.gf_minecraft import write_table
from wham_data.pipelines.writers.minecraft.scenes import (
    LAST_LOST,
    ONE_OF,
    write_scene,
)
from wham_data.pipelines.writers.minecraft.way import taken, way_to
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, one_each
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import Reason
from wham_data.schemas.manifest import SPLITS

CLIPS: Final = "video_captions_v0.csv"
COLUMNS: Final = ("original video name", "start frame index", "end frame index", "prompt", "dir")
CUT_SIZE: Final = (640, 352)


@dataclass(frozen=True, slots=True)
class MicroWorldWriter:
    """Writer of what Micro-World trains on."""

    name: ClassVar[str] = "micro-world"
    about: ClassVar[str] = "Minecraft videos with captioned clips of 81 frames, for Micro-World"
    order: ClassVar[int] = 120
    demands: ClassVar[Demands] = Demands(ended=False, numbered=True)
    clip: int = clip_option(81)
    crf: int = crf_option()

    def space(self, native: ActionSpace) -> ActionSpace:
        """`microworld9`, or `vpt`, from which the keys are taken that the table has."""
        return taken(native, SPACE)

    def check(self, content: Content) -> Sequence[str]:
        """Notes what the table cannot hold, and what the training expects."""
        notes = [
            *way_to(SPACE, content.space).lost,
            ONE_OF,
            LAST_LOST,
            f"a clip has {self.clip} frames; those left over are in the video, but in no clip",
            "collision and jump_invalid are 0 where the corpus does not have them as states",
        ]
        if content.size[0] < CUT_SIZE[0] or content.size[1] < CUT_SIZE[1]:
            width, height = content.size
            notes.append(
                f"pictures are {width}x{height}; the training cuts 640x352 out of the middle and "
                "puts black around smaller ones: ingest with --size 640x352 or 640x360"
            )
        return notes if content.text else [*notes, "the corpus has no texts: captions are empty"]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A video each."""
        return one_each(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one video and its table."""
        (stretch,) = part.stretches
        if stretch.n_steps < self.clip:
            message = f"{stretch.n_steps} frames, and a clip has {self.clip}"
            raise stretch.refuse(Reason.TOO_SHORT, message)
        name = f"scene_{place.episodes}"
        dropped = write_scene(
            stretch, content, folder / part.split, "metadata-detection", name, self.crf
        )
        texts = stretch.texts() or [None] * stretch.n_steps
        starts = range(0, stretch.n_steps - self.clip + 1, self.clip)
        prompts = [prompt_of(texts[start : start + self.clip]) for start in starts]
        return {"clamped": dropped, "scene": name, "prompts": prompts}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write the clips of each split."""
        del content
        for split in SPLITS:
            rows = [
                (f"{each.facts['scene']}.mp4", start, start + self.clip - 1, prompt, split)
                for each in written
                if each.split == split
                for start, prompt in zip(
                    range(0, each.steps[0], self.clip), each.facts["prompts"], strict=False
                )
            ]
            if rows:
                write_table(folder / split / CLIPS, COLUMNS, rows)


def prompt_of(texts: Sequence[str | None]) -> str:
    """The caption of a clip: the text that most of its frames have, "" if none has one."""
    found = Counter(text for text in texts if text is not None)
    return found.most_common(1)[0][0] if found else ""
