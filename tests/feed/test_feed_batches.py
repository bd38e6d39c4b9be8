"""Ranks, workers and restarts: every draw once, in one order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.feed.batches import Batches, BatchPlan, Place

DRAWS = st.integers(1, 200)
PER_RANK = st.integers(1, 9)
RANKS = st.integers(1, 5)


def plans(draws: int, per_rank: int, ranks: int, *, drop_last: bool = False) -> list[BatchPlan]:
    return [BatchPlan(draws, per_rank * ranks, rank, ranks, drop_last) for rank in range(ranks)]


def batches_of(plan: BatchPlan, start: Place, low: int, high: int) -> Batches:
    return plan.batches(start, np.arange(low, high))


def draws_of(batches: Batches) -> list[tuple[int, int]]:
    """(epoch, draw) of a rank, in order."""
    rows = zip(*(column.tolist() for column in batches), strict=True)
    return [(epoch, draw) for epoch, low, high, _ in rows for draw in range(low, high)]


@settings(deadline=None)
@given(DRAWS, PER_RANK, RANKS, st.integers(0, 199))
def test_ranks_share_the_rest_of_an_epoch_without_gap_or_overlap(
    draws: int, per_rank: int, ranks: int, consumed: int
) -> None:
    start = Place(4, min(consumed, draws))
    found = [
        draw
        for plan in plans(draws, per_rank, ranks)
        for draw in draws_of(batches_of(plan, start, 0, plan.batches_left(start.consumed)))
    ]

    assert sorted(found) == [(4, draw) for draw in range(start.consumed, draws)]


@settings(deadline=None)
@given(DRAWS, PER_RANK, RANKS)
def test_a_global_batch_is_the_same_whoever_shares_it(
    draws: int, per_rank: int, ranks: int
) -> None:
    start, together = Place(0, 0), per_rank * ranks
    alone = BatchPlan(draws, together)
    for number in range(alone.batches_left()):
        whole = draws_of(batches_of(alone, start, number, number + 1))
        parts = [
            draw
            for plan in plans(draws, per_rank, ranks)
            if number < plan.batches_left()
            for draw in draws_of(batches_of(plan, start, number, number + 1))
        ]
        assert parts == whole


@settings(deadline=None)
@given(DRAWS, PER_RANK, RANKS, st.integers(1, 4), st.integers(0, 60))
def test_workers_taking_turns_give_the_rank_its_batches(
    draws: int, per_rank: int, ranks: int, workers: int, consumed: int
) -> None:
    start = Place(0, min(consumed, draws))
    for plan in plans(draws, per_rank, ranks):
        total = plan.batches_left(start.consumed) + 2 * plan.batches_left()
        alone = draws_of(plan.batches(start, np.arange(total)))
        by_worker = [plan.batches(start, np.arange(w, total, workers)) for w in range(workers)]
        in_turn = [
            (int(part.epoch[turn]), draw)
            for turn in range(-(-total // workers))
            for part in by_worker
            if turn < len(part.epoch)
            for draw in range(part.low[turn], part.high[turn])
        ]
        assert in_turn == alone


@settings(deadline=None)
@given(DRAWS, PER_RANK, RANKS, PER_RANK, RANKS, st.integers(0, 30))
def test_going_on_with_other_ranks_leaves_out_nothing_and_repeats_nothing(
    draws: int, per_rank: int, ranks: int, then_per_rank: int, then_ranks: int, taken: int
) -> None:
    start = Place(0, 0)
    before = plans(draws, per_rank, ranks)
    taken = min(taken, *(plan.batches_left() for plan in before))
    consumed = [draw for plan in before for draw in draws_of(batches_of(plan, start, 0, taken))]
    place = before[0].after(start, taken)
    after = plans(draws, then_per_rank, then_ranks)

    rest = [
        draw
        for plan in after
        for draw in draws_of(batches_of(plan, place, 0, plan.batches_left(place.consumed)))
    ]

    if place.epoch == 0:
        assert sorted(consumed + rest) == [(0, draw) for draw in range(draws)]
    else:
        assert sorted(consumed) == [(0, draw) for draw in range(draws)]
        assert sorted(rest) == [(1, draw) for draw in range(draws)]


@settings(deadline=None)
@given(DRAWS, PER_RANK, RANKS)
def test_without_the_last_batch_all_ranks_have_full_ones(
    draws: int, per_rank: int, ranks: int
) -> None:
    for plan in plans(draws, per_rank, ranks, drop_last=True):
        batches = batches_of(plan, Place(0, 0), 0, plan.batches_left())
        assert plan.batches_left() == draws // (per_rank * ranks)
        assert (batches.high - batches.low == per_rank).all()


@settings(deadline=None)
@given(DRAWS, PER_RANK, RANKS, st.integers(1, 40), st.booleans())
def test_a_place_is_where_the_next_batch_begins(
    draws: int, per_rank: int, ranks: int, number: int, drop_last: bool
) -> None:
    for plan in plans(draws, per_rank, ranks, drop_last=drop_last):
        if not plan.batches_left():
            continue
        place = plan.after(Place(0, 0), number)
        following = plan.batches(place, np.array([0]))
        straight = plan.batches(Place(0, 0), np.array([number]))
        assert draws_of(following) == draws_of(straight)
