"""The progress of a caption run, its cost, and its report at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from wham_data.corpus.captions.answers import Clip, Usage
from wham_data.pipelines.run.progress import Figure, Progress
from wham_data.schemas.errors import NoInputsError, RefusedInput, UsageError

MOST_FAILURES: Final = 10_000
"""Failures that a report lists; it counts all."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens of requests, and of answers, in any currency."""

    asked: float
    written: float

    @classmethod
    def parse(cls, text: str) -> Prices:
        """The prices in a text such as "0.15,0.6".

        Raises:
            UsageError: they are not two numbers of at least 0.
        """
        try:
            asked, written = (float(each) for each in text.split(","))
            if not (0 <= asked < 1e9 and 0 <= written < 1e9):
                raise ValueError
        except ValueError:
            raise UsageError(
                f"--price-per-million-tokens {text[:40]!r}: expected two numbers, for the tokens of "
                "requests and of answers, such as 0.15,0.6"
            ) from None
        return cls(asked, written)

    def of(self, usage: Usage) -> float:
        """The cost of the tokens that were counted."""
        return (self.asked * usage.asked + self.written * usage.written) / 1e6


@dataclass(frozen=True, slots=True)
class FailedClip:
    """A clip that got no text.

    code     a stable code, see docs/captions.md
    message  one line
    """

    episode: str
    start: int
    stop: int
    code: str
    message: str

    @classmethod
    def of(cls, clip: Clip, code: str, message: str) -> FailedClip:
        """The failure of a clip."""
        return cls(clip.episode, clip.start, clip.stop, code, message)

    def __str__(self) -> str:
        return f"{self.episode} steps {self.start} to {self.stop - 1} [{self.code}]: {self.message}"


@dataclass(slots=True)
class CaptionProgress(Progress):
    """The progress of a run.

    clips   number to ask about
    done    number asked about so far, with an answer or without
    """

    unit: ClassVar[str] = "clips"
    clips: int
    done: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def counts(self) -> tuple[int, int]:
        """Clips done, and clips to ask about."""
        return self.done, self.clips

    @property
    def share(self) -> float:
        """Share of the clips that is done, 0 to 1."""
        return self.done / self.clips if self.clips else 1.0

    @property
    def figures(self) -> tuple[Figure, ...]:
        """See `Progress.figures`."""
        pace = f"{60 * self.done / self.seconds:.0f} clips/min"
        return ("", pace), ("failed", str(self.failed)), ("tokens", f"{_sum(self.usage):,}")


def _sum(usage: Usage) -> int:
    return usage.asked + usage.written


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionReport:
    """What became of every clip: clips = has_text + answered_before + answered + failed + left.

    corpus, version  where, and its version after the run
    model, endpoint, settings  what was asked, where, and the hash of all that shapes a text
    pictures         "stored", or "decoded" from tokens
    sent_as, every   how clips were sent, and their steps
    clips            all clips of the corpus, without those outside `keep`
    short            of these, shorter than `every`: the ends of episodes
    has_text         all their steps had a text, so they were not asked about
    answered_before  answered by an earlier run with the same settings
    answered         answered by this run
    failed           asked about, without a text; `failures` lists them
    left             not asked about: beyond --limit, or after the run had to stop
    episodes, steps  that have a new text
    usage            tokens of this run, as the server counted them
    cost             at the given prices; None: no prices, or the server did not count every answer
    models           names that the server gave -> answers
    stopped          why the run ended early; "": it did not
    """

    corpus: str
    version: int
    model: str
    endpoint: str
    settings: str
    pictures: str
    sent_as: str
    every: int
    clips: int
    short: int
    has_text: int
    answered_before: int
    answered: int
    failed: int
    left: int
    episodes: int
    steps: int
    usage: Usage
    cost: float | None
    models: Mapping[str, int]
    failures: tuple[FailedClip, ...]
    stopped: str
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some clips failed or the run had to stop, 6 nothing came of anything."""
        if not (self.failed or self.stopped):
            return 0
        some = self.answered or self.answered_before or self.has_text
        return RefusedInput.exit_code if some else NoInputsError.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionPlan:
    """What a run would do.

    corpus, model, pictures, sent_as, every, clips, short, has_text, answered_before  as in the report
    to_ask           clips to ask about: at least as many requests
    megabytes        of these requests, from the size of the first one
    beyond_limit     clips that --limit leaves for another run
    minutes          that --requests-per-minute needs at least; None: no such limit
    usage            tokens to expect, from earlier answers with the same settings; None: there are none
    cost             of these tokens; None: not known
    """

    corpus: str
    model: str
    pictures: str
    sent_as: str
    every: int
    clips: int
    short: int
    has_text: int
    answered_before: int
    to_ask: int
    beyond_limit: int
    megabytes: float
    minutes: float | None
    usage: Usage | None
    cost: float | None

    @property
    def exit_code(self) -> int:
        """0: nothing was done."""
        return 0


def expected_usage(before: Iterable[Usage], to_ask: int) -> Usage | None:
    """The tokens of so many clips, at the mean of earlier answers; None: none was counted."""
    counted = [each for each in before if not each.unknown]
    if not counted:
        return None
    total = sum(counted, Usage())
    return Usage(
        round(total.asked / len(counted) * to_ask), round(total.written / len(counted) * to_ask)
    )
