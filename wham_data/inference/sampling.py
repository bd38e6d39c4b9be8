"""From logits to a token: the published filters in their order, and randomness that knows its place.

The filters follow the published model to the letter, oddities included: a low temperature is raised
to 0.1, ties with the k-th best survive `top_k`, and `top_p` removes the token that crosses the
threshold instead of keeping it.

A token is then drawn by a race: every id i that is left gets a number g_i from a Gumbel
distribution, and the largest logit_i + g_i wins. That is a draw from softmax(logits), the same one
that torch's own multinomial makes. Here g_i is a pure function of (seed, dream, step, position in
the step, id), so a dream does not depend on the batch it was made in, on the order of work, or on
what was computed before. And since small changes of the logits rarely change the winner, tokens
guessed from a slightly wrong past are often right, which speculation lives on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wham_data.schemas.errors import UsageError

LOWEST_TEMPERATURE = 0.1

_OFTEN_ENOUGH = 512
"""`top_p` mostly ends within this many of the best ids, and finding them is far cheaper than sorting
all."""

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""The constants of SplitMix64."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from the model's logits.

    temperature         divides the logits; values below 0.1 count as 0.1
    top_k               keep the k best ids and whatever ties with the k-th; None keeps all
    top_p               keep the best ids while their mass is at most p; None keeps all
    greedy              always take the best id, the first of them on a tie; top_k and top_p are
                        then ignored
    min_tokens_to_keep  neither filter leaves fewer ids than this
    without_first_zero  never generate id 0 as the first token of a frame, as published

    Raises:
        UsageError: a value out of its range, or both top_k and top_p.
    """

    temperature: float = 0.9
    top_k: int | None = None
    top_p: float | None = None
    greedy: bool = False
    min_tokens_to_keep: int = 1
    without_first_zero: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature) or self.temperature < 0:
            raise UsageError(f"temperature {self.temperature}: expected a number from 0 up")
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise UsageError(f"top_k {self.top_k!r}: expected a whole number from 1 up")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise UsageError(f"top_p {self.top_p}: expected a number from 0 to 1")
        if self.top_k is not None and self.top_p is not None and not self.greedy:
            raise UsageError("top_k and top_p were both given: expected at most one of them")
        if self.min_tokens_to_keep < 1:
            raise UsageError(f"min_tokens_to_keep {self.min_tokens_to_keep}: expected at least 1")


def filtered(logits: Tensor, ranges: Tensor, sampling: Sampling) -> Tensor:
    """The logits that a token is drawn from.

    Args:
        logits: float32 [n, ids].
        ranges: int64 [n, 2], lowest and highest id that each row may give, both included.

    Returns:
        float32 [n, ids]: divided by the temperature, and -inf where an id may not come.
    """
    scaled = logits / max(sampling.temperature, LOWEST_TEMPERATURE)
    ids = torch.arange(logits.shape[1], device=logits.device)
    scaled.masked_fill_((ids < ranges[:, :1]) | (ids > ranges[:, 1:]), -math.inf)
    if sampling.greedy:
        return _top_k(scaled, 1)
    if sampling.top_k is not None:
        return _top_k(scaled, max(sampling.top_k, sampling.min_tokens_to_keep))
    if sampling.top_p is not None:
        return _top_p(scaled, sampling.top_p, sampling.min_tokens_to_keep)
    return scaled


def choose(logits: Tensor, ranges: Tensor, sampling: Sampling, noise: Tensor | None) -> Tensor:
    """One token per row.

    Args:
        logits, ranges: as for `filtered`.
        noise: float32 [n, ids] or, where all ranges lie among the first ids, narrower: what `Noise`
            gives. None only if greedy.

    Returns:
        int64 [n].
    """
    allowed = filtered(logits, ranges, sampling)
    if noise is not None and not sampling.greedy:
        allowed = allowed + noise
    return allowed.argmax(dim=1)


