"""Dreams of a GPT, side by side, and the passes that they share.

When the model makes step k, it sees the newest min(context_steps, S - 1) steps before it. S is the
number of steps in its position table: a prediction needs one of them for itself. Positions count from
0 at the oldest visible step. While the context grows, the cache of keys and values grows with it.
When the window slides, every token has a new position, and the whole window is read again.

Each dream has its own place: it needs its own number of passes, and its window slides independently.
If `steps` knows the actions of later steps, a dream that is ahead continues while others catch up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.device.arithmetic import ieee_float32
from wham_data.inference.gpt import saved_session, step_tokens
from wham_data.inference.gpt.choosing import Chooser
from wham_data.inference.gpt.kept import KeptDecoders
from wham_data.inference.gpt.model import GPT, Cache, Decoder, Feed
from wham_data.inference.gpt.rollout import Given, Outlook, Place, Rollout, groups_of
from wham_data.inference.gpt.saved_session import SavedDream
from wham_data.inference.gpt.speculation import USUAL_AT_FIRST, block_lengths
from wham_data.inference.gpt.static_decode import StaticDecoder
from wham_data.inference.sampling import HeldNoise, Noise, Sampling
from wham_data.inference.session import LATER, Actions, Context, DreamStats, Frames, Step
from wham_data.inference.tokenizers.contract import Tokenizer
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import ACTION_SIZE

TOKENS_PER_PASS, TOKENS_PER_PASS_ON_GPU = 512, 4096
"""Dreams share a pass up to this many tokens; a longer feed, a prefill, gets one of its own, which
bounds the memory of a pass."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """The settings that stay the same during a session.

    fingerprint    computes the model's fingerprint
    kept           where decoders of passes of fixed shapes are kept; None: passes of any shape
    fused          such passes go through torch.compile
    sampling       how tokens are drawn
    context_steps  the largest number of steps that the model sees; None: as many as it can
    speculate      whether to guess ahead
    """

    gpt: GPT
    tokenizer: Tokenizer | None
    fingerprint: Callable[[], str]
    kept: KeptDecoders | None
    fused: bool
    sampling: Sampling
    context_steps: int | None
    speculate: bool

    @property
    def window(self) -> int:
        """The largest number of steps that the model sees when it makes one.

        Raises:
            UsageError: it is more than the model holds, or less than 1.
        """
        held = self.gpt.spec.steps
        most = held if self.context_steps is None else self.context_steps
        if not 1 <= most <= held:
            raise UsageError(
                f"a context of {most} steps for a model that holds {held}: expected 1 to {held}"
            )
        if held < 2:
            raise UsageError("this model holds a single step: there is no room to predict another")
        return min(most, held - 1)

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.gpt.lm_head.weight.device

    def outlook(self, dreams: int) -> Outlook:
        """The settings that each of so many dreams needs."""
        grid = None if self.tokenizer is None else self.tokenizer.grid
        weight = self.gpt.lm_head.weight
        on_gpu, half = weight.device.type != "cpu", weight.dtype is not torch.float32
        least, most = block_lengths(dreams, on_gpu=on_gpu, half=half)
        return Outlook(self.window, grid, self.speculate, least, most)

    def decoder(self, rows: int) -> Decoder:
        """The model with a cache in which nothing has been written that is read."""
        positions = (self.window + 1) * self.gpt.spec.tokens_per_step
        if self.kept is not None:
            return self.kept.take(self.gpt, rows, positions, fused=self.fused)
        return Decoder(self.gpt, Cache(self.gpt, rows, positions))


def begin(
    settings: SessionSettings,
    contexts: Sequence[Context],
    seeds: Sequence[int],
    indices: Sequence[int] | None,
) -> GPTSession:
    """As `WorldModel.begin`."""
    indices = [0] * len(contexts) if indices is None else indices
    for what, given in (("seeds", seeds), ("indices", indices)):
        if len(given) != len(contexts):
            raise UsageError(f"{len(given)} {what} for {len(contexts)} contexts")
    if not contexts:
        raise UsageError("no contexts to begin from: expected at least 1")
    settings.outlook(len(contexts))  # the arguments' own errors come before those of the contexts
    dreams = []
    for context, seed, index in zip(contexts, seeds, indices, strict=True):
        ids, clamped = step_tokens.context_ids(settings.gpt.spec, settings.tokenizer, context)
        place = Place(len(ids), len(ids), False, ids, USUAL_AT_FIRST)
        dreams.append(SavedDream(Noise(seed, index), place, DreamStats(clamped=clamped)))
    return resume(settings, dreams)


def resume(settings: SessionSettings, dreams: Sequence[SavedDream]) -> GPTSession:
    """A session of saved dreams. Its cache is empty."""
    spec, outlook = settings.gpt.spec, settings.outlook(len(dreams))
    rollouts = []
    for row, dream in enumerate(dreams):
        noise = HeldNoise(dream.noise, spec.vocabulary, settings.device)
        rollouts.append(Rollout(spec, outlook, noise, row, dream.place))
        rollouts[-1].stats = replace(dream.stats)
    return GPTSession(settings, rollouts, settings.decoder(len(rollouts)))


class GPTSession:
    """`Session` for a GPT."""

    def __init__(
        self,
        settings: SessionSettings,
        rollouts: Sequence[Rollout],
        decoder: Decoder,
    ) -> None:
        self._settings = settings
        self._rollouts = rollouts
        self._chooser = Chooser(settings.gpt.spec, settings.sampling, settings.device)
        self._decoder: Decoder | None = decoder
        self._in_pass = False
        self._steps_before = [rollout.made for rollout in rollouts]
        self._made = 0
        self._plan: object = None

    def step(
        self, actions: Actions | Literal["later"] | None = None, *, frames: Frames | None = None
    ) -> Step:
        """As `Session.step`."""
        given = actions
        if given is not None and not isinstance(given, str):
            given = np.asarray(given)[:, None]
        elif isinstance(given, str) and given != LATER:
            raise UsageError(f"actions {given[:20]!r}: expected an array, None or {LATER!r}")
        shown = None if frames is None else np.asarray(frames)[:, None]
        return next(self._go(self._planned(1, given, shown)))

    def steps(
        self,
        count: int,
        actions: Sequence[Actions] | None = None,
        *,
        frames: Sequence[Frames] | None = None,
    ) -> Iterator[Step]:
        """As `Session.steps`."""
        return self._go(self._planned(count, actions, frames))

    def act(self, actions: Actions | None = None) -> NDArray[np.float32]:
        """As `Session.act`."""
        self._opened()
        if not self._rollouts[0].waiting:
            raise UsageError("no actions are waited for: act decides those of step(LATER)")
        spec = self._settings.gpt.spec
        if actions is None:
            for rollout in self._rollouts:
                rollout.act(None)
            while under_way := [rollout for rollout in self._rollouts if rollout.making]:
                self._pass(under_way)
        else:
            ids, clamped = step_tokens.action_ids(spec, actions, len(self._rollouts))
            for rollout, row, count in zip(self._rollouts, ids, clamped.tolist(), strict=True):
                rollout.act(row)
                rollout.stats.clamped += count
        return step_tokens.measured_actions(spec, self._newest()[:, spec.image_tokens :])

    def clone(self) -> GPTSession:
        """As `Session.clone`. Keys and values are copied, so the clone continues bit-equal."""
        decoder = self._opened().copy()
        twin = GPTSession(self._settings, self._settled_copies(), decoder)
        twin._steps_before, twin._made = self._steps_before, self._made
        return twin

    def save(self) -> bytes:
        """As `Session.save`. The cache is not saved: after `restore`, the window is read once again."""
        self._opened()
        dreams = [
            SavedDream(rollout.seeded, rollout.place(), rollout.stats)
            for rollout in self._settled_copies()
        ]
        settings = self._settings
        return saved_session.written(
            settings.fingerprint(),
            settings.sampling,
            settings.context_steps,
            settings.speculate,
            dreams,
        )

    def close(self) -> None:
        """As `Session.close`. A decoder is kept, but not one in a pass, or whose pass failed."""
        decoder, self._decoder = self._decoder, None
        kept = self._settings.kept
        if kept is not None and isinstance(decoder, StaticDecoder) and not self._in_pass:
            kept.give_back(decoder)

    def _opened(self) -> Decoder:
        if self._decoder is None:
            raise UsageError("this session is closed: begin another, or restore a saved one")
        return self._decoder

    def _settled_copies(self) -> list[Rollout]:
        copies = [rollout.copy() for rollout in self._rollouts]
        self._settle(copies)
        return copies

    def _settle(self, rollouts: Sequence[Rollout]) -> None:
        """Move all dreams back to the step that was returned last; steps made ahead are forgotten."""
        for rollout, before in zip(rollouts, self._steps_before, strict=True):
            rollout.back_to(before + self._made)

    def _planned(
        self,
        count: int,
        actions: Sequence[Actions] | NDArray[np.floating] | Literal["later"] | None,
        frames: Sequence[Frames] | NDArray[np.integer] | None,
    ) -> list[list[Given]]:
        """The given parts of each dream's next steps."""
        self._opened()
        if self._rollouts[0].waiting:
            raise UsageError("the actions after the newest frames are not chosen yet: call act")
        spec, dreams = self._settings.gpt.spec, len(self._rollouts)
        for what, given in (("actions", actions), ("frames", frames)):
            if given is not None and not isinstance(given, str) and len(given) != dreams:
                raise UsageError(f"{what} for {len(given)} dreams, but there are {dreams}")
        plan = []
        for row in range(dreams):
            given_ids: Sequence[tuple[NDArray[np.int64] | Literal["later"] | None, int]]
            if actions is None or isinstance(actions, str):
                given_ids = [(LATER if isinstance(actions, str) else None, 0)] * count
            else:
                ids, clamped = step_tokens.action_ids(spec, actions[row], count)
                given_ids = list(zip(ids, clamped.tolist(), strict=True))
            shown: Sequence[NDArray[np.int64] | None] = [None] * count
            if frames is not None:
                tokenizer = self._settings.tokenizer
                shown = list(step_tokens.frame_ids(spec, tokenizer, frames[row], count))
            plan.append(
                [Given(ids, frame, n) for (ids, n), frame in zip(given_ids, shown, strict=True)]
            )
        return plan

    def _go(self, plan: Sequence[Sequence[Given]]) -> Iterator[Step]:
        """The steps of a plan, one after another."""
        self._settle(self._rollouts)
        started, mine = self._made, object()
        self._plan = mine
        for k in range(len(plan[0])):
            self._opened()
            if self._plan is not mine:
                raise UsageError("another call has gone on with this session meanwhile")
            while self._behind():
                self._round(plan, started)
            for rollout, givens in zip(self._rollouts, plan, strict=True):
                rollout.stats.clamped += givens[k].clamped
            self._made += 1
            yield self._newest_step(plan[0][k])

    def _behind(self) -> bool:
        """Whether a dream does not yet have the step to return next."""
        return any(
            rollout.made - before <= self._made
            for rollout, before in zip(self._rollouts, self._steps_before, strict=True)
        )

    def _round(self, plan: Sequence[Sequence[Given]], started: int) -> None:
        """A pass for every dream that has one of the plan's steps to make."""
        rows = zip(self._rollouts, self._steps_before, plan, strict=True)
        for rollout, before, givens in rows:
            while not rollout.making and not rollout.waiting:
                done = rollout.made - before - started
                if done == len(givens):
                    break
                rollout.start(givens[done])
        if under_way := [rollout for rollout in self._rollouts if rollout.making]:
            self._pass(under_way)

    @ieee_float32()
    @torch.inference_mode()
    def _pass(self, rollouts: Sequence[Rollout]) -> None:
        """Feed each of the dreams once, in as few passes as memory allows."""
        decoder = self._opened()
        on_cpu = self._settings.device.type == "cpu"
        most = TOKENS_PER_PASS if on_cpu else TOKENS_PER_PASS_ON_GPU
        feeds = [rollout.feed() for rollout in rollouts]
        self._in_pass = True
        for group in groups_of(feeds, most):
            self._take(decoder, group)
        self._in_pass = False

    def _take(self, decoder: Decoder, group: Sequence[Feed]) -> None:
        dreams = [self._rollouts[feed.row] for feed in group]
        draws = [dream.draw() for dream in dreams]
        choices = decoder.choose(group, draws, self._chooser)
        ends = np.cumsum([len(draw.positions) for draw in draws])
        for dream, chosen in zip(dreams, np.split(choices, ends[:-1]), strict=True):
            dream.take(chosen)

    def _newest(self) -> NDArray[np.int64]:
        """The steps that were returned last, int64 [B, P]."""
        rows = zip(self._rollouts, self._steps_before, strict=True)
        return np.stack([rollout.tokens_of(before + self._made - 1) for rollout, before in rows])

    def _newest_step(self, given: Given) -> Step:
        spec, newest = self._settings.gpt.spec, self._newest()
        for rollout, before in zip(self._rollouts, self._steps_before, strict=True):
            rollout.forget_before(before + self._made)
        images, actions = np.split(newest, [spec.image_tokens], axis=1)
        if isinstance(given.actions, str):
            measured = np.full((len(newest), ACTION_SIZE), np.nan, np.float32)
        else:
            measured = step_tokens.measured_actions(spec, actions)
        return Step(
            tokens=images.astype(np.uint16),
            actions=measured,
            stats=tuple(replace(rollout.stats) for rollout in self._rollouts),
            _tokenizer=self._settings.tokenizer,
        )
