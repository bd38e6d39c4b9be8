"""Dreams under way: how far each has come, what it feeds next, and the passes that they share.

A pass feeds each dream what is known and not yet cached (a whole window, or the given actions, or
the latest token), then guesses, and every dream takes of the answers what stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wham_data.inference.gpt.model import Feed
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.speculation import BlockLength, agreed, guess_frame
from wham_data.inference.sampling import HeldNoise, Sampling, choose
from wham_data.schemas.wham_tokens import token_ranges

Tokens = NDArray[np.int64]


@dataclass(slots=True)
class DreamStats:
    """What a dream cost, whatever the clock says.

    context_steps  the most steps that the model saw when it made one
    passes         forward passes
    prefills       those that read a window in from its start
    fed            tokens fed, prefills and refused guesses included
    generated      tokens made
    guessed        guesses fed
    accepted       guesses that the model agreed with
    clamped        stick values of the given actions that were out of range
    """

    context_steps: int = 0
    passes: int = 0
    prefills: int = 0
    fed: int = 0
    generated: int = 0
    guessed: int = 0
    accepted: int = 0
    clamped: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the guesses that were right; 0 where none was made."""
        return self.accepted / self.guessed if self.guessed else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens made per forward pass; 1 is what decoding without guesses reaches."""
        return self.generated / self.passes if self.passes else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one dream is to do.

    given_actions  int64 [K, 16] in the joint vocabulary, or None: the model makes them
    given_frames   int64 [K, N], or None: the model makes them
    steps          K
    window         the most steps that the model sees
    grid           rows and columns of a frame's tokens, None where unknown
    block          how far to guess ahead; None for one token at a time
    """

    given_actions: Tokens | None
    given_frames: Tokens | None
    steps: int
    window: int
    grid: tuple[int, int] | None
    block: BlockLength | None


class Rollout:
    """One dream under way: the tokens so far, its place in the step, and how much is cached."""

    def __init__(
        self, spec: GPTSpec, plan: Plan, noise: HeldNoise, row: int, context: Tokens
    ) -> None:
        self.stats = DreamStats()
        self._noise = noise
        self.spec = spec
        self._plan = plan
        self._row = row
        self._context = len(context)
        self._tokens = np.zeros((len(context) + plan.steps, spec.tokens_per_step), np.int64)
        self._tokens[: len(context)] = context
        self._step = len(context)
        self._oldest = -1
        self._cached = 0
        self._asked = 0
        self._start_step()

    @property
    def done(self) -> bool:
        """All steps are made."""
        return self._step == len(self._tokens)

    @property
    def dream_step(self) -> int:
        """The step being made, 0 for the first dreamt one."""
        return self._step - self._context

    @property
    def positions(self) -> range:
        """The positions in the step that the next pass asks for."""
        return range(self._at, self._at + self._asked)

    def noise(self) -> Tensor:
        """float32 [asked, V + 68], for `positions`."""
        return self._noise.at(self.dream_step, self.positions)

    def feed(self) -> Feed:
        """What the next pass is to read."""
        seen = min(self._step, self._plan.window)
        if self._step - seen != self._oldest:
            self._oldest = self._step - seen
            self._cached = 0
        known = seen * self.spec.tokens_per_step + self._at
        length = self._plan.block.tokens if self._plan.block else 1
        self._asked = min(length, self._end - self._at)
        flat = self._tokens[self._oldest :].reshape(-1)
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

    def take(self, choices: Tokens) -> None:
        """Go on with what the model chose, int64 [asked], at `positions`."""
        place = self._tokens[self._step, self._at : self._at + self._asked]
        count = agreed(place[:-1], choices)
        place[:] = choices  # behind the first difference they are the next guesses
        self._cached += count - 1
        self._at += count
        self.stats.generated += count
        self.stats.accepted += count - 1
        if self._plan.block:
            self._plan.block.came(count)
        if self._at == self._end:
            self._finish_step()

    @property
    def made(self) -> Tokens:
        """The steps of the dream, int64 [K, P]; the tokens to come are guesses."""
        return self._tokens[self._context :]

    def _start_step(self) -> None:
        """Fill the step with what is given, and with guesses where the model is to choose."""
        images = self.spec.image_tokens
        step, last = self._tokens[self._step], self._tokens[self._step - 1]
        before = self._tokens[self._step - 2, :images] if self._step > 1 else None
        self._at, self._end = 0, len(step)
        step[:images] = guess_frame(last[:images], before, self._plan.grid)
        step[images:] = last[images:]
        if self._plan.given_frames is not None:
            step[:images] = self._plan.given_frames[self.dream_step]
            self._at = images
        if self._plan.given_actions is not None:
            self._end = images

    def _finish_step(self) -> None:
        if self._plan.given_actions is not None:
            given = self._plan.given_actions[self.dream_step]
            self._tokens[self._step, self.spec.image_tokens :] = given
        self._step += 1
        if not self.done:
            self._start_step()


@torch.inference_mode()
def run(
    advance: Callable[[Sequence[Feed]], Tensor],
    rollouts: Sequence[Rollout],
    sampling: Sampling,
    tokens_per_pass: int,
    told: Callable[[int], None] | None = None,
) -> None:
    """Go on with all dreams until each is done.

    Args:
        advance: a pass of the model, as `GPT.advance` over a cache with a row per dream.
        rollouts: one or more; number i has row i of the cache.
        tokens_per_pass: dreams share a pass up to this many tokens; a longer feed, a prefill, gets
            one of its own, which bounds the memory of a pass.
        told: how many more steps have been made, of whichever dreams.
    """
    spec = rollouts[0].spec
    ranges = torch.from_numpy(
        token_ranges(
            spec.image_vocab, spec.image_tokens, without_first_zero=sampling.without_first_zero
        )
    )
    made = 0
    while feeds := [dream.feed() for dream in rollouts if not dream.done]:
        for batch in _passes(feeds, tokens_per_pass):
            dreams = [rollouts[feed.row] for feed in batch]
            logits = advance(batch)
            allowed = torch.cat([ranges[dream.positions] for dream in dreams])
            noise = None if sampling.greedy else torch.cat([dream.noise() for dream in dreams])
            choices = choose(logits, allowed.to(logits.device), sampling, noise).cpu().numpy()
            ends = np.cumsum([len(dream.positions) for dream in dreams])
            for dream, chosen in zip(dreams, np.split(choices, ends[:-1]), strict=True):
                dream.take(chosen)
        before, made = made, sum(rollout.dream_step for rollout in rollouts)
        if told is not None and made > before:
            told(made - before)


def _passes(feeds: Sequence[Feed], most_tokens: int) -> Iterator[list[Feed]]:
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
