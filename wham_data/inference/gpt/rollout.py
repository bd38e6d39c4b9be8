"""One dream in progress: its steps so far, the tokens of its next pass, and the use of the choices.

In a pass, each dream feeds the tokens that are known and not yet cached (a whole window, the given
actions, or the latest token), and then guesses. It keeps the choices of the model that are valid.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.gpt.model import Feed
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.speculation import BlockLength, agreed, guess_frame
from wham_data.inference.sampling import Draw, HeldNoise, Noise
from wham_data.inference.session import DreamStats

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Given:
    """The given parts of a step that is to be made.

    actions  int64 [16] in the joint vocabulary; None: the model makes them; `LATER`: given later
    frame    int64 [N]; None: the model makes it
    clamped  stick values of the actions that were out of range
    """

    actions: Ids | Literal["later"] | None = None
    frame: Ids | None = None
    clamped: int = 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """The settings that stay the same during a dream.

    window  the largest number of steps that the model sees when it makes one
    grid    rows and columns of a frame's tokens; None if unknown
    guess   whether to guess ahead
    least   the smallest number of tokens in one pass when guessing
    most    the largest number of tokens in one pass when guessing
    """

    window: int
    grid: tuple[int, int] | None
    guess: bool
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Place:
    """The state of a dream between two steps: everything that is needed to continue it.

    context  number of steps of the context
    steps    number of complete steps, including the context
    waiting  there is one more step with a frame, whose action is not yet given
    tokens   int64 [n, P], the newest steps, including a waiting one
    usual    mean number of tokens that the latest passes gave; it sets the length of guesses
    """

    context: int
    steps: int
    waiting: bool
    tokens: Ids
    usual: float


class Rollout:
    """One dream: its newest steps, its place in the step being made, and how much is cached.

    Attributes:
        making: a step has begun, and more passes are needed to complete it.
        waiting: the newest step has its frame, but its action is not yet given.
    """

    def __init__(
        self, spec: GPTSpec, outlook: Outlook, noise: HeldNoise, row: int, place: Place
    ) -> None:
        self.stats = DreamStats()
        self.spec = spec
        self.making, self.waiting = False, place.waiting
        self._acts_later = False
        self._outlook = outlook
        self._noise = noise
        self._row = row
        self._context = place.context
        self._tokens = place.tokens.copy()
        self._steps = place.steps
        self._first = place.steps + place.waiting - len(place.tokens)
        self._block = None
        if outlook.guess:
            self._block = BlockLength(outlook.least, place.usual, outlook.most)
        self._oldest = -1
        self._cached = self._n_positions = self._at = self._end = 0

    def copy(self) -> Rollout:
        """An independent copy of the dream, at the same place."""
        twin = copy.copy(self)
        twin._tokens = self._tokens.copy()
        twin._noise = self._noise.copy()
        twin._block = copy.copy(self._block)
        twin.stats = replace(self.stats)
        return twin

    def place(self) -> Place:
        """The state of the dream. No step may be in progress."""
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
        """Number of dreamt steps that have their frame."""
        return self._steps - self._context + self.waiting

    def draw(self) -> Draw:
        """The positions in the step for which the next pass gives tokens, with their noise."""
        positions = range(self._at, self._at + self._n_positions)
        return Draw(self._noise, self._steps - self._context, positions)

    def tokens_of(self, dreamt: int) -> Ids:
        """A dreamt step that has its frame, int64 [P]. The actions of a waiting step are a guess."""
        row: Ids = self._tokens[self._context + dreamt - self._first]
        return row

    def start(self, given: Given) -> None:
        """Begin a step: fill it with the given tokens, and with guesses for those the model makes."""
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
        self._acts_later = isinstance(given.actions, str)
        if isinstance(given.actions, np.ndarray):
            step[images:] = given.actions
        self._tokens = np.concatenate([self._tokens, step[None]])
        self.making = self._at < self._end
        if not self.making:
            self._end_step()

    def act(self, actions: Ids | None) -> None:
        """Give the actions of the waiting step, int64 [16]; None: the model makes them."""
        self.waiting = self._acts_later = False
        if actions is None:
            self._at, self._end = self.spec.image_tokens, self.spec.tokens_per_step
            self.making = True
            return
        self._tokens[-1, self.spec.image_tokens :] = actions
        self._steps += 1

    def feed(self) -> Feed:
        """The tokens for the next pass."""
        seen = min(self._steps, self._outlook.window)
        if self._steps - seen != self._oldest:
            self._oldest = self._steps - seen
            self._cached = 0
        known = seen * self.spec.tokens_per_step + self._at
        length = self._block.tokens if self._block else 1
        self._n_positions = min(length, self._end - self._at)
        flat = self._tokens[self._oldest - self._first :].reshape(-1)
        feed = Feed(
            row=self._row,
            start=self._cached,
            tokens=torch.from_numpy(flat[self._cached : known + self._n_positions - 1]),
            n_logits=self._n_positions,
        )
        self.stats.context_steps = max(self.stats.context_steps, seen)
        self.stats.passes += 1
        self.stats.prefills += self._cached == 0
        self.stats.fed += len(feed.tokens)
        self.stats.guessed += self._n_positions - 1
        self._cached = known
        return feed

    def take(self, choices: Ids) -> None:
        """Use the tokens that the model chose for `draw`, int64 [n]."""
        place = self._tokens[-1, self._at : self._at + self._n_positions]
        count = agreed(place[:-1], choices)
        place[:] = choices  # after the first difference, they are the next guesses
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
        """Forget everything after the first `made` dreamt steps."""
        if self.made <= made and not self.making:
            return
        self.making = self.waiting = False
        self._steps = self._context + made
        self._tokens = self._tokens[: self._steps - self._first].copy()
        whole = (self._steps - self._oldest) * self.spec.tokens_per_step
        self._cached = max(0, min(self._cached, whole))

    def forget_before(self, made: int) -> None:
        """Forget the steps that no step after the first `made` dreamt ones needs."""
        whole = min(self._steps, self._context + made)  # a waiting step still needs its window
        oldest = whole - self._kept - self._first
        if oldest > 0:
            self._tokens = self._tokens[oldest:].copy()
            self._first += oldest

    @property
    def _kept(self) -> int:
        """Number of complete steps that the next one needs. Guesses need two."""
        return max(2, self._outlook.window)

    def _end_step(self) -> None:
        self.waiting = self._acts_later
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
