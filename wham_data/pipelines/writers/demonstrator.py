"""`demonstrator`: folders of ten pictures and their actions, for WHAM Demonstrator.

    <split>/<episode>/image0.png ... image9.png    as stored in the corpus, or encoded as PNG
    <split>/<episode>/actions.json                 {"image0.png": [16 numbers], ...}

Sticks are written as the middles of WHAM's bins, in float32, as Demonstrator writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from wham_data.pipelines.readers.demonstrator import ACTIONS_FILE
from wham_data.pipelines.readers.kit.options import count_option
from wham_data.pipelines.video import encode_png
from wham_data.pipelines.writers.parts import (
    Content,
    Demands,
    Part,
    Place,
    Written,
    cut,
    one_each,
)
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import Reason, UsageError
from wham_data.schemas.wham_tokens import (
    ACTION_SPACE,
    NoTokenError,
    bins_from_measured,
    measured_from_bins,
)

USUAL_SIZE: Final = (300, 180)
MOST_STEPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class DemonstratorWriter:
    """Writer of WHAM Demonstrator's folders."""

    name: ClassVar[str] = "demonstrator"
    about: ClassVar[str] = "folders of ten pictures and actions.json, for WHAM Demonstrator"
    order: ClassVar[int] = 20
    demands: ClassVar[Demands] = Demands()
    steps: int = count_option(
        10,
        about="most steps in a folder; WHAM Demonstrator takes up to 10 pictures",
        most=MOST_STEPS,
    )

    def space(self, native: ActionSpace) -> ActionSpace:
        """Always `wham16`."""
        del native
        return load_space(ACTION_SPACE)

    def check(self, content: Content) -> Sequence[str]:
        """Demands 10 Hz, because the files do not record the rate."""
        if content.rate != TEN_HZ:
            raise UsageError(
                f"demonstrator is 10 Hz, the corpus {content.rate} Hz: ingest with --rate 10"
            )
        notes = ["sticks are written as the middles of WHAM's 11 bins"]
        if content.size != USUAL_SIZE:
            width, height = content.size
            notes.append(f"pictures are {width}x{height}, WHAM Demonstrator's own 300x180")
        return notes

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A folder for every `steps` steps of an episode."""
        return one_each(cut(stretches, self.steps))

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one folder."""
        del place
        (stretch,) = part.stretches
        try:
            bins, clamped = bins_from_measured(stretch.actions())
        except NoTokenError as why:
            raise stretch.refuse(Reason.LOG_RANGE, f"actions out of range: {why}") from None
        below = folder / part.split / part.name
        below.mkdir(parents=True)
        as_stored = content.coding == "png"
        pictures = stretch.coded_frames() if as_stored else map(encode_png, stretch.frames())
        rows: dict[str, list[float]] = {}
        for k, (picture, row) in enumerate(zip(pictures, measured_from_bins(bins), strict=True)):
            (below / f"image{k}.png").write_bytes(picture)
            rows[f"image{k}.png"] = row.tolist()
        (below / ACTIONS_FILE).write_text(json.dumps(rows) + "\n")
        return {"clamped": clamped}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Does nothing: no file describes the whole export."""
