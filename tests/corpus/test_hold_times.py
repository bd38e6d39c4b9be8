"""How long controls were held: vectorised runs against a slow count."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from makers.corpora import add_shard, small_corpus
from numpy.typing import NDArray

from wham_data.corpus.hold_times import complete_holds, count_holds
from wham_data.corpus.stats import corpus_stats
from wham_data.schemas.actions import Dimension

STICK = Dimension("stick", "axis", -1, 1)
MOUSE = Dimension("mouse", "delta", -10, 10)
BUTTON = Dimension("button", "button", 0, 1)
TRIGGER = Dimension("trigger", "trigger", 0, 1)


def slowly(held: NDArray[np.bool_], known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Columns and lengths of complete holds, one step after the other."""
    found = []
    for column in range(held.shape[1]):
        at = 0
        for down, run in itertools.groupby(held[:, column]):
            length = len(list(run))
            stop = at + length
            if down and at > 0 and stop < len(held) and known[at - 1] and known[stop]:
                found.append((column, length))
            at = stop
    return found


@settings(max_examples=60)
@given(st.integers(0, 12).flatmap(lambda n: arrays(np.int8, (n, 3), elements=st.integers(0, 2))))
def test_complete_holds_are_those_that_a_slow_count_finds(drawn: NDArray[np.int8]) -> None:
    known = drawn[:, 2] > 0
    held = (drawn[:, :2] > 0) & known[:, None]
    columns, lengths = complete_holds(held, known)
    assert list(zip(columns.tolist(), lengths.tolist(), strict=True)) == slowly(held, known)


def test_a_hold_that_an_end_of_the_episode_cuts_is_counted_in_steps_only() -> None:
    down = np.array([1, 0, 1, 1, 0, 1], np.float32)[:, None]
    (held,) = count_holds([down, down], [BUTTON])
    assert (held.steps, held.complete, held.shortest, held.longest) == (8, 2, 2, 2)


def test_a_hold_beside_an_unknown_step_is_not_complete() -> None:
    down = np.array([0, 1, np.nan, 1, 1, 0], np.float32)[:, None]
    (held,) = count_holds([down], [BUTTON])
    assert (held.steps, held.complete) == (3, 0)


def test_motion_counts_by_direction_and_a_stick_beyond_a_tenth() -> None:
    actions = np.array([[0, 0.05], [3, -0.5], [0.1, -0.2], [-2, 0], [0, 0.2], [0, 0]], np.float32)
    down, up, left, right = count_holds([actions], [MOUSE, STICK])
    assert [each.way.sign for each in (down, up, left, right)] == [-1, 1, -1, 1]
    assert [each.steps for each in (down, up, left, right)] == [1, 2, 2, 1]
    assert (up.shortest, up.longest) == (2, 2)


def test_a_trigger_has_one_direction() -> None:
    (held,) = count_holds([np.array([[0.05], [0.5], [0]], np.float32)], [TRIGGER])
    assert (held.way.sign, held.steps, held.complete) == (1, 1, 1)


def test_the_figures_of_a_corpus_are_those_of_its_episodes(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    corpus.commit(add_shard(corpus, "long-0", n_steps=5000))
    episodes = [corpus.read_episode(name) for name in corpus.episodes["episode"]]
    expected = count_holds((each.actions for each in episodes), corpus.info.action_space.dimensions)
    found = corpus_stats(corpus)
    for index, button in enumerate(found.buttons):
        (held,) = [each for each in expected if each.way.index == index]
        assert (button.shortest_hold_s, button.longest_hold_s) == (
            held.shortest / 10,
            held.longest / 10,
        )
    axis = found.axes[0]
    low, high = [each for each in expected if each.way.index == len(found.buttons)]
    assert axis.down is not None
    assert axis.up is not None
    assert (axis.down.holds, axis.up.holds) == (low.complete, high.complete)
    assert axis.up.share == high.steps / found.known_steps
