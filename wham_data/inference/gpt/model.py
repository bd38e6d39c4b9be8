"""The world model: a causal transformer over interleaved image and action tokens.

Two ways through the same weights:

    forward   whole sequences, logits for all tokens: for training and for scoring known tokens
    advance   a few new tokens per sequence after a cache of keys and values: for dreaming

`advance` takes any number of tokens of any number of sequences at once, each sequence at its own
position. A prefill is a long feed after an empty cache; a decoding step is a feed of one token; a
block of guessed tokens is a feed of medium length. The linear layers see the tokens of all sequences
as one matrix. Attention runs per sequence over the keys of that sequence.

The cache is allocated once. To roll back, a length is lowered, and the next tokens overwrite the old
ones. There is no mask buffer, which at WHAM's size would take gigabytes.

Tensors carry the names of WHAM's checkpoints, and the arithmetic follows theirs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wham_data.inference.gpt.attention import attend, causal_mask, without_plans
from wham_data.inference.gpt.choosing import Chooser, Ids
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.sampling import Draw

EPSILON = 1e-5
"""Added to the variance in every norm."""

ROW_MULTIPLE = 16
"""On a CPU, float32 matrix products over 4 to 64 rows are fastest in whole multiples of this many
rows with the weights on the left: 16 rows then cost less than 8 do."""

_FEWEST_PADDED, _MOST_PADDED = 4, 64


class Attention(nn.Module):
    """Weights of one attention: rows of `c_attn` are queries, keys, values."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.c_attn = nn.Linear(spec.n_embd, 3 * spec.n_embd, bias=spec.bias)
        self.c_proj = nn.Linear(spec.n_embd, spec.n_embd, bias=spec.bias)


class MLP(nn.Module):
    """Four times wider inside, GELU in its tanh form."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.c_fc = nn.Linear(spec.n_embd, 4 * spec.n_embd, bias=spec.bias)
        self.c_proj = nn.Linear(4 * spec.n_embd, spec.n_embd, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        """float [..., d] to the same shape."""
        wide = functional.gelu(_linear(x, self.c_fc), approximate="tanh")
        return _linear(wide, self.c_proj)


class Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)). Version 2 norms carry no weights."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        weighted = spec.version == 1
        self.ln_1 = nn.LayerNorm(spec.n_embd, EPSILON, weighted, bias=spec.bias)
        self.attn = Attention(spec)
        self.ln_2 = nn.LayerNorm(spec.n_embd, EPSILON, weighted, bias=spec.bias)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """float [..., d] to the same shape; `attention` makes it of queries, keys and values
        [..., 3d]."""
        return self.after_attention(x, attention(self.before_attention(x)))

    def before_attention(self, x: Tensor) -> Tensor:
        """Queries, keys and values, float [..., 3d]."""
        return _linear(self.ln_1(x), self.attn.c_attn)

    def after_attention(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the block: both are float [..., d]."""
        x = x + _linear(mixed, self.attn.c_proj)
        wide: Tensor = self.mlp(self.ln_2(x))
        return x + wide


