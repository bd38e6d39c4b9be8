"""How late a log is: the shift of the hands at which they best explain what moves in the picture.

For each lag the picture's motion is regressed on the controls, read that much later in the log. The score of
a lag is the gain in log-likelihood per span, -log(1 - R^2), summed over the channels. Sums of products are
kept per block of time. So resampling the blocks gives an interval, and shifting each block by its own lag
gives the drift, without another look at the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.controls import Signals
from wham_data.pipelines.curate.motion import Motion, peaks

Floats = NDArray[np.float64]

WIDEST_S: Final = 1.0
"""The longest lag that is looked for."""
COARSE_S: Final = 0.02
FINE_S: Final = 0.0025
NEAR_S: Final = 0.125
"""How far around the best coarse lag is looked for the exact one."""
STEEPEST: Final = 3000e-6
"""The largest drift that is looked for."""
ROLLS: Final = 40
RESAMPLED: Final = 80
PASSES: Final = 3
SHOWN_S: Final = 20.0
WINDOW: Final = 5
"""Blocks that are measured together to show the lag over time."""
DOUBTED: Final = 0.3
"""Share of the spans left out because the shift between their frames is the least certain."""
CAUCHY: Final = 3.0
NARROWEST: Final = 0.3
"""Misses below this share of the range never count as outliers: most spans of some games stand still."""
RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of motion that controls may explain, for N spans between frames.

    values   float64 [N, D]  squashed, so that a few jumps do not decide
    weights  float64 [N]     how far each span counts
    carries  the motion has inertia: what it was before is taken out
    """

    name: str
    values: Floats
    weights: Floats
    carries: bool


