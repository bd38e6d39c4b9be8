"""When the rows of a LeRobot episode really were: by their `timestamp`, or by the nominal rate.

LeRobot writes `timestamp = frame_index / fps`. A loop that did not keep up writes what the clock said
instead, while the video beside it still plays at `fps`. Then the column is the truth, and the video's
own times are not.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import SECOND_NS, Index, Nanos, steps_ns
from wham_data.schemas.errors import Reason, RefusedInput, plain_number

JITTER_NS: Final = 1_000_000
"""The column is float32 seconds, and LeRobot itself forgives 0.1 ms."""
UNITS: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
MOST_APART: Final = 20.0
"""Times slower or faster than the nominal rate that a loop may have been."""
LONGEST_S: Final = 1e9


def row_times(
    frames: Index, stamps: NDArray[Any] | None, rate: Fraction
) -> tuple[Nanos, tuple[str, ...]]:
    """When each row was, on the episode's clock, and what to tell of it.

    Args:
        frames: `frame_index`, int64 [N], strictly increasing.
        stamps: the column `timestamp`, numbers [N]; None where there is none.
        rate: `fps` of the dataset.

    Returns:
        int64 [N], strictly increasing: the column's times, counted from where the nominal ones
        begin, if one of them is over `JITTER_NS` from its nominal time; else the nominal times.

    Raises:
        RefusedInput: LOG_CLOCK, the column runs backward, stands still in places, is not finite, or
            is in a unit that nobody can tell.
    """
    nominal_ns = steps_ns(frames, rate)
    if stamps is not None and stamps.dtype == np.float32:
        # The decimal that was meant: 0.1 as float32 lies after 0.1.
        stamps = np.array([float(str(stamp)) for stamp in stamps], np.float64)
    if stamps is None or len(stamps) < 2:
        return nominal_ns, ()
    if (stamps == stamps[0]).all():
        return nominal_ns, ("timestamp is one and the same in all rows: timed by fps instead",)
    _check(stamps)
    since = (stamps - stamps[0]).astype(np.float64)
    since, unit = _in_seconds(since, (nominal_ns - nominal_ns[0]) / SECOND_NS)
    real_ns = nominal_ns[0] + np.round(since * SECOND_NS).astype(np.int64)
    furthest = float(np.abs(real_ns - nominal_ns).max())
    if furthest <= JITTER_NS:
        return nominal_ns, ()
    if (np.diff(real_ns) <= 0).any():
        raise RefusedInput(Reason.LOG_CLOCK, "timestamp: times less than 1 ns apart")
    loop = (len(stamps) - 1) / float(since[-1])
    said = f"timestamp and frame_index / fps differ by up to {plain_number(furthest / SECOND_NS)} s"
    note = f"{said}: timed by timestamp ({plain_number(loop)} rows/s, fps says {float(rate):g})"
    return real_ns, (note if unit == "s" else f"{note}, taken as {unit}",)


def _check(stamps: NDArray[Any]) -> None:
    """Refuse times that cannot be times."""
    wrong = np.flatnonzero(~np.isfinite(stamps) | (np.abs(stamps) > 1e19))
    if len(wrong):
        raise RefusedInput(
            Reason.LOG_CLOCK, f"timestamp in row {wrong[0]} is {stamps[wrong[0]]:g}, no time"
        )
    back = np.flatnonzero(np.diff(stamps) <= 0)
    if len(back):
        at = int(back[0]) + 1
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"timestamp does not increase: {stamps[at]:g} in row {at} after {stamps[at - 1]:g} "
            "(the first row of the episode is 0)",
        )


def _in_seconds(
    since: NDArray[np.float64], nominal_s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str]:
    """Times in seconds, and the unit they were in: the one that comes near the nominal length."""
    ratio = float(since[-1] / nominal_s[-1])
    for unit, per_second in UNITS.items():
        if (
            1 / MOST_APART <= ratio / per_second <= MOST_APART
            and since[-1] / per_second < LONGEST_S
        ):
            return since / per_second, unit
    raise RefusedInput(
        Reason.LOG_CLOCK,
        f"timestamp covers {since[-1]:g}, frame_index / fps {nominal_s[-1]:g} s: "
        "which unit it is in cannot be told",
    )


def nearest_frames(times_ns: Nanos, frame_times_ns: Nanos, half_ns: int) -> tuple[Index, float]:
    """For each row's time the frame less than half an interval away, or -1; and how far in all.

    Args:
        times_ns: int64 [N], increasing.
        frame_times_ns: int64 [F], increasing.
        half_ns: half an interval.

    Returns:
        int64 [N], and the sum of the distances of the frames that were found, in ns.
    """
    places = np.searchsorted(frame_times_ns, times_ns - half_ns)
    near = frame_times_ns[np.minimum(places, len(frame_times_ns) - 1)] - times_ns
    found = (places < len(frame_times_ns)) & (np.abs(near) <= half_ns)
    at = np.flatnonzero(found)
    found[at[1:][np.diff(places[at]) == 0]] = False  # of two rows only the first has the frame
    return np.where(found, places, -1), float(np.abs(near[found]).sum())


def retimed(
    frame_times_ns: Nanos, end_ns: int, places: Index, times_ns: Nanos
) -> tuple[Nanos, int]:
    """The times of frames of which some have a row, by the clock of the rows.

    A frame with a row comes at the row's time; one between two of them in proportion; those before
    the first and after the last keep their distance to it.

    Args:
        frame_times_ns: int64 [F], the video's own times; end_ns: when the last frame ends there.
        places: int64 [N], the frame of each row, increasing; -1: none.
        times_ns: int64 [N], when each row was.

    Returns:
        int64 [F] strictly increasing, and the new end.
    """
    has = places >= 0
    at, when_ns = places[has], times_ns[has]
    own_ns = frame_times_ns[at]
    between = np.interp(frame_times_ns, own_ns, (when_ns - when_ns[0]).astype(np.float64))
    moved = when_ns[0] + np.round(between).astype(np.int64)
    moved[at] = when_ns
    first, last = int(at[0]), int(at[-1])
    moved[:first] = frame_times_ns[:first] - own_ns[0] + when_ns[0]
    moved[last + 1 :] = frame_times_ns[last + 1 :] - own_ns[-1] + when_ns[-1]
    if last + 1 < len(moved) or len(moved) < 2:
        return moved, end_ns - int(own_ns[-1]) + int(when_ns[-1])
    return moved, int(moved[-1]) + int(np.median(np.diff(moved)))
