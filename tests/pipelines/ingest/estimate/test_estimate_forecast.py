"""From recordings that were opened and measured to what all will make and take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wham_data.pipelines.ingest.estimate.forecast import (
    Forecast,
    Opened,
    Population,
    Rates,
    ShardCosts,
    StepCosts,
    forecast,
)
from wham_data.pipelines.ingest.estimate.machine import Cluster
from wham_data.pipelines.ingest.estimate.sampling import Estimated

SHARD = ShardCosts(bytes=1000, step_bytes=10, picture_bytes=500)
CHEAP = Opened("vpt", steps=100, play_ns=10_000_000_000, costs=StepCosts(0.01, 200))
DEAR = Opened("video-log", steps=100, play_ns=10_000_000_000, costs=StepCosts(0.03, 200))
TORN = Opened("vpt", refused="truncated")


def told_of(
    opened: list[Opened], of: int | None = None, rates: Rates | None = None, tokens: bool = False
) -> Forecast:
    """The forecast for `of` recordings of equal size, of which these were opened."""
    n = of or len(opened)
    population = Population(np.full(n, 1000.0), np.zeros(n, np.int64))
    numbers = np.arange(len(opened))
    cluster = Cluster(cpus=1)
    return forecast(
        population, numbers, opened, SHARD, rates or Rates(), cluster, has_tokenizer=tokens
    )


def cpu_seconds(told: Forecast) -> float:
    assert told.needs is not None
    assert told.needs.cpu_hours is not None
    return told.needs.cpu_hours.estimate * 3600


def test_each_reader_has_its_own_cost_of_a_step() -> None:
    assert cpu_seconds(told_of([CHEAP] * 3 + [DEAR] * 6)) == pytest.approx(3 + 18)


def test_a_reader_of_which_too_few_were_measured_costs_what_the_others_do() -> None:
    opened = [CHEAP] * 3 + [DEAR, *[replace(DEAR, costs=None)] * 3]

    assert cpu_seconds(told_of(opened)) == pytest.approx(300 * 0.01 + 400 * (3 * 0.01 + 0.03) / 4)


def test_opening_hashing_and_writing_cost_too() -> None:
    opened = [replace(CHEAP, open_s=0.5)] * 4

    assert cpu_seconds(told_of(opened, rates=Rates(hash_s=1e-4))) == pytest.approx(
        4 + 4 * 0.5 + 4 * 1000 * 1e-4
    )


def test_costs_that_differ_widen_the_range_though_all_were_opened() -> None:
    told = told_of([replace(CHEAP, costs=StepCosts(s, 200)) for s in (0.01, 0.02, 0.03)])

    assert told.exact
    assert told.steps == Estimated.exactly(300)
    assert told.needs is not None
    assert told.needs.cpu_hours is not None
    low, high = told.needs.cpu_hours.low, told.needs.cpu_hours.high
    assert low is not None
    assert high is not None
    assert low < told.needs.cpu_hours.estimate < high


def test_one_measured_recording_gives_no_range() -> None:
    told = told_of([CHEAP])

    assert told.needs is not None
    assert told.needs.cpu_hours == Estimated(pytest.approx(1 / 3600), None, None)  # type: ignore[arg-type]


def test_pictures_have_the_size_that_was_seen_or_else_the_assumed_one() -> None:
    seen, unseen = told_of([CHEAP] * 4), told_of([replace(CHEAP, costs=None)] * 4)

    assert seen.bytes.estimate == 4 * 1000 + 400 * (10 + 200)
    assert unseen.bytes.estimate == 4 * 1000 + 400 * (10 + 500)
    assert unseen.needs is not None
    assert unseen.needs.cpu_hours is None


def test_refused_recordings_make_no_steps_and_are_counted() -> None:
    told = told_of([CHEAP] * 15 + [TORN] * 5, of=400)

    assert told.recordings.estimate == pytest.approx(300)
    assert told.steps.estimate == pytest.approx(30_000)
    assert told.reasons["truncated"] == told.refused
    assert told.refused.low is not None
    assert told.refused.high is not None
    assert 5 <= told.refused.low < 100 < told.refused.high <= 385
    assert told.readers == {"vpt": pytest.approx(300)}


def test_the_tokenizer_costs_the_same_for_every_step() -> None:
    told = told_of([CHEAP] * 4, rates=Rates(tokens_s=[0.02, 0.02]), tokens=True)
    on_gpu = told_of([CHEAP] * 4, rates=Rates(tokens_s=[0.001] * 2, on_gpu=True), tokens=True)

    assert cpu_seconds(told) == pytest.approx(400 * (0.01 + 0.02))
    assert on_gpu.needs is not None
    assert on_gpu.needs.cpu_hours is None  # the machine of the example has no GPU
