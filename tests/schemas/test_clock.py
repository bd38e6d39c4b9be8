"""Times and steps, as functions of arrays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wham_data.schemas.clock import runs_of


def test_runs_are_half_open() -> None:
    assert runs_of(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs_of(np.array([False])) == []
    assert runs_of(np.zeros(0, np.bool_)) == []


@given(st.lists(st.booleans(), max_size=20))
def test_the_runs_hold_every_true_once(good: list[bool]) -> None:
    runs = runs_of(np.array(good, np.bool_))

    assert [k for first, stop in runs for k in range(first, stop)] == np.flatnonzero(good).tolist()
    assert all(stop < later for (_, stop), (later, _) in pairwise(runs))
