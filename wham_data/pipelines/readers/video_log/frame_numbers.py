"""Logs whose rows are counted: by the video's frames, or by the tics of the engine that played."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import typical_interval
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

MIN_COVERAGE: Final = 0.5
MOST_ROWS: Final = 0.95
MOST_DRIFT_PPM: Final = 5000
MOST_ASTRAY_NS: Final = SECOND_NS // 10


def misfit(numbers: Index, times_ns: Nanos, frame_times_ns: Nanos, frame_end_ns: int) -> str | None:
    """Why a column of frame numbers is not that of this video; None where it is.

    It is if it names the video's frames from the first to the last, give or take 1 %, or if the
    container's clock agrees with it. A game's own counter does neither. Where it is two frames off or
    more and the log lasts as long as the video, the container's clock is sound: then it has to agree.

    Args:
        numbers: int64 [R], the frame of each row, -1 where the log does not say.
        times_ns: int64 [R], the time of each row.
        frame_times_ns, frame_end_ns: the container's clock.

    Raises:
        RefusedInput: LOG_CLOCK, it does neither, and the log lasts so much longer or shorter than
            the video that no clock can be trusted.
    """
    said = numbers >= 0
    named, since = numbers[said], times_ns[said]
    count = len(frame_times_ns)
    if len(named) < 2:
        return f"column frame names {len(named)} frames, the video has {count}"
    first, last = int(named.min()), int(named.max())
    video_ns = frame_end_ns - int(frame_times_ns[0])
    log_ns = int(times_ns[-1] - times_ns[0])
    if last < count and counts_as_many(first, last, count):
        exact = max(first, count - 1 - last) <= 1
        sound = abs(log_ns - video_ns) <= max(MOST_ASTRAY_NS, video_ns // 100)
        if exact or not sound or _keeps_step(named, since, frame_times_ns):
            return None
        return (
            f"column frame counts {last - first + 1} frames where the video's clock has {count}, and the "
            "log lasts as long as the video: another counter"
        )
    if last < count:
        slack_ns = max(2 * typical_interval(frame_times_ns), MOST_ASTRAY_NS)
        near = (np.abs(frame_times_ns[named] - since) <= slack_ns).all()
        if near and _keeps_step(named, since, frame_times_ns):
            return None
    found = f"column frame names frames {first} to {last}, the video has {count}"
    if last < count and abs(log_ns - video_ns) > 0.1 * video_ns:
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"{found}, and the log lasts {log_ns / SECOND_NS:.1f} s, the video "
            f'{video_ns / SECOND_NS:.1f} s: say under [columns] frame = "frame" if the column '
            'numbers the frames of this video, else ignore = ["frame"]',
        )
    return found


def _keeps_step(named: Index, since: Nanos, frame_times_ns: Nanos) -> bool:
    """Whether frames pass as quickly in the log as on the container's clock, from first to last row."""
    spent_ns = int(frame_times_ns[named[-1]] - frame_times_ns[named[0]])
    return abs(int(since[-1] - since[0]) - spent_ns) <= 2 * typical_interval(frame_times_ns)


