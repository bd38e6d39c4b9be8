"""Whatever happens to a run, the corpus stays whole, and running it again finishes the work."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from makers.commands import ROOT, Run, command
from makers.processes import below, kill_worker, title, wait_for_worker
from makers.recordings import (
    SIZE,
    Cut,
    cut,
    digest,
    ingest_here,
    strangers,
    without_splits,
)
from makers.video_clips import stamped, write_clip

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.schemas.errors import Reason

SLOW = ("--tokenizer", "none", "--frames", "png", "--size", "960x540", "--rate", "15")
"""Work that takes about a second for each recording."""
SEED = int(os.environ.get("WHAM_DATA_TEST_SEED", "20261121"))
KILLS = int(os.environ.get("WHAM_DATA_TEST_KILLS", "2"))
EVERY = "**/*"


def start(
    environment: dict[str, str], *arguments: str | Path, limit_bytes: int | None = None
) -> subprocess.Popen[str]:
    """Start the command and go on; `limit_bytes` is the largest file it can write."""

    def before() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        command(arguments),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        preexec_fn=before,
    )


def wait_for_files(corpus: Path, pattern: str, count: int, run: subprocess.Popen[str]) -> None:
    """Wait until so many whole files of the corpus are there, or the command has ended."""
    while run.poll() is None and whole_files(corpus, pattern) < count:
        time.sleep(0.002)


def whole_files(corpus: Path, pattern: str) -> int:
    return sum(1 for path in corpus.glob(pattern) if path.is_file() and path.name[0] != ".")


def test_killed_at_any_moment_and_run_again_it_makes_the_same_corpus(
    command_environment: dict[str, str], six_recordings: Path, tmp_path: Path
) -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    flags = ("--tokenizer", "none", "--frames", "png", "--workers", "0")
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    first = start(command_environment, "ingest", six_recordings, "--out", undisturbed, *flags)
    assert first.wait() == 0

    killed = []
    for moment in sorted(chance.choices(range(1, whole_files(undisturbed, EVERY)), k=KILLS)):
        run = start(command_environment, "ingest", six_recordings, "--out", disturbed, *flags)
        wait_for_files(disturbed, EVERY, moment, run)
        time.sleep(chance.uniform(0, 0.02))
        run.kill()
        killed.append(run.wait())
        if (disturbed / "corpus.json").exists():
            assert not Corpus.open(disturbed).verify().problems
    last = start(command_environment, "ingest", six_recordings, "--out", disturbed, *flags)

    assert last.wait() == 0
    assert -signal.SIGKILL in killed
    assert Corpus.open(disturbed).verify().ok
    assert digest(disturbed) == digest(undisturbed)
    assert strangers(disturbed) == []


def test_a_killed_worker_costs_nothing_and_json_stays_one_object(
    command_environment: dict[str, str], six_recordings: Path, tmp_path: Path
) -> None:
    run = start(
        command_environment,
        *("ingest", six_recordings, "--out", tmp_path / "corpus"),
        *("--tokenizer", "none", "--workers", "2", "--json"),
    )
    wait_for_worker(run)
    killed = kill_worker(run)
    said, told = run.communicate(timeout=100)

    assert killed
    assert run.returncode == 0, told
    assert said.count("\n") == 1
    assert json.loads(said)["ingested"] == 6
    assert "Traceback" not in told
    ingest_here(six_recordings, tmp_path / "here")
    assert digest(tmp_path / "corpus") == digest(tmp_path / "here")


@pytest.mark.parametrize(
    ("workers", "number", "code"),
    [("0", signal.SIGTERM, 143), ("2", signal.SIGTERM, 143), ("2", signal.SIGINT, 130)],
    ids=["SIGTERM here", "SIGTERM on Ray", "SIGINT on Ray"],
)
def test_interrupted_it_keeps_what_is_done_and_says_how_to_go_on(
    command_environment: dict[str, str],
    six_recordings: Path,
    tmp_path: Path,
    workers: str,
    number: signal.Signals,
    code: int,
) -> None:
    corpus = tmp_path / "corpus"
    run = start(
        command_environment, "ingest", six_recordings, "--out", corpus, *SLOW, "--workers", workers
    )
    wait_for_files(corpus, "shards/*", 3, run)
    family = below(run.pid)

    run.send_signal(number)
    _, told = run.communicate(timeout=60)

    assert run.returncode == code, told
    assert "To go on, run the same command again" in told
    assert f"wham-data ingest {six_recordings} --out {corpus}" in told
    assert "Traceback" not in told
    opened = Corpus.open(corpus)
    assert opened.verify().ok
    assert 1 <= opened.n_episodes < 6
    deadline = time.monotonic() + 30
    while (left := [pid for pid in family if title(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, [title(pid) for pid in left]


def test_two_ingests_at_once_share_one_corpus(
    command_environment: dict[str, str], six_recordings: Path, tmp_path: Path
) -> None:
    videos = sorted(six_recordings.glob("*.mp4"))
    corpus = tmp_path / "corpus"
    flags = ("--out", corpus, "--tokenizer", "none", "--workers", "0", "--json")

    runs = [
        start(command_environment, "ingest", *some, *flags) for some in (videos[:4], videos[2:])
    ]
    reports = [json.loads(run.communicate(timeout=60)[0]) for run in runs]

    assert [run.returncode for run in runs] == [0, 0]
    assert sum(report["ingested"] for report in reports) == 6
    for report in reports:
        assert report["found"] == report["ingested"] + report["already_there"] == 4
    opened = Corpus.open(corpus)
    assert opened.verify().ok
    assert sorted(opened.episodes["source"]) == sorted(map(str, videos))
    ingest_here(six_recordings, tmp_path / "alone")
    assert without_splits(digest(corpus)) == without_splits(digest(tmp_path / "alone"))


def test_a_full_disk_stops_the_run_in_one_line_and_a_rerun_completes(
    command_environment: dict[str, str], six_recordings: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    flags = ("--tokenizer", "none", "--frames", "png", "--workers", "0")
    run = start(
        command_environment,
        *("ingest", six_recordings, "--out", corpus, *flags),
        limit_bytes=100_000,
    )
    _, told = run.communicate(timeout=60)

    assert run.returncode == 1
    (line,) = told.splitlines()
    assert line.startswith(f"wham-data: {corpus}/shards/")
    assert "File too large" in line
    opened = Corpus.open(corpus)
    assert opened.verify().ok
    assert opened.n_episodes == 0
    assert list((corpus / "shards").iterdir()) == []

    again = start(command_environment, "ingest", six_recordings, "--out", corpus, *flags)
    assert again.wait() == 0
    ingest_here(
        six_recordings, tmp_path / "undisturbed", IngestSettings(tokenizer=None, frames="png")
    )
    assert digest(corpus) == digest(tmp_path / "undisturbed")


def test_a_corpus_where_none_can_be_written_is_told_in_one_line(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")

    run = cli(
        *("ingest", six_recordings, "--out", tmp_path / "file" / "corpus"),
        *("--tokenizer", "none", "--workers", "0"),
    )

    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert str(tmp_path / "file") in line


def truncated(video: Path) -> None:
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


def html(video: Path) -> None:
    video.write_text("<!doctype html><title>404 Not Found</title>" * 40)


def empty(video: Path) -> None:
    video.write_bytes(b"")


def rows(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """A change to the rows of the log, the header left out."""

    def apply(video: Path) -> None:
        log = video.with_suffix(".csv")
        header, *lines = log.read_text().splitlines()
        log.write_text("\n".join([header, *change(lines)]) + "\n")

    return apply


def untouched(_: Path) -> None:
    """A good recording; only its name is nasty."""


def variable_rate(video: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(8, 50, 100)).tolist()
    write_clip(video, times, size=SIZE, frames=(stamped(n, *SIZE) for n in range(100)))


NASTY: dict[str, tuple[Callable[[Path], None], Reason | None]] = {
    "truncated": (truncated, Reason.TRUNCATED),
    "page": (html, Reason.NOT_A_VIDEO),
    "nothing": (empty, Reason.EMPTY_FILE),
    "words": (rows(lambda lines: [*lines[:5], "and then", *lines[6:]]), Reason.LOG_SYNTAX),
    "text": (
        rows(lambda lines: [line.replace(",0", ",often", 1) for line in lines]),
        Reason.LOG_TYPE,
    ),
    "short": (rows(lambda lines: lines[: len(lines) // 3]), Reason.LOG_COVERAGE),
    "no rows": (rows(lambda lines: lines[:0]), Reason.LOG_EMPTY),
    "gap": (rows(lambda lines: lines[:20] + lines[80:]), None),
    "variable": (variable_rate, None),
    "new\nline": (untouched, None),
    "-rf": (untouched, None),
    "data:video": (untouched, None),
    "invalid\udcff\udcfe": (untouched, None),
    "gpj\u202e.4pm": (untouched, None),
    "$(touch WHAM)": (untouched, None),
}


@pytest.fixture(scope="module")
def nasty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good recordings among everything that a folder may hold."""
    folder = tmp_path_factory.mktemp("nasty")
    for number, (name, (spoil, _)) in enumerate(NASTY.items()):
        spoil(cut(folder, name, Cut("miniworld", number / 2, 2), player=f"player {number}"))
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(folder / f"-rf{ending}", folder / f"copy{ending}")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "into").symlink_to(folder, target_is_directory=True)
    shutil.copy(folder / "-rf.mp4", folder / "alone.mp4")
    return folder


