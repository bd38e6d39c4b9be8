"""Initial weights for a small world model that already predicts the last frame again.

From random weights, a small run spends most of its time learning where the previous frame is. These
weights give positions that encode their place, heads that look at the previous frames, and embeddings
in which similar patches are close together. They are only a start: training changes all of them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wham_data.inference.gpt.model import GPT, Block

_SCALE = 0.02
"""Size of the residual stream's entries."""

_SHARPNESS = 30.0
"""How much more than others, in logits, a head prefers the right place, and again the right step."""

_COPIED = 0.4
"""Size of the values that a copying head writes into the residual stream."""

_CONFIDENCE = 3.0
"""The last norm's weight, large enough that the copied token is predicted."""


def structured_start(model: GPT, codebook: NDArray[np.float32], seed: int) -> None:
    """Set the weights of a fresh model.

    The first d / h dimensions of the residual stream encode the place: waves over the place in the
    step, with random frequencies, and one dimension per step of the window. The other dimensions
    encode the token; for image tokens, this is a random projection of their codebook rows. From place
    i, all heads of the first block except the last look at place i + 1 of the step before, which holds
    the earlier value of the token to predict. Each head copies a part of it. The last head looks two
    steps back.

    A model with one head, or with heads too narrow for the number of steps, is not changed.

    Args:
        codebook: [V, e], the rows of the tokenizer that made the tokens.
    """
    spec, size = model.spec, model.spec.head_size
    if spec.n_head < 2 or size < spec.steps + 2:
        return
    rng = np.random.default_rng((seed, 1))
    frequencies = rng.uniform(0, math.pi, (size - spec.steps) // 2)
    positions = _positions(frequencies, spec.positions, spec.tokens_per_step)
    rows = codebook / codebook.std()
    mixing = rng.normal(0, 1 / math.sqrt(rows.shape[1]), (rows.shape[1], spec.n_embd - size))
    tokens = rng.normal(0, 1, (spec.vocabulary, spec.n_embd - size))
    tokens[: len(rows)] = rows @ mixing + tokens[: len(rows)] / 4  # all about as long, for the norm
    with torch.no_grad():
        model.lm_head.weight[:, :size] = 0
        model.lm_head.weight[:, size:] = _SCALE * _tensor(tokens)
        model.transformer.wpe.weight.zero_()
        model.transformer.wpe.weight[:, : positions.shape[1]] = _SCALE * _tensor(positions)
        model.transformer.ln_f.weight.fill_(_CONFIDENCE)
        first = model.transformer.h[0]
        assert isinstance(first, Block)
        for head in range(spec.n_head - 1):
            _look_back(first, head, size, frequencies, 1)
            _copy(first, head, size)
        _look_back(first, spec.n_head - 1, size, frequencies, 2)


def _positions(
    frequencies: NDArray[np.float64], positions: int, tokens_per_step: int
) -> NDArray[np.float64]:
    """A row per position, float64 [S P, 2 waves + S]: cosines and sines of the place, then the step."""
    step, place = np.divmod(np.arange(positions), tokens_per_step)
    angles = place[:, None] * frequencies
    one_of_the_steps = np.eye(positions // tokens_per_step)[step]
    return np.concatenate([np.cos(angles), np.sin(angles), one_of_the_steps], axis=1)


def _look_back(
    block: Block, head: int, size: int, frequencies: NDArray[np.float64], back: int
) -> None:
    """Make a head look at the next place, `back` steps before.

    The query's waves are shifted by one place, and its step is moved back. So its product with the
    waves and the step of a key is largest at that place.
    """
    waves = len(frequencies)
    key, query = np.eye(size), np.zeros((size, size))
    cos, sin = np.diag(np.cos(frequencies)), np.diag(np.sin(frequencies))
    query[: 2 * waves, : 2 * waves] = np.block([[cos, -sin], [sin, cos]])
    key[2 * waves :] *= math.sqrt(waves)
    query[2 * waves :, 2 * waves :] = math.sqrt(waves) * np.eye(size - 2 * waves, k=back)
    gain = math.sqrt(_SHARPNESS * math.sqrt(size) / waves)
    part = slice(head * size, (head + 1) * size)
    queries, keys, _ = block.attn.c_attn.weight.chunk(3)
    for weights, matrix in ((queries, query), (keys, key)):
        weights[part] = 0
        weights[part, :size] = gain * _tensor(matrix)


def _copy(block: Block, head: int, size: int) -> None:
    """Make a head copy its part of the token that it looks at into the same dimensions."""
    values = block.attn.c_attn.weight.chunk(3)[2]
    out = block.attn.c_proj.weight
    part = slice(head * size, (head + 1) * size)
    copied = slice((head + 1) * size, (head + 2) * size)
    values[part], out[:, part] = 0, 0
    values[part, copied] = torch.eye(size)
    out[copied, part] = _COPIED * torch.eye(size)


def _tensor(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
