"""How a long job is watched: its pace, whoever shows it, and what failed. Nothing heavy is imported here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

Progress_contra = TypeVar("Progress_contra", contravariant=True)


@dataclass(slots=True, kw_only=True)
class Pace:
    """Since when a job runs; how much of it is done its `share` says."""

    started: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """Share of the job that is done, 0 to 1."""
        raise NotImplementedError

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far; None before anything is done."""
        share = self.share
        return self.seconds * (1 / share - 1) if share else None


class Watch(Protocol[Progress_contra]):
    """Whoever shows a job to a person."""

    def advanced(self, progress: Progress_contra) -> None:
        """Called often."""
        ...

    def told(self, line: str, *, warning: bool) -> None:
        """One line about one input or output, or about the run."""
        ...


class Silent:
    """A watch that shows nothing."""

    def advanced(self, progress: object) -> None:
        """Nothing."""

    def told(self, line: str, *, warning: bool) -> None:
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
