"""Progress of a long job, listeners that show it, and failures. Imports nothing heavy."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

Figure = tuple[str, str]
"""A label and a text, such as ("failed", "2"). The label is empty if the text includes its unit."""


@dataclass(slots=True, kw_only=True)
class Progress(ABC):
    """Progress of a job, in the form that the command line draws for every job.

    Each job has one subclass, which adds its own counts.

    unit     the unit of the counts, such as "recordings"
    started  start time of the job, from `time.monotonic`
    """

    unit: ClassVar[str]
    started: float = field(default_factory=time.monotonic)

    @property
    @abstractmethod
    def counts(self) -> tuple[int, int]:
        """Number of units done, and number of units in all."""

    @property
    @abstractmethod
    def share(self) -> float:
        """Share of the job that is done, 0 to 1."""

    @property
    @abstractmethod
    def figures(self) -> tuple[Figure, ...]:
        """More figures for the user, the most important first."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left, at the speed so far; None before anything is done."""
        share = self.share
        return self.seconds * (1 / share - 1) if share else None


class ProgressListener(Protocol):
    """Shows the progress and messages of a job to a person."""

    def progressed(self, progress: Progress) -> None:
        """Called often, whenever the job has made progress."""
        ...

    def message(self, text: str, *, warning: bool) -> None:
        """Called with one line about an input, an output or the run."""
        ...


class Silent:
    """A listener that shows nothing."""

    def progressed(self, progress: Progress) -> None:
        """Nothing."""

    def message(self, text: str, *, warning: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An episode for which the job failed.

    reason   a stable code, as in quarantine
    message  one line
    """

    episode: str
    source: str
    reason: str
    message: str
