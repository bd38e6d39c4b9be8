"""Programs that watch a run: the log as JSON, and numbers for Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from makers.commands import Run, command
from makers.dreams import GREEDY, small_checkpoint, wham_episode, write_npz
from makers.exports import picture_corpus
from makers.exposition import Family, parsed
from makers.recordings import PLAIN, Cut, cut
from makers.square_engine import SQUARE

from wham_data import __version__
from wham_data.cli import progress
from wham_data.cli.console import log_ended, resumable, write_log_as
from wham_data.cli.progress.metrics import PATIENCE_SECONDS, Metrics, family, served
from wham_data.corpus import Corpus
from wham_data.inference.device import gpu_busy
from wham_data.pipelines.collect.run import CollectSettings, run_collect
from wham_data.pipelines.dream.report import DreamProgress
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.report import IngestProgress
from wham_data.pipelines.run.runner import Advance, In, LocalRunner, Out, Outcome, Stage
from wham_data.schemas.errors import NoInputsError

PAGE = Path(__file__).parents[2] / "docs/watching-a-run.md"
QUICK = ("--tokenizer", "none", "--workers", "0")
JSON = ("--log-format", "json")

Events = list[dict[str, Any]]


def events_in(stderr: str) -> Events:
    """What was logged. Every line is one JSON object, which says when it was and what it is."""
    events = [json.loads(line) for line in stderr.splitlines()]
    for each in events:
        assert [*each][:4] == ["time", "event", "level", "message"]
        assert each["time"].endswith("Z")
        assert abs(datetime.now(UTC) - datetime.fromisoformat(each["time"])).total_seconds() < 300
        assert each["level"] in ("info", "warning", "error")
    assert "\x1b" not in stderr
    return events


def named(events: Events, *names: str) -> Events:
    return [each for each in events if each["event"] in names]


def only(events: Events, name: str) -> dict[str, Any]:
    (found,) = named(events, name)
    return found


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two that are good, of which one has a copy, and two that are refused. Only to be read."""
    folder = tmp_path_factory.mktemp("watched") / "in"
    good = cut(folder, "good", Cut("coinrun", 0, 2))
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(good.with_suffix(ending), folder / f"same{ending}")
    cut(folder, "other", Cut("coinrun", 3, 2))
    half = cut(folder, "half", Cut("doom", 0, 2))
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    (folder / "page\x1b[2J.mp4").write_text("<!doctype html>")
    (folder / "page\x1b[2J.csv").write_text("time_s,a\n0,0\n")
    return folder


def test_the_log_of_an_ingest_agrees_with_its_report_and_the_quarantine(
    cli: Run, recordings: Path, tmp_path: Path
) -> None:
    run = cli(
        *("ingest", recordings, "--out", tmp_path / "c", *QUICK, *JSON, "--json"),
        *("--report-every", "0"),
    )
    events, report = events_in(run.stderr), json.loads(run.stdout)
    start, last, end = events[0], named(events, "progress")[-1], events[-1]
    quarantine = Corpus.open(tmp_path / "c").quarantine

    assert (start["event"], start["command"], start["version"]) == ("start", "ingest", __version__)
    assert (end["event"], end["exit_code"], end["level"]) == ("end", 3, "warning")
    assert end["report"] == report
    assert len(named(events, "done")) == report["ingested"] == 2
    assert sum(each["steps"] for each in named(events, "done")) == report["steps"] == last["frames"]
    refused = {(each["item"], each["reason"]) for each in named(events, "refused")}
    assert refused == {*zip(_names(refused, quarantine["path"]), quarantine["reason"], strict=True)}
    assert Counter(reason for _, reason in refused) == report["reasons"] == last["reasons"]
    assert sum(each["recordings"] for each in named(events, "commit")) == report["ingested"]
    assert named(events, "commit")[-1]["version"] == report["version"]
    assert (last["done"], last["planned"], last["share"]) == (4, 4, 1.0)
    assert last["quarantined"] == report["quarantined"] == 2
    shards = (tmp_path / "c/shards").glob("*.parquet")
    assert last["written_bytes"] == sum(shard.stat().st_size for shard in shards)
    assert "duplicate of" in named(events, "warning")[0]["message"]


def _names(refused: set[tuple[str, str]], paths: Sequence[str]) -> Iterator[str]:
    """The paths of the quarantine as the log has them, that is as they are on the disk."""
    on_disk = {Path(item).name: item for item, _ in refused}
    for path in paths:
        yield on_disk[Path(path).name]


