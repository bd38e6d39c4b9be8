"""Which windows there are, against a slow reading of the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.feed.windows import (
    Numbers,
    Shape,
    Starts,
    Windows,
    starts_within,
    windows_at,
    without_rows,
)
from wham_data.schemas.errors import UsageError

Place = tuple[int, int]
SHAPES = st.builds(Shape, st.integers(1, 6), st.integers(1, 5), st.booleans())
# Rows of a shard: stretches one behind another, with rows between them that belong to nothing.
STRETCHES = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 25)), max_size=6)


def numbers(values: list[int]) -> Numbers:
    return np.array(values, np.int64)


def laid_out(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    ranges, row = [], 0
    for gap, length in stretches:
        ranges.append((row + gap, row + gap + length))
        row += gap + length
    return ranges


def starts_of(ranges: list[tuple[int, int]], shape: Shape, shard: int = 0) -> Starts:
    return starts_within(
        numbers([shard] * len(ranges)),
        numbers([low for low, _ in ranges]),
        numbers([high for _, high in ranges]),
        numbers(list(range(len(ranges)))),
        shape,
    )


def places(windows: Windows) -> list[Place]:
    shard, row = windows.locate(np.arange(len(windows)))
    return list(zip(shard.tolist(), row.tolist(), strict=True))


def slowly(ranges: list[tuple[int, int]], shape: Shape, unknown: set[int]) -> list[Place]:
    return [
        (0, row)
        for low, high in ranges
        for row in range(low, high, shape.stride)
        if row + shape.observations <= high
        and not unknown.intersection(range(row, row + shape.length))
    ]


@settings(deadline=None)
@given(STRETCHES, SHAPES)
def test_windows_are_those_that_lie_within_a_stretch(
    stretches: list[tuple[int, int]], shape: Shape
) -> None:
    ranges = laid_out(stretches)

    windows, _ = windows_at(starts_of(ranges, shape), shape.stride)

    assert places(windows) == slowly(ranges, shape, set())


@settings(deadline=None)
@given(STRETCHES, SHAPES, st.sets(st.integers(0, 120)))
def test_leaving_out_unknown_actions_moves_no_other_window(
    stretches: list[tuple[int, int]], shape: Shape, unknown: set[int]
) -> None:
    ranges = laid_out(stretches)
    starts = starts_of(ranges, shape)

    if len(starts):
        starts = without_rows(starts, numbers(sorted(unknown)), shape.length)

    windows, _ = windows_at(starts, shape.stride)
    assert places(windows) == slowly(ranges, shape, unknown)


def test_the_observation_after_the_last_action_may_be_one_without_an_action() -> None:
    shape = Shape(3, next_observation=True)
    starts = without_rows(starts_of([(0, 4)], shape), numbers([3]), shape.length)

    windows, _ = windows_at(starts, 1)

    assert places(windows) == [(0, 0)]


@settings(deadline=None)
@given(STRETCHES, SHAPES, st.integers(1, 7))
def test_cutting_runs_changes_no_window(
    stretches: list[tuple[int, int]], shape: Shape, at_most: int
) -> None:
    starts = starts_of(laid_out(stretches), shape)

    whole, _ = windows_at(starts, shape.stride)
    cut, interval = windows_at(starts, shape.stride, at_most)

    assert places(cut) == places(whole)
    assert cut.counts().max(initial=0) <= at_most
    assert (starts.low[interval] <= cut.first).all()
    assert (cut.first < starts.high[interval]).all()


def test_a_run_knows_its_windows_by_number() -> None:
    windows, _ = windows_at(starts_of([(0, 5), (7, 9), (20, 26)], Shape(4)), 1)

    assert len(windows) == 5
    assert windows.counts().tolist() == [2, 3]
    assert windows.counts(1, 2).tolist() == [3]


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (1, 0), (-3, 1)])
def test_a_window_has_at_least_one_step(length: int, stride: int) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        Shape(length, stride)
