"""The progress of an export, and its report at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from wham_data.pipelines.run.progress import Failed, Figure, Number, Progress
from wham_data.schemas.errors import NoInputsError, RefusedInput

FORMATS: Final = (
    "wham-npz",
    "demonstrator",
    "lerobot",
    "hdf5-csgo",
    "diamond",
    "oasis",
    "parquet",
    "webdataset",
    "mds",
    "minari",
    "coinrun",
    "lmdb",
    "gf-minecraft",
    "micro-world",
    "matrix-game",
    "owamcap",
)
"""The names of `writers.WRITERS`, for help; those load what they write with."""


@dataclass(slots=True)
class ExportProgress(Progress):
    """The progress of a run.

    episodes, steps  number to be written
    done             number of episodes written so far
    steps_done       number of steps written so far
    bytes_written    size of the files that are in place
    """

    unit: ClassVar[str] = "episodes"
    episodes: int
    steps: int
    done: int = 0
    steps_done: int = 0
    bytes_written: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Episodes that are written, and those to write."""
        return self.done, self.episodes

    @property
    def share(self) -> float:
        """Share of the steps that is written, 0 to 1."""
        return min(1.0, self.steps_done / self.steps) if self.steps else 1.0

    @property
    def steps_per_second(self) -> float:
        """Steps written per second of wall time."""
        return self.steps_done / self.seconds

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Progress.figures`."""
        return ("failed", str(self.refused)), ("", f"{self.steps_per_second:.0f} steps/s")

    @property
    def numbers(self) -> tuple[Number, ...]:
        """See `Progress.numbers`."""
        average = "Steps written per second of wall time, on average since the start."
        return (
            Number("steps", self.steps_done, "Steps written."),
            Number("steps_per_second", self.steps_per_second, average, grows=False),
            Number("written_bytes", self.bytes_written, "Bytes of the files that are in place."),
        )


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What became of every episode of a run: found = written + already_there + failed.

    corpus, version  where, and which version of its manifest
    format, out      what was written, and where
    pictures         "stored", "decoded" from tokens, or None: the format has none
    actions          the space they are written in; `converted_from`: the corpus' own, if another
    lost             what the conversion of actions drops, one sentence each
    left_out_steps   of all episodes: outside their `keep` ranges, or of an action that is not known
                     in a format that has no word for it; an episode is cut there
    clamped          action values that were cut where the format's range ends
    found            episodes after that cutting
    steps            in all that is there now
    files, bytes     written now
    licences         how many episodes are under each
    notes            what a person should know, one line each
    """

    corpus: str
    version: int
    format: str
    out: str
    pictures: str | None
    actions: str
    converted_from: str | None
    lost: tuple[str, ...]
    left_out_steps: int
    clamped: int
    found: int
    written: int
    already_there: int
    failed: tuple[Failed, ...]
    steps: int
    files: int
    bytes: int
    licences: dict[str, int]
    notes: tuple[str, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some episodes failed, 6 nothing came of anything."""
        if not self.written and not self.already_there:
            return NoInputsError.exit_code
        return RefusedInput.exit_code if self.failed else 0
