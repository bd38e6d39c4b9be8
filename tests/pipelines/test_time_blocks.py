"""A recording divided in time: blocks in order, none touching another, shares kept."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wham_data.pipelines.align import EpisodePlan
from wham_data.pipelines.time_blocks import FEWEST_STEPS, split_at, time_blocks, within

STEP_NS = 100_000_000


def plan(first: int, steps: int) -> EpisodePlan:
    """Steps of a tenth of a second from step `first` of the clock on, each with a frame of its own."""
    edges = np.arange(first, first + steps + 1, dtype=np.int64) * STEP_NS
    return EpisodePlan(edges, np.arange(first, first + steps, dtype=np.int64))


@pytest.mark.parametrize(
    ("steps", "shares", "blocks"),
    [
        (3600, (90, 5, 5), [("train", 0, 3150), ("val", 3200, 3375), ("test", 3425, 3600)]),
        (3600, (1, 1, 0), [("train", 0, 1775), ("val", 1825, 3600)]),
        (400, (2, 1, 1), [("train", 0, 180), ("val", 200, 290), ("test", 310, 400)]),
        (400, (100, 0, 0), [("train", 0, 400)]),
        (100, (90, 5, 5), [("train", 0, 100)]),  # a block of 5 steps is too short
        (100, (0, 95, 5), [("val", 0, 100)]),
    ],
)
def test_blocks_have_their_shares_and_a_gap_of_5_s_or_a_twentieth_between_them(
    steps: int, shares: tuple[int, ...], blocks: list[tuple[str, int, int]]
) -> None:
    found = time_blocks([plan(0, steps)], shares)

    assert [(b.split, b.start_ns // STEP_NS, b.end_ns // STEP_NS) for b in found] == blocks


PLANS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 300)), min_size=1, max_size=4)
SHARES = st.tuples(*[st.integers(0, 9)] * 3).filter(any)


@given(PLANS, SHARES)
def test_each_part_of_a_plan_is_in_one_block_and_only_what_lies_between_blocks_is_lost(
    pieces: list[tuple[int, int]], shares: tuple[int, ...]
) -> None:
    plans, at = [], 0
    for pause, steps in pieces:
        plans.append(plan(at + pause, steps))
        at += pause + steps
    blocks = time_blocks(plans, shares)
    cut = within(plans, blocks)

    steps_of = dict.fromkeys(("train", "val", "test"), 0)
    for each in cut:
        split = split_at(blocks, int(each.edges_ns[0]))
        assert split == split_at(blocks, int(each.edges_ns[-2]))
        steps_of[split] += len(each.picks)
        assert len(each.edges_ns) == len(each.picks) + 1
    gaps = sum(steps for _, steps in pieces) - sum(steps_of.values())
    assert all(a.end_ns < b.start_ns for a, b in pairwise(blocks))
    assert (gaps > 0) == (len(blocks) > 1)
    if len(blocks) > 1:
        asked = [s for s, share in zip(steps_of, shares, strict=True) if share]
        total, whole = sum(steps_of.values()), sum(shares)
        assert [block.split for block in blocks] == asked
        assert all(steps_of[block.split] >= FEWEST_STEPS for block in blocks)
        for split, share in zip(steps_of, shares, strict=True):
            assert abs(steps_of[split] - total * share / whole) <= 1
