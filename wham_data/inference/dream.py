"""Dreams: a world model goes on from a context of frames and actions.

A step is N image tokens, then the 16 tokens of the action taken on seeing that frame. A dream makes
K more steps, and the mode says what of them the model makes:

    world   the frames; the actions are given                    (published protocol: base)
    full    the frames and the actions                           (published protocol: comprehensive)
    policy  the actions; the frames are given

What the model sees when it makes step k is the newest min(context_steps, S - 1) steps before it, S
being the steps that its position table holds: a prediction needs one of them for itself. Positions
count from 0 at the oldest step it sees. While the context grows, the cache of keys and values grows
with it; once the window slides, every token has a new position and the window is read in again.

Each dream of a batch keeps its own place: it needs its own number of passes, slides and ends when
it does, and has tokens that depend on its seed and index alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wham_data.inference.gpt.model import GPT, Cache, Feed
from wham_data.inference.gpt.rollout import DreamStats, Plan, Rollout, run
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.speculation import LONGEST_BLOCK, BlockLength
from wham_data.inference.gpt.static_decode import StaticDecoder
from wham_data.inference.sampling import HeldNoise, Noise, Sampling
from wham_data.inference.tokenizer import Tokenizer
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import ACTION_SIZE, decode_actions, encode_actions

Mode = Literal["world", "policy", "full", "base", "comprehensive"]
Tokens = NDArray[np.int64]

_ALIASES: dict[str, str] = {"base": "world", "comprehensive": "full"}
_MODES = ("world", "policy", "full")

TOKENS_PER_PASS, TOKENS_PER_PASS_ON_GPU = 512, 4096
"""Dreams share a pass up to this many tokens; a longer feed, a prefill, gets one of its own, which
bounds the memory of a pass."""


class DreamingModel(Protocol):
    """What a dream needs of a world model; `WorldModel` is one."""

    @property
    def gpt(self) -> GPT:
        """The transformer, on its device, in its dtype, not training."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Frames to tokens and back; None where the model came without one."""
        ...

    @property
    def compiled(self) -> bool:
        """Whether short passes have fixed shapes, which a GPU replays as recorded graphs."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """The steps that a dream starts from, oldest first: each a frame and the action on seeing it.

    actions  float [C, 16] measured, in `wham16`
    tokens   integer [C, N] image tokens of the model's own tokenizer, or
    frames   uint8 [C, H, W, 3] RGB, which that tokenizer encodes

    Raises:
        UsageError: both or none of tokens and frames, no steps, or as many actions as frames not.
    """

    actions: NDArray[np.floating]
    tokens: NDArray[np.integer] | None = None
    frames: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        pictures = self.tokens if self.tokens is not None else self.frames
        if pictures is None or (self.tokens is not None and self.frames is not None):
            raise UsageError("a context holds either tokens or frames: give exactly one of them")
        if self.actions.ndim != 2 or self.actions.shape != (len(pictures), ACTION_SIZE):
            raise UsageError(
                f"a context of {len(pictures)} frames has actions of shape {self.actions.shape}: "
                f"expected ({len(pictures)}, {ACTION_SIZE})"
            )
        if not len(pictures):
            raise UsageError("a context of no steps: expected at least 1")


@dataclass(frozen=True)
class Dream:
    """K dreamt steps.

    tokens   uint16 [K, N]
    actions  float32 [K, 16] measured, as the model saw them: each stick at the middle of its bin
    stats    what it cost
    frames   uint8 [K, H, W, 3], decoded when first asked for
    """

    tokens: NDArray[np.uint16]
    actions: NDArray[np.float32]
    stats: DreamStats
    _tokenizer: Tokenizer | None = field(repr=False)

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """The dreamt pictures.

        Raises:
            UsageError: the model has no tokenizer.
        """
        return _need(self._tokenizer).decode(self.tokens)


def dream(
    model: DreamingModel,
    context: Context,
    *,
    steps: int,
    mode: Mode = "world",
    actions: NDArray[np.floating] | None = None,
    frames: NDArray[np.integer] | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    context_steps: int | None = None,
    speculate: bool = True,
) -> Dream:
    """Go on from one context; `dream_batch` says what the arguments are."""
    return dream_batch(
        model,
        [context],
        steps=steps,
        mode=mode,
        actions=None if actions is None else [actions],
        frames=None if frames is None else [frames],
        sampling=sampling,
        seed=seed,
        context_steps=context_steps,
        speculate=speculate,
    )[0]


def dream_batch(
    model: DreamingModel,
    contexts: Sequence[Context],
    *,
    steps: int,
    mode: Mode = "world",
    actions: Sequence[NDArray[np.floating]] | None = None,
    frames: Sequence[NDArray[np.integer]] | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    context_steps: int | None = None,
    speculate: bool = True,
    advance: Callable[[int], None] | None = None,
) -> list[Dream]:
    """Go on from several contexts at once.

    Args:
        model: the world model.
        contexts: where each dream starts; they may differ in length.
        steps: K, steps to make, from 1 up.
        mode: what the model makes; see above.
        actions: mode world: per dream float [K, 16] measured. Action k is taken on seeing dreamt
            frame k, so the last one shapes nothing any more.
        frames: mode policy: per dream the recorded future, integer [K, N] tokens or uint8
            [K, H, W, 3].
        sampling: how tokens are drawn; None is `Sampling()`.
        seed: with a dream's index all its randomness.
        indices: per dream, its index in the run; 0, 1, 2, ... by default. A dream comes out the
            same in whatever batch it is made.
        context_steps: the most steps that the model sees, at most S; S and None mean S - 1.
        speculate: guess ahead. It changes the time that a dream takes and nothing else.
        advance: told, now and then, how many more steps have been made, of whichever dreams.

    Raises:
        UsageError: an argument that fits neither the mode nor the model.
        NoTokenError: an action that no token stands for (NaN, a button half down).
    """
    spec = model.gpt.spec
    mode_name = _ALIASES.get(mode, mode)
    if mode_name not in _MODES:
        known = ", ".join([*_MODES, *_ALIASES])
        raise UsageError(f"mode {mode!r}: expected one of {known}")
    if steps < 1:
        raise UsageError(f"{steps} steps to dream: expected at least 1")
    window = _window(spec, context_steps)
    _check_given("actions", actions, mode_name == "world", len(contexts), mode)
    _check_given("frames", frames, mode_name == "policy", len(contexts), mode)
    if indices is not None and len(indices) != len(contexts):
        raise UsageError(f"{len(indices)} indices for {len(contexts)} contexts")
    sampling = Sampling() if sampling is None else sampling
    device = model.gpt.lm_head.weight.device
    rollouts = []
    for row, (context, index) in enumerate(
        zip(contexts, indices or range(len(contexts)), strict=True)
    ):
        history, clamped = _history(model, context)
        given_actions = None
        if actions is not None:
            given_actions, more = _action_tokens(spec, actions[row], steps)
            clamped += more
        plan = Plan(
            given_actions=given_actions,
            given_frames=None if frames is None else _given_frames(model, frames[row], steps),
            steps=steps,
            window=window,
            grid=None if model.tokenizer is None else model.tokenizer.grid,
            block=_block_length(device) if speculate else None,
        )
        noise = HeldNoise(Noise(seed, index), spec.vocabulary, device)
        rollouts.append(Rollout(spec, plan, noise, row, history))
        rollouts[-1].stats.clamped = clamped
    if rollouts:
        model_pass = _model_pass(model, len(rollouts), (window + 1) * spec.tokens_per_step)
        run(model_pass, rollouts, sampling, _tokens_per_pass(device), advance)
    return [_dreamt(model, rollout) for rollout in rollouts]


def _model_pass(
    model: DreamingModel, rows: int, positions: int
) -> Callable[[Sequence[Feed]], Tensor]:
    """`GPT.advance` over a fresh cache."""
    if model.compiled:
        return StaticDecoder(model.gpt, rows, positions).advance
    return partial(model.gpt.advance, cache=Cache(model.gpt, rows, positions))


def _dreamt(model: DreamingModel, rollout: Rollout) -> Dream:
    spec = model.gpt.spec
    images, actions = np.split(rollout.made, [spec.image_tokens], axis=1)
    return Dream(
        tokens=images.astype(np.uint16),
        actions=decode_actions(actions - spec.image_vocab),
        stats=rollout.stats,
        _tokenizer=model.tokenizer,
    )


def _window(spec: GPTSpec, context_steps: int | None) -> int:
    """The most steps that the model sees when it makes one."""
    most = spec.steps if context_steps is None else context_steps
    if not 1 <= most <= spec.steps:
        raise UsageError(
            f"a context of {most} steps for a model that holds {spec.steps}: "
            f"expected 1 to {spec.steps}"
        )
    if spec.steps < 2:
        raise UsageError("this model holds a single step: there is no room to predict another")
    return min(most, spec.steps - 1)


def _block_length(device: torch.device) -> BlockLength:
    return BlockLength() if device.type == "cpu" else BlockLength(shortest=LONGEST_BLOCK)


def _tokens_per_pass(device: torch.device) -> int:
    return TOKENS_PER_PASS if device.type == "cpu" else TOKENS_PER_PASS_ON_GPU


def _history(model: DreamingModel, context: Context) -> tuple[Tokens, int]:
    """The context as tokens, int64 [C, P], and how many stick values were clamped."""
    spec = model.gpt.spec
    if context.tokens is not None:
        images = _image_tokens(spec, context.tokens, len(context.actions))
    else:
        frames = np.asarray(context.frames)
        images = _need(model.tokenizer).encode(frames).astype(np.int64)
    actions, clamped = _action_tokens(spec, context.actions, len(images))
    return np.concatenate([images, actions], axis=1), clamped


def _image_tokens(spec: GPTSpec, tokens: NDArray[np.integer], steps: int) -> Tokens:
    if tokens.dtype.kind not in "iu" or tokens.shape != (steps, spec.image_tokens):
        raise UsageError(
            f"image tokens {tokens.dtype} {tokens.shape}: "
            f"expected integers ({steps}, {spec.image_tokens})"
        )
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < spec.image_vocab:
        raise UsageError(
            f"image tokens {tokens.min()}..{tokens.max()}: this model's are "
            f"0..{spec.image_vocab - 1}. Were they made by its own tokenizer?"
        )
    return tokens.astype(np.int64)


def _given_frames(model: DreamingModel, frames: NDArray[np.integer], steps: int) -> Tokens:
    if frames.ndim == 4:
        frames = _need(model.tokenizer).encode(frames.astype(np.uint8, casting="safe"))
    return _image_tokens(model.gpt.spec, frames, steps)


def _action_tokens(spec: GPTSpec, actions: NDArray[np.floating], steps: int) -> tuple[Tokens, int]:
    """int64 [steps, 16] in the joint vocabulary, and how many stick values were clamped."""
    if actions.shape != (steps, ACTION_SIZE):
        raise UsageError(f"actions of shape {actions.shape}: expected ({steps}, {ACTION_SIZE})")
    tokens, clamped = encode_actions(actions)
    return tokens + spec.image_vocab, clamped


def _check_given(
    what: str, given: Sequence[object] | None, needed: bool, dreams: int, mode: str
) -> None:
    if needed and given is None:
        raise UsageError(f"mode {mode} dreams with given {what}: none were given")
    if given is not None and not needed:
        raise UsageError(f"mode {mode} makes its own {what}: give none, or choose another mode")
    if given is not None and len(given) != dreams:
        raise UsageError(f"{what} for {len(given)} dreams, but there are {dreams} contexts")


def _need(tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise UsageError("this model has no tokenizer: frames can be neither read nor shown")
    return tokenizer
