"""How far a long job is, who is shown it, and what failed. Nothing heavy is imported here."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

Figure = tuple[str, str]
"""A label and a text, such as ("failed", "2"); the label is empty where the text names its unit."""


@dataclass(slots=True, kw_only=True)
class Progress(ABC):
    """How far a job is: what every job can tell, and what the command line draws.

    Each job has one subclass, which adds its own counts.

    unit     what is counted, such as "recordings"
    started  when the job began, by `time.monotonic`
    """

    unit: ClassVar[str]
    started: float = field(default_factory=time.monotonic)

    @property
    @abstractmethod
    def counts(self) -> tuple[int, int]:
        """How many units are done, and how many there are to do."""

    @property
    @abstractmethod
    def share(self) -> float:
        """Share of the job that is done, 0 to 1."""

    @property
    @abstractmethod
    def figures(self) -> tuple[Figure, ...]:
        """What else a person waits for, most important first."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far; None before anything is done."""
        share = self.share
        return self.seconds * (1 / share - 1) if share else None


class ProgressListener(Protocol):
    """Whoever shows a job to a person."""

    def progressed(self, progress: Progress) -> None:
        """The job is further than before. Called often."""
        ...

    def message(self, text: str, *, warning: bool) -> None:
        """One line about one input or output, or about the run."""
        ...


class Silent:
    """A listener that shows nothing."""

    def progressed(self, progress: Progress) -> None:
        """Nothing."""

    def message(self, text: str, *, warning: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An episode that nothing was made of.

    reason   a stable code, as in quarantine
    message  one line
    """

    episode: str
    source: str
    reason: str
    message: str
