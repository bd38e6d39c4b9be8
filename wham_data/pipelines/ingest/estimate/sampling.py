"""Draw a sample of recordings, and estimate totals over all of them. Pure functions of arrays.

The size of every recording is known from the list of files; the rest only of those that are opened.
Recordings are divided into strata (by reader and by size), some of each stratum are drawn without
replacement, and totals are estimated with the combined regression estimator: within a stratum a value
may grow with the size of the files, and one slope serves all strata.

    total  = sum over strata of N (mean y + b (mean X - mean x))
    b      = slope of y on x within strata, each recording weighted with N / n
    var    = sum over strata of N^2 (1 - n / N) s^2 / n,  s^2 = variance of y - b x in the stratum
    range  = total -+ t sqrt(var),  t with n - strata - 1 degrees of freedom

X are the sizes of the N recordings of a stratum; x and y those of the n that were opened. It needs no
assumption on whether values are proportional to sizes, as a ratio estimator does. Source: W. G.
Cochran, Sampling Techniques, 3rd edition 1977, sections 5.3 and 7.6 to 7.10.

A count of few recordings (those refused) has a lopsided error, so its range is Wilson's interval for
a share (E. B. Wilson, 1927, JASA 22), with Kish's effective size of a weighted sample, (sum w)^2 /
sum w^2. So none refused among 200 does not mean none refused among 12,000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import Index

Values = NDArray[np.float64]

Z: Final = 1.959964
"""Of a normal distribution, 95 % lie within so many deviations of the mean."""
MOST_SIZE_CLASSES: Final = 8
FEWEST_IN_CLASS: Final = 5
T_OF_FEW: Final = {1: 12.71, 2: 4.303}


@dataclass(frozen=True, slots=True)
class Estimated:
    """A figure and the range in which it lies with 95 % probability; without one, None."""

    estimate: float
    low: float | None
    high: float | None

    @classmethod
    def exactly(cls, value: float) -> Estimated:
        """A figure that is known."""
        return cls(value, value, value)

    def times(self, factor: float) -> Estimated:
        """In another unit."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Estimated(self.estimate * factor, low, high)

    def taken_from(self, whole: float) -> Estimated:
        """What is left of a known number."""
        low, high = (None if end is None else whole - end for end in (self.high, self.low))
        return Estimated(whole - self.estimate, low, high)

    def plus(self, other: Estimated) -> Estimated:
        """The sum, if both are wrong in the same direction: the widest range."""
        low = None if self.low is None or other.low is None else self.low + other.low
        high = None if self.high is None or other.high is None else self.high + other.high
        return Estimated(self.estimate + other.estimate, low, high)


def product(total: Estimated, rates: Sequence[float]) -> Estimated:
    """A total times a rate that was measured a few times, independently of it.

    Args:
        total: with its range.
        rates: one or more.
    """
    n, rate = len(rates), float(np.mean(rates))
    value = total.estimate * rate
    if n == 1 or total.low is None or total.high is None:
        return Estimated(value, None, None)
    error = total.estimate * t_quantile(n - 1) * float(np.std(rates, ddof=1)) / math.sqrt(n)
    down = math.hypot((total.estimate - total.low) * rate, error)
    up = math.hypot((total.high - total.estimate) * rate, error)
    return Estimated(value, max(value - down, 0.0), value + up)


