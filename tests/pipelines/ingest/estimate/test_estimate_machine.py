"""Hours and money on a cluster: arithmetic, and what is not known is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wham_data.pipelines.ingest.estimate.machine import Cluster, Work, needs, read_cluster
from wham_data.pipelines.ingest.estimate.sampling import Estimated
from wham_data.schemas.errors import UsageError

STEPS = Estimated(3_600_000, 3_000_000, 4_200_000)
READ = Estimated(100, 80, 120)
TOKENS = Estimated(300, 290, 310)
WORK = Work(STEPS, 1000, READ, TOKENS, None, has_tokenizer=True)
BARE = replace(WORK, tokens_cpu_hours=None, has_tokenizer=False)


def test_the_work_is_shared_by_the_cores() -> None:
    told = needs(WORK, Cluster(cpus=8))

    assert told.cpu_hours == Estimated(400, 370, 430)
    assert told.wall_hours == Estimated(50, 46.25, 53.75)
    assert (told.gpu_hours, told.bound_by, told.cost) == (None, "the CPUs", None)


def test_faster_cores_need_fewer_hours() -> None:
    assert needs(WORK, Cluster(cpus=8, cpu_speed=2)).cpu_hours == Estimated(200, 185, 215)


def test_steps_per_second_replace_what_was_measured() -> None:
    told = needs(replace(WORK, read_cpu_hours=None), Cluster(cpus=1, steps_per_second_per_cpu=10))

    assert told.cpu_hours == Estimated(100, pytest.approx(83.33, abs=0.01), pytest.approx(116.67, abs=0.01))  # type: ignore[arg-type]  # fmt: skip
    assert "10 steps a second" in told.assumed[0]


def test_no_more_cores_than_recordings_work() -> None:
    told = needs(replace(WORK, recordings=4), Cluster(cpus=64))

    assert told.wall_hours == Estimated(100, 92.5, 107.5)
    assert told.bound_by == "the number of recordings"


def test_gpus_take_the_tokenizer_from_the_cores() -> None:
    told = needs(WORK, Cluster(cpus=100, gpus=2, steps_per_second_per_gpu=100))

    assert told.cpu_hours == READ
    assert told.gpu_hours is not None
    assert told.gpu_hours.estimate == pytest.approx(10)
    assert told.wall_hours is not None
    assert told.wall_hours.estimate == pytest.approx(5)  # 1 hour of the cores
    assert told.bound_by == "the GPUs"


def test_a_gpu_that_nobody_measured_is_not_guessed() -> None:
    told = needs(WORK, Cluster(cpus=100, gpus=2, price_per_cpu_hour=1, price_per_gpu_hour=1))

    assert (told.gpu_hours, told.wall_hours, told.cost) == (None, None, None)
    assert "GPU-hours are not known" in told.assumed[0]
    assert "cost is not known" in told.assumed[1]


def test_a_tokenizer_measured_on_a_gpu_says_nothing_about_cores() -> None:
    told = needs(
        replace(WORK, tokens_cpu_hours=None, tokens_gpu_hours=Estimated(6, 5, 7)), Cluster(cpus=4)
    )

    assert told.cpu_hours is None
    assert "measured on a GPU" in told.assumed[0]


def test_money_is_hours_times_prices() -> None:
    cluster = Cluster(cpus=8, gpus=1, steps_per_second_per_gpu=1000)
    told = needs(WORK, cluster.priced(0.05, 3.0))

    assert told.cost is not None
    assert told.cost.estimate == pytest.approx(100 * 0.05 + 1 * 3.0)
    assert needs(BARE, Cluster(cpus=8).priced(0.05, None)).cost == Estimated(5, 4, 6)


def test_nothing_measured_gives_nothing() -> None:
    told = needs(replace(BARE, read_cpu_hours=None), Cluster(cpus=8).priced(1, None))

    assert (told.cpu_hours, told.wall_hours, told.cost) == (None, None, None)


def test_a_file_describes_a_cluster(tmp_path: Path) -> None:
    spec = tmp_path / "cluster.toml"
    spec.write_text("cpus = 64\ncpu_speed = 1.5\ngpus = 2\nprice_per_cpu_hour = 0.04\n")

    assert read_cluster(spec) == Cluster(
        64, 2, cpu_speed=1.5, price_per_cpu_hour=0.04, name="cluster.toml"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gpus = 1", "cpus is missing"),
        ("cpus = 0", "cpus is 0: expected more than 0"),
        ("cpus = 1.5", "cpus is 1.5: expected a whole number"),
        ("cpus = true", "cpus is True: expected a number"),
        ("cpus = 4\ncpu_speed = inf", "cpu_speed is inf: expected more than 0"),
        ("cpus = 4\nprice_per_cpu_hour = -1", "price_per_cpu_hour is -1: expected more than 0"),
        ("cpus = 4\ncpu_sped = 2", "no field 'cpu_sped'; did you mean cpu_speed"),
        ("cpus = 4\ncpu_speed = 2\nsteps_per_second_per_cpu = 9", "say the same thing; give one"),
        ("cpus =", "not TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    spec = tmp_path / "cluster.toml"
    spec.write_text(text)

    with pytest.raises(UsageError, match=complaint):
        read_cluster(spec)
