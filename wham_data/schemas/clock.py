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
    """`n_steps` steps from `start_ns`: step k covers [time(k), time(k + 1)).

    time(k) = start_ns + k / rate, rounded up to whole nanoseconds as the times of frames are: so at
    the source's own rate each step shows its own frame. 10 Hz steps are exactly 100 ms apart.
    """

    start_ns: int
    n_steps: int
    rate: Fraction = TEN_HZ

    def edges_ns(self) -> Nanos:
        """The n_steps + 1 instants between which the steps lie, int64."""
        return self.start_ns + steps_ns(np.arange(self.n_steps + 1, dtype=np.int64), self.rate)


def steps_ns(count: Index, rate: Fraction) -> Nanos:
    """How long so many steps of `rate` (Hz) last, rounded up to whole nanoseconds, int64.

    The product stays below 2^63 for any recording: 10^10 steps of 10^9 ns at rate 1.
    """
    lengths: Nanos = -(-count * (SECOND_NS * rate.denominator) // rate.numerator)
    return lengths


def steps_between(start_ns: int, end_ns: int, rate: Fraction) -> int:
    """How many whole steps of `rate` (Hz) fit into [start_ns, end_ns)."""
    return max(0, (end_ns - start_ns) * rate.numerator // (SECOND_NS * rate.denominator))
