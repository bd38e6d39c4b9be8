"""Decodes in passes whose shapes never change, so that a GPU can record a pass and replay it.

Every row of the cache takes part in every pass, with the same number of tokens, one of a few
`lengths`. It attends to the whole cache under a mask, and the positions of its tokens are data.
Padding tokens are written after the row's end, where the next tokens overwrite them. A row without
new tokens writes only padding, after everything else.

The tokens are the same as those of `Decoder`, which is still used for long feeds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wham_data.inference.gpt.choosing import Chooser, Ids
from wham_data.inference.gpt.fixed_pass import FixedPass
from wham_data.inference.gpt.model import GPT, Cache, Decoder, Feed
from wham_data.inference.gpt.speculation import block_lengths
from wham_data.inference.sampling import Draw, Sampling
from wham_data.schemas.wham_tokens import ACTION_SIZE

MOST_PASSES = 8
"""A decoder keeps so many passes. More are needed only if the settings of sampling change."""


class StaticDecoder(Decoder):
    """A model with a cache of its own, a row per sequence, which it keeps for the next sequences.

    Attributes:
        size: rows of the cache, and positions.
        lengths: the numbers of tokens that a pass has; longer feeds are passes of any shape.
        passes_made: how often a pass was set up, on a GPU: recorded.
    """

    def __init__(self, gpt: GPT, rows: int, positions: int, *, fused: bool = False) -> None:
        self.size = rows, positions
        self.lengths = lengths_of(gpt.lm_head.weight, rows)
        self.passes_made = 0
        held = positions + self.lengths[-1]
        super().__init__(gpt, Cache(gpt, rows, -(-held // 64) * 64))
        self._fused = fused
        self._passes: dict[tuple[int, Sampling | None], FixedPass] = {}
        self._pool: Any = None

    def fits(self, gpt: GPT, rows: int, positions: int, *, fused: bool) -> bool:
        """Whether it is what the same arguments would make now: the weights may have been moved."""
        same = self._gpt is gpt and self.size == (rows, positions) and self._fused == fused
        weight, keys = gpt.lm_head.weight, self._cache.keys
        return same and (weight.device, weight.dtype) == (keys.device, keys.dtype)

    def advance(self, feeds: Sequence[Feed]) -> Tensor:
        """As `GPT.advance`."""
        length = self._length(feeds)
        if length is None:
            return super().advance(feeds)
        return self._pass(length, None).logits(feeds)

    def choose(self, feeds: Sequence[Feed], draws: Sequence[Draw], chooser: Chooser) -> Ids:
        """As `Decoder.choose`."""
        length = self._length(feeds)
        if length is None:
            return chooser.tokens(super().advance(feeds), draws)
        return self._pass(length, chooser).tokens(feeds, draws)

    def copy(self) -> StaticDecoder:
        """An independent copy of the decoder. It records its passes again."""
        twin = copy.copy(self)
        twin._cache, twin._passes, twin._pool = self._cache.copy(), {}, None
        return twin

    def _length(self, feeds: Sequence[Feed]) -> int | None:
        """The tokens per row of a pass for these feeds; None: too many for any."""
        longest = max(len(feed.tokens) for feed in feeds)
        return next((length for length in self.lengths if length >= longest), None)

    def _pass(self, length: int, chooser: Chooser | None) -> FixedPass:
        key = length, None if chooser is None else chooser.sampling
        found = self._passes.pop(key, None)
        if found is None:
            if len(self._passes) == MOST_PASSES:
                del self._passes[next(iter(self._passes))]  # the one that was not used for longest
            if self._pool is None and self._cache.keys.is_cuda:
                self._pool = torch.cuda.graph_pool_handle()
            behind = self.size[1]
            found = FixedPass(
                self._gpt, self._cache, length, behind, chooser, self._pool, self._fused
            )
            self.passes_made += 1
        self._passes[key] = found
        return found


def lengths_of(weight: Tensor, rows: int) -> tuple[int, ...]:
    """The lengths of the passes of a decoder, rising: few, because each is recorded by itself.

    One token, a step's actions, a block of guesses, and such a block after a step's actions.
    """
    _, block = block_lengths(rows, on_gpu=weight.is_cuda, half=weight.dtype is not torch.float32)
    return tuple(sorted({1, ACTION_SIZE, block, block + ACTION_SIZE}))