class Transformer(nn.Module):
    """All layers between the token embedding and the head, including the position table."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.wpe = nn.Embedding(spec.positions, spec.n_embd)
        self.h = nn.ModuleList(Block(spec) for _ in range(spec.n_layer))
        self.ln_f = nn.LayerNorm(spec.n_embd, EPSILON, bias=spec.bias)


class Cache:
    """Keys and values of the tokens of each sequence so far, allocated once.

    keys, values  [L, rows, h, positions, hd] in the model's dtype
    """

    def __init__(self, model: GPT, rows: int, positions: int) -> None:
        spec, weight = model.spec, model.lm_head.weight
        shape = (spec.n_layer, rows, spec.n_head, positions, spec.head_size)
        self.keys = weight.new_zeros(shape)
        self.values = weight.new_zeros(shape)

    def copy(self) -> Cache:
        """The same keys and values in memory of their own."""
        twin = copy.copy(self)
        twin.keys, twin.values = self.keys.clone(), self.values.clone()
        return twin


class Decoder:
    """A model with a cache of its own, a row per sequence."""

    def __init__(self, gpt: GPT, cache: Cache) -> None:
        self._gpt, self._cache = gpt, cache

    def advance(self, feeds: Sequence[Feed]) -> Tensor:
        """As `GPT.advance`."""
        return self._gpt.advance(feeds, self._cache)

    def choose(self, feeds: Sequence[Feed], draws: Sequence[Draw], chooser: Chooser) -> Ids:
        """Add the tokens of feeds to those before, and choose those that follow.

        Args:
            feeds: as for `GPT.advance`.
            draws: one for each feed, with as many positions as the feed has logits.

        Returns:
            int64 [sum of positions], the feeds one after another.
        """
        return chooser.tokens(self.advance(feeds), draws)

    def copy(self) -> Decoder:
        """An independent copy of the decoder."""
        return Decoder(self._gpt, self._cache.copy())


@dataclass(frozen=True, slots=True)
class Feed:
    """New tokens of one sequence.

    row       the sequence's row of the cache
    start     position of the first token; everything before it must be in the cache
    tokens    int64 [m], m > 0
    n_logits  number of logits: one for each of the last `n_logits` tokens, 1..m
    """

    row: int
    start: int
    tokens: Tensor
    n_logits: int

    @property
    def end(self) -> int:
        """One past the position of the last token."""
        return self.start + len(self.tokens)


class GPT(nn.Module):
    """A world model's transformer. The head is the token embedding."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.spec = spec
        self.transformer = Transformer(spec)
        self.lm_head = nn.Linear(spec.n_embd, spec.vocabulary, bias=False)
        self.apply(_initialise)
        for block in self.blocks:  # so that the residual stream has the same scale at any depth
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * spec.n_layer))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token that follows each token.

        Args:
            tokens: int64 [B, n] in the joint vocabulary, n at most `spec.positions`; the first one
                stands at position 0.

        Returns:
            float [B, n, V + 68].
        """
        return _linear(self.states(tokens), self.lm_head)

    def states(self, tokens: Tensor) -> Tensor:
        """The states before the head, which turns them into logits: float [B, n, d]."""
        x = self.embedded(tokens, torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x, self._attention_within)
        states: Tensor = self.transformer.ln_f(x)
        return states

    def advance(self, feeds: Sequence[Feed], cache: Cache) -> Tensor:
        """Add new tokens to the cached ones, and give the logits of the tokens that follow.

        Args:
            feeds: at most one per row of the cache.
            cache: its keys and values from `start` to `end` of every feed are written.

        Returns:
            float32 [sum of n_logits, V + 68], the feeds one after another.
        """
        device = self.lm_head.weight.device
        tokens = torch.cat([feed.tokens for feed in feeds])
        positions = torch.cat([torch.arange(feed.start, feed.end) for feed in feeds])
        spare = _spare_rows(len(tokens), self.lm_head.weight)
        x = self.embedded(
            functional.pad(tokens, (0, spare)).to(device),
            functional.pad(positions, (0, spare)).to(device),
        )
        asks = [self._ask(feed, len(feed.tokens)) for feed in feeds]
        with without_plans(device):
            for layer, block in enumerate(self.blocks[:-1]):
                x = block(x, partial(self._attention, layer, asks, cache))
            return self._last_block(x, feeds, cache)

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """int64 [...] each, to float [..., d]."""
        placed: Tensor = self.transformer.wpe(positions)
        return functional.embedding(tokens, self.lm_head.weight) + placed

    def split_heads(self, parts: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, or some of them, float [..., k d], as k of [..., h, hd]."""
        sizes = (parts.shape[-1] // self.spec.n_embd, self.spec.n_head, self.spec.head_size)
        return parts.view(*parts.shape[:-1], *sizes).unbind(-3)

    @property
    def blocks(self) -> list[Block]:
        """From the first to the last."""
        return [block for block in self.transformer.h if isinstance(block, Block)]

    def _attention_within(self, qkv: Tensor) -> Tensor:
        """Attention of whole sequences, float [B, n, 3d] to [B, n, d]."""
        query, key, value = (part.transpose(1, 2) for part in self.split_heads(qkv))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).flatten(2)

    def _attention(self, layer: int, asks: Sequence[_Ask], cache: Cache, qkv: Tensor) -> Tensor:
        """Attention for the tokens of all feeds, float [rows, 3d] to [rows, d]."""
        query, key, value = self.split_heads(qkv)
        _remember([ask.feed for ask in asks], layer, key, value, cache)
        return _answers(query, asks, layer, cache)

    def _last_block(self, x: Tensor, feeds: Sequence[Feed], cache: Cache) -> Tensor:
        """The last block, the norm and the head, only for the tokens that need logits.

        For the other tokens, only keys and values are computed. In a prefill, this saves almost all
        work of a block.
        """
        layer, width, block = self.spec.n_layer - 1, self.spec.n_embd, self.blocks[-1]
        normed = block.ln_1(x)
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        keys_values = _product(normed, weight[width:], None if bias is None else bias[width:])
        key, value = self.split_heads(keys_values)
        _remember(feeds, layer, key, value, cache)

        ends = torch.tensor([len(feed.tokens) for feed in feeds]).cumsum(0).tolist()
        rows = torch.cat(
            [torch.arange(end - feed.n_logits, end) for feed, end in zip(feeds, ends, strict=True)]
        )
        count = len(rows)
        rows = functional.pad(rows, (0, _spare_rows(count, weight))).to(x.device)
        queries = _product(normed[rows], weight[:width], None if bias is None else bias[:width])
        [query] = self.split_heads(queries)
        asks = [self._ask(feed, feed.n_logits) for feed in feeds]
        x = block.after_attention(x[rows], _answers(query, asks, layer, cache))
        return float32_logits(self.transformer.ln_f(x), self.lm_head.weight)[:count]

    def _ask(self, feed: Feed, count: int) -> _Ask:
        mask = causal_mask(count, feed.end, self.spec.head_size, self.lm_head.weight)
        return _Ask(feed, count, mask)