def test_in_a_folder_of_nasty_things_the_good_goes_in_and_each_bad_one_is_named(
    nasty_folder: Path, tmp_path: Path
) -> None:
    report = ingest_here(nasty_folder, tmp_path / "corpus")

    corpus = Corpus.open(tmp_path / "corpus")
    refused = {Path(row["path"]).name: row for row in corpus.quarantine.rows(named=True)}
    reasons = {name: row["reason"] for name, row in refused.items()}
    expected = {f"{name}.mp4": why for name, (_, why) in NASTY.items() if why is not None}
    assert reasons == expected | {
        "pipe.mp4": Reason.UNSAFE_PATH,
        "loop.mp4": Reason.UNSAFE_PATH,
        "alone.mp4": Reason.LOG_MISSING,
    }
    assert all(row["message"] and "\n" not in row["message"] for row in refused.values())
    good = [name for name, (_, why) in NASTY.items() if why is None]
    assert (report.ingested, report.duplicates, report.exit_code) == (len(good), 1, 3)
    assert report.found == report.ingested + report.duplicates + report.quarantined
    assert corpus.verify().ok


def test_hostile_names_are_shown_escaped(cli: Run, nasty_folder: Path, tmp_path: Path) -> None:
    run = cli(
        *("ingest", nasty_folder, "--out", tmp_path / "corpus", "--verbose", "--actions", "xinput"),
        *("--tokenizer", "none", "--workers", "0"),
        cwd=tmp_path,
    )

    assert run.returncode == 3
    assert "new\\nline.mp4" in run.stderr
    assert "gpj\\u202e.4pm.mp4" in run.stderr
    assert "invalid\\udcff\\udcfe.mp4" in run.stderr
    assert "\u202e" not in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"], "nothing was executed"
    assert not (ROOT / "WHAM").exists()
