"""A pass whose shapes never change, with the memory that it reads and writes.

At batch 1, a GPU spends most of a short pass waiting for the CPU to start the next kernel. A recorded
pass (a CUDA graph) starts all kernels at once, but repeats exactly what was recorded: the same memory
and the same shapes. So everything that differs between two passes is in one table of int64, a row
for each row of the cache, in page-locked memory. A pass on a GPU is then three calls, a copy of that
table to the GPU, the graph, and a copy of the chosen tokens back, and the CPU waits once.

    m tokens | position of the first | key of the noise | place in its step of the first

The noise and the choice are part of the recorded work. On a CPU the same work runs without a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wham_data.inference.gpt.attention import Kernel, Seen, attend_each, kernel_for, without_plans
from wham_data.inference.gpt.choosing import Chooser, Ids
from wham_data.inference.gpt.model import GPT, Block, Cache, Feed, float32_logits
from wham_data.inference.gpt.split_keys import best_pieces
from wham_data.inference.sampling import Draw

_START, _KEY, _PLACE, COLUMNS = range(4)
"""Columns of the table behind the tokens, and their number."""


class FixedPass:
    """A pass of m tokens for each row of a cache.

    Args:
        length: m.
        behind: a position after which nothing is read; rows without a feed write there.
        chooser: chooses tokens; None: the pass gives logits.
        pool: memory that it shares with other passes that never run at the same time.
        fused: let torch.compile join what lies between the products.
    """

    def __init__(
        self,
        gpt: GPT,
        cache: Cache,
        length: int,
        behind: int,
        chooser: Chooser | None,
        pool: Any = None,
        fused: bool = False,
    ) -> None:
        rows, device = cache.keys.shape[1], cache.keys.device
        self._length, self._behind, self._device = length, behind, device
        on_gpu = device.type == "cuda"
        table = torch.zeros(rows, length + COLUMNS, dtype=torch.int64, pin_memory=on_gpu)
        table[:, length + _START] = behind
        self._table: Ids = table.numpy()
        self._host_table, self._device_table = table, table.to(device, copy=True)
        pieces = 1
        if kernel_for(cache.keys, cache.keys.shape[-1]) is Kernel.SDPA:
            with without_plans(device):
                pieces = best_pieces(cache.keys[0], cache.values[0], length)
        self._work = partial(recorded_work, gpt, cache, chooser, pieces, fused, self._device_table)
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            self._graph, self._result = _recorded(self._work, device, pool)
            self._host_result = torch.empty_like(self._result, device="cpu", pin_memory=True)

    def tokens(self, feeds: Sequence[Feed], draws: Sequence[Draw]) -> Ids:
        """The tokens that the pass chooses for the draws, int64, one after another."""
        self._fill(feeds, draws)
        result = self._ran()
        if self._graph is not None:
            self._host_result.copy_(result, non_blocking=True)
            torch.cuda.current_stream(self._device).synchronize()
            result = self._host_result
        chosen: Ids = result.numpy()
        rows = [
            chosen[feed.row, len(feed.tokens) - feed.n_logits : len(feed.tokens)] for feed in feeds
        ]
        return np.concatenate(rows)

    def logits(self, feeds: Sequence[Feed]) -> Tensor:
        """As `GPT.advance`, of a pass without a chooser."""
        self._fill(feeds, None)
        logits = self._ran()
        rows = [
            logits[feed.row, len(feed.tokens) - feed.n_logits : len(feed.tokens)] for feed in feeds
        ]
        return torch.cat(rows)

    def _fill(self, feeds: Sequence[Feed], draws: Sequence[Draw] | None) -> None:
        """Write the whole table, so that nothing of the pass before is left in it."""
        length = self._length
        self._table[:] = 0
        self._table[:, length + _START] = self._behind
        for number, feed in enumerate(feeds):
            count, row = len(feed.tokens), self._table[feed.row]
            row[:count] = feed.tokens.numpy()
            row[length + _START] = feed.start
            if draws is not None:
                row[length + _KEY] = draws[number].key
                row[length + _PLACE] = draws[number].positions.start - (count - feed.n_logits)

    def _ran(self) -> Tensor:
        """The result of the work on the table. The next pass overwrites it."""
        self._device_table.copy_(self._host_table, non_blocking=True)
        if self._graph is None:
            with without_plans(self._device):
                return self._work()
        self._graph.replay()
        return self._result


def _recorded(
    work: Callable[[], Tensor], device: torch.device, pool: Any
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The work as a CUDA graph, and the result that each replay writes."""
    with torch.cuda.device(device), without_plans(device):
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            work()  # libraries initialise themselves in the first call, which can't be recorded
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile, such as one that decodes pictures.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = work()
    return graph, result


def recorded_work(
    gpt: GPT, cache: Cache, chooser: Chooser | None, pieces: int, fused: bool, table: Tensor
) -> Tensor:
    """What is recorded: the chosen tokens of a table, int64 [rows, m], or the logits."""
    length = table.shape[1] - COLUMNS
    starts, keys, places = table[:, length:].unbind(1)
    logits = static_pass(gpt, cache, table[:, :length], starts, pieces, fused=fused)
    if chooser is None:
        return logits
    every = places[:, None] + torch.arange(length, device=table.device)
    choose = _fused(chooser.chosen) if fused else chooser.chosen
    chosen = choose(logits.flatten(0, 1), keys[:, None].expand_as(every).flatten(), every.flatten())
    return chosen.view_as(every)


def static_pass(
    gpt: GPT,
    cache: Cache,
    tokens: Tensor,
    starts: Tensor,
    pieces: int = 1,
    *,
    fused: bool = False,
) -> Tensor:
    """Add m tokens to each row, at the row's own position.

    Args:
        cache: all values are finite; keys and values from `starts` to `starts` + m are written.
        tokens: int64 [rows, m].
        starts: int64 [rows], positions of the first tokens; `starts` + m lie within the cache.
        pieces: in so many pieces attention reads the keys; see `split_keys`.
        fused: let torch.compile join what lies between the products.

    Returns:
        float32 [rows, m, V + 68].
    """
    positions = starts[:, None] + torch.arange(tokens.shape[1], device=starts.device)
    x = gpt.embedded(tokens, positions.clamp(max=gpt.spec.positions - 1))
    rows = torch.arange(len(tokens), device=starts.device)[:, None]
    seen = Seen.at(positions, cache.keys[0], pieces)
    before, after = Block.before_attention, Block.after_attention
    if fused:
        before, after = _fused(before), _fused(after)
    for layer, block in enumerate(gpt.blocks):
        query, key, value = gpt.split_heads(before(block, x))
        cache.keys[layer, rows, :, positions] = key
        cache.values[layer, rows, :, positions] = value
        mixed = attend_each(query, cache.keys[layer], cache.values[layer], seen)
        x = after(block, x, mixed)
    return float32_logits(gpt.transformer.ln_f(x), gpt.lm_head.weight)


def _fused(work: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same work as one program for these shapes. It must not write into its arguments."""
    return torch.compile(work, dynamic=False)