class _Ask(NamedTuple):
    """The attention of the last tokens of a feed over all tokens so far; the mask is for `attend`."""

    feed: Feed
    asking: int
    mask: Tensor | None


def _initialise(module: nn.Module) -> None:
    """Weights for training from scratch: normal with deviation 0.02; biases are zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _remember(feeds: Sequence[Feed], layer: int, key: Tensor, value: Tensor, cache: Cache) -> None:
    """Write the feeds' keys and values, float [rows, h, hd], to their places in the cache."""
    row = 0
    for feed in feeds:
        rows = slice(row, row + len(feed.tokens))
        cache.keys[layer, feed.row, :, feed.start : feed.end] = key[rows].transpose(0, 1)
        cache.values[layer, feed.row, :, feed.start : feed.end] = value[rows].transpose(0, 1)
        row = rows.stop


def _answers(query: Tensor, asks: Sequence[_Ask], layer: int, cache: Cache) -> Tensor:
    """Attention for the queries of all feeds, float [rows, h, hd] to [rows, h hd]."""
    answers = query.new_zeros(len(query), query.shape[1] * query.shape[2])
    row = 0
    for feed, count, mask in asks:
        rows = slice(row, row + count)
        keys = cache.keys[layer, feed.row, :, : feed.end]
        values = cache.values[layer, feed.row, :, : feed.end]
        answers[rows] = attend(query[rows], keys, values, mask)
        row = rows.stop
    return answers


def _spare_rows(rows: int, like: Tensor) -> int:
    """Number of rows to add so that a matrix product is fast; see `ROW_MULTIPLE`."""
    padded = like.is_cpu and like.dtype is torch.float32 and _FEWEST_PADDED <= rows < _MOST_PADDED
    return -rows % ROW_MULTIPLE if padded else 0


def float32_logits(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T in float32, [..., out].

    Products of bf16 are added up in float32. On a GPU the sums stay so, because the 8 bits of bf16
    leave steps of 0.06 between logits of 8 to 16. On a CPU they are rounded: there is no such product,
    and wider weights, made in each pass, take three times as long as this one.
    """
    if not x.is_cuda or x.dtype is torch.float32:
        return _product(x, weight, None).float()
    if hasattr(torch.ops.aten.mm, "dtype"):  # since torch 2.8
        flat = torch.mm(x.flatten(0, -2), weight.t(), out_dtype=torch.float32)
        return flat.view(*x.shape[:-1], -1)
    return functional.linear(x.float(), weight.float())


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return _product(x, layer.weight, layer.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias, float [..., out]; the shape decides which routine is fastest."""
    if x.dim() == 2 and x.dtype is torch.float32 and x.is_cpu and not torch.is_grad_enabled():
        rows = len(x)
        if rows % ROW_MULTIPLE == 0 and 0 < rows <= _MOST_PADDED:
            if bias is None:
                return torch.mm(weight, x.t()).t()
            return torch.addmm(bias.unsqueeze(1), weight, x.t()).t()
    return functional.linear(x, weight, bias)