@dataclass(frozen=True, slots=True)
class Noise:
    """The Gumbel numbers of one dream.

    Each is a SplitMix64 value of its place, made into a float64 uniform in (0, 1) and from there
    into a Gumbel number. 52 bits matter: with the 24 of a float32, hopeless ids would win about one
    token in a thousand of a large vocabulary.

    seed   of the whole run, from 0 up
    dream  which dream of the run this is, from 0 up

    Raises:
        UsageError: one of them is negative.
    """

    seed: int
    dream: int

    def __post_init__(self) -> None:
        if self.seed < 0 or self.dream < 0:
            raise UsageError(f"seed {self.seed}, dream {self.dream}: expected numbers from 0 up")

    def at(self, step: int, first: int, count: int, ids: int, device: torch.device) -> Tensor:
        """float32 [count, ids], for positions first .. first + count - 1 of a step."""
        words = np.random.SeedSequence((self.seed, self.dream, step)).generate_state(1, np.uint64)
        key = _signed(int(words[0]))
        places = torch.arange(first * ids, (first + count) * ids, device=device)
        # Row by row a CPU stays within a core's cache; a GPU wants all at once.
        pieces = torch.split(places, ids) if places.is_cpu else [places]
        return torch.cat([_gumbel(_split_mix(piece, key)) for piece in pieces]).view(count, ids)


class HeldNoise:
    """A dream's noise, held for as long as it is asked for: a guessed place is looked at several
    times before its token stands. Within a step, what is asked for never begins further back.
    """

    def __init__(self, noise: Noise, ids: int, device: torch.device) -> None:
        self._noise, self._ids, self._device = noise, ids, device
        self._step, self._first = -1, 0
        self._rows = torch.empty(0, ids, device=device)

    @property
    def noise(self) -> Noise:
        """What is held."""
        return self._noise

    def copy(self) -> HeldNoise:
        """The same numbers, held by itself."""
        return HeldNoise(self._noise, self._ids, self._device)

    def at(self, step: int, positions: range) -> Tensor:
        """float32 [positions, ids], as `Noise.at` gives it."""
        if step != self._step:
            self._step, self._first, self._rows = step, positions.start, self._rows[:0]
        self._rows = self._rows[positions.start - self._first :]
        self._first = positions.start
        held = len(self._rows)
        if held < len(positions):
            first, count = positions.start + held, len(positions) - held
            more = self._noise.at(step, first, count, self._ids, self._device)
            self._rows = torch.cat([self._rows, more])
        return self._rows[: len(positions)]


def _top_k(logits: Tensor, k: int) -> Tensor:
    """-inf below the k-th best of each row."""
    kth = logits.topk(min(k, logits.shape[1]), dim=1).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def _top_p(logits: Tensor, p: float, keep: int) -> Tensor:
    """-inf from where the mass of the best ids exceeds p, but never for the best `keep`."""
    count = min(max(_OFTEN_ENOUGH, keep), logits.shape[1])
    order = logits.topk(count, dim=1).indices
    beyond = logits.softmax(dim=1).gather(1, order).cumsum(dim=1) > p
    if not bool(beyond[:, -1].all()):
        best, order = logits.sort(dim=1, descending=True)
        beyond = best.softmax(dim=1).cumsum(dim=1) > p
    beyond[:, :keep] = False
    removed = torch.ones_like(logits, dtype=torch.bool).scatter_(1, order, beyond)
    return logits.masked_fill(removed, -math.inf)


def _split_mix(index: Tensor, key: int) -> Tensor:
    """SplitMix64's value number `index` from the state `key`: int64, wrapping, of the same shape.

    torch shifts int64 arithmetically, so the bits that come in from the left are masked off.
    """
    mixed = (index + 1).mul_(_signed(_GAMMA)).add_(key)
    mixed ^= (mixed >> 30) & ((1 << 34) - 1)
    mixed *= _signed(_MIX_1)
    mixed ^= (mixed >> 27) & ((1 << 37) - 1)
    mixed *= _signed(_MIX_2)
    mixed ^= (mixed >> 31) & ((1 << 33) - 1)
    return mixed


def _gumbel(words: Tensor) -> Tensor:
    """Random words, int64, as Gumbel numbers, float32."""
    uniform = ((words >> 12) & ((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)
    gumbel: Tensor = uniform.log_().neg_().log_().neg_().float()
    return gumbel


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word