@dataclass(frozen=True, slots=True)
class Spans:
    """The N times between two frames, s from the first row of the log on.

    starts, ends  float64 [N]
    follows       bool [N]     the span begins where the one before ends
    """

    starts: Floats
    ends: Floats
    follows: NDArray[np.bool_]

    def later(self, by_s: Floats) -> Spans:
        """The same spans, each so much later, float64 [N]."""
        return Spans(self.starts + by_s, self.ends + by_s, self.follows)

    @property
    def middles(self) -> Floats:
        """float64 [N], the middle of each."""
        return (self.starts + self.ends) / 2


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of products per lag and block for one channel, enough for any regression.

    xx  float64 [L, B, K, K]    xy  float64 [L, B, K, D]    yy  float64 [B, D]
    """

    xx: Floats
    xy: Floats
    yy: Floats


@dataclass(frozen=True, slots=True)
class Fit:
    """The best clock. A row that the log puts at t was done at t - lag - drift * (t - middle).

    lag_s, drift    at `middle_s`, and its growth per second
    lag_low_s, ...  ends of the 95 % intervals, from resampled blocks
    explained       R^2 of the first channel, robust
    p_value         chance of such a score with the hands at another time, see `chance`
    lags_s, score   float64 [L]  the score at each coarse lag
    null_score      mean of the best scores of rolled hands
    times_s, seen   float64 [M]  the first channel, over at most SHOWN_S seconds
    before, after   float64 [M]  what the controls say of it, as recorded and at the best lag
    windows_s       float64 [W]  middles of windows of WINDOW blocks
    window_lags_s   float64 [W]  the best lag in each
    """

    lag_s: float
    lag_low_s: float
    lag_high_s: float
    drift: float
    drift_low: float
    drift_high: float
    middle_s: float
    explained: float
    p_value: float
    lags_s: Floats
    score: Floats
    null_score: float
    times_s: Floats
    seen: Floats
    before: Floats
    after: Floats
    windows_s: Floats
    window_lags_s: Floats


def channels_of(motion: Motion, spans: Spans, *, camera: bool) -> list[Channel]:
    """What the controls are to explain.

    Args:
        motion: of N spans.
        spans: their times.
        camera: the player turns the view, so that the shift to the side alone tells most, at once.
            Otherwise all that moves is used, less what it was a frame before.
    """
    names, scales = ("right", "down", "wider"), (2.0, 2.0, 1.0)
    found = [
        Channel(
            name,
            np.tanh(getattr(motion, name)[:, None].astype(np.float64) / scale),
            certainty(motion.sure[:, at]),
            not camera,
        )
        for at, (name, scale) in enumerate(zip(names, scales, strict=True))
    ]
    if camera:
        return found[:1]
    change = np.log1p(motion.change.astype(np.float64))
    spread = np.maximum(change.std(axis=0), 1e-3)
    cells = np.tanh((change - np.median(change, axis=0)) / spread)
    return [*found, Channel("change", cells, np.ones(len(spans.starts)), True)]


def certainty(sure: NDArray[np.float32]) -> Floats:
    """Weights of spans, float64 [N]: the least certain ones have none."""
    least = np.quantile(sure, DOUBTED) if len(sure) else 0.0
    return np.where(sure > least, np.sqrt(np.maximum(sure, 0.0)), 0.0).astype(np.float64)


def blocks_of(spans: Spans) -> NDArray[np.int64]:
    """The block of each span, int64 [N]: about 24 of them, of 1 to 5 seconds."""
    lengths = spans.ends - spans.starts
    done = np.cumsum(lengths)
    size = float(np.clip(done[-1] / 24, 1.0, 5.0))
    return np.unique((done / size).astype(np.int64), return_inverse=True)[1].astype(np.int64)


def cleared(values: Floats, base: Floats) -> Floats:
    """Values, float64 [..., N, D], without what the columns of the base, float64 [N, C], explain."""
    q, _ = np.linalg.qr(base)
    return values - q @ (q.T @ values)


def moments_of(
    signals: Signals, spans: Spans, channel: Channel, lags_s: Floats, block: NDArray[np.int64]
) -> Moments:
    """The sums of products of one channel at each lag."""
    roots = np.sqrt(channel.weights)[:, None]
    base = [np.ones(len(block))]
    if channel.carries:
        earlier = np.concatenate([channel.values[:1], channel.values[:-1]])
        base += list(np.where(spans.follows[:, None], earlier, 0.0).T)
    bases = np.stack(base, axis=1) * roots
    y = cleared(channel.values * roots, bases)
    firsts = np.flatnonzero(np.diff(block, prepend=-1))
    parts = []
    for lag in lags_s:
        x = cleared(signals.over(spans.starts + lag, spans.ends + lag) * roots, bases)
        products = np.concatenate([x, y], axis=1)[:, None, :] * x[:, :, None]
        parts.append(np.add.reduceat(products, firsts, axis=0))
    sums, k = np.stack(parts), len(signals.dimensions)
    return Moments(sums[..., :k], sums[..., k:], np.add.reduceat(y * y, firsts, axis=0))


def explained_by(xx: Floats, xy: Floats, yy: Floats) -> Floats:
    """R^2 of each of D values, float64 [..., D], from sums of products."""
    k = xx.shape[-1]
    scale = np.trace(xx, axis1=-2, axis2=-1)[..., None, None] / max(k, 1)
    slopes = np.linalg.solve(xx + (RIDGE * scale + 1e-9) * np.eye(k), xy)
    shares: Floats = np.clip((slopes * xy).sum(axis=-2) / np.maximum(yy, 1e-9), 0.0, 0.9999)
    return shares


def scores(moments: Sequence[Moments], counts: Floats) -> Floats:
    """The score at each lag, float64 [R, L], for each way to count the blocks, float64 [R, B]."""
    total = np.zeros((len(counts), len(moments[0].xx)))
    for each in moments:
        xx = np.einsum("rb,lbij->rlij", counts, each.xx)
        xy = np.einsum("rb,lbid->rlid", counts, each.xy)
        total -= np.log1p(-explained_by(xx, xy, (counts @ each.yy)[:, None])).sum(axis=-1)
    return total


def drifted(each: Moments, steps: Floats) -> Moments:
    """Moments with each block read `steps` lags later, float64 [B]: at the nearest lag there is."""
    places = np.arange(len(each.xx))[:, None] + np.rint(steps).astype(np.int64)
    places = np.clip(places, 0, len(each.xx) - 1)
    block = np.arange(each.xx.shape[1])
    return Moments(each.xx[places, block], each.xy[places, block], each.yy)


def robust(
    signals: Signals, spans: Spans, channel: Channel, lags_s: Floats
) -> tuple[Channel, float]:
    """A channel in which spans that the controls do not explain count less, and R^2 with that.

    Args:
        signals, spans, channel: as for `moments_of`.
        lags_s: the lag of each span, float64 [N].
    """
    now = spans.later(lags_s)
    x = signals.over(now.starts, now.ends)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    if channel.carries:
        x = np.concatenate([x, np.concatenate([channel.values[:1], channel.values[:-1]])], axis=1)
    weights, y = channel.weights, channel.values
    used = weights > 0
    share = 0.0
    for _ in range(4):
        heavy = x * weights[:, None]
        slopes = np.linalg.solve(heavy.T @ x + 1e-6 * np.eye(x.shape[1]), heavy.T @ y)
        misses = np.sqrt(((y - x @ slopes) ** 2).mean(axis=1))
        width = max(CAUCHY * float(np.median(misses[used])), NARROWEST) if used.any() else 1.0
        weights = channel.weights / (1 + (misses / width) ** 2)
        mean = np.average(y, axis=0, weights=weights + 1e-12)
        spread = float((weights[:, None] * (y - mean) ** 2).sum())
        share = 1 - float((weights * misses**2).sum()) * y.shape[1] / max(spread, 1e-9)
    return Channel(channel.name, y, weights, channel.carries), share


def chance(
    signals: Signals, spans: Spans, channels: Sequence[Channel], lags_s: Floats, best: float
) -> tuple[float, float]:
    """How often hands at another time would explain the picture as well, and their mean best score.

    The hands are rolled by ROLLS times. A Gumbel distribution, which maxima follow, is fitted to the
    best scores, so that the chance can be smaller than one in ROLLS.

    Args:
        signals, spans, channels, lags_s: as for `moments_of`.
        best: the best score of the hands as they are.
    """
    room = min(2.5 * WIDEST_S, signals.length_s / 4)
    block = np.zeros(len(spans.starts), np.int64)
    dice = np.random.default_rng(0)
    tops = []
    for by_s in dice.uniform(room, signals.length_s - room, ROLLS):
        other = signals.rolled(float(by_s))
        parts = [moments_of(other, spans, channel, lags_s, block) for channel in channels]
        tops.append(float(scores(parts, np.ones((1, 1))).max()))
    mean, spread = float(np.mean(tops)), float(np.std(tops)) + 1e-9
    excess = (best - mean) / spread
    return float(-np.expm1(-np.exp(-(1.2825 * excess + 0.5772)))), mean


def fit(signals: Signals, spans: Spans, channels: Sequence[Channel]) -> Fit:
    """The clock at which the hands explain the picture best.

    Args:
        signals: of the log; one control at least.
        spans: the N times between frames.
        channels: what moves in them.
    """
    coarse = np.arange(-WIDEST_S, WIDEST_S + COARSE_S / 2, COARSE_S)
    whole = np.zeros(len(spans.starts), np.int64)
    first = [moments_of(signals, spans, channel, coarse, whole) for channel in channels]
    curve = scores(first, np.ones((1, 1)))[0]
    p_value, null_score = chance(signals, spans, channels, coarse[::2], float(curve[::2].max()))
    block = blocks_of(spans)
    at = np.bincount(block, spans.middles) / np.bincount(block)
    middle = float(at.mean())
    lag, drift, explained = float(coarse[curve.argmax()]), 0.0, 0.0
    for _ in range(PASSES):
        lags_s = lag + drift * (spans.middles - middle)
        weighed = [robust(signals, spans, channel, lags_s) for channel in channels]
        explained = weighed[0][1]
        straight = spans.later(drift * (spans.middles - middle))
        fine = lag + np.arange(-NEAR_S, NEAR_S + FINE_S / 2, FINE_S)
        parts = [moments_of(signals, straight, channel, fine, block) for channel, _ in weighed]
        taken = drift
        lag, more = (float(each[0]) for each in clocks(parts, fine, at - middle, None))
        drift = taken + more
    dice = np.random.default_rng(0)
    counts = dice.multinomial(len(at), np.full(len(at), 1 / len(at)), RESAMPLED).astype(float)
    lags, drifts = clocks(parts, fine, at - middle, counts)
    drifts = drifts + taken
    (low, high), (slow, fast) = (np.quantile(each, (0.025, 0.975)) for each in (lags, drifts))
    shown = spans.middles < spans.middles[0] + SHOWN_S
    before, after = (
        predicted(signals, spans, weighed[0][0], lags_s, read_at)[shown]
        for read_at in (0.0 * lags_s, lags_s)
    )
    windows = windows_of(len(at))
    lags_then = np.interp(peaks(scores(parts, windows))[1], np.arange(len(fine)), fine)
    then = windows @ at / windows.sum(axis=1)
    return Fit(
        times_s=spans.middles[shown],
        seen=weighed[0][0].values[shown, 0],
        before=before,
        after=after,
        windows_s=then,
        window_lags_s=lags_then + taken * (then - middle),
        lag_s=lag,
        lag_low_s=float(min(low, lag)),
        lag_high_s=float(max(high, lag)),
        drift=drift,
        drift_low=float(min(slow, drift)),
        drift_high=float(max(fast, drift)),
        middle_s=middle,
        explained=explained,
        p_value=p_value,
        lags_s=coarse,
        score=curve,
        null_score=null_score,
    )


def windows_of(blocks: int) -> Floats:
    """Which blocks each window counts, float64 [W, B]: WINDOW of them, each one further on."""
    size = min(WINDOW, blocks)
    return np.stack([np.eye(blocks)[at : at + size].sum(axis=0) for at in range(blocks - size + 1)])


def predicted(
    signals: Signals, spans: Spans, channel: Channel, best_s: Floats, read_s: Floats
) -> Floats:
    """What the controls say of a channel, float64 [N], fitted at one lag and read at another."""
    xs = []
    for lags_s in (best_s, read_s):
        now = spans.later(lags_s)
        x = signals.over(now.starts, now.ends)
        xs.append(np.concatenate([x, np.ones((len(x), 1))], axis=1))
    heavy = xs[0] * channel.weights[:, None]
    square = heavy.T @ xs[0] + 1e-6 * np.eye(xs[0].shape[1])
    return np.asarray(xs[1] @ np.linalg.solve(square, heavy.T @ channel.values[:, 0]))


def clocks(
    parts: Sequence[Moments], lags_s: Floats, at_s: Floats, counts: Floats | None
) -> tuple[Floats, Floats]:
    """The best lag and drift for each way to count the blocks, float64 [R] each.

    Args:
        parts: the moments of each channel.
        lags_s: float64 [L], of the moments, evenly spaced.
        at_s: float64 [B], time of each block from the middle on.
        counts: float64 [R, B]; None: each block once.
    """
    counts = np.ones((1, len(at_s))) if counts is None else counts
    reach = float(np.abs(at_s).max())
    steepest = min(STEEPEST, 0.6 * NEAR_S / max(reach, 1e-9))
    drifts = np.linspace(-steepest, steepest, 25)
    tops, places = [], []
    for drift in drifts:
        moved = [drifted(each, drift * at_s / FINE_S) for each in parts]
        top, place = peaks(scores(moved, counts))
        tops.append(top)
        places.append(place)
    heights, spots = np.stack(tops, axis=1), np.stack(places, axis=1)
    _, best = peaks(heights)
    drift_of = np.interp(best, np.arange(len(drifts)), drifts)
    rows, low = np.arange(len(counts)), np.clip(np.floor(best).astype(int), 0, len(drifts) - 2)
    share = best - low
    place = (1 - share) * spots[rows, low] + share * spots[rows, low + 1]
    return np.interp(place, np.arange(len(lags_s)), lags_s), drift_of


def slopes_at(
    signals: Signals, spans: Spans, channel: Channel, lags_s: Floats
) -> tuple[Floats, Floats]:
    """The slope of each control in one channel, and by how many of its errors it differs from 0.

    Args:
        signals, spans, channel: as for `moments_of`.
        lags_s: the lag of each span, float64 [N].

    Returns:
        float64 [K] each.
    """
    now = spans.later(lags_s)
    parts = moments_of(signals, now, channel, np.zeros(1), blocks_of(spans))
    xx, xy = parts.xx[0], parts.xy[0].sum(axis=-1)
    k = xx.shape[-1]
    counts = 1.0 - np.concatenate([np.zeros((1, len(xx))), np.eye(len(xx))])
    many = np.einsum("rb,bij->rij", counts, xx) + 1e-6 * np.eye(k)
    slopes = np.linalg.solve(many, (counts @ xy)[..., None])[..., 0]
    errors = np.sqrt(
        (len(xx) - 1) / len(xx) * ((slopes[1:] - slopes[1:].mean(axis=0)) ** 2).sum(axis=0)
    )
    return slopes[0], slopes[0] / np.maximum(errors, 1e-9)
