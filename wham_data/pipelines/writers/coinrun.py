"""`coinrun`: videos as genie-bottle's sampler leaves them, without actions.

    Coinrun/<split>/<number>.mp4    64x64, MPEG-4 Part 2

The sampler hands RGB pictures to a writer that takes them for BGR, so red and blue are exchanged in
its files; they are exchanged here too, as models that were trained on those saw them so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wham_data.pipelines.readers.genie_coinrun import SIDE
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.video import write_video
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, one_each
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class CoinrunWriter:
    """Writer of genie-bottle's CoinRun videos."""

    name: ClassVar[str] = "coinrun"
    about: ClassVar[str] = "64x64 videos without actions, as Genie's rebuild samples them"
    order: ClassVar[int] = 90
    demands: ClassVar[Demands] = Demands(known=False, numbered=True)
    colours: str = choice(
        "exchanged", "true", about="red and blue exchanged as in the sampler's files, or not"
    )

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any: actions are not written."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """64x64."""
        if content.size != (SIDE, SIDE):
            width, height = content.size
            raise UsageError(
                f"coinrun is {SIDE}x{SIDE}, the corpus {width}x{height}: ingest with "
                f"--size {SIDE}x{SIDE}"
            )
        return ["actions are not written, pictures are coded with loss"]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A video each."""
        return one_each(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one video."""
        (stretch,) = part.stretches
        path = folder / "Coinrun" / part.split / f"{place.episodes:04d}.mp4"
        path.parent.mkdir(parents=True)
        order = -1 if self.colours == "exchanged" else 1
        frames = (frame[:, :, ::order] for frame in stretch.frames())
        write_video(path, frames, content.steady_rate, codec="mpeg4")
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Nothing: every video speaks for itself."""
