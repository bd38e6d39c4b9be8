"""The order of an epoch: a permutation, near enough to a random one, and the same for ever."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.feed.order import BLOCK, Draws, Order
from wham_data.feed.windows import Numbers, Windows

SEEDS = st.integers(-(2**70), 2**70)


def windows(*counts: int) -> Windows:
    shard = np.arange(len(counts), dtype=np.int32)
    return Windows(shard, np.zeros(len(counts), np.int64), np.cumsum(counts, dtype=np.int64), 1)


def epoch_of(order: Order, epoch: int = 0) -> Numbers:
    return order.draws(epoch, np.arange(order.n))


def drawn(draws: Draws, epoch: int) -> Counter[int]:
    return Counter(draws.in_epoch(epoch).windows_at(np.arange(len(draws))).tolist())


@settings(deadline=None)
@given(st.integers(1, 3_000), SEEDS, st.integers(0, 9))
def test_every_draw_comes_once_per_epoch(n: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_of(Order(n, seed), epoch)) == list(range(n))


@settings(deadline=None)
@given(st.integers(1, 9 * BLOCK), st.integers(1, 4 * BLOCK), SEEDS)
def test_every_draw_comes_once_with_a_pool_too(n: int, pool: int, seed: int) -> None:
    assert sorted(epoch_of(Order(n, seed, pool=pool))) == list(range(n))


@settings(deadline=None)
@given(st.integers(2, 10**15), SEEDS, st.lists(st.floats(0, 1, exclude_max=True), min_size=1))
def test_a_place_is_computed_by_itself(n: int, seed: int, shares: list[float]) -> None:
    order = Order(n, seed)
    places = np.array([int(share * n) for share in shares], np.int64)

    together = order.draws(3, places)

    assert together.tolist() == [
        int(order.draws(3, places[i : i + 1])[0]) for i in range(len(places))
    ]
    assert ((together >= 0) & (together < n)).all()


def test_unshuffled_is_as_numbered() -> None:
    assert epoch_of(Order(10, 0, shuffle=False)).tolist() == list(range(10))


def test_the_order_is_written_in_stone() -> None:
    """A saved state goes on in the same order with every release and on every machine."""
    assert epoch_of(Order(10, seed=1), 2).tolist() == [8, 9, 1, 4, 0, 3, 5, 2, 6, 7]
    large = Order(10**12, seed=1).draws(0, np.arange(3))
    assert large.tolist() == [495011705502, 347352693955, 245699203489]


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_of(Order(1_000, seed), epoch) for seed in (0, 1) for epoch in (0, 1)]

    # Two random permutations agree at one place on average.
    assert all((a == b).sum() < 10 for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_permutations_of_a_few_are_about_as_frequent(n: int) -> None:
    orders = Counter(tuple(epoch_of(Order(n, seed)).tolist()) for seed in range(2_000))
    expected = 2_000 / np.prod(np.arange(1, n + 1))
    found = [*orders.values()] + [0] * (int(np.prod(np.arange(1, n + 1))) - len(orders))

    chi_squared = sum((each - expected) ** 2 / expected for each in found)
    freedom = len(found) - 1
    assert chi_squared < freedom + 4 * np.sqrt(2 * freedom)


def test_where_a_window_comes_says_nothing_of_where_it_lies() -> None:
    """64 x 64 boxes of (place, window): as even as a random permutation leaves them."""
    n = 100_000
    order = epoch_of(Order(n, seed=5))
    boxes = np.zeros((64, 64))
    np.add.at(boxes, (np.arange(n) * 64 // n, order * 64 // n), 1)

    freedom = 63 * 63
    chi_squared = ((boxes - n / 64**2) ** 2 / (n / 64**2)).sum()
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_neighbours_are_strangers() -> None:
    n = 100_000
    order = epoch_of(Order(n, seed=5))

    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(n)
    assert (np.diff(order) == 1).sum() < 10


def test_a_pool_keeps_reads_together() -> None:
    """What one pool's worth of draws touches is as many blocks as fit the pool, wherever they lie."""
    n, pool = 64 * BLOCK, 8 * BLOCK
    order = epoch_of(Order(n, seed=5, pool=pool))
    turn = next(turn for turn in range(BLOCK) if len(set((order[:pool] + turn) // BLOCK)) <= 9)

    for first in range(0, n, pool):
        assert len(set((order[first : first + pool] + turn) % n // BLOCK)) == 8


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_a_weight_is_how_often_a_window_comes(counts: list[int], data: st.DataObject) -> None:
    weight = st.floats(0, 4).map(lambda w: round(w, 2))
    weights = data.draw(st.lists(weight, min_size=len(counts), max_size=len(counts)))
    if not sum(weights):
        weights[0] = 1.0
    draws = Draws.weighted(windows(*counts), np.array(weights))
    scale = len(draws) / sum(c * w for c, w in zip(counts, weights, strict=True))
    seen: Counter[int] = Counter()

    for epoch in range(1, 6):
        drawn_now = drawn(draws, epoch - 1)
        assert sum(drawn_now.values()) == len(draws)
        seen += drawn_now
        first = 0
        for count, weight_ in zip(counts, weights, strict=True):
            of_run = [seen[first + k] for k in range(count)]
            assert abs(sum(of_run) - epoch * count * weight_ * scale) <= epoch + 1e-9
            first += count


def test_half_a_weight_shows_all_windows_in_two_epochs() -> None:
    draws = Draws.weighted(windows(10, 6), np.array([0.5, 1.0]))

    first, second = drawn(draws, 0), drawn(draws, 1)

    assert sorted([*first.elements(), *second.elements()]) == [
        *range(10),
        *(k for k in range(10, 16) for _ in range(2)),
    ]


def test_a_weight_of_nought_leaves_out() -> None:
    draws = Draws.weighted(windows(5, 5, 5), np.array([1.0, 0.0, 2.0]))

    assert all(not drawn(draws, epoch).keys() & set(range(5, 10)) for epoch in range(4))
