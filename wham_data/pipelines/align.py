"""Align frames and actions on one grid of steps: the rules of time, as functions of arrays.

Step k has the observation o_k and the action a_k, which lead to o_{k+1}. o_k is the frame on screen at
t_k: the last frame whose presentation time is at or before t_k. a_k is what the player did in
[t_k, t_{k+1}). All spans are half-open, and times are integer nanoseconds on the recording's clock.
Frames are never matched by their numbers, and no data is invented: where frames are missing there is
no step, and where actions are missing the action is unknown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import SECOND_NS, Grid, Index, Nanos, steps_between
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack, AxisRule

DEFAULT_MAX_GAP_NS = SECOND_NS
SLOW_SOURCE_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a recording between two gaps: frames [first, stop), which cover [start_ns, end_ns)."""

    first: int
    stop: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """The T steps of one episode, and the frame of each step.

    edges_ns  int64 [T + 1]  step k covers [edges_ns[k], edges_ns[k + 1])
    picks     int64 [T]      number of the frame on screen at edges_ns[k], as a position in the
                             recording's frame times; non-decreasing
    """

    edges_ns: Nanos
    picks: Index


@dataclass(frozen=True, slots=True)
class FrameAccount:
    """Counts of a recording's frames by use: `frames_in` = `used` + the sum of `dropped`.

    frames_in           different frames that the video shows
    used                frames that are the observation of at least one step
    lost                frames that could not be decoded
    outside_log         frames that are on screen only at times that the log does not cover
    part_too_short      frames of a part between two gaps that is shorter than one step
    before_first_step   frames on screen before the first step starts (native rate only: a frame that
                        was already on screen when the log began)
    between_steps       frames on screen between the starts of two steps, but not at a start
    after_last_step     frames that come on screen after the start of the last step
    parts               parts into which gaps divide the video
    parts_dropped       parts without a step
    """

    frames_in: int
    used: int
    lost: int
    outside_log: int
    part_too_short: int
    before_first_step: int
    between_steps: int
    after_last_step: int
    parts: int
    parts_dropped: int

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped, by reason; reasons that did not occur are left out."""
        counts = {
            "lost": self.lost,
            "outside_log": self.outside_log,
            "part_too_short": self.part_too_short,
            "before_first_step": self.before_first_step,
            "between_steps": self.between_steps,
            "after_last_step": self.after_last_step,
        }
        return {reason: count for reason, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class StepActions:
    """One action per step.

    values   float32 [T, A]  NaN in steps whose action is unknown
    known    bool    [T]     the log has finite values for every instant of the step
    missing  number of steps whose action is unknown
    """

    values: NDArray[np.float32]
    known: NDArray[np.bool_]
    missing: int


def typical_interval(times_ns: Nanos) -> int:
    """The median interval of int64 [N] times, rounded down to whole ns; 0 if N is below 2."""
    if len(times_ns) < 2:
        return 0
    return int(np.median(np.diff(times_ns)))


def typical_fps(frame_times_ns: Nanos) -> float:
    """Frames per second at the typical interval; 0 for a single frame."""
    interval_ns = typical_interval(frame_times_ns)
    return SECOND_NS / interval_ns if interval_ns else 0.0


def refuse_slow_source(frame_times_ns: Nanos, rate: Fraction | None) -> None:
    """Refuse a video with fewer frames per second than the grid has steps.

    Raises:
        RefusedInput: a step would often show the same picture as the one before.
    """
    fps = typical_fps(frame_times_ns)
    if rate is not None and 0 < fps < float(rate) * (1 - SLOW_SOURCE_SLACK):
        raise RefusedInput(
            Reason.RATE_TOO_LOW,
            f"{fps:.2f} frames/s, fewer than the {float(rate):g} steps/s asked for; "
            f"use --rate {fps:.2f} or lower, or --rate native",
        )


def latest_at(times_ns: Nanos, when_ns: Nanos) -> Index:
    """For each instant, the index of the last sample at or before it.

    Args:
        times_ns: sample times, int64 [N], increasing, N > 0.
        when_ns: instants to look up, int64 [T].

    Returns:
        int64 [T] in [0, N). An instant before the first sample maps to sample 0.
    """
    return np.maximum(np.searchsorted(times_ns, when_ns, side="right") - 1, 0).astype(np.int64)


def cut_at_gaps(
    frame_times_ns: Nanos, frame_end_ns: int, max_gap_ns: int, cuts: Index | None = None
) -> tuple[Part, ...]:
    """Divide the video where no new frame appears for longer than `max_gap_ns`, and at the cuts.

    A part covers [its first frame, its last frame + the typical interval of the whole recording),
    but ends at the start of the next part at the latest. The last part ends at `frame_end_ns`.

    Args:
        frame_times_ns: int64 [N], strictly increasing.
        frame_end_ns: the video covers [frame_times_ns[0], frame_end_ns).
        max_gap_ns: longest interval that is not a gap.
        cuts: int64 [C], frames with which a part begins in any case; None: none.

    Returns:
        the parts in order; none if there are no frames.
    """
    if not len(frame_times_ns):
        return ()
    typical = typical_interval(frame_times_ns)
    gaps = np.flatnonzero(np.diff(frame_times_ns) > max_gap_ns) + 1
    firsts = np.union1d(np.append(gaps, 0), [] if cuts is None else cuts).astype(np.int64).tolist()
    parts = []
    for first, stop in zip(firsts, [*firsts[1:], len(frame_times_ns)], strict=True):
        if stop < len(frame_times_ns):
            end_ns = min(int(frame_times_ns[stop - 1]) + typical, int(frame_times_ns[stop]))
        else:
            end_ns = frame_end_ns
        parts.append(Part(first, stop, int(frame_times_ns[first]), end_ns))
    return tuple(parts)


def place_steps(
    frame_times_ns: Nanos,
    frame_end_ns: int,
    log_span: tuple[int, int] | None,
    rate: Fraction | None,
    max_gap_ns: int = DEFAULT_MAX_GAP_NS,
    cuts: Index | None = None,
) -> tuple[EpisodePlan, ...]:
    """Place a grid of steps on every part of the video.

    The grid of a part starts at the first instant that both the video and the log cover. A step is
    kept only if both cover all of it.

    Args:
        frame_times_ns: int64 [N], strictly increasing.
        frame_end_ns: the video covers [frame_times_ns[0], frame_end_ns).
        log_span: the log covers [first, end); None for a recording without a log.
        rate: steps per second; None: every frame is a step.
        max_gap_ns: longest time without a new frame that does not divide the video.
        cuts: int64 [C], frames with which a part begins in any case; None: none.

    Returns:
        one plan for each part that has at least one complete step, in order.
    """
    plans = []
    for part in cut_at_gaps(frame_times_ns, frame_end_ns, max_gap_ns, cuts):
        start_ns, end_ns = part.start_ns, part.end_ns
        if log_span is not None:
            start_ns, end_ns = max(start_ns, log_span[0]), min(end_ns, log_span[1])
        if rate is None:
            edges_ns = np.append(frame_times_ns[part.first : part.stop], part.end_ns)
            edges_ns = edges_ns[(edges_ns >= start_ns) & (edges_ns <= end_ns)]
        else:
            edges_ns = Grid(start_ns, steps_between(start_ns, end_ns, rate), rate).edges_ns()
        if len(edges_ns) > 1:
            plans.append(EpisodePlan(edges_ns, latest_at(frame_times_ns, edges_ns[:-1])))
    return tuple(plans)


def account_frames(
    frame_times_ns: Nanos,
    frame_end_ns: int,
    log_span: tuple[int, int] | None,
    plans: tuple[EpisodePlan, ...],
    max_gap_ns: int = DEFAULT_MAX_GAP_NS,
    lost: Index | None = None,
    cuts: Index | None = None,
) -> FrameAccount:
    """Count for every frame whether a plan uses it and, if none does, the reason.

    Args:
        frame_times_ns, frame_end_ns, log_span, max_gap_ns, cuts: the arguments of `place_steps`.
        plans: its result; plans may have been divided further at lost frames.
        lost: numbers of the frames that could not be decoded, int64 [K]; None: none.
    """
    parts = cut_at_gaps(frame_times_ns, frame_end_ns, max_gap_ns, cuts)
    unaccounted = np.ones(len(frame_times_ns), dtype=np.bool_)
    for plan in plans:
        unaccounted[plan.picks] = False
    used = int((~unaccounted).sum())
    counts: Counter[str] = Counter()

    def account_for(reason: str, frames: slice, condition: NDArray[np.bool_] | np.bool_) -> None:
        counts[reason] += int((unaccounted[frames] & condition).sum())
        unaccounted[frames] &= ~condition

    whole = slice(None)
    account_for("lost", whole, np.isin(np.arange(len(unaccounted)), [] if lost is None else lost))
    parts_dropped = 0
    for part in parts:
        frames = slice(part.first, part.stop)
        shown = frame_times_ns[frames]
        if log_span is not None:
            leaves_screen = np.append(shown[1:], part.end_ns)
            account_for(
                "outside_log", frames, (leaves_screen <= log_span[0]) | (shown >= log_span[1])
            )
        inside = [plan for plan in plans if part.first <= plan.picks[0] < part.stop]
        if inside:
            account_for("before_first_step", frames, shown < inside[0].edges_ns[0])
            account_for("after_last_step", frames, shown > inside[-1].edges_ns[-2])
            account_for("between_steps", frames, np.True_)
        else:
            account_for("part_too_short", frames, np.True_)
            parts_dropped += 1
    return FrameAccount(
        frames_in=len(unaccounted),
        used=used,
        lost=counts["lost"],
        outside_log=counts["outside_log"],
        part_too_short=counts["part_too_short"],
        before_first_step=counts["before_first_step"],
        between_steps=counts["between_steps"],
        after_last_step=counts["after_last_step"],
        parts=len(parts),
        parts_dropped=parts_dropped,
    )


def held_until(track: ActionTrack) -> Nanos:
    """The time up to which the values of each row are known to be valid, int64 [N].

    A row is valid until the next one. If the next row comes later than `max_hold_ns`, the values in
    between are unknown: the row is then valid only for the track's typical interval, like a frame
    before a gap. The last row is valid until the end of the log.
    """
    until = np.append(track.times_ns[1:], np.int64(max(track.end_ns, track.times_ns[-1])))
    if track.max_hold_ns is None:
        return until
    hold = min(typical_interval(track.times_ns), track.max_hold_ns)
    is_too_long = until - track.times_ns > track.max_hold_ns
    return np.where(is_too_long, track.times_ns + hold, until)


def resample_actions(
    track: ActionTrack, edges_ns: Nanos, axis_rule: AxisRule = "mean"
) -> StepActions:
    """The action of the player in each step.

    A button counts as pressed if it was down at any instant of the step, so a short tap survives.
    The value of a stick or trigger depends on `axis_rule`: the time-weighted mean over the step, the
    value at the last instant of the step, or the value of largest magnitude (the earliest of equal
    ones). Relative motion is the sum of the rows inside the step. A row exactly at t_{k+1} belongs to
    the next step. If the log has no finite values for any instant of a step, the action of the step
    is unknown: NaN, never zero.

    Args:
        track: the log, on the same clock as `edges_ns`.
        edges_ns: int64 [T + 1], strictly increasing.
        axis_rule: "mean", "last" or "extreme".

    Returns:
        T actions. Sums are computed in float64 for each step alone and rounded once to float32.
    """
    n_steps = len(edges_ns) - 1
    if n_steps < 1 or not len(track.times_ns):
        unknown = np.full((max(n_steps, 0), track.values.shape[1]), np.nan, dtype=np.float32)
        return StepActions(unknown, np.zeros(len(unknown), dtype=np.bool_), len(unknown))

    # Time is divided at every edge and wherever a row becomes valid or invalid, so the values do not
    # change within a piece.
    until = held_until(track)
    cuts = np.unique(np.concatenate([edges_ns, track.times_ns, until]))
    cuts = cuts[np.searchsorted(cuts, edges_ns[0]) : np.searchsorted(cuts, edges_ns[-1]) + 1]
    starts, lengths = cuts[:-1], np.diff(cuts)
    row = latest_at(track.times_ns, starts)
    is_finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(track.values), axis=1)
    piece_known = is_finite[row] & (starts >= track.times_ns[row]) & (starts < until[row])
    values = np.where(piece_known[:, None], track.values[row], np.float64(0.0))

    first = np.searchsorted(starts, edges_ns[:-1])  # every step has at least one piece
    last = np.append(first[1:], len(starts)) - 1
    known = np.logical_and.reduceat(piece_known, first)
    result = np.full((n_steps, values.shape[1]), np.nan, dtype=np.float64)
    buttons, deltas = track.space.of_kind("button"), track.space.of_kind("delta")
    axes = track.space.of_kind("axis", "trigger")

    result[:, buttons] = np.maximum.reduceat(values[:, buttons], first) > 0
    is_row_start = (
        starts == track.times_ns[row]
    )  # the motion of a row counts once, in its first piece
    result[:, deltas] = np.add.reduceat(values[:, deltas] * is_row_start[:, None], first)
    held = values[:, axes]
    if axis_rule == "last":
        result[:, axes] = held[last]
    elif axis_rule == "extreme":
        result[:, axes] = _first_extreme(held, first)
    else:
        held_ns = np.add.reduceat(held * lengths[:, None], first)
        result[:, axes] = held_ns / np.diff(edges_ns)[:, None]

    result[~known] = np.nan
    return StepActions(result.astype(np.float32), known, int(n_steps - known.sum()))


def sum_over_steps(
    frame_times_ns: Nanos, values: NDArray[np.float32], edges_ns: Nanos
) -> NDArray[np.float32]:
    """The sum of the rewards of the frames that come on screen within each step.

    Args:
        frame_times_ns: int64 [N], strictly increasing.
        values: rewards, float32 [N], one per frame; NaN counts as 0.
        edges_ns: int64 [T + 1], strictly increasing.

    Returns:
        float32 [T]; sums are computed in float64.
    """
    totals = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values.astype(np.float64)))])
    return np.diff(totals[np.searchsorted(frame_times_ns, edges_ns)]).astype(np.float32)


def _first_extreme(held: NDArray[np.float64], first: Index) -> NDArray[np.float64]:
    """For each group of rows that starts at `first`, the earliest value of largest magnitude."""
    size = np.abs(held)
    largest = np.maximum.reduceat(size, first)
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(held))))
    place = np.where(size == largest[group], np.arange(len(held))[:, None], len(held))
    earliest = np.minimum.reduceat(place, first)
    return np.take_along_axis(held, earliest, axis=0)
