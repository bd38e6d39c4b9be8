"""After a run, what a dry run had estimated is compared with what it was, and kept in `runs/`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import Cut, cut

from wham_data.corpus import Corpus
from wham_data.corpus.runs import runs
from wham_data.pipelines.ingest.estimate.afterwards import (
    Compared,
    PastEstimate,
    compared,
    read_estimate,
)
from wham_data.pipelines.ingest.estimate.sampling import Estimated
from wham_data.pipelines.run.choose import choose_runner, works_elsewhere
from wham_data.pipelines.run.cpu_time import CpuTime
from wham_data.schemas.errors import UsageError

HERE = ("--tokenizer", "none", "--workers", "0")


@pytest.fixture(scope="module")
def estimate(cli: Run, six_recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a dry run on the six recordings prints."""
    path = tmp_path_factory.mktemp("estimate") / "estimate.json"
    run = cli("ingest", six_recordings, "--out", path.parent / "out", *HERE, "--dry-run", "--json")
    assert run.returncode == 0, run.stderr
    path.write_text(run.stdout)
    return path


def test_a_run_keeps_the_comparison(
    cli: Run, six_recordings: Path, estimate: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    run = cli("ingest", six_recordings, "--out", out, *HERE, "--estimate", estimate)
    (_, record), *_ = runs(Corpus.open(out).storage)
    kept = record["report"]["against_estimate"]

    assert run.returncode == 0, run.stderr
    assert kept["steps"]["took"] == kept["steps"]["estimate"] == record["report"]["steps"]
    assert kept["steps"]["ratio"] == 1
    assert kept["hours"]["within"]
    assert kept["bytes"]["within"]
    shards = sum(path.stat().st_size for path in (out / "shards").iterdir())
    assert kept["bytes"]["took"] == shards == record["report"]["bytes"]
    assert kept["cpu_hours"]["took"] == record["report"]["cpu_hours"] > 0
    assert kept["cpu_hours"]["ratio"] > 0
    assert kept["wall_hours"]["took"] == pytest.approx(record["report"]["seconds"] / 3600)
    assert "compared with the estimate:" in run.stdout
    assert "1.00 times the estimate, in the range" in run.stdout


def test_an_estimate_for_other_settings_is_refused_before_anything_is_done(
    cli: Run, six_recordings: Path, estimate: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    run = cli("ingest", six_recordings, "--out", out, *HERE, "--rate", "5", "--estimate", estimate)

    assert run.returncode == 2
    assert "made for other settings" in run.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no estimate: corrupt or truncated JSON"),
        ("[]", "expected what `wham-data ingest --dry-run --json` prints"),
        ('{"steps": 3}', "expected what `wham-data ingest --dry-run --json` prints"),
        (
            '{"settings_hash": "a", "forecast": {"steps": {"estimate": "many"}}}',
            "forecast.steps: expected numbers",
        ),
        ('{"settings_hash": "a", "forecast": {"steps": 3}}', "forecast.steps: expected numbers"),
    ],
)
def test_another_file_is_no_estimate(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "estimate.json"
    path.write_text(text)

    with pytest.raises(UsageError, match=complaint):
        read_estimate(path)


def test_what_is_not_known_is_not_judged() -> None:
    figures = {"steps": Estimated(10, 8, 12), "bytes": None, "cpu_hours": Estimated(2, None, None)}
    past = PastEstimate(Path("e.json"), "", figures)

    assert compared(past, {"steps": 13, "bytes": 5, "cpu_hours": None}) == {
        "steps": Compared(10, 8, 12, 13, 1.3, False),
        "bytes": Compared(None, None, None, 5, None, None),
        "cpu_hours": Compared(2, None, None, None, None, None),
    }


def test_cpu_time_counts_what_the_process_works_and_not_what_it_sleeps() -> None:
    cpu, begun = CpuTime(), time.process_time()
    time.sleep(0.2)
    while time.process_time() - begun < 0.3:
        pass

    assert 0.25 <= cpu.hours() * 3600 <= 2.0


def test_on_a_cluster_that_others_started_cpu_time_is_not_known() -> None:
    runners = choose_runner(0, None), choose_runner(2, None), choose_runner(2, "auto")

    assert [works_elsewhere(runner) for runner in runners] == [False, False, True]


def test_the_command_tells_the_hours_of_other_machines(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "big.toml"
    spec.write_text("cpus = 4\nsteps_per_second_per_cpu = 10\nprice_per_cpu_hour = 3600\n")
    start = ("ingest", six_recordings, "--out", tmp_path / "out", *HERE, "--dry-run")

    run = cli(*start, "--no-measure", "--cluster-spec", spec)

    assert run.returncode == 0, run.stderr
    assert "6 recordings to ingest (all were opened)" in run.stdout
    assert "CPU time:   12.0 seconds" in run.stdout  # 120 steps
    assert "wall time:  3.00 seconds on big.toml (4 CPUs, no GPU)" in run.stdout
    assert "cost:       12.0" in run.stdout


@pytest.mark.parametrize("sample", ["0", "9", "-5", "many", "1.5"])
def test_a_sample_is_a_number_or_all(
    cli: Run, six_recordings: Path, tmp_path: Path, sample: str
) -> None:
    run = cli("ingest", six_recordings, "--out", tmp_path, "--dry-run", "--sample", sample)

    assert run.returncode == 2
    assert "expected all, or a number of at least 10" in run.stderr


def test_options_of_an_estimate_say_what_they_go_with(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    spec = cut(tmp_path / "in", "a", Cut("doom", 0, 1)).with_suffix(".toml")
    start = ("ingest", six_recordings, "--out", tmp_path / "out", *HERE)

    run = cli(*start, "--cluster-spec", spec)
    both = cli(*start, "--dry-run", "--estimate", spec)

    assert [run.returncode, both.returncode] == [2, 2]
    assert "--cluster-spec goes with --dry-run" in run.stderr
    assert "--estimate is for the run" in both.stderr
