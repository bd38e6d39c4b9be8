"""One dream under way: how far it has come, what it feeds next, and what it takes of the answers.

A pass feeds each dream what is known and not yet cached (a whole window, or the given actions, or
the latest token), then guesses, and every dream takes of the answers what stands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wham_data.inference.gpt.model import Feed
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.speculation import BlockLength, agreed, guess_frame
from wham_data.inference.sampling import HeldNoise, Noise
from wham_data.inference.session import DreamStats

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a step before it is made.

    actions  int64 [16] in the joint vocabulary; None: the model makes them; `LATER`: told later
    frame    int64 [N]; None: the model makes it
    clamped  stick values of the actions that were out of range
    """

    actions: Ids | Literal["later"] | None = None
    frame: Ids | None = None
    clamped: int = 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What stays the same through a dream.

    window  the most steps that the model sees when it makes one
    grid    rows and columns of a frame's tokens, None where unknown
    guess   whether to guess ahead
    least   the fewest tokens to ask for in one pass when guessing
    """

    window: int
    grid: tuple[int, int] | None
    guess: bool
    least: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dream is between two passes, all that has to be kept to go on from there.

    context  steps that it started from
    steps    steps that are whole, those of the context included
    waiting  one more has its frame, and its action is still to be told
    tokens   int64 [n, P], the newest steps, a waiting one included
    usual    how many tokens came of the latest passes, which sets the length of guesses
    """

    context: int
    steps: int
    waiting: bool
    tokens: Ids
    usual: float


class Rollout:
    """One dream: its newest steps, its place in the step being made, and how much is cached.

    Attributes:
        making: a step is begun, and passes are needed to end it.
        waiting: the newest step has its frame, and its action is still to be told.
    """

    def __init__(
        self, spec: GPTSpec, outlook: Outlook, noise: HeldNoise, row: int, place: Place
    ) -> None:
        self.stats = DreamStats()
        self.spec = spec
        self.making, self.waiting = False, place.waiting
        self._told_later = False
        self._outlook = outlook
        self._noise = noise
        self._row = row
        self._context = place.context
        self._tokens = place.tokens.copy()
        self._steps = place.steps
        self._first = place.steps + place.waiting - len(place.tokens)
        self._block = BlockLength(outlook.least, place.usual) if outlook.guess else None
        self._oldest = -1
        self._cached = self._asked = self._at = self._end = 0

    def copy(self) -> Rollout:
        """The same dream at the same place, which goes on by itself."""
        twin = copy.copy(self)
        twin._tokens = self._tokens.copy()
        twin._noise = self._noise.copy()
        twin._block = copy.copy(self._block)
        twin.stats = replace(self.stats)
        return twin

    def place(self) -> Place:
        """Where it is; no step may be under way."""
        whole = self._steps - self._first
        oldest = max(0, whole - self._kept)
        usual = self._block.usual if self._block else 0.0
        return Place(self._context, self._steps, self.waiting, self._tokens[oldest:], usual)

    @property
    def seeded(self) -> Noise:
        """Its randomness."""
        return self._noise.noise

    @property
    def made(self) -> int:
        """Dreamt steps whose frame is there."""
        return self._steps - self._context + self.waiting

    @property
    def positions(self) -> range:
        """The positions in the step that the next pass asks for."""
        return range(self._at, self._at + self._asked)

    def noise(self) -> Tensor:
        """float32 [asked, V + 68], for `positions`."""
        return self._noise.at(self._steps - self._context, self.positions)

    def tokens_of(self, dreamt: int) -> Ids:
        """A dreamt step whose frame is there, int64 [P]; a waiting one's actions are a guess."""
        row: Ids = self._tokens[self._context + dreamt - self._first]
        return row

    def start(self, given: Given) -> None:
        """Begin a step: fill it with what is given, and with guesses where the model is to choose."""
        images = self.spec.image_tokens
        last = self._tokens[-1]
        before = self._tokens[-2, :images] if len(self._tokens) > 1 else None
        step = last.copy()
        self._at, self._end = 0, len(step)
        if given.frame is None:
            step[:images] = guess_frame(last[:images], before, self._outlook.grid)
        else:
            step[:images] = given.frame
            self._at = images
        if given.actions is not None:
            self._end = images
        self._told_later = isinstance(given.actions, str)
        if isinstance(given.actions, np.ndarray):
            step[images:] = given.actions
        self._tokens = np.concatenate([self._tokens, step[None]])
        self.making = self._at < self._end
        if not self.making:
            self._end_step()

    def act(self, actions: Ids | None) -> None:
        """Tell the actions that are waited for, int64 [16]; None: the model is to make them."""
        self.waiting = self._told_later = False
        if actions is None:
            self._at, self._end = self.spec.image_tokens, self.spec.tokens_per_step
            self.making = True
            return
        self._tokens[-1, self.spec.image_tokens :] = actions
        self._steps += 1

    def feed(self) -> Feed:
        """What the next pass is to read."""
        seen = min(self._steps, self._outlook.window)
        if self._steps - seen != self._oldest:
            self._oldest = self._steps - seen
            self._cached = 0
        known = seen * self.spec.tokens_per_step + self._at
        length = self._block.tokens if self._block else 1
        self._asked = min(length, self._end - self._at)
        flat = self._tokens[self._oldest - self._first :].reshape(-1)
        feed = Feed(
            row=self._row,
            start=self._cached,
            tokens=torch.from_numpy(flat[self._cached : known + self._asked - 1]),
            wanted=self._asked,
        )
        self.stats.context_steps = max(self.stats.context_steps, seen)
        self.stats.passes += 1
        self.stats.prefills += self._cached == 0
        self.stats.fed += len(feed.tokens)
        self.stats.guessed += self._asked - 1
        self._cached = known
        return feed

    def take(self, choices: Ids) -> None:
        """Go on with what the model chose, int64 [asked], at `positions`."""
        place = self._tokens[-1, self._at : self._at + self._asked]
        count = agreed(place[:-1], choices)
        place[:] = choices  # behind the first difference they are the next guesses
        self._cached += count - 1
        self._at += count
        self.stats.generated += count
        self.stats.accepted += count - 1
        if self._block:
            self._block.came(count)
        if self._at == self._end:
            self.making = False
            self._end_step()

    def back_to(self, made: int) -> None:
        """Forget all that goes beyond so many dreamt steps."""
        if self.made <= made and not self.making:
            return
        self.making = self.waiting = False
        self._steps = self._context + made
        self._tokens = self._tokens[: self._steps - self._first].copy()
        whole = (self._steps - self._oldest) * self.spec.tokens_per_step
        self._cached = max(0, min(self._cached, whole))

    def forget_before(self, made: int) -> None:
        """Forget the steps that nothing after so many dreamt ones looks at."""
        whole = min(self._steps, self._context + made)  # a waiting step is still looked from
        oldest = whole - self._kept - self._first
        if oldest > 0:
            self._tokens = self._tokens[oldest:].copy()
            self._first += oldest

    @property
    def _kept(self) -> int:
        """Whole steps that the next one looks at: guesses look at two."""
        return max(2, self._outlook.window)

    def _end_step(self) -> None:
        self.waiting = self._told_later
        self._steps += not self.waiting


def groups_of(feeds: Sequence[Feed], most_tokens: int) -> Iterator[list[Feed]]:
    """The feeds in groups, in their order, each group for one pass."""
    group: list[Feed] = []
    tokens = 0
    for feed in feeds:
        if group and tokens + len(feed.tokens) > most_tokens:
            yield group
            group, tokens = [], 0
        group.append(feed)
        tokens += len(feed.tokens)
    if group:
        yield group
