"""Turns frames and actions into the ids of a step, in the joint vocabulary, and back."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.session import Context, need_tokenizer
from wham_data.inference.tokenizers.contract import Tokenizer
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import (
    ACTION_SIZE,
    decode_actions,
    encode_actions,
    sticks_clamped,
)

Ids = NDArray[np.int64]


def context_ids(spec: GPTSpec, tokenizer: Tokenizer | None, context: Context) -> tuple[Ids, int]:
    """The context, int64 [C, P], and how many stick values were clamped."""
    frames = context.tokens if context.tokens is not None else np.asarray(context.frames)
    images = frame_ids(spec, tokenizer, frames, len(context.actions))
    actions, clamped = action_ids(spec, context.actions, len(images))
    return np.concatenate([images, actions], axis=1), int(clamped.sum())


def frame_ids(
    spec: GPTSpec, tokenizer: Tokenizer | None, frames: NDArray[np.integer], steps: int
) -> Ids:
    """Frames given as tokens [steps, N] or as uint8 [steps, H, W, 3], as int64 [steps, N]."""
    if frames.ndim == 4:
        frames = need_tokenizer(tokenizer).encode(cast("NDArray[np.uint8]", frames))
    if frames.dtype.kind not in "iu" or frames.shape != (steps, spec.image_tokens):
        raise UsageError(
            f"image tokens {frames.dtype} {frames.shape}: "
            f"expected integers ({steps}, {spec.image_tokens})"
        )
    if not 0 <= int(frames.min()) <= int(frames.max()) < spec.image_vocab:
        raise UsageError(
            f"image tokens {frames.min()}..{frames.max()}: this model's are "
            f"0..{spec.image_vocab - 1}. Were they made by its own tokenizer?"
        )
    return frames.astype(np.int64)


def action_ids(spec: GPTSpec, actions: NDArray[np.floating], steps: int) -> tuple[Ids, Ids]:
    """int64 [steps, 16], and how many stick values of each action were clamped, int64 [steps]."""
    actions = np.asarray(actions)
    if actions.shape != (steps, ACTION_SIZE):
        raise UsageError(f"actions of shape {actions.shape}: expected ({steps}, {ACTION_SIZE})")
    tokens, _ = encode_actions(actions)
    return tokens + spec.image_vocab, sticks_clamped(actions)


def measured_actions(spec: GPTSpec, ids: Ids) -> NDArray[np.float32]:
    """The actions that the ids [..., 16] stand for, measured, float32 [..., 16]."""
    return decode_actions(ids - spec.image_vocab)
