"""Totals over all recordings from some: fair, with a range that holds the truth about as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from wham_data.pipelines.ingest.estimate.sampling import (
    Estimated,
    also_refused,
    drawn,
    effective_size,
    joined,
    product,
    share_range,
    strata_of,
    t_quantile,
    totals,
    weights,
)

READERS = ["video-log", "vpt", "wham-npz"]


def folder(n: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Recordings of three readers: names, sizes, steps (0 if refused), and whether refused."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(10, 1.0, n)
    per_byte = np.array([1.0, 3.0, 0.3])[np.arange(n) % 3] / 100
    refused = rng.random(n) < 0.05
    steps = np.where(refused, 0.0, np.round(sizes * per_byte * rng.lognormal(0, 0.3, n)))
    return [READERS[k % 3] for k in range(n)], sizes, steps, refused


def estimate(n: int, sample: int, seed: int) -> tuple[Estimated, Estimated, float, int]:
    """Estimates of the steps and of those refused, and what they are."""
    kinds, sizes, steps, refused = folder(n)
    strata = strata_of(kinds, sizes, sample)
    opened = drawn(strata, sizes, sample, seed)
    strata = joined(strata, opened)
    values = np.stack([steps[opened], refused[opened]], axis=1)
    sums = totals(strata, sizes, opened, values.astype(np.float64))
    size = effective_size(weights(strata, opened))
    bad = share_range(float(max(sums.estimate[1], 0)), size, n)
    total = also_refused(sums.at(0, values[:, 0].sum()), bad, size, n, values[:, 0].sum())
    return total, bad, float(steps.sum()), int(refused.sum())


def holds(told: Estimated, truth: float) -> bool:
    assert told.low is not None
    assert told.high is not None
    return told.low <= truth <= told.high


def test_the_range_holds_the_truth_in_about_19_of_20_samples() -> None:
    told = [estimate(2000, 200, seed) for seed in range(200)]
    steps = np.mean([holds(total, truth) for total, _, truth, _ in told])
    refused = np.mean([holds(bad, truth) for _, bad, _, truth in told])
    off = [total.estimate / truth - 1 for total, _, truth, _ in told]
    print(f"coverage: steps {steps:.3f}, refused {refused:.3f}; off by {np.std(off):.3f}")

    assert steps >= 0.9
    assert refused >= 0.9
    assert abs(np.mean(off)) < 0.02  # no bias that would matter


def test_all_opened_is_exact() -> None:
    total, bad, steps, refused = estimate(60, 60, seed=3)

    assert total == Estimated.exactly(pytest.approx(steps))  # type: ignore[arg-type]
    assert bad == Estimated.exactly(pytest.approx(refused))  # type: ignore[arg-type]


def test_the_same_seed_draws_the_same_and_another_others() -> None:
    kinds, sizes, *_ = folder(300)
    strata = strata_of(kinds, sizes, 50)
    one, again, other = (drawn(strata, sizes, 50, seed).tolist() for seed in (1, 1, 2))

    assert one == again
    assert len({*one}) == 50
    assert {*one} != {*other}


def test_each_reader_and_each_size_is_drawn() -> None:
    kinds, sizes, *_ = folder(300)
    strata = strata_of(kinds, sizes, 60)
    seen = np.bincount(strata[drawn(strata, sizes, 60, 0)])

    assert len(seen) == strata.max() + 1 >= 9  # of each reader several sizes
    assert seen.min() >= 2


def test_any_beginning_of_the_order_is_spread_over_the_strata() -> None:
    kinds, sizes, *_ = folder(300)
    strata = strata_of(kinds, sizes, 60)
    order = drawn(strata, sizes, 60, 0)
    whole, half = (np.bincount(strata[part], minlength=12) for part in (order, order[:30]))

    assert np.all(np.abs(half - whole / 2) <= 1)


def test_a_stratum_of_which_too_few_were_opened_joins_its_neighbour() -> None:
    strata = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])

    assert joined(strata, np.array([0, 1, 3, 6])).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert joined(strata, np.array([0, 3, 4])).tolist() == [0] * 9
    assert joined(strata, np.array([5])).tolist() == [0] * 9


def test_one_recording_of_many_gives_no_range() -> None:
    sums = totals(np.zeros(9, np.int64), np.ones(9), np.array([4]), np.array([[20.0]]))

    assert sums.at(0) == Estimated(180, None, None)


def test_what_grows_with_size_is_known_by_the_size() -> None:
    sizes = np.arange(1.0, 101.0)
    opened = np.array([3, 20, 40, 77, 90])
    values = np.stack([7 * sizes[opened], np.full(5, 20.0)], axis=1)
    sums = totals(np.zeros(100, np.int64), sizes, opened, values)

    assert sums.estimate == pytest.approx([7 * sizes.sum(), 2000])
    assert sums.deviation == pytest.approx([0, 0], abs=1e-6)


def test_none_refused_of_200_does_not_mean_none_of_12000() -> None:
    told = share_range(0.0, 200, 12_000)

    assert (told.estimate, told.low) == (0, 0)
    assert told.high == pytest.approx(12_000 * 0.0187, rel=0.05)  # z^2 / (n + z^2)


def test_a_product_has_the_errors_of_both() -> None:
    steps = Estimated(100, 90, 110)

    assert product(steps, [2.0, 2.0, 2.0]) == Estimated(200, 180, 220)
    both = product(steps, [1.9, 2.0, 2.1])
    assert both.high == pytest.approx(200 + np.hypot(20, 100 * t_quantile(2) * 0.1 / 3**0.5))
    assert product(steps, [2.0]) == Estimated(200, None, None)


@pytest.mark.parametrize(
    ("free", "true"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (100, 1.984)]
)
def test_quantiles_of_student(free: int, true: float) -> None:
    assert t_quantile(free) == pytest.approx(true, rel=0.01)