class Overtaken(LocalRunner):
    """A runner during which another run commits two of the recordings, each in a split of its own."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus

    def run(self, stage: Any, items: Any, advance: Advance) -> Iterator[Any]:
        outcomes = list(super().run(stage, items, advance))
        other = Corpus.open(self.corpus)
        for each in outcomes:
            name = Path(each.item.recording.source).stem
            if name in ("train", "val"):
                other.commit([replace(row, split=name) for row in each.result.episodes])
        yield from outcomes


def test_what_only_the_commit_refuses_is_in_the_log_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(tmp_path / "in", "train", Cut("coinrun", 0, 1), player="ann", match="m1")
    cut(tmp_path / "in", "val", Cut("coinrun", 2, 1), player="bob", match="m2")
    tie = cut(tmp_path / "in", "tie", Cut("coinrun", 4, 1), player="ann", match="m2")
    with progress.shown("ingest", quiet=False, verbose=False, log_format="json") as watch:
        runner = Overtaken(tmp_path / "c")
        report = run_ingest([tmp_path / "in"], tmp_path / "c", PLAIN, runner, watch=watch)
    events = events_in(capsys.readouterr().err)

    refused = only(events, "refused")
    assert (refused["item"], refused["reason"]) == (str(tie), "split_conflict")
    assert named(events, "progress")[-1]["reasons"] == report.reasons == {"split_conflict": 1}
    assert (report.quarantined, report.already_there, report.ingested) == (1, 2, 0)


def test_json_says_all_that_text_says(cli: Run, recordings: Path, tmp_path: Path) -> None:
    text = cli("ingest", recordings, "--out", tmp_path / "a", *QUICK, "--verbose")
    log = cli("ingest", recordings, "--out", tmp_path / "b", *QUICK, *JSON)

    messages = [each["message"] for each in events_in(log.stderr)]
    assert len(text.stderr.splitlines()) == 6
    assert [line for line in text.stderr.splitlines() if line not in messages] == []


def test_the_log_of_an_export_agrees_with_its_report(cli: Run, tmp_path: Path) -> None:
    picture_corpus(tmp_path / "c", episodes=3, size=(300, 180))
    asked = ("export", tmp_path / "c", "--to", "wham-npz", "--out", tmp_path / "e")
    run = cli(*asked, *JSON, "--json", "--report-every", "0")
    events, report = events_in(run.stderr), json.loads(run.stdout)
    first, last = named(events, "progress")[0], named(events, "progress")[-1]

    assert sum(each["episodes"] for each in named(events, "done")) == report["written"] == 3
    assert sum(each["steps"] for each in named(events, "done")) == report["steps"] == last["steps"]
    assert (first["done"], first["planned"], last["done"]) == (0, 3, 3)
    assert last["written_bytes"] == report["bytes"] > 0
    assert events[-1]["report"] == report


def test_the_log_of_dreams_agrees_with_its_report(cli: Run, tmp_path: Path) -> None:
    model = small_checkpoint(tmp_path)
    for name, steps in (("a", 8), ("short", 2)):
        write_npz(tmp_path / "data" / f"{name}.npz", wham_episode(steps))
    asked = ("dream", tmp_path / "data", "--model", model, "--out", tmp_path / "d", "--save", "csv")
    run = cli(*asked, *map(str, GREEDY), *JSON, "--json", "--device", "cpu")
    events, report = events_in(run.stderr), json.loads(run.stdout)
    last = named(events, "progress")[-1]

    assert [each["item"] for each in named(events, "done")] == report["dreams"] == ["a"]
    (failed,) = report["failed"]
    told = only(events, "failed")
    assert (told["item"], told["reason"]) == (failed["episode"], failed["reason"])
    assert last["reasons"] == {failed["reason"]: 1}
    assert (last["done"], last["planned"], last["failed"], last["frames"]) == (1, 1, 1, 2)
    assert events[-1]["report"] == report


def test_the_log_of_a_collection_tells_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = CollectSettings("raises", seconds=Fraction(3), episode_s=Fraction(2))
    with progress.shown("collect", quiet=False, verbose=False, log_format="json") as watch:
        report = run_collect(SQUARE, settings, tmp_path, parallel=2, watch=watch)
    events = events_in(capsys.readouterr().err)
    last = named(events, "progress")[-1]

    assert only(events, "done")["frames"] == report.frames
    assert only(events, "failed")["item"] == report.failed[0].recording
    assert (last["done"], last["planned"], last["failed"]) == (1, 2, 1)
    assert last["reasons"] == {"engine_failed": 1}
    assert last["play_seconds"] == pytest.approx(report.minutes * 60)


def test_a_quiet_log_has_a_start_and_an_end(cli: Run, recordings: Path, tmp_path: Path) -> None:
    run = cli("ingest", recordings, "--out", tmp_path / "c", *QUICK, *JSON, "--quiet")

    assert [each["event"] for each in events_in(run.stderr)] == ["start", "end"]


def test_an_error_is_an_event_too(cli: Run, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = cli("ingest", tmp_path / "empty", "--out", tmp_path / "c", *QUICK, *JSON)
    wrong = cli("ingest", recordings, "--out", tmp_path / "c", *JSON, "--limit", "many")
    choice = cli("ingest", recordings, "--out", tmp_path / "c", "--frames", "gif", *JSON)

    assert "no recording found" in only(events_in(nothing.stderr), "error")["message"]
    assert "'--limit'" in only(events_in(wrong.stderr), "error")["message"]
    assert "expected none, jpeg or png" in only(events_in(choice.stderr), "error")["message"]
    ends = [only(events_in(run.stderr), "end") for run in (nothing, wrong, choice)]
    assert [end["exit_code"] for end in ends] == [NoInputsError.exit_code, 2, 2]
    assert {(end["level"], end["report"]) for end in ends} == {("error", None)}


def test_an_interruption_and_a_bug_end_the_log_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with log_ended(), resumable("all is kept"):
            write_log_as("json")
            sys.exit(130)

    def wrong() -> None:
        with log_ended():
            write_log_as("json")
            raise ValueError("a bug")

    with pytest.raises(SystemExit):
        interrupted()
    stopped = events_in(capsys.readouterr().err)
    with pytest.raises(SystemExit) as end:
        wrong()
    bug = events_in(capsys.readouterr().err)

    assert "interrupted; all is kept" in stopped[0]["message"]
    assert [stopped[-1]["exit_code"], bug[-1]["exit_code"], end.value.code] == [130, 1, 1]
    assert only(bug, "error")["message"] == "ValueError: a bug"
    assert "Traceback" in only(bug, "error")["traceback"]


def test_lines_of_progress_come_as_often_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    job = DreamProgress(4, 10, done=1, frames=20)
    for every, count in ((0.0, 3), (3600.0, 0)):
        with progress.shown(quiet=False, verbose=False, report_every=every) as watch:
            for _ in range(3):
                watch.progressed(job)

        assert len(capsys.readouterr().err.splitlines()) == count


def test_the_page_describes_every_field_and_every_metric(
    cli: Run, recordings: Path, tmp_path: Path
) -> None:
    run = cli("ingest", recordings, "--out", tmp_path / "c", *QUICK, *JSON)
    page = PAGE.read_text()
    described = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    metrics = Metrics("ingest")
    metrics.progressed(
        IngestProgress(Counts(to_do=2, bytes_to_do=2), rate=10.0, tokens_per_frame=4, bytes_done=1)
    )

    events = events_in(run.stderr)
    assert {each["event"] for each in events} <= described
    assert {key for each in events for key in each} <= described
    assert set(parsed(metrics.page())) <= described


class Scraping(LocalRunner):
    """A runner that reads the page of metrics after every item."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: list[dict[str, Family]] = []

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        for outcome in super().run(stage, items, advance):
            yield outcome
            with urlopen(self.url) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                self.pages.append(parsed(answer.read().decode()))


