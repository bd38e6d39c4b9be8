"""Players: shares of the time, times of holds, bounds of motion, the same again for the same seed."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from makers.square_engine import Square
from numpy.typing import NDArray

from wham_data.pipelines.collect.engine import Finger, Option, Start, target_shares
from wham_data.pipelines.collect.policies import Pace, Player, Policy, next_option, stroke
from wham_data.schemas.errors import UsageError

HOLD = (Fraction(1, 5), Fraction(3, 2))
RATE = Square.rate


def played(
    policy: Policy = "held", seconds: int = 120, seed: int = 0, **shares: float
) -> NDArray[np.float32]:
    """What a player does with the square, float32 [T, A]."""
    engine = Square(Start("plain", seed))
    pace = Pace.of(RATE, HOLD, None)
    player = Player(policy, engine, target_shares(engine.fingers, shares), pace, seed)
    return np.stack([player.action() for _ in range(int(seconds * RATE))])


def holds(column: NDArray[np.float32]) -> list[int]:
    """Tics of each hold that was seen from beginning to end."""
    runs = [(down, len(list(run))) for down, run in itertools.groupby(column != 0)]
    return [length for down, length in runs[1:-1] if down]


def test_every_action_gets_its_share_within_two_minutes() -> None:
    actions = played(fire=0.1)
    shares = (actions > 0).mean(axis=0)
    assert shares[:2] == pytest.approx(1 / 3, rel=0.1)
    assert shares[2] == pytest.approx(0.1, rel=0.1)
    assert (actions[:, 4] < 0).mean() == pytest.approx(1 / 3, rel=0.1)
    assert (actions[:, 4] > 0).mean() == pytest.approx(1 / 3, rel=0.1)


@pytest.mark.parametrize("share", [0.05, 0.45, 0.6, 0.75])
def test_a_share_may_be_small_or_large(share: float) -> None:
    assert played(fire=share)[:, 2].mean() == pytest.approx(share, rel=0.1)


def test_what_is_not_useful_is_done_only_when_asked_for() -> None:
    assert not played()[:, 3].any()
    assert played(wave=0.3)[:, 3].mean() == pytest.approx(0.3, rel=0.1)


def test_holds_last_as_long_as_asked_and_change_where_a_step_of_the_corpus_does() -> None:
    actions = played()
    for column in actions[:, :3].T:
        lengths = holds(column)
        assert len(lengths) > 20
        assert RATE * HOLD[0] <= min(lengths) < max(lengths) <= RATE * HOLD[1]
    changes = np.flatnonzero(np.diff((actions != 0).astype(int), axis=0).any(axis=1)) + 1
    assert not (changes % 7).any(), "7 tics of 35 a second are two tenths of a second"


def test_no_step_of_a_10_hz_corpus_holds_two_actions_of_one_finger() -> None:
    actions = played()
    edges = np.arange(0, len(actions), 3.5)
    for start, stop in itertools.pairwise(edges):
        step = actions[int(start) : int(np.ceil(stop))]
        assert not (step[:, 0].any() and step[:, 1].any())


def test_motion_is_bounded_and_sets_out_and_ends_gently() -> None:
    turn = played()[:, 4]
    assert 0 < np.abs(turn).max() <= 70 / 35 + 1e-6
    for _, run in itertools.groupby(turn, key=np.sign):
        strokes = np.abs(list(run))
        if strokes.any() and len(strokes) > 7:
            assert strokes[0] < strokes.max() / 2
    assert stroke(10, -70.0, Fraction(35)).sum() == pytest.approx(-10)


def test_the_same_seed_plays_the_same_and_another_another() -> None:
    assert np.array_equal(played(seconds=5), played(seconds=5))
    assert not np.array_equal(played(seconds=5), played(seconds=5, seed=1))


def test_a_random_player_draws_anew_at_every_tic() -> None:
    actions = played("random")
    assert actions[:, 2].mean() == pytest.approx(1 / 3, rel=0.1)
    assert np.mean(holds(actions[:, 2])) == pytest.approx(1.5, rel=0.1)


def test_a_scripted_player_follows_its_reflexes() -> None:
    engine = Square(Start("plain", 0))
    player = Player(
        "scripted", engine, target_shares(engine.fingers), Pace.of(RATE, HOLD, None), seed=0
    )
    for _ in range(500):
        expected = float(engine.x < 0)
        action = player.action()
        assert action[2] == expected
        engine.tic(action)


def test_no_option_but_rest_follows_itself() -> None:
    shares, held = np.array([0.5, 0.25, 0.25]), np.array([1.0, 1.0, 1.0])
    draws = np.linspace(0, 0.999, 50)
    assert {next_option(shares, held, 0, 10, draw) for draw in draws} == {1, 2}
    assert {next_option(shares, held, 2, 10, draw) for draw in draws} == {0, 1, 2}
    only = np.array([1.0, 0.0])
    assert next_option(only, np.array([9.0, 0.0]), 0, 1, 0.5) == 0


def test_lifted_hands_begin_another_hold() -> None:
    engine = Square(Start("plain", 0))
    player = Player("held", engine, target_shares(engine.fingers), Pace.of(RATE, HOLD, None), 0)
    for _ in range(3):
        player.action()
    player.lift()
    firsts = [player.action() for _ in range(7)]
    assert all(np.array_equal(firsts[0][:4], each[:4]) for each in firsts)


# --- shares ----------------------------------------------------------------------------------


def test_useful_actions_share_alike_and_a_finger_that_never_rests_divides_all_its_time() -> None:
    walk, fire, wave, turn = target_shares(Square.fingers)
    assert walk.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert fire.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert wave.tolist() == [0, 1]
    assert turn.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    keys = Finger("keys", tuple(Option(name, name) for name in "abcd"), rests=False)
    assert target_shares((keys,), {"a": 0.4})[0].tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2, 0])


@pytest.mark.parametrize("asked", [{"jump": 0.1}, {"left": 0.7, "right": 0.6}, {"fire": 1.2}])
def test_shares_that_cannot_be_are_refused(asked: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        target_shares(Square.fingers, asked)


# --- pace ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "beat_s", "beat", "shortest", "longest"),
    [
        (Fraction(35), None, 7, 7, 49),
        (Fraction(15), None, 3, 3, 21),
        (Fraction(60), None, 6, 12, 90),
        (Fraction(10), None, 1, 2, 15),
        (Fraction(35), Fraction(0), 1, 7, 52),
        (Fraction(35), Fraction(1, 2), 18, 18, 36),
    ],
)
def test_holds_are_whole_numbers_of_beats(
    rate: Fraction, beat_s: Fraction | None, beat: int, shortest: int, longest: int
) -> None:
    pace = Pace.of(rate, HOLD, beat_s)
    assert (pace.beat, pace.choices[0], pace.choices[-1]) == (beat, shortest, longest)


def test_a_hold_that_no_beat_fits_is_refused() -> None:
    with pytest.raises(UsageError, match="--beat"):
        Pace.of(Fraction(35), (Fraction(1, 20), Fraction(1, 10)), None)
