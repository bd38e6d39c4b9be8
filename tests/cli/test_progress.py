"""One renderer draws every job: its count, its figures, and the time left."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from wham_data.cli import progress
from wham_data.cli.progress import drawn
from wham_data.pipelines.collect.report import CollectProgress
from wham_data.pipelines.dream.report import DreamProgress
from wham_data.pipelines.export.report import ExportProgress
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.report import IngestProgress
from wham_data.pipelines.run.progress import Progress


def a_minute_ago() -> float:
    return time.monotonic() - 60


JOBS: list[tuple[Progress, str]] = [
    (
        IngestProgress(
            Counts(to_do=8, bytes_to_do=100), rate=10.0, tokens_per_frame=540, done=2, bytes_done=25,
            reasons=Counter(corrupt=1), frames=6000,
        ),
        " 25%  recordings 2/8  quarantined 1  0.17 h of play  100 frames/s  5",
    ),
    (
        IngestProgress(
            Counts(to_do=800, bytes_to_do=100, already=434), rate=10.0, tokens_per_frame=540, done=2,
            bytes_done=25, total_known=False,
        ),
        " 25%  recordings 2/800  1,234 inputs found so far  quarantined 0",
    ),
    (
        DreamProgress(4, 10, done=1, frames=20, reasons=Counter(truncated=2)),
        " 50%  dreams 1/4  failed 2  0.33 frames/s  ETA 1:0",
    ),
    (
        ExportProgress(5, 600, done=3, steps_done=300),
        " 50%  episodes 3/5  failed 0  5 steps/s  ETA 1:0",
    ),
    (
        CollectProgress(2, 240.0, done=0, seconds_done=120.0),
        " 50%  recordings 0/2  failed 0  2.0 minutes of play  2.0 times real time  ETA 1:0",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "line"), JOBS, ids=["ingest", "searching", "dream", "export", "collect"]
)
def test_a_job_is_shown_in_one_line(job: Progress, line: str) -> None:
    job.started = a_minute_ago()

    assert drawn.one_line(job).startswith(line)


def test_before_anything_is_done_no_time_is_guessed() -> None:
    assert drawn.one_line(DreamProgress(4, 10)).endswith("starting")


def test_a_long_job_is_told_in_hours() -> None:
    job = DreamProgress(1, 1000, frames=1, started=time.monotonic() - 10)

    assert drawn.eta(job).startswith("ETA 2:46:")


def test_messages_go_to_stderr_and_only_warnings_unless_verbose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verbose in (False, True):
        with progress.shown(quiet=False, verbose=verbose) as watch:
            watch.message("a.mp4: a note", warning=False)
            watch.message("b.mp4: a warning", warning=True)
    with progress.shown(quiet=True, verbose=True) as watch:
        watch.message("nothing of this", warning=True)

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["b.mp4: a warning", "a.mp4: a note", "b.mp4: a warning"]


def test_on_a_terminal_a_bar_and_the_figures_are_drawn() -> None:
    job = ExportProgress(5, 600, done=3, steps_done=300, started=a_minute_ago())
    bars = drawn._bars()
    live = drawn._Live(bars, verbose=True)
    with bars.console.capture() as screen:
        live.progressed(job)
        bars.console.print(bars.get_renderable())

    assert "50% ETA 1:0" in screen.get()
    assert "episodes 3/5   failed 0   5 steps/s" in screen.get()
