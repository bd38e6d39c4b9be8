"""How far a run of dreams is, and its report at the end. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from wham_data.pipelines.run.progress import Failed, Figure, Number, Progress
from wham_data.schemas.errors import NoInputsError, RefusedInput

DreamMode = Literal["world", "policy", "full"]
FileKind = Literal["npz", "mp4", "gif", "png", "csv", "overlay"]

MODES: Final[dict[str, DreamMode]] = {
    "world": "world",
    "policy": "policy",
    "full": "full",
    "base": "world",
    "comprehensive": "full",
}
"""What a mode may be called; the last two are the published protocols."""

FILE_KINDS: Final[tuple[FileKind, ...]] = ("png", "gif", "mp4", "overlay", "csv", "npz")
"""Kinds of files that a dream can be saved as, in the order in which they are put in place."""


@dataclass(slots=True)
class DreamProgress(Progress):
    """How far a run is.

    dreams  to be made
    steps   of each of them
    done    dreams that are made and saved
    frames  dreamt steps so far
    """

    unit: ClassVar[str] = "dreams"
    dreams: int
    steps: int
    done: int = 0
    frames: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Dreams that are made, and those to make."""
        return self.done, self.dreams

    @property
    def share(self) -> float:
        """Share of the steps that is made, 0 to 1."""
        total = self.dreams * self.steps
        return self.frames / total if total else 1.0

    @property
    def frames_per_second(self) -> float:
        """Steps made per second of wall time."""
        return self.frames / self.seconds

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Progress.figures`."""
        return ("failed", str(self.refused)), ("", f"{self.frames_per_second:.2f} frames/s")

    @property
    def numbers(self) -> tuple[Number, ...]:
        """See `Progress.numbers`."""
        average = "Frames dreamt per second of wall time, on average since the start."
        return (
            Number("frames", self.frames, "Frames dreamt."),
            Number("frames_per_second", self.frames_per_second, average, grows=False),
        )


@dataclass(frozen=True, slots=True)
class DreamReport:
    """What became of every episode of a run: found = made + completed + already_there + failed.

    out, source    folders or files, as given
    model          name of the world model
    mode, actions  what the model made, and where the actions came from
    made           dreams made now
    completed      dreams of an earlier run that got the files they lacked
    dreams         names of all that are there now; their files lie at `out`/NAME
    frames         steps dreamt now
    ms_per_frame   wall time of the dreaming alone, over the frames of all dreams
    acceptance     share of the guessed tokens that were right
    tokens_per_pass  tokens made per forward pass
    seconds        wall time of it all
    """

    out: str
    source: str
    model: str
    mode: str
    actions: str
    found: int
    made: int
    completed: int
    already_there: int
    failed: tuple[Failed, ...]
    dreams: tuple[str, ...]
    frames: int
    ms_per_frame: float
    acceptance: float
    tokens_per_pass: float
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some episodes failed, 6 nothing came of anything."""
        if not self.dreams:
            return NoInputsError.exit_code
        return RefusedInput.exit_code if self.failed else 0
