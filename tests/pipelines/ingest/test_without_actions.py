"""A video without a log is taken where somebody asks for it, and then no action of it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import PLAIN, Cut, cut

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.settings import IngestChoices
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.schemas.errors import NoInputsError

WHAM16 = replace(PLAIN, actions="wham16")
ASKED = IngestChoices(without_actions=True)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A video of two seconds and nothing else."""
    made = cut(tmp_path / "in", "play", Cut("coinrun", 0, 2))
    for ending in (".csv", ".toml"):
        made.with_suffix(ending).unlink()
    return made


def taken(video: Path, choices: IngestChoices = ASKED) -> IngestReport:
    corpus = video.parent.parent / "corpus"
    return run_ingest([video.parent], corpus, WHAM16, LocalRunner(), choices)


def test_it_is_refused_with_the_way_to_take_it(cli: Run, video: Path, tmp_path: Path) -> None:
    run = cli("ingest", video, "--out", tmp_path / "c", "--tokenizer", "none", "--workers", "0")

    assert run.returncode == 6
    assert "[log_missing]" in run.stderr
    assert "--without-actions takes it, with no action known" in run.stderr


def test_it_is_taken_where_that_is_asked_for_and_no_action_is_known(
    cli: Run, video: Path, tmp_path: Path
) -> None:
    options = ("--tokenizer", "none", "--workers", "0", "--actions", "wham16", "--without-actions")
    run = cli("ingest", video, "--out", tmp_path / "c", *options)

    assert run.returncode == 0, run.stderr
    assert "no log beside it: none of its actions is known" in run.stderr
    corpus = Corpus.open(tmp_path / "c")
    (row,) = corpus.episodes.rows(named=True)
    assert row["missing_actions"] == row["n_steps"] == 20
    assert row["notes"] == ["no log beside it: none of its actions is known"]
    assert corpus.scan().collect()["actions"].null_count() == 20
    assert corpus.verify().ok


def test_the_action_space_has_to_be_named_where_no_recording_has_one(video: Path) -> None:
    with pytest.raises(NoInputsError, match=r"1 recordings were opened.*Say which with --actions"):
        run_ingest([video.parent], video.parent.parent / "c", PLAIN, LocalRunner(), ASKED)


def test_what_an_earlier_run_refused_for_want_of_a_log_is_taken_then(video: Path) -> None:
    page = video.with_name("page.mp4")
    page.write_text("<!doctype html>")

    refused, allowed, again = taken(video, IngestChoices()), taken(video), taken(video)

    assert (refused.quarantined, refused.reasons) == (2, {"log_missing": 1, "not_a_video": 1})
    assert (allowed.ingested, allowed.quarantined) == (1, 1)
    assert (again.ingested, again.already_there) == (0, 1)


def test_one_of_several_files_of_a_session_with_one_log_stays_refused(video: Path) -> None:
    for number in (1, 2):
        video.with_name(f"session_{number}.mp4").write_bytes(video.read_bytes() + bytes([number]))
    video.with_name("session.csv").write_text("time_s,a\n0,0\n")

    report = taken(video)

    assert (report.ingested, report.reasons) == (1, {"log_missing": 2})


def test_it_can_be_explained(cli: Run, video: Path) -> None:
    run = cli("ingest", "--explain", video, "--without-actions")

    assert run.returncode == 0
    assert "no actions are known" in run.stdout
    assert "20 steps in 1 episodes at 10 Hz" in run.stdout