def counts_as_many(first: int, last: int, frames: int) -> bool:
    """Whether numbers from `first` to `last` are those of so many frames, give or take 1 %."""
    slack = max(2, frames // 100)
    return first <= slack and abs(frames - 1 - last) <= slack


def rows_by_frame(
    numbers: Index, values: NDArray[np.float64], frames: int
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Rows that each belong to a frame, brought to a row for every frame.

    Args:
        numbers: int64 [R], the frame of each row, counted from 0.
        values: float64 [R, A].
        frames: frames of the video, over 0.

    Returns:
        float64 [frames, A], NaN where no row belongs to the frame, and what a person should know.

    Raises:
        RefusedInput: LOG_CLOCK, two different rows of one frame, or a number below 0; LOG_COVERAGE,
            rows for less than half of the frames, or mostly beyond them.
    """
    order = np.argsort(numbers, kind="stable")
    numbers, values = numbers[order], values[order]
    if numbers[0] < 0:
        raise RefusedInput(Reason.LOG_CLOCK, f"a row of frame {numbers[0]}: the first frame is 0")
    again = np.flatnonzero(np.diff(numbers) == 0)
    unlike = again[~np.isclose(values[again], values[again + 1], 0, 0, equal_nan=True).all(axis=1)]
    if len(unlike):
        raise RefusedInput(
            Reason.LOG_CLOCK, f"two different rows of frame {numbers[unlike[0]]}, expected one"
        )
    inside = numbers < frames
    told = len(np.unique(numbers[inside]))
    if told < MIN_COVERAGE * frames or told < MIN_COVERAGE * len(numbers):
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{len(numbers)} rows, {told} of them for the {frames} frames: do they belong together?",
        )
    rows = np.full((frames, values.shape[1]), np.nan)
    rows[numbers[inside]] = values[inside]
    beyond = int((~inside).sum())
    notes = [f"{told} rows for {frames} frames"] if told < frames else []
    notes += [f"{beyond} rows beyond the last frame"] if beyond else []
    return rows, tuple(notes)


def frames_at_tics(tics: Index, times_ns: Nanos, frame_times_ns: Nanos) -> Index | None:
    """The frame that was on screen at each row of an engine that shows a picture per tic.

    Such a recorder writes a row for every tic and a frame for every tic that it could keep up with.
    A frame for every row: they belong together one to one, whatever the container's clock says.
    Fewer frames: each is as many tics after the one before it as its stamp is, in whole tics, so
    that a log clock that is late or drifts against the video's does no harm.

    Args:
        tics: int64 [R], the engine's tic of each row.
        times_ns: int64 [R], when each row was written, strictly increasing.
        frame_times_ns: int64 [F], the container's stamps, strictly increasing, F > 0.

    Returns:
        int64 [R]; None where the video is not surely of this kind: tics with a gap, more
        frames than tics, or frames that end well before the rows, drift from them faster than clocks
        do, or stray from them by half a tic.
    """
    rows, frames = len(tics), len(frame_times_ns)
    tic_ns = typical_interval(times_ns)
    if frames > rows or not tic_ns or (np.diff(tics) != 1).any():
        return None
    if frames == rows:
        return np.arange(rows)
    passed = np.rint(np.diff(frame_times_ns) / tic_ns).astype(np.int64)
    row_of = np.append(0, np.cumsum(passed))
    if frames < 2 or (passed < 1).any() or not MOST_ROWS * rows <= row_of[-1] + 1 <= rows:
        return None
    late_ns = (times_ns[row_of] - times_ns[0]) - (frame_times_ns - frame_times_ns[0])
    since_s = (frame_times_ns - frame_times_ns[0]) / SECOND_NS
    offset_ns, drift_ppb = np.polynomial.polynomial.polyfit(since_s, late_ns, 1)
    astray_ns = np.abs(late_ns - offset_ns - drift_ppb * since_s).max()
    if abs(drift_ppb) > 1000 * MOST_DRIFT_PPM or astray_ns > tic_ns / 2:
        return None
    return np.searchsorted(row_of, np.arange(rows), side="right") - 1


def frame_times_by_log(
    numbers: Index, times_ns: Nanos, count: int, duplicates: int
) -> tuple[int, Nanos]:
    """Frame times by a log that names the frame on screen at each row.

    A frame came on screen at the first row that names it. Frames between two named ones are spread
    evenly; those before the first and after the last named one are not covered.

    Args:
        numbers: int64 [R], the frame of each row, -1 where the log does not say.
        times_ns: int64 [R], the time of each row.
        count: frames of the video.
        duplicates: frames of the video that were dropped because they share a time with another.

    Returns:
        The number of the first covered frame, and the time of every covered one, int64.

    Raises:
        RefusedInput: LOG_CLOCK, frame numbers run back, or the video has no such frame.
    """
    if duplicates:
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"column frame: {duplicates} frames of the video share a timestamp, so its "
            "frames cannot be counted as the log counts them",
        )
    named = numbers >= 0
    numbers, times_ns = numbers[named], times_ns[named]
    if len(numbers) < 2 or numbers[0] == numbers[-1]:
        raise RefusedInput(Reason.LOG_CLOCK, "column frame names fewer than two frames")
    back = np.flatnonzero(np.diff(numbers) < 0)
    if len(back):
        row = int(back[0])
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"column frame runs back from {numbers[row]} to {numbers[row + 1]} "
            f"at {times_ns[row + 1] / SECOND_NS:.3f} s",
        )
    if numbers[-1] >= count:
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"column frame names frame {numbers[-1]}, the video has {count}",
        )
    shown, row_of = np.unique(numbers, return_index=True)
    since = times_ns[row_of]
    frames = np.arange(shown[0], shown[-1] + 1)
    before = np.minimum(np.searchsorted(shown, frames, side="right") - 1, len(shown) - 2)
    step, span = frames - shown[before], np.diff(shown)[before]
    frame_times: Nanos = since[before] + np.diff(since)[before] * step // span
    if (np.diff(frame_times) <= 0).any():
        raise RefusedInput(Reason.LOG_CLOCK, "column frame: more frames than nanoseconds")
    return int(shown[0]), frame_times
