"""The progress of `collect`, and its report at the end. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wham_data.pipelines.run.progress import Figure, Number, Progress
from wham_data.schemas.errors import NoInputsError, RefusedInput


@dataclass(slots=True)
class CollectProgress(Progress):
    """The progress of a run. `seconds_to_do` and `seconds_done` count seconds of play."""

    unit: ClassVar[str] = "recordings"
    recordings: int
    seconds_to_do: float
    done: int = 0
    seconds_done: float = 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """Number of recordings made, and number of recordings to make."""
        return self.done, self.recordings

    @property
    def share(self) -> float:
        """Share of the play that is recorded, 0 to 1."""
        return min(self.seconds_done / self.seconds_to_do, 1.0) if self.seconds_to_do else 1.0

    @property
    def times_real(self) -> float:
        """Seconds of play per second of wall time."""
        return self.seconds_done / self.seconds

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Progress.figures`."""
        return (
            ("failed", str(self.refused)),
            ("", f"{self.seconds_done / 60:.1f} minutes of play"),
            ("", f"{self.times_real:.1f} times real time"),
        )

    @property
    def numbers(self) -> tuple[Number, ...]:
        """See `Progress.numbers`."""
        average = "Seconds of play per second of wall time, on average since the start."
        return (
            Number("play_seconds", self.seconds_done, "Seconds of play that are recorded."),
            Number("times_real_time", self.times_real, average, grows=False),
        )


@dataclass(frozen=True, slots=True)
class ActionShare:
    """The share of the time of one action in a run.

    name    of the action
    asked   requested share, 0 to 1
    played  share in which it was held, 0 to 1
    """

    name: str
    asked: float
    played: float


@dataclass(frozen=True, slots=True)
class FailedRecording:
    """A recording that failed, and the reason."""

    recording: str
    message: str


@dataclass(frozen=True, slots=True)
class CollectReport:
    """The result of a run: found = made + already_there + failed.

    minutes  minutes of play in the recordings of this run
    games    count of games begun in them
    actions  share of each action in them
    seconds  wall time
    """

    out: str
    engine: str
    scenario: str
    policy: str
    found: int
    made: int
    already_there: int
    failed: tuple[FailedRecording, ...]
    minutes: float
    frames: int
    games: int
    actions: tuple[ActionShare, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: all done; 3: some recordings failed; 6: all failed."""
        if not self.failed:
            return 0
        left = self.made + self.already_there
        return RefusedInput.exit_code if left else NoInputsError.exit_code
