"""A start for a small world model that already expects the last frame to come again.

From plain noise, most of a small run goes into finding out where the previous frame is, and where
what the hands did. This start gives positions that know their place, heads that look at the last
frame and at the pad, and embeddings in which similar patches lie close together. It is a start and
no more: everything moves from the first step on.

The residual stream begins with four parts, each as wide as a head:

    PLACE   waves over the place in the step, a dimension per step of the window, one for the places
            of action tokens and one that is always on
    TOKEN   the token, image tokens by their codebook rows; what is written here is predicted
    BESIDE  what stood to the left and to the right, added up under two random rotations
    PAD     the action behind the last frame
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wham_data.inference.gpt import GPT, Block
from wham_data.inference.gpt_config import GPTSpec
from wham_data.schemas.wham_tokens import BUTTONS, STICK_AXES, STICK_BINS

_PLACE, _TOKEN, _BESIDE, _PAD = range(4)

_SCALE = 0.02
"""Of the residual stream's entries."""

_SHARPNESS = 30.0
"""How much more than others, in logits, a head prefers the right place, and again the right step."""

_COPIED = 0.06
"""What a head that hands on writes into the residual stream."""

_CONFIDENCE = 5.0
"""The last norm's weight, so that what is copied is already predicted."""

_ASIDE = (2, 3, 4)
"""Tokens to either side that heads of the first blocks look at: views turn by about that much."""


def structured_start(model: GPT, codebook: NDArray[np.float32], seed: int) -> None:
    """Set the weights of a fresh model.

    In the first block, from place i, head 0 looks at what stood at place i + 1 a step before, which
    is what the token to be predicted was then, and hands it on as the prediction; heads 1 and 2 look
    to its left and right, in the blocks that follow further away; head 3 looks at the action tokens
    of the step before. All else that writes into the residual stream begins silent.

    A model of fewer than four heads, or of heads too narrow for the steps, is left as it is.

    Args:
        codebook: [V, e], the rows of the tokenizer that made the tokens.
    """
    spec, size = model.spec, model.spec.head_size
    if spec.n_head < 4 or size < spec.steps + 4:
        return
    rng = np.random.default_rng((seed, 1))
    looks = _Looks(rng.uniform(0, math.pi, (size - spec.steps - 2) // 2), spec)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        _columns(model.lm_head.weight, _TOKEN, size)[:] = _SCALE * _tensor(
            _tokens(codebook, spec, rng)
        )
        model.transformer.wpe.weight.zero_()
        _columns(model.transformer.wpe.weight, _PLACE, size)[:] = _SCALE * _tensor(looks.places)
        model.transformer.ln_f.weight.fill_(_CONFIDENCE)
        for block in model.blocks:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        for block, aside in zip(model.blocks, _ASIDE, strict=False):
            for head, places in ((1, 1 - aside), (2, 1 + aside)):
                looks.at_place(block, head, places)
                _hand_on(block, head, _BESIDE, size, _COPIED * _rotation(size, rng))
        first = model.blocks[0]
        looks.at_place(first, 0, 1)
        _hand_on(first, 0, _TOKEN, size, _COPIED * np.eye(size))
        looks.at_actions(first, 3)
        _hand_on(first, 3, _PAD, size, 4 * _COPIED * np.eye(size))


def _tokens(
    codebook: NDArray[np.float32], spec: GPTSpec, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A row per token, float64 [V + 68, hd]: images by their codebook rows, sticks by their values."""
    size = spec.head_size
    tokens = rng.normal(0, 1, (spec.vocabulary, size))
    rows = codebook / codebook.std()
    mixing = rng.normal(0, 1 / math.sqrt(rows.shape[1]), (rows.shape[1], size))
    tokens[: len(rows)] = rows @ mixing + tokens[: len(rows)] / 4
    choices = [2] * BUTTONS + [STICK_BINS] * STICK_AXES
    tokens[len(rows) :] = np.concatenate(
        [np.linspace(-2, 2, count)[:, None] * rng.normal(0, 1, size) for count in choices]
    )
    return tokens


@dataclass(frozen=True, slots=True)
class _Looks:
    """Heads that look at a given place, by the waves that tell a place."""

    frequencies: NDArray[np.float64]
    spec: GPTSpec

    @property
    def places(self) -> NDArray[np.float64]:
        """A row per position, float64 [S P, hd]: cosines and sines of the place, the step, whether
        an action token stands there, 1; then zeros."""
        spec = self.spec
        step, place = np.divmod(np.arange(spec.positions), spec.tokens_per_step)
        angles = place[:, None] * self.frequencies
        action = place[:, None] >= spec.image_tokens
        parts = [np.cos(angles), np.sin(angles), np.eye(spec.steps)[step], action, action | True]
        known = np.concatenate(parts, axis=1)
        return np.pad(known, [(0, 0), (0, spec.head_size - known.shape[1])])

    def at_place(self, block: Block, head: int, places: int) -> None:
        """Let a head look `places` further on in the step before.

        The waves of the query are turned on by so many places, its step is moved back; so the
        product with the waves and the step of a key is largest there.
        """
        size, waves = self.spec.head_size, len(self.frequencies)
        turned = places * self.frequencies
        cos, sin = np.diag(np.cos(turned)), np.diag(np.sin(turned))
        query = np.zeros((size, size))
        query[: 2 * waves, : 2 * waves] = np.block([[cos, -sin], [sin, cos]])
        query[self._steps, self._steps] = waves * np.eye(self.spec.steps, k=1)
        self._set(block, head, query)

    def at_actions(self, block: Block, head: int) -> None:
        """Let a head look at all action tokens of the step before alike."""
        size, waves = self.spec.head_size, len(self.frequencies)
        query = np.zeros((size, size))
        action, always = self._steps.stop, self._steps.stop + 1
        query[action, always] = waves
        query[self._steps, self._steps] = waves * np.eye(self.spec.steps, k=1)
        self._set(block, head, query)

    @property
    def _steps(self) -> slice:
        first = 2 * len(self.frequencies)
        return slice(first, first + self.spec.steps)

    def _set(self, block: Block, head: int, query: NDArray[np.float64]) -> None:
        size = self.spec.head_size
        gain = math.sqrt(_SHARPNESS * math.sqrt(size) / len(self.frequencies))
        queries, keys, _ = block.attn.c_attn.weight.chunk(3)
        for weights, matrix in ((queries, query), (keys, np.eye(size))):
            mine = weights[_part(head, size)]
            mine.zero_()
            _columns(mine, _PLACE, size)[:] = gain * _tensor(matrix)


def _hand_on(block: Block, head: int, part: int, size: int, told: NDArray[np.float64]) -> None:
    """Let a head write the tokens that it looks at into a part of the stream, by `told` [hd, hd]."""
    values = block.attn.c_attn.weight.chunk(3)[2][_part(head, size)]
    values.zero_()
    _columns(values, _TOKEN, size)[:] = torch.eye(size)
    block.attn.c_proj.weight[_part(part, size), _part(head, size)] = _tensor(told)


def _rotation(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random orthogonal matrix, float64 [size, size]."""
    rotation: NDArray[np.float64] = np.linalg.qr(rng.normal(0, 1, (size, size)))[0]
    return rotation


def _part(number: int, size: int) -> slice:
    return slice(number * size, (number + 1) * size)


def _columns(weights: Tensor, part: int, size: int) -> Tensor:
    return weights[:, _part(part, size)]


def _tensor(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
