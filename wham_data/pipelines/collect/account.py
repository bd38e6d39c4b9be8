"""How far a run of `collect` is, and its account at the end. Nothing heavy is imported here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from wham_data.schemas.errors import NoInputsError, RefusedInput


@dataclass(slots=True)
class CollectProgress:
    """How far a run is. `seconds_to_do` and `seconds_done` are of play."""

    recordings: int
    seconds_to_do: float
    done: int = 0
    failed: int = 0
    seconds_done: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """Share of the play that is recorded, 0 to 1."""
        return min(self.seconds_done / self.seconds_to_do, 1.0) if self.seconds_to_do else 1.0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far; None before anything is recorded."""
        return self.seconds * (1 / self.share - 1) if self.share else None

    @property
    def times_real(self) -> float:
        """Seconds of play per second of wall time."""
        return self.seconds_done / self.seconds


class CollectWatch(Protocol):
    """Whoever shows a run to a person."""

    def advanced(self, progress: CollectProgress) -> None:
        """Called often."""
        ...

    def told(self, line: str, *, warning: bool) -> None:
        """One line about one recording."""
        ...


@dataclass(frozen=True, slots=True)
class ActionShare:
    """Share of the time that an action was to be held in this run, and was."""

    name: str
    asked: float
    played: float


@dataclass(frozen=True, slots=True)
class FailedRecording:
    """A recording that was not made, and why."""

    recording: str
    message: str


@dataclass(frozen=True, slots=True)
class CollectReport:
    """The account of a run: found = made + already_there + failed.

    minutes  of play in the recordings made
    games    begun in them
    actions  over the recordings made
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
        """0 all done, 3 some recordings failed, 6 all did."""
        if not self.failed:
            return 0
        left = self.made + self.already_there
        return RefusedInput.exit_code if left else NoInputsError.exit_code
