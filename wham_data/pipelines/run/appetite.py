"""How many items to work on at once, so that a shared service never waits and little waits for it.

A decision without Ray or a clock. What an instance of the service tells of itself is its `Load`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HUNGRY: Final = 0.9
"""An instance that is busy for a smaller part of the time could do more."""
PLENTY: Final = 6.0
"""Requests that still wait when an instance takes the next. Two items have as many in flight."""
GROW, SHRINK = 1.25, 0.8


@dataclass(frozen=True, slots=True)
class Load:
    """What an instance of a service has done since it was last asked.

    busy   part of the time in which it was answering, 0 to 1
    left   requests that still waited when it took some, mean
    calls  so often it took some
    rows   in all of these calls; 0 if requests are not arrays
    """

    busy: float
    left: float
    calls: int
    rows: int


def items_at_once(now: int, loads: Sequence[Load], least: int, most: int) -> int:
    """How many items to work on from now on.

    More if the instances are hungry, fewer if plenty waits for them. In between nothing changes: some
    requests wait, so no instance is idle, and few pictures are in memory.

    Args:
        now: so many are worked on.
        loads: of all instances. If none was called, nothing is known and nothing changes.
        least: at least so many, as long as `most` allows it.
        most: that there is room for.
    """
    if any(load.calls for load in loads):
        busy = sum(load.busy for load in loads) / len(loads)
        left = sum(load.left for load in loads) / len(loads)
        if left > PLENTY:
            now = min(now - 1, int(now * SHRINK))
        elif busy < HUNGRY:
            now = max(now + 1, int(now * GROW))
    return min(max(now, least), most)
