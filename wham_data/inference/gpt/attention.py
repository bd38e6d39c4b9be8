"""Attention over cached keys. Only this module chooses the kernel.

    flash-attn   CUDA and half precision, where the package works (`flash.py`)
    SDPA         everywhere else: torch's own, which on a GPU has several kernels of its own

A query sees the keys up to its own: the last of m queries sees all n keys, the one before it n - 1.

On a GPU, torch may give attention under a mask to cuDNN, which makes a plan for each new number of
keys, at about a second each; here nearly every pass has a new one. `without_plans` rules cuDNN out.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from wham_data.inference.gpt.flash import flash_attn
from wham_data.inference.gpt.split_keys import attend_in_pieces, mask_in_pieces

_WITHOUT_PLANS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
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


def without_plans(device: torch.device) -> AbstractContextManager[None]:
    """While this lasts, torch's attention on a GPU uses kernels that need no plan per shape."""
    return nullcontext() if device.type == "cpu" else sdpa_kernel(_WITHOUT_PLANS)


@dataclass(frozen=True, slots=True)
class Seen:
    """Which keys the tokens of a pass see. It is made once, and used in every layer.

    ends    int32 [R], one past each sequence's last key, for flash-attn; else None
    mask    0, or a number so low that no weight is left, [R, 1, m, n], or cut
            by `mask_in_pieces`; None for flash-attn
    pieces  the keys are read in so many pieces; see `split_keys`
    """

    ends: Tensor | None
    mask: Tensor | None
    pieces: int = 1

    @classmethod
    def at(cls, positions: Tensor, keys: Tensor, pieces: int = 1) -> Seen:
        """What the tokens at some positions see.

        Args:
            positions: int64 [R, m], rising by one along each row, below n.
            keys: [R, h, n, hd], those of a layer.
            pieces: divides n.
        """
        heads, count, size = keys.shape[1:]
        if kernel_for(keys, size) is Kernel.FLASH:
            return cls((positions[:, -1] + 1).int(), None)
        places = torch.arange(count, device=positions.device)
        lowest = torch.finfo(keys.dtype).min / 4  # finite: a piece may have no key that is seen
        mask = torch.zeros((), dtype=keys.dtype, device=keys.device).where(
            (places <= positions[..., None])[:, None], lowest
        )
        return cls(None, mask if pieces == 1 else mask_in_pieces(mask, heads, pieces), pieces)


def attend_each(query: Tensor, keys: Tensor, values: Tensor, seen: Seen) -> Tensor:
    """Like `attend`, for many sequences of different lengths, in shapes that never change.

    Args:
        query: float [R, m, h, hd].
        keys, values: float [R, h, n, hd]. Values after a sequence's end must be finite.
        seen: what these tokens see of these keys.

    Returns:
        float [R, m, h hd].
    """
    if seen.ends is not None and (flash := flash_attn(query.device)):
        mixed = flash.cached(
            query,
            keys.transpose(1, 2),
            values.transpose(1, 2),
            cache_seqlens=seen.ends,
            causal=True,
        )
        return torch.as_tensor(mixed).flatten(2)
    asking = query.transpose(1, 2)
    if seen.pieces == 1:
        mixed = functional.scaled_dot_product_attention(asking, keys, values, attn_mask=seen.mask)
    else:
        assert seen.mask is not None
        mixed = attend_in_pieces(asking, keys, values, seen.mask, seen.pieces)
    return mixed.transpose(1, 2).flatten(2)
