"""Decodes in passes whose shapes never change, so that a GPU can record a pass and replay it.

At batch 1, a GPU spends most of a short pass waiting for the CPU to start the next kernel. A recorded
pass (a CUDA graph) starts all kernels at once, but repeats exactly what was recorded: the same memory
and the same shapes. So here every row of the cache takes part in every pass, with the same number of
tokens: 1 or a multiple of `PADDING`. It attends to the whole cache under a mask, and the positions of
its tokens are data. Padding tokens are written after the row's end, where the next tokens overwrite
them. A row without new tokens writes only padding, after everything else.

The tokens are the same as those of `GPT.advance`, which is still used for long feeds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from wham_data.inference.gpt.attention import attend_each
from wham_data.inference.gpt.model import GPT, Cache, Feed
from wham_data.inference.gpt.speculation import LONGEST_BLOCK
from wham_data.schemas.wham_tokens import ACTION_SIZE

LONGEST_FEED = LONGEST_BLOCK + ACTION_SIZE
"""Feeds of up to this many tokens are decoded here: a block of guesses after a step's actions."""

PADDING = 16


class StaticDecoder:
    """A model with a cache of its own, a row per sequence."""

    def __init__(self, gpt: GPT, rows: int, positions: int) -> None:
        self._gpt = gpt
        self._rows, self._behind = rows, positions
        self._cache = Cache(gpt, rows, -(-(positions + LONGEST_FEED) // 64) * 64)
        self._recorded: dict[int, _Recorded] = {}

    def advance(self, feeds: Sequence[Feed]) -> Tensor:
        """As `GPT.advance`."""
        longest = max(len(feed.tokens) for feed in feeds)
        if longest > LONGEST_FEED:
            return self._gpt.advance(feeds, self._cache)
        length = 1 if longest == 1 else -(-longest // PADDING) * PADDING
        tokens = torch.zeros(self._rows, length, dtype=torch.int64)
        starts = torch.full((self._rows,), self._behind)
        rows = []
        for feed in feeds:
            count = len(feed.tokens)
            tokens[feed.row, :count] = feed.tokens
            starts[feed.row] = feed.start
            last = feed.row * length + count
            rows.append(torch.arange(last - feed.n_logits, last))
        logits = self._pass(tokens, starts).flatten(0, 1)
        return logits[torch.cat(rows).to(logits.device)].float()

    def copy(self) -> StaticDecoder:
        """An independent copy of the decoder. It records its passes again."""
        twin = copy.copy(self)
        twin._cache, twin._recorded = self._cache.copy(), {}
        return twin

    def _pass(self, tokens: Tensor, starts: Tensor) -> Tensor:
        device = self._gpt.lm_head.weight.device
        if device.type != "cuda":
            return static_pass(self._gpt, self._cache, tokens, starts)
        length = tokens.shape[1]
        if length not in self._recorded:
            with torch.cuda.device(device):
                self._recorded[length] = _Recorded(self._gpt, self._cache, tokens, starts)
        return self._recorded[length].replay(tokens, starts)


class _Recorded:
    """One pass as a CUDA graph, with the memory that it reads and writes."""

    def __init__(self, gpt: GPT, cache: Cache, tokens: Tensor, starts: Tensor) -> None:
        device = gpt.lm_head.weight.device
        self._tokens, self._starts = tokens.to(device), starts.to(device)
        work = partial(static_pass, gpt, cache, self._tokens, self._starts)
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            work()  # libraries initialise themselves in the first call, which can't be recorded
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = work()

    def replay(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """The result of `static_pass`. The next replay overwrites it."""
        self._tokens.copy_(tokens)
        self._starts.copy_(starts)
        self._graph.replay()
        return self._logits


def static_pass(gpt: GPT, cache: Cache, tokens: Tensor, starts: Tensor) -> Tensor:
    """Add m tokens to each row, at the row's own position.

    Args:
        cache: all values are finite; keys and values from `starts` to `starts` + m are written.
        tokens: int64 [rows, m].
        starts: int64 [rows], positions of the first tokens; `starts` + m lie within the cache.

    Returns:
        [rows, m, V + 68] in the model's dtype.
    """
    positions = starts[:, None] + torch.arange(tokens.shape[1], device=starts.device)
    x = gpt.embedded(tokens, positions.clamp(max=gpt.spec.positions - 1))
    rows = torch.arange(len(tokens), device=starts.device)[:, None]

    def attention(layer: int, qkv: Tensor) -> Tensor:
        query, key, value = gpt.split_heads(qkv)
        cache.keys[layer, rows, :, positions] = key
        cache.values[layer, rows, :, positions] = value
        return attend_each(query, cache.keys[layer], cache.values[layer], positions)

    for layer, block in enumerate(gpt.blocks):
        x = block(x, partial(attention, layer))
    logits: Tensor = gpt.lm_head(gpt.transformer.ln_f(x))
    return logits
