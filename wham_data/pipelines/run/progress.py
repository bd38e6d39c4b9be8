"""Progress of a long job, listeners that show it, and failures. Imports nothing heavy."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

Figure = tuple[str, str]
"""A label and a text, such as ("failed", "2"). The label is empty if the text includes its unit."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a job, for programs.

    name   with its unit, in small letters and underscores, such as "frames" or "read_bytes"
    value  finite
    help   what it is, in one line
    grows  True: a count from the start of the run. It only goes down if work must be done again
    """

    name: str
    value: float
    help: str
    grows: bool = True


EventName = Literal["done", "refused", "failed", "commit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a message is about, for programs.

    name    done: an input or an output is finished. refused: an input goes to quarantine. failed: an
            episode or a recording failed. commit: finished work is in the corpus from now on
    item    its path or name; None: it is about the whole run
    reason  the code of a refusal or a failure, see `Progress.reasons`
    notes   what a person should know of the item, a phrase each
    facts   numbers, with their units in the names, such as {"steps": 120}
    """

    name: EventName
    item: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


def commit_event(version: int, recordings: int) -> Event:
    """Recordings were added to a corpus, which made this version of it."""
    return Event(name="commit", facts={"version": version, "recordings": recordings})


@dataclass(slots=True, kw_only=True)
class Progress(ABC):
    """Progress of a job, in the form that the command line draws for every job.

    Each job has one subclass, which adds its own counts.

    unit     the unit of the counts, such as "recordings"
    refusal  what becomes of a bad input: "failed" or "quarantined"
    started  start time of the job, from `time.monotonic`
    reasons  how many inputs of this run were refused or failed, by the code of the reason
    """

    unit: ClassVar[str]
    refusal: ClassVar[str] = "failed"
    started: float = field(default_factory=time.monotonic)
    reasons: Counter[str] = field(default_factory=Counter)

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
    def numbers(self) -> tuple[Number, ...]:
        """More numbers for programs. May be read from another thread."""
        return ()

    @property
    def refused(self) -> int:
        """Number of inputs that were refused or failed."""
        return self.reasons.total()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left, at the speed so far; None before anything is done."""
        share = self.share
        return self.seconds * (1 / share - 1) if share else None


@dataclass(slots=True, kw_only=True)
class Counting(Progress):
    """Progress of a job that has nothing to tell but how much is done."""

    done: int = 0
    total: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """See `Progress.counts`."""
        return self.done, self.total

    @property
    def share(self) -> float:
        """See `Progress.share`."""
        return self.done / max(self.total, 1)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """None."""
        return ()


class ProgressListener(Protocol):
    """Shows the progress and messages of a job to a person or a program."""

    def progressed(self, progress: Progress) -> None:
        """Called often, whenever the job has made progress."""
        ...

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:
        """Called with one line about an input, an output or the run.

        Args:
            text: for a person; "": there is nothing to tell a person.
            warning: whether a person should see it without asking for details.
            event: the same for a program; None: the line is not about one item.
        """
        ...


class Silent:
    """A listener that shows nothing."""

    def progressed(self, progress: Progress) -> None:
        """Nothing."""

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:
        """Nothing."""


class Together:
    """Several listeners as one: each hears everything."""

    def __init__(self, *listeners: ProgressListener) -> None:
        self._listeners = listeners

    def progressed(self, progress: Progress) -> None:
        """See `ProgressListener.progressed`."""
        for each in self._listeners:
            each.progressed(progress)

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:
        """See `ProgressListener.message`."""
        for each in self._listeners:
            each.message(text, warning=warning, event=event)


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

    @property
    def line(self) -> str:
        """The episode and why the job failed for it, for a person."""
        return f"{self.episode} ({self.source}) failed [{self.reason}]: {self.message}"

    @property
    def event(self) -> Event:
        """The same for a program."""
        return Event(name="failed", item=self.episode, reason=self.reason)
