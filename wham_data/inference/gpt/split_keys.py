"""Attention over the keys of few sequences, cut into pieces that a GPU reads at the same time.

torch's kernel for attention under a mask gives each head of each sequence to one processor. One
sequence of a model with 18 heads then keeps 18 of an H200's 132 processors busy, and the keys and
values, most of what a pass reads beside the weights, come in slowly. Cut into pieces, [R, h, n, hd]
seen as [R, h pieces, n / pieces, hd], they are read by as many times more processors. Nothing is
copied for this. One sequence is seen as [pieces, h, n / pieces, hd], so that all heads share the mask of
a piece. Each piece gives its mean of the values, and the logarithm of its sum of exponents,
by which the means of all pieces are weighed and added.

Whether this is faster, and with how many pieces, depends on the GPU and the shape: `best_pieces`
measures it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

CHOICES = (1, 2, 4, 8)
"""Numbers of pieces among which `best_pieces` chooses; each divides 64, so it divides a cache."""

_WARM_UP, _RUNS = 3, 10
_WORTH = 0.95
"""Pieces are used if they take less than this share of the time without them."""


def attend_in_pieces(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, pieces: int
) -> Tensor:
    """Attention like torch's, with the keys in pieces.

    Args:
        query: float [R, h, m, hd].
        keys, values: float [R, h, n, hd], contiguous in their last three dimensions; finite.
        mask: added to the scores, from `mask_in_pieces`.
        pieces: divides n.

    Returns:
        float [R, h, m, hd].
    """
    rows, heads, count, size = keys.shape
    asking = query.shape[2]
    parts = (rows, heads, pieces, count // pieces, size)
    if rows == 1:
        queries = query.expand(pieces, -1, -1, -1)
        keys, values = (part.view(parts).squeeze(0).transpose(0, 1) for part in (keys, values))
    else:
        queries = query.unsqueeze(2).expand(-1, -1, pieces, -1, -1).flatten(1, 2)
        keys, values = (part.view(parts).flatten(1, 2) for part in (keys, values))
    mask = mask.expand(-1, queries.shape[1], -1, -1)
    means, sums = _attend_with_sums(queries, keys, values, mask)
    if rows == 1:
        means, sums = means.transpose(0, 1), sums.transpose(0, 1)
    means = means.reshape(rows, heads, pieces, asking, size)
    shares = sums.float().reshape(rows, heads, pieces, asking).softmax(dim=2).unsqueeze(-1)
    return (means.float() * shares).sum(dim=2).to(query.dtype)


def mask_in_pieces(mask: Tensor, heads: int, pieces: int) -> Tensor:
    """A mask [R, 1, m, n], for keys in pieces: [R, heads pieces, m, n / pieces], and for one sequence
    [pieces, 1, m, n / pieces]."""
    rows, _, asking, count = mask.shape
    cut = mask.view(rows, 1, asking, pieces, count // pieces).transpose(2, 3)
    if rows == 1:
        return cut.reshape(pieces, 1, asking, -1)
    return cut.expand(-1, heads, -1, -1, -1).reshape(rows, heads * pieces, asking, -1)


def best_pieces(keys: Tensor, values: Tensor, asking: int) -> int:
    """The number of pieces with which this device attends fastest; measured, if it is a GPU.

    Args:
        keys, values: [R, h, n, hd], those of a layer. They are read, and not changed.
        asking: m, the number of tokens of each sequence.
    """
    if not keys.is_cuda:
        return 1
    seconds = attention_seconds(keys, values, asking)
    best = min(seconds, key=lambda pieces: seconds[pieces])
    return best if seconds[best] < _WORTH * seconds[1] else 1


def attention_seconds(keys: Tensor, values: Tensor, asking: int) -> dict[int, float]:
    """Seconds of one attention with each of `CHOICES`, as for `best_pieces`."""
    rows, heads, count, size = keys.shape
    query = torch.ones(rows, heads, asking, size, dtype=keys.dtype, device=keys.device)
    mask = torch.zeros(rows, 1, asking, count, dtype=keys.dtype, device=keys.device)
    return {pieces: _seconds(_way(query, keys, values, mask, pieces)) for pieces in CHOICES}


def _way(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, pieces: int
) -> Callable[[], Tensor]:
    if pieces == 1:
        return lambda: functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    cut = mask_in_pieces(mask, keys.shape[1], pieces)
    return lambda: attend_in_pieces(query, keys, values, cut, pieces)


def _seconds(work: Callable[[], Tensor]) -> float:
    """Seconds of one of several calls in a row."""
    for _ in range(_WARM_UP):
        _wait_for(work())
    started = time.perf_counter()
    for _ in range(_RUNS - 1):
        work()
    _wait_for(work())
    return (time.perf_counter() - started) / _RUNS


def _wait_for(result: Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize(result.device)


def _attend_with_sums(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of each token's sum of exponents: [..., m, hd] and [..., m]."""
    if query.is_cuda:
        mixed, sums = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, keys, values, mask, True
        )[:2]
        return mixed, sums.narrow(2, 0, query.shape[2])  # padded to a multiple of 32
    scores = query @ keys.transpose(2, 3) / math.sqrt(keys.shape[-1]) + mask
    return scores.softmax(dim=-1) @ values, scores.logsumexp(dim=-1)
