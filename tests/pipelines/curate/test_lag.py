"""The lag of a log is measured from what moves, and a log of other hands is not taken for right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wham_data.pipelines.curate.controls import signals_of
from wham_data.pipelines.curate.lag import Spans
from wham_data.pipelines.curate.motion import GRID, Motion
from wham_data.pipelines.curate.verdict import ClockFit, ControlAudit, judge, measure
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.recording import ActionTrack

SPACE = ActionSpace(
    "camera",
    (
        Dimension("turn", "axis", -1, 1, "fraction", "right"),
        Dimension("look", "axis", -1, 1, "fraction", "up"),
        Dimension("jump", "button", 0, 1),
    ),
)
SECONDS, RATE = 30, 30


def hands(seed: int) -> np.ndarray:
    """Values each 10 ms: both axes held for 0.1 to 0.8 s at a time."""
    dice = np.random.default_rng(seed)
    columns = []
    for _ in range(2):
        holds = [
            np.full(dice.integers(10, 80), dice.choice([-0.8, 0, 0.4, 0.9])) for _ in range(400)
        ]
        columns.append(np.concatenate(holds)[: SECONDS * 100])
    return np.stack([*columns, np.zeros(SECONDS * 100)], axis=1)


def log_of(values: np.ndarray, lag_ms: float = 0.0, ppm: float = 0.0) -> ActionTrack:
    times_ns = np.arange(len(values)) * 10_000_000
    logged = np.rint(times_ns * (1 + ppm * 1e-6) + lag_ms * 1e6).astype(np.int64)
    return ActionTrack(SPACE, logged, values.astype(float), int(logged[-1]) + 10_000_000)


def seen(values: np.ndarray, seed: int = 0) -> Motion:
    """What a camera shows that these hands turn, with noise."""
    dice = np.random.default_rng(seed)
    exact = log_of(values)
    signals = signals_of(exact)
    edges = np.arange(SECONDS * RATE) / RATE
    turned = signals.over(edges[:-1], edges[1:])
    n = len(turned)
    shift = (-4 * turned[:, 0] + dice.normal(0, 0.5, n)).astype(np.float32)
    tilt = (3 * turned[:, 1] + dice.normal(0, 0.5, n)).astype(np.float32)
    noise = dice.normal(0, 0.5, n).astype(np.float32)
    sure = np.full((n, 3), 8, np.float32) + dice.uniform(0, 1, (n, 3)).astype(np.float32)
    return Motion(shift, tilt, noise, sure, np.ones((n, GRID[0] * GRID[1]), np.float32))


def measured(motion: Motion, track: ActionTrack) -> ClockFit:
    signals = signals_of(track)
    edges = np.arange(SECONDS * RATE) / RATE - signals.start_ns / 1e9
    spans = Spans(edges[:-1], edges[1:], np.r_[False, np.ones(len(edges) - 2, bool)])
    return measure(motion, spans, signals, SPACE, -signals.start_ns / 1e9)


@pytest.mark.parametrize("lag_ms", [-230.0, 0.0, 120.0])
def test_the_lag_of_a_log_is_found_with_its_sign(lag_ms: float) -> None:
    values = hands(1)
    found = measured(seen(values), log_of(values, lag_ms))

    assert found.lag_ms == pytest.approx(lag_ms, abs=6)
    assert found.lag_low_ms < lag_ms < found.lag_high_ms
    verdict = "ok" if lag_ms == 0 else "late" if lag_ms > 0 else "early"
    assert judge(found, SECONDS)[0] == verdict


def test_a_clock_that_runs_at_another_speed_drifts() -> None:
    values = hands(1)
    found = measured(seen(values), log_of(values, 50, 2000))

    assert found.drift_ppm == pytest.approx(2000, abs=300)
    assert found.lag_ms == pytest.approx(50, abs=10)
    assert judge(found, SECONDS)[0] == "drifting"


def test_the_log_of_other_hands_is_unrelated() -> None:
    found = measured(seen(hands(1)), log_of(hands(2)))

    assert found.lag_ms is None
    assert judge(found, SECONDS)[0] == "unrelated"


def test_an_inverted_turn_is_found() -> None:
    values = hands(1)
    found = measured(seen(values), log_of(values * [-1, 1, 1]))

    assert found.controls["turn"] == ControlAudit(1, False)
    assert judge(found, SECONDS)[0] == "inverted"


def test_swapped_axes_are_found() -> None:
    values = hands(1)
    found = measured(seen(values), log_of(values[:, [1, 0, 2]]))

    assert judge(found, SECONDS) == ("swapped", "the view turns with look")


def test_a_control_that_never_changes_is_dead() -> None:
    values = hands(1)
    found = measured(seen(values), log_of(values))

    assert found.controls["jump"].dead
    assert not found.controls["turn"].dead
    assert judge(measured(seen(values), log_of(values * 0)), SECONDS)[0] == "dead"


def test_a_lag_that_the_rest_of_the_game_does_not_have_is_one_too() -> None:
    found = ClockFit(lag_ms=20, lag_low_ms=10, lag_high_ms=30, drift_ppm=0)

    assert judge(found, SECONDS)[0] == "ok"
    assert judge(found, SECONDS, [20, 18, 25, 22, 19])[0] == "ok"
    assert judge(found, SECONDS, [-20, -18, -25, -22, -19])[0] == "late"
    assert judge(found, SECONDS, [-300, 18, 250, -122, 90])[0] == "ok"  # no usual lag


def test_little_play_is_unmeasurable() -> None:
    values = hands(1)
    motion = seen(values).only(np.arange(SECONDS * RATE - 1) < 100)
    signals = signals_of(log_of(values))
    edges = np.arange(101) / RATE
    spans = Spans(edges[:-1], edges[1:], np.r_[False, np.ones(99, bool)])
    found = measure(motion, spans, signals, SPACE, 0.0)

    assert judge(found, 3.3)[0] == "unmeasurable"
    assert replace(found, seconds=0).lag_ms is None
