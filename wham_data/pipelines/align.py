"""Frames and actions on one grid of steps: the rules of time, as functions of arrays.

The pair of step k reads (o_k, a_k) -> o_{k+1}. o_k is the frame on screen at t_k: the last one
whose presentation time is not after it. a_k is what the player did in [t_k, t_{k+1}). Spans are
half-open throughout, times are integer nanoseconds on the recording's own clock, and nothing is
ever picked by index or filled in: where frames or actions are missing, steps are missing or
unknown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.clock import SECOND_NS, Grid, Index, Nanos, steps_between
from wham_data.schemas.recording import ActionTrack, AxisRule

DEFAULT_MAX_GAP_NS = SECOND_NS


@dataclass(frozen=True, slots=True)
class Part:
    """Frames [first, stop) of a recording between two gaps; they cover [start_ns, end_ns)."""

    first: int
    stop: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """The steps of one episode, and the frame that each of them shows.

    edges_ns  int64 [T + 1]  step k covers [edges_ns[k], edges_ns[k + 1])
    picks     int64 [T]      position in the recording's frame times of the frame on screen at
                             edges_ns[k]; non-decreasing
    """

    edges_ns: Nanos
    picks: Index


@dataclass(frozen=True, slots=True)
class FrameAccount:
    """Where the frames of a recording went: `frames_in` = `used` + the sum of `dropped`.

    frames_in           distinct shown frames of the video
    used                shown by at least one step
    lost                did not decode
    outside_log         on screen only while the log says nothing
    part_too_short      in a part, between two gaps, that has no room for one whole step
    before_first_step   on screen before the first step starts (native rate only: a frame that was
                        already on screen when the log began)
    between_steps       on screen between two steps' starts, never at one
    after_last_step     on screen after the last whole step's start
    parts               parts into which gaps cut the video; parts_dropped of them have no step
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

    values   float32 [T, A]  NaN where not known
    known    bool    [T]     the log covers every instant of the step with a sound sample
    missing  steps that are not known
    """

    values: NDArray[np.float32]
    known: NDArray[np.bool_]
    missing: int


def typical_interval(times_ns: Nanos) -> int:
    """The median interval, rounded down to whole ns; 0 for fewer than two times."""
    if len(times_ns) < 2:
        return 0
    return int(np.median(np.diff(times_ns)))


def latest_at(times_ns: Nanos, when_ns: Nanos) -> Index:
    """For each instant, the index of the last sample at or before it.

    Args:
        times_ns: sample times, int64 [N], increasing, N > 0.
        when_ns: instants to look up, int64 [T].

    Returns:
        int64 [T] in [0, N). An instant before the first sample maps to sample 0.
    """
    return np.maximum(np.searchsorted(times_ns, when_ns, side="right") - 1, 0).astype(np.int64)


def cut_at_gaps(frame_times_ns: Nanos, frame_end_ns: int, max_gap_ns: int) -> tuple[Part, ...]:
    """Cut the video where it shows no new frame for longer than `max_gap_ns`.

    A part covers [its first frame, its last frame + the typical interval of the whole recording),
    but never reaches into the next part; the last one ends at `frame_end_ns`.

    Args:
        frame_times_ns: int64 [N], strictly increasing.
        frame_end_ns: the video covers [frame_times_ns[0], frame_end_ns).
        max_gap_ns: longest interval that is not a gap.
    """
    if not len(frame_times_ns):
        return ()
    typical = typical_interval(frame_times_ns)
    firsts = [0, *(np.flatnonzero(np.diff(frame_times_ns) > max_gap_ns) + 1).tolist()]
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
) -> tuple[EpisodePlan, ...]:
    """Lay the grid over every part of the video: one plan for each part that has a whole step.

    The grid of a part starts at the first instant that video and log both cover, and a step is
    kept only if both cover all of it.

    Args:
        frame_times_ns: int64 [N], strictly increasing.
        frame_end_ns: the video covers [frame_times_ns[0], frame_end_ns).
        log_span: the log covers [first, end); None for a recording without a log.
        rate: steps per second; None keeps the frames themselves as steps.
        max_gap_ns: longest time without a new frame that does not cut the video.
    """
    plans = []
    for part in cut_at_gaps(frame_times_ns, frame_end_ns, max_gap_ns):
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
) -> FrameAccount:
    """Say of every frame whether a plan of `place_steps` uses it and, if none does, why.

    Takes what `place_steps` took, its plans (they may have been cut further, where frames are lost)
    and the positions of frames that did not decode.
    """
    parts = cut_at_gaps(frame_times_ns, frame_end_ns, max_gap_ns)
    left = np.ones(len(frame_times_ns), dtype=np.bool_)
    for plan in plans:
        left[plan.picks] = False
    used = int((~left).sum())
    counts: Counter[str] = Counter()

    def put_down(reason: str, frames: slice, which: NDArray[np.bool_] | np.bool_) -> None:
        counts[reason] += int((left[frames] & which).sum())
        left[frames] &= ~which

    whole = slice(None)
    put_down("lost", whole, np.isin(np.arange(len(left)), [] if lost is None else lost))
    parts_dropped = 0
    for part in parts:
        frames = slice(part.first, part.stop)
        shown = frame_times_ns[frames]
        if log_span is not None:
            gone = np.append(shown[1:], part.end_ns)
            put_down("outside_log", frames, (gone <= log_span[0]) | (shown >= log_span[1]))
        inside = [plan for plan in plans if part.first <= plan.picks[0] < part.stop]
        if inside:
            put_down("before_first_step", frames, shown < inside[0].edges_ns[0])
            put_down("after_last_step", frames, shown > inside[-1].edges_ns[-2])
            put_down("between_steps", frames, np.True_)
        else:
            put_down("part_too_short", frames, np.True_)
            parts_dropped += 1
    return FrameAccount(
        frames_in=len(left),
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
    """The instant up to which each row's values are known to hold, int64 [N].

    A row holds until the next one. After a silence longer than `max_hold_ns` nobody knows what
    was held meanwhile: the row before it then holds for the track's typical interval only, just as
    a frame before a gap does. The last row holds until the log's end.
    """
    until = np.append(track.times_ns[1:], np.int64(max(track.end_ns, track.times_ns[-1])))
    if track.max_hold_ns is None:
        return until
    hold = min(typical_interval(track.times_ns), track.max_hold_ns)
    silent = until - track.times_ns > track.max_hold_ns
    return np.where(silent, track.times_ns + hold, until)


def resample_actions(
    track: ActionTrack, edges_ns: Nanos, axis_rule: AxisRule = "mean"
) -> StepActions:
    """What the player did in each step.

    A button counts as pressed if it was down at any instant of the step, so a short tap survives.
    A stick or trigger is, by `axis_rule`, its time-weighted mean over the step, its value at the
    last instant of it, or the held value of largest magnitude (the earlier one of two equals).
    Relative motion is the sum of the rows inside the step. A row exactly at t_{k+1} belongs to the
    next step. A step of which any instant lacks a sound sample is not known: NaN, never "nothing".

    Args:
        track: the log, on the clock of `edges_ns`.
        edges_ns: int64 [T + 1], strictly increasing.
        axis_rule: "mean", "last" or "extreme".

    Returns:
        T actions. Sums are taken in float64 over the step alone, then rounded once to float32.
    """
    n_steps = len(edges_ns) - 1
    if n_steps < 1 or not len(track.times_ns):
        unknown = np.full((max(n_steps, 0), track.values.shape[1]), np.nan, dtype=np.float32)
        return StepActions(unknown, np.zeros(len(unknown), dtype=np.bool_), len(unknown))

    # Cut time at every edge and wherever a row starts or lapses: within one piece nothing changes.
    until = held_until(track)
    cuts = np.unique(np.concatenate([edges_ns, track.times_ns, until]))
    cuts = cuts[np.searchsorted(cuts, edges_ns[0]) : np.searchsorted(cuts, edges_ns[-1]) + 1]
    starts, lengths = cuts[:-1], np.diff(cuts)
    row = latest_at(track.times_ns, starts)
    sound: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(track.values), axis=1)
    piece_known = sound[row] & (starts >= track.times_ns[row]) & (starts < until[row])
    values = np.where(piece_known[:, None], track.values[row], np.float64(0.0))

    first = np.searchsorted(starts, edges_ns[:-1])  # every step has at least one piece
    last = np.append(first[1:], len(starts)) - 1
    known = np.logical_and.reduceat(piece_known, first)
    result = np.full((n_steps, values.shape[1]), np.nan, dtype=np.float64)
    buttons, deltas = track.space.of_kind("button"), track.space.of_kind("delta")
    axes = track.space.of_kind("axis", "trigger")

    result[:, buttons] = np.maximum.reduceat(values[:, buttons], first) > 0
    begun = starts == track.times_ns[row]  # a row's motion counts once, in the piece it starts
    result[:, deltas] = np.add.reduceat(values[:, deltas] * begun[:, None], first)
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
        values: float32 [N], one per frame; NaN counts as nothing.
        edges_ns: int64 [T + 1], strictly increasing.

    Returns:
        float32 [T]; sums are taken in float64.
    """
    totals = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values.astype(np.float64)))])
    return np.diff(totals[np.searchsorted(frame_times_ns, edges_ns)]).astype(np.float32)


def _first_extreme(held: NDArray[np.float64], first: Index) -> NDArray[np.float64]:
    """Of each group of rows that starts at `first`, the earliest value of largest magnitude."""
    size = np.abs(held)
    largest = np.maximum.reduceat(size, first)
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(held))))
    place = np.where(size == largest[group], np.arange(len(held))[:, None], len(held))
    earliest = np.minimum.reduceat(place, first)
    return np.take_along_axis(held, earliest, axis=0)
