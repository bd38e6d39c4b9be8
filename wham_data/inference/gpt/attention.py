"""Attention over cached keys. Only this module chooses the kernel.

    flash-attn   CUDA and half precision, where the package works (`flash.py`)
    SDPA         everywhere else: torch's own, which on a GPU has several kernels of its own

A query sees the keys up to its own: the last of m queries sees all n keys, the one before it n - 1.
"""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

from wham_data.inference.gpt.flash import flash_attn

_LARGEST_FLASH_HEAD = 256


class Kernel(StrEnum):
    """The implementation that computes attention."""

    FLASH = "flash-attn"
    SDPA = "SDPA"


def kernel_for(like: Tensor, head_size: int) -> Kernel:
    """The kernel for tensors on the device and of the type of `like`."""
    if not like.is_cuda or like.dtype not in (torch.float16, torch.bfloat16):
        return Kernel.SDPA
    if head_size > _LARGEST_FLASH_HEAD or head_size % 8 or flash_attn(like.device) is None:
        return Kernel.SDPA
    return Kernel.FLASH


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of the last m tokens of one sequence over all its tokens so far.

    Args:
        query: float [m, h, hd].
        keys, values: float [h, n, hd], n at least m.
        mask: the result of `causal_mask`.

    Returns:
        float [m, h hd].
    """
    queries = len(query)
    if kernel_for(query, query.shape[-1]) is Kernel.FLASH and (flash := flash_attn(query.device)):
        mixed = flash.whole(
            query[None], keys.transpose(0, 1)[None], values.transpose(0, 1)[None], causal=True
        )
        return torch.as_tensor(mixed[0]).reshape(queries, -1)
    mixed = functional.scaled_dot_product_attention(
        query.transpose(0, 1).contiguous().unsqueeze(0),  # the fast kernels need contiguous input
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None and queries > 1,
    )
    return mixed[0].transpose(0, 1).reshape(queries, -1)


def causal_mask(queries: int, keys: int, head_size: int, like: Tensor) -> Tensor | None:
    """A mask of the keys that the last `queries` tokens must not see: 0 or -inf, [queries, keys].

    None if `attend` needs no mask: a single token sees all keys, and some kernels apply the causal
    rule themselves.
    """
    if queries in (1, keys) or kernel_for(like, head_size) is Kernel.FLASH:
        return None
    mask = like.new_zeros(queries, keys)
    mask[:, keys - queries :] = like.new_full((queries, queries), -math.inf).triu_(1)
    return mask


def attend_each(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Like `attend`, for many sequences of different lengths, in shapes that never change.

    Args:
        query: float [R, m, h, hd], the tokens at `positions`.
        keys, values: float [R, h, n, hd]. Values after a sequence's end must be finite.
        positions: int64 [R, m], rising by one along each row, below n.

    Returns:
        float [R, m, h hd].
    """
    if kernel_for(query, query.shape[-1]) is Kernel.FLASH and (flash := flash_attn(query.device)):
        mixed = flash.cached(
            query,
            keys.transpose(1, 2),
            values.transpose(1, 2),
            cache_seqlens=(positions[:, -1] + 1).int(),
            causal=True,
        )
        return torch.as_tensor(mixed).flatten(2)
    places = torch.arange(keys.shape[2], device=positions.device)
    mixed = functional.scaled_dot_product_attention(
        query.transpose(1, 2), keys, values, attn_mask=(places <= positions[..., None])[:, None]
    )
    return mixed.transpose(1, 2).flatten(2)
