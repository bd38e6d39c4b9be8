"""WHAM's stick bins, action tokens and their ranges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import (
    ACTION_SIZE,
    ACTION_VOCAB,
    NoTokenError,
    bins_from_measured,
    decode_actions,
    decode_bins,
    encode_actions,
    encode_bins,
    measured_from_bins,
    stick_bins,
    stick_middles,
    token_ranges,
)

TABLE = json.loads((Path(__file__).parents[1] / "data" / "action_bins.json").read_text("utf-8"))
MIDDLES = TABLE["bin_to_value"]
EDGES = TABLE["edges"]


@pytest.mark.parametrize(("value", "published"), TABLE["value_to_bin"])
def test_every_value_goes_to_its_published_bin_or_is_clamped_and_counted(
    value: float, published: int
) -> None:
    bins, clamped = stick_bins(np.array([value], np.float64))
    assert bins.tolist() == [min(max(published, 0), 10)]
    assert clamped == (published in (-1, 11))


def test_every_edge_belongs_to_the_bin_above_it_so_bins_are_not_mirrored() -> None:
    assert stick_bins(np.array(EDGES[:-1]))[0].tolist() == list(range(11))
    assert stick_bins(np.array([-0.5, 0.5]))[0].tolist() == [3, 8]
    assert stick_bins(np.array([-0.05, 0.05]))[0].tolist() == [5, 6]


def test_float32_is_compared_as_the_float64_it_is() -> None:
    assert stick_bins(np.array([0.95], np.float64))[0].tolist() == [10]
    assert stick_bins(np.array([0.95], np.float32))[0].tolist() == [9]
    assert stick_bins(np.array([-0.05], np.float32))[0].tolist() == [4]


def test_every_middle_comes_back_to_its_bin_also_through_float32() -> None:
    assert stick_middles(np.arange(11)).tolist() == np.array(MIDDLES, np.float32).tolist()
    assert stick_bins(stick_middles(np.arange(11)))[0].tolist() == list(range(11))
    assert stick_bins(np.array(MIDDLES, np.float64))[0].tolist() == list(range(11))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_missing_value_has_no_bin(value: float) -> None:
    with pytest.raises(NoTokenError, match="missing action"):
        stick_bins(np.array([0.0, value]))
    with pytest.raises(ValueError, match="missing action"):
        stick_bins(np.array([value]))


@pytest.mark.parametrize("value", [-1, 11, 2.5, math.nan])
def test_what_is_no_bin_has_no_middle(value: float) -> None:
    with pytest.raises(NoTokenError, match="whole number from 0 to 10"):
        stick_middles(np.array([value]))


def bins_slowly(values: np.ndarray) -> tuple[list[int], int]:
    bins, clamped = [], 0
    for value in values.ravel().tolist():
        bin_ = sum(edge <= value for edge in EDGES) - 1
        clamped += not 0 <= bin_ <= 10
        bins.append(min(max(bin_, 0), 10))
    return bins, clamped


NEAR_EDGES = [float(np.nextafter(edge, side)) for edge in EDGES for side in (-9.0, 9.0)]


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(max_dims=3, max_side=5),
        elements=st.one_of(st.floats(-3, 3), st.sampled_from(EDGES + NEAR_EDGES)),
    )
)
def test_binning_equals_its_slow_twin(values: np.ndarray) -> None:
    bins, clamped = stick_bins(values)
    assert bins.shape == values.shape
    assert bins.dtype == np.int64
    assert (bins.ravel().tolist(), clamped) == bins_slowly(values)


def test_the_tokens_of_rest_and_of_everything() -> None:
    rest, _ = encode_actions(load_space("wham16").null())
    assert rest.tolist() == [*range(0, 24, 2), 29, 40, 51, 62]
    everything, _ = encode_actions(np.ones(16))
    assert everything.tolist() == [*range(1, 24, 2), 34, 45, 56, 67]
    assert ACTION_VOCAB == 68


def test_a_published_row_has_its_tokens() -> None:
    row = np.array([1, *[0] * 11, 6, 10, 5, 5], np.float32)
    assert encode_bins(row).tolist() == [1, *range(2, 24, 2), 30, 45, 51, 62]
    assert measured_from_bins(row).tolist() == [
        *[1.0, *[0.0] * 11],
        *np.array([0.15, 1.0, 0.0, 0.0], np.float32).tolist(),
    ]


def test_sticks_beyond_the_edges_are_counted_over_the_whole_batch() -> None:
    actions = np.zeros((2, 3, 16))
    actions[0, 0, 12] = 1.2
    actions[1, 2, 15] = -1.06
    tokens, clamped = encode_actions(actions)
    assert clamped == 2
    assert (tokens[0, 0, 12], tokens[1, 2, 15]) == (34, 57)


BINNED = hnp.arrays(
    np.int64, st.tuples(st.integers(0, 6), st.just(16)), elements=st.integers(0, 10)
).map(lambda a: np.concatenate([a[:, :12] % 2, a[:, 12:]], axis=1).astype(np.float32))


@given(BINNED)
def test_bins_tokens_and_measured_actions_lead_back_to_each_other(binned: np.ndarray) -> None:
    tokens = encode_bins(binned)
    assert np.array_equal(decode_bins(tokens), binned)
    measured = measured_from_bins(binned)
    assert measured.dtype == np.float32
    assert np.array_equal(decode_actions(tokens), measured)
    back, clamped = bins_from_measured(measured)
    assert np.array_equal(back, binned)
    assert clamped == 0
    assert np.array_equal(encode_actions(measured)[0], tokens)


@given(BINNED)
def test_encoding_equals_its_slow_twin(binned: np.ndarray) -> None:
    slow = [
        [2 * i + int(v) if i < 12 else 24 + 11 * (i - 12) + int(v) for i, v in enumerate(row)]
        for row in binned
    ]
    assert encode_bins(binned).tolist() == slow


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (3, 0.7, r"button at \[0, 3\] is 0.7: expected a whole number from 0 to 1"),
        (3, 2.0, "button"),
        (0, math.nan, "button"),
        (13, math.nan, "missing action"),
    ],
)
def test_an_action_without_a_token_is_refused(place: int, value: float, message: str) -> None:
    actions = np.zeros((1, 16))
    actions[0, place] = value
    with pytest.raises(NoTokenError, match=message):
        encode_actions(actions)


@pytest.mark.parametrize(("place", "value"), [(0, 2), (12, 11), (12, -1), (15, 5.5)])
def test_a_bin_out_of_range_is_refused_not_truncated(place: int, value: float) -> None:
    binned = np.zeros(16)
    binned[place] = value
    with pytest.raises(NoTokenError, match=rf"binned action at \[{place}\]"):
        encode_bins(binned)


def test_a_token_of_another_position_is_refused() -> None:
    tokens = encode_bins(np.zeros((1, 16)))
    tokens[0, 13] = 24
    with pytest.raises(NoTokenError, match=r"\[0, 13\] is 24: expected .* from 35 to 45"):
        decode_actions(tokens)


def test_actions_of_another_width_are_refused() -> None:
    for function in (encode_actions, encode_bins, decode_bins, measured_from_bins):
        with pytest.raises(NoTokenError, match="expected"):
            function(np.zeros((2, 15)))


def test_each_position_of_a_step_has_its_range_in_the_joint_vocabulary() -> None:
    ranges = token_ranges(16384, 540)
    assert ranges.shape == (556, 2)
    assert ranges[0].tolist() == [1, 16383]
    assert ranges[1].tolist() == ranges[539].tolist() == [0, 16383]
    assert ranges[540].tolist() == [16384, 16385]
    assert ranges[551].tolist() == [16406, 16407]
    assert ranges[552].tolist() == [16408, 16418]
    assert ranges[555].tolist() == [16441, 16451]


def test_the_first_position_may_be_allowed_id_zero() -> None:
    assert token_ranges(4096, 256, without_first_zero=False)[0].tolist() == [0, 4095]


def test_the_action_ranges_follow_each_other_without_a_gap() -> None:
    ranges = token_ranges(10, 3)[3:]
    assert ranges[0, 0] == 10
    assert (ranges[1:, 0] == ranges[:-1, 1] + 1).all()
    assert ranges[-1, 1] == 10 + ACTION_VOCAB - 1
    assert len(ranges) == ACTION_SIZE


def test_a_vocabulary_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        token_ranges(0, 540)
    with pytest.raises(UsageError):
        token_ranges(16384, 0)
