"""`gf-minecraft`: the layout of GameFactory's dataset, a video and a table of actions per episode.

    <split>/video/<episode>.mp4           see `scenes.py` for both
    <split>/metadata/<episode>.json
    <split>/annotation.csv                Original video name, Start frame index, End frame index, Prompt

The two indices are frames of the video, both included. GameFactory's own training code is not public:
the layout is that of the dataset's card.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from wham_data.pipelines.readers.minecraft.gf_minecraft import CAPTION_COLUMNS, CAPTIONS, SPACE
from wham_data.pipelines.writers.clips import crf_option
from wham_data.pipelines.writers.minecraft.scenes import LAST_LOST, ONE_OF, write_scene
from wham_data.pipelines.writers.minecraft.way import taken, way_to
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, one_each
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.manifest import SPLITS


@dataclass(frozen=True, slots=True)
class GfMinecraftWriter:
    """Writer of GameFactory's layout."""

    name: ClassVar[str] = "gf-minecraft"
    about: ClassVar[str] = "Minecraft videos and tables of actions, as GameFactory's dataset"
    order: ClassVar[int] = 110
    demands: ClassVar[Demands] = Demands(ended=False)
    crf: int = crf_option()

    def space(self, native: ActionSpace) -> ActionSpace:
        """`microworld9`, or `vpt`, from which the keys are taken that the table has."""
        return taken(native, SPACE)

    def check(self, content: Content) -> Sequence[str]:
        """Notes what the table cannot hold."""
        return [*way_to(SPACE, content.space).lost, ONE_OF, LAST_LOST]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A video each."""
        return one_each(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one video and its table."""
        del place
        (stretch,) = part.stretches
        dropped = write_scene(
            stretch, content, folder / part.split, "metadata", part.name, self.crf
        )
        return {"clamped": dropped, "captions": captions_of(stretch)}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write the captions of each split that has some."""
        del content
        for split in SPLITS:
            rows = [
                (f"{each.name}.mp4", *caption)
                for each in written
                if each.split == split
                for caption in each.facts["captions"]
            ]
            if rows:
                write_table(folder / split / CAPTIONS, CAPTION_COLUMNS, rows)


def captions_of(stretch: Stretch) -> list[tuple[int, int, str]]:
    """The stretches of one text: first frame, last frame, text. Frames without a text are in none."""
    captions, at = [], 0
    for text, run in groupby(stretch.texts() or ()):
        count = len(list(run))
        if text is not None:
            captions.append((at, at + count - 1, text))
        at += count
    return captions


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV with a row of names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
