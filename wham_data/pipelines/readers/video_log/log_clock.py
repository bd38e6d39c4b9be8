"""The clock of a log: counters that wrap, clocks that are set back or move in coarse ticks.

The order of the lines is the order in which things happened. Rows are brought into another order
only where the file is surely a permutation of a sound log; a clock that was set back is refused.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import typical_interval
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput, plain_number

COUNTERS_NS: Final[dict[str, int]] = {
    "32-bit counter of milliseconds": (1 << 32) * 1_000_000,
    "31-bit counter of milliseconds": (1 << 31) * 1_000_000,
    "32-bit counter of microseconds": (1 << 32) * 1_000,
    "31-bit counter of microseconds": (1 << 31) * 1_000,
    "32-bit counter of 100 ns": (1 << 32) * 100,
    "16-bit counter of milliseconds": (1 << 16) * 1_000_000,
}
MOST_SILENCE_NS: Final = 60 * SECOND_NS
LONG_COUNTER_NS: Final = 24 * 3600 * SECOND_NS
MOST_LONG_SILENCE_NS: Final = 3600 * SECOND_NS
LATE_WRITER_NS: Final = 2_000_000
SHUFFLED_SHARE: Final = 0.1
COARSEST_TICK_NS: Final = SECOND_NS // 10
FEWEST_INTERLEAVED: Final = 16
SPLIT_RATIO: Final = 0.25
FEWEST_IN_TURN: Final = 3
FEWEST_PAIRS: Final = 4


def unwrapped(times_ns: Nanos, *, sampled: bool = False) -> tuple[Nanos, list[str]]:
    """Undo the wraps of a counter: it falls from the end of its range to the start of it.

    A log that was begun anew falls to its first time again: within a day, that is no wrap unless the
    next row came in time. In a sampled log, a counter of 16 bits has to be in time in any case.

    Args:
        times_ns: int64 [N], in the order of the file, on the log's own clock.
        sampled: rows come at regular times.

    Returns:
        The times, rising over the wraps, and a note where there was one.
    """
    falls = np.flatnonzero(np.diff(times_ns) < 0) + 1
    before, after = times_ns[falls - 1], times_ns[falls]
    in_time_ns = 2 * typical_interval(times_ns)
    for name, wrap_ns in COUNTERS_NS.items():
        long = wrap_ns > LONG_COUNTER_NS
        silence_ns = MOST_LONG_SILENCE_NS if long else min(MOST_SILENCE_NS, wrap_ns >> 6)
        passed = after - before + wrap_ns
        low = np.where(after < -silence_ns, -(wrap_ns // 2), 0)
        wraps = (passed >= 0) & (passed <= silence_ns) & (after >= low)
        wraps &= after - low <= silence_ns
        if not long:
            short = sampled and wrap_ns == COUNTERS_NS["16-bit counter of milliseconds"]
            wraps &= (passed <= in_time_ns) | ((after != times_ns[0]) & (not short))
        if wraps.any():
            rows = falls[wraps]
            turns = np.zeros(len(times_ns), np.int64)
            turns[rows] = wrap_ns
            note = f"the clock wraps to its start at row {rows[0] + 1} (a {name}): unwrapped"
            return times_ns + np.cumsum(turns), [note]
    return times_ns, []


def sampled_order(times_ns: Nanos) -> tuple[Index, list[str]]:
    """Positions that bring the rows of a sampled log into time order, and a note.

    Shuffled rows are sorted: they are a permutation of a sound log. So are neighbours that changed
    places. A clock that was set back is refused: after it, which row was when is lost.

    Args:
        times_ns: int64 [N], in the order of the file; rows of one time keep their order.

    Raises:
        RefusedInput: LOG_CLOCK, naming the first row after the jump, and how far it went.
    """
    falls = np.flatnonzero(np.diff(times_ns) < 0) + 1
    if not len(falls):
        return np.arange(len(times_ns)), []
    order = np.argsort(times_ns, kind="stable")
    shuffled = len(falls) > max(2, SHUFFLED_SHARE * len(times_ns))
    if not shuffled and not _swapped(times_ns, falls):
        raise _set_back(times_ns, int(falls[0]), typical_interval(times_ns))
    return order, [f"rows were not in time order: sorted ({len(falls)} steps back)"]


def _swapped(times_ns: Nanos, falls: Index) -> bool:
    """Whether each step back is two neighbours that changed places in an even log."""
    lone = np.diff(falls, prepend=-2, append=len(times_ns) + 2)
    inside = (falls >= 2) & (falls < len(times_ns) - 1)
    if (lone < 2).any() or not inside.all():
        return False
    before, after = times_ns[falls - 2], times_ns[falls + 1]
    first, second = times_ns[falls], times_ns[falls - 1]
    typical = typical_interval(np.sort(times_ns))
    gaps = np.stack([first - before, second - first, after - second])
    return bool((2 * gaps >= typical).all() and (gaps <= 2 * typical).all())


def _set_back(times_ns: Nanos, row: int, usual_ns: int = 0) -> RefusedInput:
    """Why a clock that was set back is refused, and by how much where rows come every `usual_ns`."""
    fell_ns = int(times_ns[row - 1]) - int(times_ns[row])
    about = f", so by about {_amount(fell_ns + usual_ns)}" if usual_ns > 0 else ""
    return RefusedInput(
        Reason.LOG_CLOCK,
        f"the clock was set back: row {row + 1} is {_amount(fell_ns)} before the row above it{about}. "
        "Cut the recording there, or, if only the order of the rows is wrong, sort them by time",
    )


def _amount(span_ns: int) -> str:
    """A span in words: under 10 s in ms, to the microsecond."""
    if span_ns < 10 * SECOND_NS:
        return f"{round(span_ns / 1e6, 3):g} ms"
    return f"{round(span_ns / SECOND_NS, 3):.12g} s"


def event_order(times_ns: Nanos, controls: Index) -> tuple[Index, Nanos, list[str]]:
    """Positions that bring events into the order in which they happened, their times, and notes.

    Events are never sorted across a step back in time: a release that stands below its press ends
    it. Only a file that lists one control after the other is sorted. Steps back of 2 ms at most,
    as writers of several threads make them, keep the order of the file; the later line then
    happens at the instant of the earlier one.

    Args:
        times_ns: int64 [N], in the order of the file.
        controls: int64 [N], which control each event is of.

    Raises:
        RefusedInput: LOG_CLOCK, as for `sampled_order`.
    """
    back_ns = -np.diff(times_ns)
    falls = np.flatnonzero(back_ns > 0) + 1
    every = np.arange(len(times_ns))
    if not len(falls):
        return every, times_ns, []
    changes = np.flatnonzero(np.diff(controls)) + 1
    if len(changes) < len(np.unique(controls)) and np.isin(falls, changes).all():
        order = np.argsort(times_ns, kind="stable")
        return order, times_ns[order], ["one control after the other: sorted by time"]
    if back_ns.max() > LATE_WRITER_NS:
        raise _set_back(times_ns, int(falls[np.argmax(back_ns[falls - 1] > LATE_WRITER_NS)]))
    note = f"{len(falls)} events stamped up to 2 ms before the line above: order of the file kept"
    return every, np.maximum.accumulate(times_ns), [note]


def strictly_rising(times_ns: Nanos) -> Nanos:
    """The least times at or after the given ones that rise by 1 ns at least."""
    steps = np.arange(len(times_ns))
    rising: Nanos = np.maximum.accumulate(times_ns - steps) + steps
    return rising


def each_twice(same: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The second of each two rows, where every row of a log stands in it twice; else None.

    Args:
        same: bool [N - 1], each row but the first repeats the one above, its time as well.

    Returns:
        bool [N]. Of runs of equal rows all are even (but the last, which may be cut off) and most are
        of two: equal motion within one tick of a coarse clock makes runs of any length.
    """
    starts = np.flatnonzero(np.append(True, ~same))
    runs = np.diff(np.append(starts, len(same) + 1))
    if len(runs) < FEWEST_PAIRS or (runs[:-1] % 2).any() or np.median(runs) != 2:
        return None
    place = np.arange(len(same) + 1) - np.repeat(starts, runs)
    second: NDArray[np.bool_] = place % 2 == 1
    return second


