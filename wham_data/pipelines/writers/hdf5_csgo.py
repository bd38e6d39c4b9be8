"""`hdf5-csgo`: the layout of Pearce and Zhu's recordings of Counter-Strike, which DIAMOND reads too.

    <split>/hdf5_<episode>_<first step>.hdf5    frame_<i>_x uint8 (H, W, 3) BGR   frame_<i>_y float64 (51,)
    test_split.txt                              names of the files of the test split, as DIAMOND lists them

A file has 1000 frames, of which both programs are certain; an episode's last may have fewer. A file
that was read from this layout keeps its name, and gets its `frame_<i>_xaux` and `frame_<i>_helperarr` back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.files.hdf5 import created_hdf5
from wham_data.pipelines.readers.csgo_hdf5 import GAME_MEMORY
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, cut, one_each
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace, load_space

CSGO: Final = load_space("csgo51")
FILE_FRAMES: Final = 1000
USUAL_RATE: Final = Fraction(16)
_OWN_NAME: Final = re.compile(r"hdf5_[A-Za-z0-9_.-]{1,80}_\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hdf5CsgoWriter:
    """Writer of Pearce and Zhu's files."""

    name: ClassVar[str] = "hdf5-csgo"
    about: ClassVar[str] = "Counter-Strike as Pearce and Zhu keep it, an .hdf5 file per 1000 frames"
    order: ClassVar[int] = 30
    demands: ClassVar[Demands] = Demands()
    short: str = choice("keep", "drop", about="files of fewer than 1000 frames; DIAMOND reads none")

    def space(self, native: ActionSpace) -> ActionSpace:
        """Always `csgo51`."""
        del native
        return CSGO

    def check(self, content: Content) -> Sequence[str]:
        """The files don't tell their rate."""
        notes = []
        if content.rate != USUAL_RATE:
            notes.append(
                f"steps are {content.rate} a second where the originals have 16, and the files "
                f"don't say: read them with --option frame_rate={content.rate}"
            )
        return notes

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A file each."""
        for part in one_each(cut(stretches, FILE_FRAMES)):
            if self.short == "keep" or part.n_steps == FILE_FRAMES:
                yield part

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one file, frame after frame."""
        del place
        (stretch,) = part.stretches
        actions = stretch.actions().astype(np.float64)
        states = stretch.states()
        told = states is not None and stretch.row.format == "csgo-hdf5"
        path = folder / file_id(stretch)
        path.parent.mkdir()
        with created_hdf5(path) as file:
            for number, frame in enumerate(stretch.frames()):
                file[f"frame_{number}_x"] = frame[:, :, ::-1]
                file[f"frame_{number}_y"] = actions[number]
                if told and states is not None and content.state_size == sum(GAME_MEMORY.values()):
                    parts = np.split(states[number].astype(np.float64), [GAME_MEMORY["xaux"]])
                    for name, values in zip(GAME_MEMORY, parts, strict=True):
                        file[f"frame_{number}_{name}"] = values
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """List the files of the test split."""
        del content
        names = [Path(file).name for each in written if each.split == "test" for file in each.files]
        (folder / "test_split.txt").write_text("\n".join(names), encoding="utf-8")


def file_id(stretch: Stretch) -> str:
    """The folder and name of the file of a stretch of up to 1000 steps, by which DIAMOND finds it.

    It ends in a number, as DIAMOND sorts by that.
    """
    own = Path(stretch.row.source).stem
    whole = stretch.n_steps == stretch.row.n_steps
    if whole and stretch.row.format == "csgo-hdf5" and _OWN_NAME.fullmatch(own):
        return f"{stretch.split}/{own}.hdf5"
    episode = stretch.name.removesuffix(f".{stretch.start}") if stretch.start else stretch.name
    return f"{stretch.split}/hdf5_{episode}_{stretch.start}.hdf5"
