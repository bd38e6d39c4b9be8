"""What the hands do, as signals that can be read over any span of time.

A control is integrated over time, so that the mean over a span [a, b) is (C(b) - C(a)) / (b - a), whatever
the rates of the log and of the video are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import Dimension
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.recording import ActionTrack

MOST_CONTROLS: Final = 10
"""Controls that are compared with the picture; of more, those that change most often."""
FEWEST_CHANGES: Final = 6
LEAST_SHARE: Final = 0.01
"""Share of the time for which a control must be away from rest to be compared."""
RIGHT, DOWN = ("right", "left"), ("down", "up")
"""Labels of dimensions that point along the picture; the first is the positive direction."""


@dataclass(frozen=True, slots=True)
class Signals:
    """The controls of a log that move, integrated over time.

    dimensions  K of them
    knots_s     float64 [M]     times, increasing, s from `start_ns` on
    so_far      float64 [M, K]  integral of each control until each knot; linear between knots
    typical     float64 [K]     the median of its strength while it is not at rest
    dead        names of the controls that never change
    start_ns    time of the first row
    """

    dimensions: tuple[Dimension, ...]
    knots_s: NDArray[np.float64]
    so_far: NDArray[np.float64]
    typical: NDArray[np.float64]
    dead: frozenset[str]
    start_ns: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the controls, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def length_s(self) -> float:
        """Seconds that the log covers."""
        return float(self.knots_s[-1])

    def over(
        self, starts_s: NDArray[np.float64], ends_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The mean of each control over each span, as a share of its typical strength, squashed.

        Args:
            starts_s, ends_s: float64, any shape: [start, end) of each span, s from `start_ns` on.

        Returns:
            float64 [..., K] in [-1, 1]; 0 at rest, and outside the log.
        """
        lengths = np.maximum(ends_s - starts_s, 1e-9)
        means = [
            np.interp(ends_s, self.knots_s, column) - np.interp(starts_s, self.knots_s, column)
            for column in self.so_far.T
        ]
        if not means:
            return np.zeros((*lengths.shape, 0))
        return np.tanh(np.stack(means, axis=-1) / lengths[..., None] / self.typical)

    def rolled(self, by_s: float) -> Signals:
        """The same hands with everything they do `by_s` later; what leaves at the end enters first."""
        total, whole = self.length_s, self.so_far[-1]
        cut = np.stack([np.interp(total - by_s, self.knots_s, c) for c in self.so_far.T])
        late = self.knots_s > total - by_s
        times = np.concatenate(
            [[0.0], self.knots_s[late] - (total - by_s), [by_s], self.knots_s[~late] + by_s]
        )
        so_far = np.concatenate(
            [
                np.zeros((1, len(cut))),
                self.so_far[late] - cut,
                (whole - cut)[None],
                self.so_far[~late] + (whole - cut),
            ]
        )
        return Signals(self.dimensions, times, so_far, self.typical, self.dead, self.start_ns)


def signals_of(track: ActionTrack) -> Signals:
    """The controls of a log that can be compared with the picture.

    A row holds until the next one, but no longer than the log's rule allows. Of a motion (kind "delta"),
    a row's distance is spread over the time until the next row.
    """
    start_ns = int(track.times_ns[0])
    until_ns = np.append(track.times_ns[1:], max(track.end_ns, int(track.times_ns[-1]) + 1))
    lengths_s = (until_ns - track.times_ns) / SECOND_NS
    held_s = lengths_s if track.max_hold_ns is None else _held(track.times_ns, until_ns, track)
    values = np.nan_to_num(track.values)
    amounts = values * held_s[:, None]
    moved = track.space.of_kind("delta")
    amounts[:, moved] = values[:, moved]
    dead = np.ptp(values, axis=0) == 0
    chosen = _compared(values, lengths_s, dead)
    strengths = np.abs(amounts[:, chosen]) / np.maximum(lengths_s, 1e-9)[:, None]
    return Signals(
        dimensions=tuple(track.space.dimensions[at] for at in chosen),
        knots_s=np.append(0.0, (until_ns - start_ns) / SECOND_NS),
        so_far=np.concatenate([np.zeros((1, len(chosen))), np.cumsum(amounts[:, chosen], axis=0)]),
        typical=_typical(strengths),
        dead=frozenset(np.array(track.space.names)[dead].tolist()),
        start_ns=start_ns,
    )


def _held(times_ns: Nanos, until_ns: Nanos, track: ActionTrack) -> NDArray[np.float64]:
    """How long each row holds, in seconds: no longer than the log's rule allows."""
    assert track.max_hold_ns is not None
    silent = until_ns - times_ns > track.max_hold_ns
    usual_ns = np.median(until_ns - times_ns)
    return np.where(silent, usual_ns, until_ns - times_ns) / SECOND_NS


def _compared(
    values: NDArray[np.float64], lengths_s: NDArray[np.float64], dead: NDArray[np.bool_]
) -> list[int]:
    """Positions of the controls that move often enough, those that change most often first."""
    changes = (np.diff(values, axis=0) != 0).sum(axis=0)
    shares = ((values != 0) * lengths_s[:, None]).sum(axis=0) / max(lengths_s.sum(), 1e-9)
    fit = ~dead & (changes >= FEWEST_CHANGES) & (shares >= LEAST_SHARE)
    order = np.argsort(-changes, kind="stable")
    return sorted(order[fit[order]][:MOST_CONTROLS].tolist())


def _typical(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of each column, float64 [K], without its zeros."""
    moving = np.where(strengths > 1e-9, strengths, np.nan)
    return np.nanmedian(moving, axis=0) if strengths.size else np.ones(strengths.shape[1])