def of_one_time(
    times_ns: Nanos,
    rows: Index,
    values: NDArray[np.float64],
    frames: Index | None,
    motions: Index,
) -> tuple[NDArray[np.bool_], Nanos, list[str]]:
    """What becomes of rows of one time: which are kept, when they were, and a note.

    Identical rows are one row, unless they tell motion: that adds up, and rows of equal motion are
    dropped only where every row of the log stands there twice. Rows that differ or move and follow one
    another in the file were written within one tick of a coarse clock: they keep their order and are
    spread over the tick.

    Args:
        times_ns: int64 [N], sorted.
        rows: int64 [N], where in the file each row stands.
        values: float64 [N, A].
        frames: int64 [N], frame numbers; None: the log names none.
        motions: int64 [M], the columns of `values` that are motion.

    Returns:
        bool [N], the times of the kept rows, strictly increasing, and notes.

    Raises:
        RefusedInput: LOG_CLOCK, rows of one time contradict each other and no coarse clock
            explains it: they lie far apart in the file, or are of two logs in turn.
    """
    keep = np.append(True, np.diff(times_ns) > 0)
    if keep.all():
        return keep, times_ns, []
    here = np.flatnonzero(~keep)
    known = np.isfinite(values)
    differs = ((values[here - 1] != values[here]) & (known[here - 1] | known[here])).any(axis=1)
    unlike = "two different ones"
    if frames is not None:
        differs |= frames[here - 1] != frames[here]
    moves = (values[here][:, motions] != 0).any(axis=1)
    if moves.any():
        same = np.append(False, ~keep[1:])
        same[here[differs]] = False
        second = each_twice(same[1:])
        if second is not None:
            kept, times, notes = of_one_time(
                times_ns[~second],
                rows[~second],
                values[~second],
                None if frames is None else frames[~second],
                motions,
            )
            once = ~second
            once[once] = kept
            return once, times, [f"{int(second.sum())} duplicate rows dropped", *notes]
        differs |= moves
        unlike = "two that move" if moves[np.argmax(differs)] else unlike
    if not differs.any():
        return keep, times_ns[keep], [f"{len(here)} duplicate rows dropped"]
    first = int(here[np.argmax(differs)])
    at = f"{unlike} at {plain_number(times_ns[first] / SECOND_NS, 12)} s"
    starts = np.flatnonzero(keep)
    tick_ns = typical_interval(times_ns[starts])
    if (rows[here[differs]] - rows[here[differs] - 1] != 1).any() or (
        not 0 < tick_ns <= COARSEST_TICK_NS
    ):
        raise RefusedInput(Reason.LOG_CLOCK, f"conflicting duplicate rows: {at}")
    if take_turns(values):
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"conflicting duplicate rows: {at}, and rows seem to be of two devices in turn; "
            "keep one device per log, or name the device in a column `device`",
        )
    note = f"{int(differs.sum())} rows share the time of the row above (a coarse clock of about "
    note += (
        f"{plain_number(tick_ns / 1e6)} ms): kept in the order of the file, spread over the tick"
    )
    return np.ones(len(keep), np.bool_), _spread(times_ns, starts, tick_ns), [note]