def test_a_run_is_scraped_while_it_lasts(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.shown("ingest", quiet=False, verbose=False, metrics_port=0) as watch:
        url = capsys.readouterr().err.removeprefix("metrics: ").strip()
        runner = Scraping(url)
        report = run_ingest([recordings], tmp_path / "c", PLAIN, runner, watch=watch)
    first, last = runner.pages[0], runner.pages[-1]

    def value(page: dict[str, Family], name: str) -> float:
        (found,) = page[f"wham_data_{name}"].samples.values()
        return found

    assert urlsplit(url).hostname == "127.0.0.1"
    assert len(runner.pages) == 4
    assert value(first, "recordings_done_total") == 1
    assert value(last, "recordings_done_total") == value(last, "recordings_planned") == 4
    assert value(last, "frames_total") == report.steps
    assert value(last, "play_seconds_total") == pytest.approx(report.hours * 3600)
    refused = last["wham_data_quarantined_total"].samples
    assert {dict(labels)["reason"]: n for labels, n in refused.items()} == report.reasons
    assert value(last, "written_bytes_total") > value(first, "written_bytes_total") >= 0
    assert value(last, "frames_per_second") > 0
    assert 0 <= value(last, "since_progress_seconds") < value(last, "run_seconds")
    assert {"command": "ingest", "version": __version__} in [
        dict(labels) for labels in last["wham_data_run_info"].samples
    ]
    with pytest.raises(OSError, match="refused"):
        urlopen(url)


def test_the_command_itself_is_scraped(
    command_environment: dict[str, str], recordings: Path, tmp_path: Path
) -> None:
    asked = ("ingest", recordings, "--out", tmp_path / "c", *QUICK, *JSON, "--metrics-port", "0")
    with subprocess.Popen(
        command(asked), env=command_environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        assert run.stderr is not None
        start = run.stderr.readline().decode()
        pages = 0
        while run.poll() is None:
            try:
                with urlopen(json.loads(start)["metrics"], timeout=5) as answer:
                    assert "wham_data_run_info" in parsed(answer.read().decode())
                    pages += 1
            except OSError:  # it has just ended
                pass
            time.sleep(0.02)
        rest = run.stderr.read().decode()

    assert pages > 0
    assert only(events_in(start + rest), "end")["exit_code"] == run.returncode == 3


def test_a_port_that_is_taken_is_an_error_before_anything_is_done(
    cli: Run, recordings: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        out = tmp_path / "c"
        run = cli("ingest", recordings, "--out", out, *QUICK, "--metrics-port", str(port))

    assert run.returncode == 2
    assert run.stderr.startswith(f"wham-data: --metrics-port {port}: cannot listen on 127.0.0.1:")
    assert run.stderr.count("\n") == 1
    assert not out.exists()


def test_only_the_page_of_metrics_is_served() -> None:
    asked = [("GET", "/metrics"), ("GET", "/"), ("GET", "/metrics/../etc"), ("POST", "/metrics")]
    statuses = []
    with served(0, "dream") as (_, url):
        for method, path in asked:
            connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
            connection.request(method, path)
            statuses.append(connection.getresponse().status)
            connection.close()

    assert statuses == [200, 404, 404, 501]


def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    with served(0, "dream") as (_, url):
        silent = socket.create_connection(("127.0.0.1", urlsplit(url).port or 0))
        began = time.monotonic()
        with urlopen(url) as answer:
            parsed(answer.read().decode())
    ended = time.monotonic()
    silent.close()

    assert ended - began < PATIENCE_SECONDS


def test_a_counter_does_not_go_down_when_frames_are_made_again() -> None:
    metrics, job = Metrics("dream"), DreamProgress(4, 10, frames=20)
    pages = []
    for frames in (20, 5, 25):
        job.frames = frames
        metrics.progressed(job)
        pages.append(parsed(metrics.page())["wham_data_frames_total"].samples[()])
    metrics.progressed(DreamProgress(4, 10, frames=1))  # the next job of the same run

    assert pages == [20, 20, 25]
    assert parsed(metrics.page())["wham_data_frames_total"].samples[()] == 1


def test_a_run_that_stands_still_can_be_seen() -> None:
    metrics, job = Metrics("dream"), DreamProgress(4, 10, frames=20)
    metrics.progressed(job)
    time.sleep(0.2)
    metrics.progressed(job)
    still = parsed(metrics.page())["wham_data_since_progress_seconds"].samples[()]
    job.frames += 1
    metrics.progressed(job)

    assert still >= 0.2
    assert parsed(metrics.page())["wham_data_since_progress_seconds"].samples[()] < still


def test_help_and_labels_are_escaped() -> None:
    text = family("odd", "two\nlines \\", "gauge", ({"reason": 'a "b"\n\\c'}, 1.5))

    assert parsed(text)["wham_data_odd"].samples == {(("reason", 'a "b"\n\\c'),): 1.5}
    assert text.count("\n") == 3


def test_without_a_driver_no_gpu_is_reported() -> None:
    if gpu_busy():
        pytest.skip("there is a GPU")

    assert "wham_data_gpu_busy_ratio" not in parsed(Metrics("dream").page())
