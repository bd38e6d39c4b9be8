"""Dreams of a given length: a world model continues a context of frames and actions.

A dream has K steps, each a frame and the action taken after it. The mode determines which of them
the model makes:

    world   the frames; the actions are given                    (published protocol: base)
    full    the frames and the actions                           (published protocol: comprehensive)
    policy  the actions; the frames are given

This is a loop over `Session.steps`; use `session` to make a dream step by step. A dream depends only
on its context, seed and index, and not on the batch in which it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.sampling import Sampling
from wham_data.inference.session import Context, DreamStats, Step, WorldModel, need_tokenizer
from wham_data.inference.tokenizers.contract import Tokenizer
from wham_data.schemas.errors import UsageError

__all__ = ["Context", "Dream", "DreamStats", "Mode", "dream", "dream_batch"]

Mode = Literal["world", "policy", "full", "base", "comprehensive"]

_ALIASES: dict[str, str] = {"base": "world", "comprehensive": "full"}
_MODES = ("world", "policy", "full")


@dataclass(frozen=True)
class Dream:
    """The K steps of a dream.

    tokens   uint16 [K, N]
    actions  float32 [K, A], the values that the model reads: a stick is at the middle of its bin
    stats    the work that was needed
    frames   uint8 [K, H, W, 3], decoded at the first access
    """

    tokens: NDArray[np.uint16]
    actions: NDArray[np.float32]
    stats: DreamStats
    _tokenizer: Tokenizer | None = field(repr=False)

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """The pictures of the dream.

        Raises:
            UsageError: the model has no tokenizer.
        """
        return need_tokenizer(self._tokenizer).decode(self.tokens)


def dream(
    model: WorldModel,
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
    """Continue one context; see `dream_batch` for the arguments."""
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
    model: WorldModel,
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
    """Continue several contexts at once.

    Args:
        model: the world model.
        contexts: the start of each dream; they may differ in length.
        steps: K, number of steps to make, at least 1.
        mode: what the model makes; see the top of this module.
        actions: in mode "world", for each dream float [K, A] in the units of the action space.
            Action k is taken after frame k of the dream, so the last action changes nothing.
        frames: in mode "policy", for each dream the frames of the future, integer [K, N] tokens or
            uint8 [K, H, W, 3].
        sampling: how tokens are drawn; None: `Sampling()`.
        seed: all random numbers of a dream depend on this seed and the dream's index only.
        indices: for each dream its index in the run; None: 0, 1, 2, ...
        context_steps: largest number of steps that the model sees, at most S; S and None mean S - 1.
        speculate: use speculative decoding. It changes the speed of a dream, not the result.
        advance: called after each step with the number of steps made: one per dream.

    Raises:
        UsageError: an argument does not fit the mode or the model.
        NoTokenError: an action has no token (NaN, or a button that is half down).
    """
    mode_name = _ALIASES.get(mode, mode)
    if mode_name not in _MODES:
        known = ", ".join([*_MODES, *_ALIASES])
        raise UsageError(f"mode {mode!r}: expected one of {known}")
    if steps < 1:
        raise UsageError(f"{steps} steps to dream: expected at least 1")
    _check_given("actions", actions, mode_name == "world", len(contexts), mode)
    _check_given("frames", frames, mode_name == "policy", len(contexts), mode)
    if not contexts:
        return []
    session = model.begin(
        contexts,
        [seed] * len(contexts),
        indices=range(len(contexts)) if indices is None else indices,
        sampling=sampling,
        context_steps=context_steps,
        speculate=speculate,
    )
    made: list[Step] = []
    try:
        for step in session.steps(steps, actions, frames=frames):
            made.append(step)
            if advance is not None:
                advance(len(contexts))
    finally:
        session.close()
    return [_dream_of(row, made, model.tokenizer) for row in range(len(contexts))]


def _dream_of(row: int, made: Sequence[Step], tokenizer: Tokenizer | None) -> Dream:
    return Dream(
        tokens=np.stack([step.tokens[row] for step in made]),
        actions=np.stack([step.actions[row] for step in made]),
        stats=made[-1].stats[row],
        _tokenizer=tokenizer,
    )


def _check_given(
    what: str, given: Sequence[object] | None, needed: bool, dreams: int, mode: str
) -> None:
    if needed and given is None:
        raise UsageError(f"mode {mode} needs {what}, but none were given")
    if given is not None and not needed:
        raise UsageError(f"mode {mode} makes its own {what}: give none, or choose another mode")
    if given is not None and len(given) != dreams:
        raise UsageError(f"{what} for {len(given)} dreams, but there are {dreams} contexts")
