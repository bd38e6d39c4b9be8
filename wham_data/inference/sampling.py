"""Draw a token from logits: the published filters, then Gumbel-max sampling with a keyed generator.

The filters do exactly what those of the published model do, including its peculiarities: a low
temperature is raised to 0.1, ids that tie with the k-th best survive `top_k`, and `top_p` removes
the id that crosses the threshold.

Then a token is drawn: each remaining id i gets a number g_i from a Gumbel distribution, and the id
with the largest logit_i + g_i is taken. This is a draw from softmax(logits), as with torch's
multinomial. Here g_i is a pure function of (seed, dream, step, position in the step, id). So a dream
does not depend on its batch, on the order of work, or on earlier computations. Small changes of the
logits rarely change the result, so a token that was guessed from slightly wrong earlier tokens is
often right. Speculative decoding depends on this.
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
"""`top_p` mostly keeps fewer ids than this. Finding so many of the best ids is far cheaper than
sorting all ids."""

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""The constants of SplitMix64."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from the model's logits.

    temperature         divides the logits; values below 0.1 count as 0.1
    top_k               keep the k best ids and those that tie with the k-th; None: keep all
    top_p               keep the best ids while their total probability is at most p; None: keep all
    greedy              always take the best id, on a tie the first; top_k and top_p are ignored
    min_tokens_to_keep  least number of ids that a filter keeps
    without_first_zero  never generate id 0 as the first token of a frame, like the published model

    Raises:
        UsageError: a value is out of its range, or top_k and top_p are both given.
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


def filtered(
    logits: Tensor, ranges: Tensor, sampling: Sampling, *, recorded: bool = False
) -> Tensor:
    """Apply the temperature and the filters to logits.

    Args:
        logits: float32 [n, ids].
        ranges: int64 [n, 2], lowest and highest id that each row may give, both included.
        sampling: temperature and filters.
        recorded: let no value decide what is computed, so that a GPU can record it.

    Returns:
        float32 [n, ids]: divided by the temperature; -inf for an id that must not be drawn.
    """
    scaled = logits / max(sampling.temperature, LOWEST_TEMPERATURE)
    ids = torch.arange(logits.shape[1], device=logits.device)
    scaled.masked_fill_((ids < ranges[:, :1]) | (ids > ranges[:, 1:]), -math.inf)
    if sampling.greedy:
        return _top_k(scaled, 1)
    if sampling.top_k is not None:
        return _top_k(scaled, max(sampling.top_k, sampling.min_tokens_to_keep))
    if sampling.top_p is not None:
        return _top_p(scaled, sampling.top_p, sampling.min_tokens_to_keep, recorded)
    return scaled


def choose(
    logits: Tensor,
    ranges: Tensor,
    sampling: Sampling,
    noise: Tensor | None,
    *,
    recorded: bool = False,
) -> Tensor:
    """Draw one token per row.

    Args:
        logits, ranges, sampling, recorded: as for `filtered`.
        noise: numbers from `Noise`, float32 [n, ids]; fewer columns suffice if all ranges are among
            the first ids. None only if `sampling.greedy`.

    Returns:
        int64 [n].
    """
    allowed = filtered(logits, ranges, sampling, recorded=recorded)
    if noise is not None and not sampling.greedy:
        allowed = allowed + noise
    return allowed.argmax(dim=1)


@dataclass(frozen=True, slots=True)
class Noise:
    """The Gumbel numbers of one dream.

    Each number is computed from its position: SplitMix64 gives 64 random bits, 52 of them give a
    float64 uniform in (0, 1), and this gives a Gumbel number. All 52 bits are needed: with the 24 of
    a float32, about one token in a thousand would be an id of negligible probability, in a large
    vocabulary.

    seed   of the whole run, at least 0
    dream  number of the dream in the run, from 0

    Raises:
        UsageError: `seed` or `dream` is negative.
    """

    seed: int
    dream: int

    def __post_init__(self) -> None:
        if self.seed < 0 or self.dream < 0:
            raise UsageError(f"seed {self.seed}, dream {self.dream}: expected numbers from 0 up")

    def key(self, step: int) -> int:
        """The start state of the generator for one step, an int64."""
        words = np.random.SeedSequence((self.seed, self.dream, step)).generate_state(1, np.uint64)
        return _signed(int(words[0]))

    def at(self, step: int, first: int, count: int, ids: int, device: torch.device) -> Tensor:
        """The numbers for positions first .. first + count - 1 of a step, float32 [count, ids]."""
        places = torch.arange(first, first + count, device=device)
        return gumbel(torch.full_like(places, self.key(step)), places, ids, by_rows=places.is_cpu)


def gumbel(keys: Tensor, places: Tensor, ids: int, *, by_rows: bool = False) -> Tensor:
    """The numbers of many dreams at once.

    Args:
        keys: int64 [n], from `Noise.key` of each row's dream and step.
        places: int64 [n], positions in the step.
        by_rows: compute one row at a time, which fits the cache of a CPU core.

    Returns:
        float32 [n, ids].
    """
    states = (places * ids).add_(1).mul_(_signed(_GAMMA)).add_(keys)
    strides = torch.arange(ids, device=places.device).mul_(_signed(_GAMMA))
    if by_rows:
        return torch.stack([_gumbel(_mixed(strides + state)) for state in states])
    return _gumbel(_mixed(states[:, None] + strides))


@dataclass(frozen=True, slots=True)
class Draw:
    """Consecutive tokens of a step that are to be chosen, with the noise of their dream.

    noise      of the dream
    step       number of the dreamt step
    positions  in the step
    """

    noise: HeldNoise
    step: int
    positions: range

    @property
    def key(self) -> int:
        """The start state of the generator for the step, an int64."""
        return self.noise.key(self.step)

    def numbers(self) -> Tensor:
        """The Gumbel numbers, float32 [positions, ids]."""
        return self.noise.at(self.step, self.positions)


class HeldNoise:
    """A dream's noise with a cache, because speculative decoding reads a position several times.

    Within a step, the first requested position must never decrease.
    """

    def __init__(self, noise: Noise, ids: int, device: torch.device) -> None:
        self._noise, self._ids, self._device = noise, ids, device
        self._step, self._first = -1, 0
        self._rows = torch.empty(0, ids, device=device)
        self._keys: tuple[int, int] | None = None

    @property
    def noise(self) -> Noise:
        """The noise without the cache."""
        return self._noise

    def copy(self) -> HeldNoise:
        """A copy with an empty cache of its own."""
        return HeldNoise(self._noise, self._ids, self._device)

    def key(self, step: int) -> int:
        """As `Noise.key`."""
        if self._keys is None or self._keys[0] != step:
            self._keys = (step, self._noise.key(step))
        return self._keys[1]

    def at(self, step: int, positions: range) -> Tensor:
        """The same numbers as from `Noise.at`, float32 [positions, ids]."""
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
    """Set each value below the k-th best of its row to -inf."""
    kth = logits.topk(min(k, logits.shape[1]), dim=1).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def _top_p(logits: Tensor, p: float, keep: int, recorded: bool) -> Tensor:
    """Keep the best ids of each row while their total probability is at most p; set the rest to -inf.

    The best `keep` ids are always kept.
    """
    count = min(max(_OFTEN_ENOUGH, keep), logits.shape[1])
    order = logits.topk(count, dim=1).indices
    beyond = logits.softmax(dim=1).gather(1, order).cumsum(dim=1) > p
    if recorded:
        enough = beyond[:, -1:].clone()
        some, all_ = _without(logits, order, beyond, keep), _without(logits, *_all(logits, p), keep)
        return torch.where(enough, some, all_)
    if not bool(beyond[:, -1].all()):
        order, beyond = _all(logits, p)
    return _without(logits, order, beyond, keep)


def _all(logits: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """All ids of each row from the best to the worst, and whether they lie beyond a total of p."""
    best, order = logits.sort(dim=1, descending=True)
    return order, best.softmax(dim=1).cumsum(dim=1) > p


def _without(logits: Tensor, order: Tensor, beyond: Tensor, keep: int) -> Tensor:
    """Set the ids of `order` that lie beyond, except for the first `keep`, and all others to -inf."""
    beyond[:, :keep] = False
    removed = torch.ones_like(logits, dtype=torch.bool).scatter_(1, order, beyond)
    return logits.masked_fill(removed, -math.inf)


def _mixed(mixed: Tensor) -> Tensor:
    """The values of SplitMix64 for its states, int64 of the same shape, wrapping; in place.

    torch shifts int64 arithmetically, so the sign bits that it shifts in are masked off.
    """
    mixed ^= (mixed >> 30) & ((1 << 34) - 1)
    mixed *= _signed(_MIX_1)
    mixed ^= (mixed >> 27) & ((1 << 37) - 1)
    mixed *= _signed(_MIX_2)
    mixed ^= (mixed >> 31) & ((1 << 33) - 1)
    return mixed


def _gumbel(words: Tensor) -> Tensor:
    """Convert random int64 words to Gumbel numbers, float32."""
    uniform = ((words >> 12) & ((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)
    gumbel: Tensor = uniform.log_().neg_().log_().neg_().float()
    return gumbel


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word