def _spread(times_ns: Nanos, starts: Index, tick_ns: int) -> Nanos:
    """Rows of one time, spread evenly until the next time, over one typical tick at most."""
    counts = np.diff(np.append(starts, len(times_ns)))
    first = times_ns[starts]
    length = np.minimum(np.diff(first, append=first[-1] + tick_ns), tick_ns)
    within = np.arange(len(times_ns)) - np.repeat(starts, counts)
    return strictly_rising(
        times_ns + within * np.repeat(length, counts) // np.repeat(counts, counts)
    )


def take_turns(values: NDArray[np.float64], streams: int = 2) -> bool:
    """Whether rows are of several streams in turn: every k-th row is alike, neighbours are not.

    Args:
        values: float64 [N, A].
        streams: k.
    """
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < FEWEST_INTERLEAVED * streams // 2:
        return False
    next_row = np.abs(np.diff(values, axis=0)).sum(axis=0)
    next_turn = np.abs(values[streams:] - values[:-streams]).sum(axis=0)
    moving = next_row > 0.1 * len(values)
    return bool((next_turn[moving] < SPLIT_RATIO * next_row[moving]).any())


def of_two_pads(values: NDArray[np.float64]) -> bool:
    """Whether every other row is alike and neighbours are not, in all of three moving columns or more.

    One column alone may alternate: a button that is tapped at half the rate of the rows.

    Args:
        values: float64 [N, A], in time order.
    """
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2 * FEWEST_INTERLEAVED:
        return False
    next_row = np.abs(np.diff(values, axis=0)).sum(axis=0)
    next_turn = np.abs(values[2:] - values[:-2]).sum(axis=0)
    moving = next_row > 0.1 * len(values)
    in_turn = next_turn[moving] < 0.5 * next_row[moving]
    return bool(np.count_nonzero(moving) >= FEWEST_IN_TURN and in_turn.all())