def strata_of(kinds: Sequence[str], sizes: Values, sample: int) -> Index:
    """Divide recordings by kind, and those of a kind by size, where the sample is large enough.

    Size classes of a kind hold about equal shares of its bytes, so the few largest have their own.

    Args:
        kinds: name of the reader of each of N recordings.
        sizes: float64 [N].
        sample: how many are to be drawn.

    Returns:
        int64 [N], numbers of strata; neighbours in number are alike.
    """
    strata = np.zeros(len(sizes), np.int64)
    first = 0
    named = np.array(kinds, dtype=object)
    for kind in sorted(set(kinds)):
        members = np.flatnonzero(named == kind)
        members = members[np.argsort(sizes[members], kind="stable")]
        share = sample * len(members) / len(sizes)
        classes = int(np.clip(share // FEWEST_IN_CLASS, 1, MOST_SIZE_CLASSES))
        below = np.cumsum(sizes[members]) - sizes[members] / 2
        total = max(float(sizes[members].sum()), 1.0)
        strata[members] = first + np.minimum(below / total * classes, classes - 1).astype(np.int64)
        first += classes
    return np.unique(strata, return_inverse=True)[1].reshape(-1).astype(np.int64)


def drawn(strata: Index, sizes: Values, sample: int, seed: int) -> Index:
    """The numbers of the recordings to open, in an order of which any beginning is a fair sample.

    Half of the sample is shared out by count, half by bytes; each stratum gets two if there are so
    many.

    Args:
        strata: int64 [N], see `strata_of`.
        sizes: float64 [N].
        sample: how many; all N if that is no more.
        seed: another seed draws others.
    """
    rng = np.random.default_rng(seed)
    counts = np.bincount(strata)
    by_bytes = np.bincount(strata, sizes) / max(float(sizes.sum()), 1.0)
    wanted = _shared_out(min(sample, len(sizes)), counts, counts / len(sizes) + by_bytes)
    chosen, order = [], []
    for stratum, n in enumerate(wanted.tolist()):
        members = rng.permutation(np.flatnonzero(strata == stratum))[:n]
        chosen.append(members)
        order.append((np.arange(n) + rng.random(n)) / max(n, 1))  # spread evenly over the order
    return np.concatenate(chosen)[np.argsort(np.concatenate(order))]


def _shared_out(sample: int, counts: Index, weights: Values) -> Index:
    """How many to draw of each stratum: about `sample` in all, at most `counts` of each."""
    taken = np.minimum(counts, 2)
    while (left := sample - int(taken.sum())) > 0:
        room = counts - taken
        share = np.where(room > 0, weights, 0.0)
        more = np.minimum(np.floor(left * share / share.sum()).astype(np.int64), room)
        if not more.any():
            more = np.zeros_like(taken)
            more[np.argsort(-share, kind="stable")[: min(left, int((room > 0).sum()))]] = 1
        taken = taken + more
    return taken


def joined(strata: Index, opened: Index) -> Index:
    """The strata, those joined with a neighbour of which too few were opened to see how they vary.

    Args:
        strata: int64 [N].
        opened: numbers of the recordings that were opened, at least one.
    """
    counts = np.bincount(strata)
    seen = np.bincount(strata[opened], minlength=len(counts))
    new = np.zeros(len(counts), np.int64)
    number, all_here, seen_here = 0, 0, 0
    for stratum in range(len(counts)):
        new[stratum] = number
        all_here, seen_here = all_here + counts[stratum], seen_here + seen[stratum]
        if seen_here >= min(2, all_here):
            number, all_here, seen_here = number + 1, 0, 0
    if all_here and number:  # the last ones are too few: they join those before
        new[new == number] = number - 1
    return new[strata]


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals over all recordings, of K values.

    estimate   float64 [K]
    deviation  float64 [K]  standard error; infinite if one recording of many was opened
    t          deviations to either side of a range of 95 %
    """

    estimate: Values
    deviation: Values
    t: float

    def at(self, k: int, least: float = 0.0, further: float = 0.0) -> Estimated:
        """The k-th total with its range.

        Args:
            k: which.
            least: it is certainly not less.
            further: a standard error from elsewhere, independent of these.
        """
        value = max(float(self.estimate[k]), least)
        wide = self.t * math.hypot(float(self.deviation[k]), further)
        if not math.isfinite(wide):
            return Estimated(value, None, None)
        return Estimated(value, min(max(value - wide, least), value), value + wide)


def weights(strata: Index, opened: Index) -> Values:
    """How many recordings each opened one stands for, float64 [n]."""
    counts = np.bincount(strata)
    seen = np.bincount(strata[opened], minlength=len(counts))
    found: Values = counts[strata[opened]] / seen[strata[opened]]
    return found


def totals(strata: Index, sizes: Values, opened: Index, values: Values) -> Totals:
    """Estimate totals over all recordings; see the top of this module.

    Args:
        strata: int64 [N], after `joined`.
        sizes: float64 [N].
        opened: int64 [n], numbers of the recordings that were opened, different ones, n > 0.
        values: float64 [n, K], of those.
    """
    here = strata[opened]
    counts = np.bincount(strata).astype(np.float64)
    n = np.bincount(here, minlength=len(counts)).astype(np.float64)
    x = sizes[opened]
    mean_size = np.bincount(strata, sizes) / counts
    mean_x = np.bincount(here, x, len(counts)) / n
    mean_y = np.stack([np.bincount(here, y, len(counts)) / n for y in values.T], axis=1)
    off_x, off_y = x - mean_x[here], values - mean_y[here]
    weight = (counts / n)[here]
    spread = float((weight * off_x**2).sum())
    free = len(opened) - len(counts)
    slope = np.zeros(values.shape[1])
    if free >= 3 and spread > 0:
        slope = (weight * off_x) @ off_y / spread
        free -= 1
    estimate = counts @ (mean_y + np.outer(mean_size - mean_x, slope))
    squares = (off_y - np.outer(off_x, slope)) ** 2
    part = counts**2 * (1 - n / counts) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(n < counts, part / (n - 1), 0.0)  # infinite where one stands for more
        sums = np.stack([np.bincount(here, e, len(counts)) for e in squares.T], axis=1)
        variance = np.where(scale[:, None] > 0, scale[:, None] * np.maximum(sums, 0), 0.0)
        variance = np.where(np.isinf(scale)[:, None], np.inf, variance).sum(axis=0)
    lost = (free + 1) / free if free and slope.any() else 1.0  # the slope has cost a degree
    return Totals(estimate, np.sqrt(variance * lost), t_quantile(max(free, 1)))


def share_range(count: float, n: float, of: int) -> Estimated:
    """How many of `of` recordings, if a share of `count` was seen in a sample.

    Args:
        count: the estimate, 0 to `of`.
        n: effective size of the sample, see `effective_size`.
        of: recordings in all.
    """
    if n >= of:
        return Estimated.exactly(count)
    n *= (of - 1) / (of - n)  # the sample is drawn without replacement
    p = count / of
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    wide = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Estimated(count, max(0.0, middle - wide) * of, min(1.0, middle + wide) * of)


def also_refused(
    total: Estimated, refused: Estimated, n: float, of: int, least: float
) -> Estimated:
    """The range of a total, widened for recordings that may be refused and were not among the sample.

    Rare ones are in few samples, so without this most samples would give too narrow a range. It is
    widened by what Wilson's interval is wider than the normal one, which the total has already.

    Args:
        total: of the recordings that are taken.
        refused: how many of `of` are refused, see `share_range`.
        n: effective size of the sample.
        of: recordings in all.
        least: the total is certainly not less.
    """
    taken = of - refused.estimate
    if total.low is None or total.high is None or n >= of or not taken:
        return total
    assert refused.low is not None
    assert refused.high is not None
    p = refused.estimate / of
    usual = Z * of * math.sqrt(p * (1 - p) / n * (of - n) / (of - 1))
    each = total.estimate / taken
    down, up = (
        each * math.sqrt(max(wilson**2 - usual**2, 0.0))
        for wilson in (refused.high - refused.estimate, refused.estimate - refused.low)
    )
    low = total.estimate - math.hypot(total.estimate - total.low, down)
    high = total.estimate + math.hypot(total.high - total.estimate, up)
    return Estimated(total.estimate, min(max(low, least), total.estimate), high)


def effective_size(weight: Values) -> float:
    """How many equally weighted recordings tell as much as these, by Kish."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def t_quantile(free: int) -> float:
    """97.5 % of Student's t with so many degrees of freedom are below this.

    From 3 on by the expansion around the normal distribution (Abramowitz and Stegun, 26.7.5); it is
    within 1 % of the true value.
    """
    if free in T_OF_FEW:
        return T_OF_FEW[free]
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
    )
    return Z + sum(term / math.pow(free, power) for power, term in enumerate(terms, 1))
