"""Time: integer nanoseconds on the recording's own clock, rates as fractions, the grid of steps."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Nanos = NDArray[np.int64]
Index = NDArray[np.int64]

SECOND_NS = 1_000_000_000
TEN_HZ = Fraction(10)


@dataclass(frozen=True, slots=True)
class Grid:
    """`n_steps` steps that begin at `start_ns`; step k covers the time [time(k), time(k + 1)).

    time(k) = start_ns + k / rate, rounded up to whole nanoseconds. Frame times are rounded in the
    same way, so at the source's own rate each step shows its own frame. Steps at 10 Hz are exactly
    100 ms apart.

    start_ns  time of step 0 on the recording's clock
    rate      steps per second, Hz
    """

    start_ns: int
    n_steps: int
    rate: Fraction = TEN_HZ

    def edges_ns(self) -> Nanos:
        """The times at which steps begin, and the end of the last step: int64 [n_steps + 1]."""
        return self.start_ns + steps_ns(np.arange(self.n_steps + 1, dtype=np.int64), self.rate)


def steps_ns(count: Index, rate: Fraction) -> Nanos:
    """The duration of `count` steps in nanoseconds, rounded up to whole ones.

    The product stays below 2^63 for any recording: 10^10 steps of 10^9 ns at rate 1.

    Args:
        count: numbers of steps, int64, any shape.
        rate: steps per second, Hz.

    Returns:
        int64, the shape of `count`.
    """
    lengths: Nanos = -(-count * (SECOND_NS * rate.denominator) // rate.numerator)
    return lengths


def steps_between(start_ns: int, end_ns: int, rate: Fraction) -> int:
    """The count of whole steps of `rate` (Hz) in the time [start_ns, end_ns); at least 0."""
    return max(0, (end_ns - start_ns) * rate.numerator // (SECOND_NS * rate.denominator))


def runs_of(good: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of True in bool [N], in order, each as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(good, prepend=False, append=False))
    return [(first, stop) for first, stop in edges.reshape(-1, 2).tolist()]
