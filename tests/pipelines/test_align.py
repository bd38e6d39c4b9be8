"""Frames and actions on one grid: each rule, then every function against a slow obvious twin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wham_data.pipelines.align import (
    EpisodePlan,
    account_frames,
    cut_at_gaps,
    held_until,
    latest_at,
    place_steps,
    refuse_slow_source,
    resample_actions,
    sum_over_steps,
    typical_interval,
)
from wham_data.pipelines.readers.kit.frame_actions import even_times
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack, AxisRule

MS = 1_000_000
PAD = ActionSpace(
    "pad",
    (
        Dimension("a", "button", 0, 1),
        Dimension("stick", "axis", -1, 1),
        Dimension("pull", "trigger", 0, 1),
        Dimension("mouse", "delta", -100, 100),
    ),
)


def at(*times_ms: float) -> NDArray[np.int64]:
    return np.array([round(t * MS) for t in times_ms], np.int64)


def track(
    *rows: tuple[float, float, float, float],
    end_ms: float | None = None,
    max_hold_ms: float | None = None,
) -> ActionTrack:
    """Rows of (ms, A held, stick, mouse)."""
    times_ns = at(*(row[0] for row in rows))
    values = np.array([[a, stick, abs(stick), mouse] for _, a, stick, mouse in rows], np.float64)
    end_ns = int(times_ns[-1]) if end_ms is None else round(end_ms * MS)
    hold = None if max_hold_ms is None else round(max_hold_ms * MS)
    return ActionTrack(PAD, times_ns, values, end_ns, hold)


def column(log: ActionTrack, edges: NDArray[np.int64], name: str, rule: AxisRule = "mean") -> list:  # type: ignore[type-arg]
    return [
        round(float(v), 6) for v in resample_actions(log, edges, rule).values[:, PAD.index(name)]
    ]


TENTHS = at(0, 100, 200, 300)


# --- actions ---------------------------------------------------------------------------------


def test_a_tap_shorter_than_a_step_survives() -> None:
    taps = track((0, 0, 0, 0), (120, 1, 0, 0), (130, 0, 0, 0), (300, 0, 0, 0))
    assert column(taps, TENTHS, "a") == [0, 1, 0]


def test_a_button_held_across_an_edge_is_down_in_both_steps() -> None:
    held = track((0, 0, 0, 0), (50, 1, 0, 0), (101, 0, 0, 0), (300, 0, 0, 0))
    assert column(held, TENTHS, "a") == [1, 1, 0]


def test_a_button_released_exactly_at_the_edge_is_up_in_the_next_step() -> None:
    held = track((0, 1, 0, 0), (100, 0, 0, 0), (300, 1, 0, 0))
    assert column(held, TENTHS, "a") == [1, 0, 0]


def test_a_stick_is_its_time_weighted_mean() -> None:
    moved = track((0, 0, 1.0, 0), (75, 0, -0.5, 0), (300, 0, 0, 0))
    assert column(moved, TENTHS, "stick") == [0.625, -0.5, -0.5]


def test_a_stick_may_be_its_last_or_its_extreme_value_instead() -> None:
    moved = track((0, 0, 0.25, 0), (20, 0, -0.75, 0), (60, 0, 0.75, 0), (80, 0, 0.5, 0),
                  (300, 0, 0, 0))  # fmt: skip
    assert column(moved, TENTHS, "stick", "last") == [0.5, 0.5, 0.5]
    assert column(moved, TENTHS, "stick", "extreme") == [-0.75, 0.5, 0.5]


def test_mouse_motion_is_summed_and_counts_once() -> None:
    moved = track((0, 0, 0, 3), (99, 0, 0, 4), (100, 0, 0, 5), (300, 0, 0, 7))
    assert column(moved, TENTHS, "mouse") == [7, 5, 0]


def test_a_step_with_a_missing_sample_is_not_known() -> None:
    log = track((0, 1, 0, 0), (150, 1, math.nan, 0), (160, 1, 0, 0), (300, 1, 0, 0))
    actions = resample_actions(log, TENTHS)
    assert actions.known.tolist() == [True, False, True]
    assert np.isnan(actions.values[1]).all()
    assert actions.missing == 1


def test_a_hole_in_a_sampled_log_is_not_bridged() -> None:
    rows = [(t, 1, 0.5, 0) for t in (0, 50, 100, 150, 200, 250, 2250, 2300, 2400)]
    log = track(*rows, max_hold_ms=1000)  # type: ignore[arg-type]
    actions = resample_actions(log, at(*range(0, 2401, 100)))
    assert actions.known.tolist() == [True] * 3 + [False] * 20 + [True]


def test_an_event_log_holds_for_ever() -> None:
    log = track((0, 1, 0.5, 0), (5000, 0, 0, 0), max_hold_ms=None)
    assert resample_actions(log, at(*range(0, 5001, 100))).missing == 0


def test_what_lies_outside_the_log_is_not_known() -> None:
    log = track((100, 1, 0, 0), (150, 1, 0, 0), end_ms=200)
    assert resample_actions(log, TENTHS).known.tolist() == [False, True, False]


# --- steps -----------------------------------------------------------------------------------


def test_the_grid_starts_where_both_tracks_begin_and_holds_whole_steps_only() -> None:
    frames = at(*range(0, 1000, 20))
    (plan,) = place_steps(frames, 1000 * MS, (130 * MS, 590 * MS), TEN_HZ)
    assert plan.edges_ns.tolist() == at(130, 230, 330, 430, 530).tolist()


def test_a_step_shows_the_frame_on_screen_not_the_nearest() -> None:
    frames = at(0, 90, 110, 190, 210, 250)
    (plan,) = place_steps(frames, 330 * MS, None, TEN_HZ)
    assert frames[plan.picks].tolist() == at(0, 90, 190).tolist()


def test_a_frame_that_appears_exactly_at_the_step_is_the_one_on_screen() -> None:
    frames = at(0, 100, 200)
    (plan,) = place_steps(frames, 300 * MS, None, TEN_HZ)
    assert plan.picks.tolist() == [0, 1, 2]


def test_a_gap_makes_two_episodes_each_with_its_own_grid() -> None:
    frames = at(*range(0, 501, 50), *range(1730, 2231, 50))
    first, second = place_steps(frames, 2280 * MS, None, TEN_HZ)
    assert first.edges_ns.tolist() == at(0, 100, 200, 300, 400, 500).tolist()
    assert second.edges_ns[0] == 1730 * MS
    assert len(second.picks) == 5


def test_an_interval_of_just_the_allowed_gap_does_not_cut() -> None:
    assert len(cut_at_gaps(at(0, 1000, 2000), 3000 * MS, 1000 * MS)) == 1
    assert len(cut_at_gaps(at(0, 1000, 2001), 3000 * MS, 1000 * MS)) == 2


def test_native_rate_keeps_the_frames_as_steps() -> None:
    frames = at(0, 30, 70, 100)
    (plan,) = place_steps(frames, 130 * MS, None, None)
    assert plan.edges_ns.tolist() == at(0, 30, 70, 100, 130).tolist()
    assert plan.picks.tolist() == [0, 1, 2, 3]


def test_native_rate_keeps_only_what_the_log_covers() -> None:
    frames = at(0, 30, 70, 100)
    (plan,) = place_steps(frames, 130 * MS, (10 * MS, 100 * MS), None)
    assert plan.edges_ns.tolist() == at(30, 70, 100).tolist()


def test_a_part_without_room_for_a_step_gives_no_episode_and_is_counted() -> None:
    frames = at(*range(0, 301, 20), 5000, 5020)
    plans = place_steps(frames, 5040 * MS, None, TEN_HZ)
    account = account_frames(frames, 5040 * MS, None, plans)
    assert len(plans) == 1
    assert (account.parts, account.parts_dropped, account.part_too_short) == (2, 1, 2)


def test_a_log_that_ends_before_the_video_begins_gives_no_steps() -> None:
    assert place_steps(at(500, 600, 700), 800 * MS, (0, 400 * MS), TEN_HZ) == ()


def test_lost_frames_are_accounted_for_as_such() -> None:
    frames = at(0, 100, 200, 300, 400)
    plans = (
        EpisodePlan(at(0, 100, 200), np.array([0, 1])),
        EpisodePlan(at(300, 400, 500), np.array([3, 4])),
    )
    account = account_frames(frames, 500 * MS, None, plans, lost=np.array([2]))
    assert (account.used, account.dropped) == (4, {"lost": 1})


@pytest.mark.parametrize("times", [(), (5,)])
def test_fewer_than_two_frames_have_no_typical_interval(times: tuple[int, ...]) -> None:
    assert typical_interval(at(*times)) == 0


# --- sources of other rates ------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["35/4", "4", "15", "16", "24", "30000/1001", "35", "144"])
def test_at_the_sources_own_rate_each_step_shows_its_own_frame(rate: str) -> None:
    times, end = even_times(500, Fraction(rate))

    (plan,) = place_steps(times, end, None, Fraction(rate))

    assert plan.picks.tolist() == list(range(500))
    assert plan.edges_ns.tolist() == [*times.tolist(), end]


@pytest.mark.parametrize(
    ("rate", "first_second"),
    [
        ("16", [0, 1, 3, 4, 6, 8, 9, 11, 12, 14]),
        ("24", [0, 2, 4, 7, 9, 12, 14, 16, 19, 21]),
        ("144", [0, 14, 28, 43, 57, 72, 86, 100, 115, 129]),
    ],
)
def test_a_rate_that_is_no_multiple_shows_the_last_frame_at_or_before_each_step(
    rate: str, first_second: list[int]
) -> None:
    times, end = even_times(3 * int(rate), Fraction(rate))

    (plan,) = place_steps(times, end, None, TEN_HZ)

    assert len(plan.picks) == 30
    assert plan.picks[:10].tolist() == first_second
    assert (plan.picks[10:20] - plan.picks[:10]).tolist() == [int(rate)] * 10


def test_a_slow_source_repeats_its_frames_and_loses_none() -> None:
    times, end = even_times(35, Fraction(35, 4))

    (plan,) = place_steps(times, end, None, TEN_HZ)

    assert len(plan.picks) == 40
    assert np.unique(plan.picks).tolist() == list(range(35))


@pytest.mark.parametrize(("rate", "hint"), [("35/4", "--rate 8.75"), ("4", "--rate 4.00")])
def test_a_source_below_the_rate_is_refused_unless_asked_for(rate: str, hint: str) -> None:
    times, _ = even_times(35, Fraction(rate))

    with pytest.raises(RefusedInput, match=hint) as refused:
        refuse_slow_source(times, TEN_HZ)

    assert refused.value.reason is Reason.RATE_TOO_LOW
    refuse_slow_source(times, Fraction(rate))
    refuse_slow_source(times, None)


def test_rewards_of_the_frames_in_a_step_are_summed() -> None:
    frames = at(0, 40, 80, 120, 200)
    earned = np.array([1, 2, np.nan, 4, 8], np.float32)

    assert sum_over_steps(frames, earned, TENTHS).tolist() == [3, 4, 8]


# --- against slow obvious twins --------------------------------------------------------------

instants = st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True).map(sorted)
samples = st.one_of(st.just(math.nan), st.integers(-8, 8).map(lambda n: n / 8))


@st.composite
def tracks(draw: st.DrawFn) -> ActionTrack:
    times = draw(instants)
    rows = [
        (draw(st.integers(0, 1)), stick := draw(samples), abs(stick), draw(st.integers(-9, 9)))
        for _ in times
    ]
    end = times[-1] + draw(st.sampled_from([0, 0, 7, 50]))
    hold = draw(st.sampled_from([None, 5, 30, 100]))
    return ActionTrack(PAD, np.array(times, np.int64), np.array(rows, np.float64), end, hold)


def slow_hold(log: ActionTrack, i: int) -> int:
    """When row i stops to hold."""
    after = int(log.times_ns[i + 1]) if i + 1 < len(log.times_ns) else log.end_ns
    intervals = sorted(int(b - a) for a, b in zip(log.times_ns, log.times_ns[1:], strict=False))
    if log.max_hold_ns is None or after - int(log.times_ns[i]) <= log.max_hold_ns:
        return after
    middle = len(intervals) // 2
    typical = 0
    if intervals:
        typical = (
            intervals[middle]
            if len(intervals) % 2
            else (intervals[middle - 1] + intervals[middle]) // 2
        )
    return int(log.times_ns[i]) + min(typical, log.max_hold_ns)


def slow_action(log: ActionTrack, start: int, end: int, rule: AxisRule) -> list[float] | None:
    """The action of one step, one nanosecond after the other; None if not known."""
    held: list[int] = []
    for now in range(start, end):
        rows = [i for i in range(len(log.times_ns)) if log.times_ns[i] <= now < slow_hold(log, i)]
        if not rows or np.isnan(log.values[rows[0]]).any():
            return None
        held.append(rows[0])

    def axis(place: int) -> float:
        values = [float(log.values[i, place]) for i in held]
        if rule == "last":
            return values[-1]
        if rule == "extreme":
            return max(values, key=abs)
        return math.fsum(values) / len(values)

    pressed = float(any(log.values[i, 0] > 0 for i in held))
    inside = [i for i in range(len(log.times_ns)) if start <= log.times_ns[i] < end]
    return [pressed, axis(1), axis(2), math.fsum(log.values[i, 3] for i in inside)]


@settings(max_examples=150, deadline=None)
@given(tracks(), instants, st.sampled_from(["mean", "last", "extreme"]))
def test_actions_equal_the_slow_version(
    log: ActionTrack, edges: Sequence[int], rule: AxisRule
) -> None:
    actions = resample_actions(log, np.array(edges, np.int64), rule)
    slow = [slow_action(log, a, b, rule) for a, b in itertools.pairwise(edges)]
    assert actions.known.tolist() == [action is not None for action in slow]
    assert actions.missing == slow.count(None)
    for mine, theirs in zip(actions.values, slow, strict=True):
        if theirs is None:
            assert np.isnan(mine).all()
        else:
            assert np.allclose(mine, np.float32(theirs), rtol=2e-7, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(instants, st.lists(st.integers(-20, 420), max_size=20))
def test_the_latest_sample_equals_the_slow_version(
    times: Sequence[int], when: Sequence[int]
) -> None:
    slow = [max([i for i, t in enumerate(times) if t <= w], default=0) for w in when]
    assert latest_at(np.array(times, np.int64), np.array(when, np.int64)).tolist() == slow


rates = st.sampled_from([None, Fraction(10**9, 10), Fraction(10**9, 7), Fraction(2 * 10**9, 15)])
spans = st.none() | st.tuples(st.integers(-50, 300), st.integers(0, 300)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


def slow_plans(
    frames: list[int], end: int, span: tuple[int, int] | None, rate: Fraction | None, gap: int
) -> list[tuple[list[int], list[int]]]:
    """Step by step: (starts and last end, frames)."""
    intervals = sorted(b - a for a, b in itertools.pairwise(frames))
    typical = int(np.median(intervals)) if intervals else 0
    parts: list[list[int]] = []
    for frame in frames:
        if parts and frame - parts[-1][-1] <= gap:
            parts[-1].append(frame)
        else:
            parts.append([frame])
    plans = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        part_end = end if last else min(part[-1] + typical, parts[number + 1][0])
        low = part[0] if span is None else max(part[0], span[0])
        high = part_end if span is None else min(part_end, span[1])
        if rate is None:
            edges = [t for t in [*part, part_end] if low <= t <= high]
        else:
            edges, k = [], 0
            while (edge := low + math.ceil(k * 10**9 / rate)) <= high:
                edges.append(edge)
                k += 1
        if len(edges) > 1:
            shown = [max(i for i, f in enumerate(frames) if f <= t) for t in edges[:-1]]
            plans.append((edges, shown))
    return plans


@settings(max_examples=300, deadline=None)
@given(instants, st.integers(1, 30), spans, rates, st.sampled_from([1, 20, 1000]))
def test_steps_and_their_account_equal_the_slow_version(
    frames: list[int],
    stay: int,
    span: tuple[int, int] | None,
    rate: Fraction | None,
    gap: int,
) -> None:
    times, end = np.array(frames, np.int64), frames[-1] + stay
    plans = place_steps(times, end, span, rate, gap)
    slow = slow_plans(frames, end, span, rate, gap)
    assert [(p.edges_ns.tolist(), p.picks.tolist()) for p in plans] == slow
    account = account_frames(times, end, span, plans, gap)
    assert account.frames_in == len(frames) == account.used + sum(account.dropped.values())
    assert account.used == len({pick for _, picks in slow for pick in picks})
    assert account.parts - account.parts_dropped == len(slow)


def test_a_row_before_a_silence_holds_for_one_typical_interval() -> None:
    log = track((0, 0, 0, 0), (10, 0, 0, 0), (20, 0, 0, 0), (900, 0, 0, 0), max_hold_ms=100)
    assert held_until(log).tolist() == at(10, 20, 30, 900).tolist()
