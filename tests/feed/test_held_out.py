"""Where a split is missing, stretches are held out: apart from the rest, spread, and said."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wham_data.feed.held_out import held_out_stretches
from wham_data.schemas.errors import UsageError


@given(st.integers(1, 3000), st.integers(0, 12))
def test_what_is_held_out_is_apart_from_what_is_trained_on(count: int, margin: int) -> None:
    try:
        train, held = held_out_stretches(count, margin)
    except UsageError:
        assert count <= margin + 1
        return
    apart = np.abs(train[:, None] - held[None]).min()

    assert apart > margin
    assert len(held) >= max(1, 0.1 * count - 8)
    assert len(train) >= 0.6 * count or count < 20 * (margin + 1)
    assert {*train, *held} <= set(range(count))


def test_a_long_corpus_has_eight_stretches_all_over_it() -> None:
    _, held = held_out_stretches(8000, 9)

    starts = held[np.flatnonzero(np.diff(held, prepend=-2) > 1)]
    assert starts.tolist() == list(range(900, 8000, 1000))
