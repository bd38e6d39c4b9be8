"""What was refused is tried again when the cause is gone, and then leaves the quarantine."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import PLAIN, digest, ingest_here

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.dry_run import dry_run
from wham_data.pipelines.ingest.retry import retry, settings_of
from wham_data.pipelines.ingest.settings import IngestChoices
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.errors import NoInputsError, Reason
from wham_data.schemas.mask import parse_masks

ODD = replace(
    PLAIN,
    rate=Fraction(15, 2),
    size=(64, 48),
    fit="crop",
    axis_rule="last",
    split=(80, 10, 10),
    masks=parse_masks(["0.0,0.5,0.25,0.25", "0.5,0.0,0.1,0.1"]),
    limits=VideoLimits(max_pixels=1000, min_decoded=0.9),
)


@pytest.fixture
def recordings(six_recordings: Path, tmp_path: Path) -> Path:
    """Three recordings in a folder of a folder, for this test to spoil."""
    folder = tmp_path / "recordings" / "of today"
    folder.mkdir(parents=True)
    for number in range(3):
        for path in six_recordings.glob(f"play{number}.*"):
            shutil.copy(path, folder)
    return folder


def refused(corpus: Path) -> dict[str, str]:
    """Name of each refused input, and the reason."""
    rows = Corpus.open(corpus).quarantine.rows(named=True)
    return {Path(row["path"]).name: row["reason"] for row in rows}


def test_a_limit_raised_lets_in_what_it_kept_out(recordings: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    ingest_here(recordings.parent, corpus, replace(ODD, actions="xinput"))
    assert set(refused(corpus).values()) == {Reason.TOO_MANY_PIXELS}

    report = retry(corpus, LocalRunner(), reason="too_many_pixels", limits=VideoLimits())

    assert (report.found, report.ingested, refused(corpus)) == (3, 3, {})
    ingest_here(recordings, tmp_path / "at once", replace(ODD, limits=VideoLimits(min_decoded=0.9)))
    assert digest(corpus) == digest(tmp_path / "at once")


def test_a_dry_run_says_whether_it_would_try_again(recordings: Path, tmp_path: Path) -> None:
    small = replace(PLAIN, actions="xinput", limits=VideoLimits(max_pixels=1000))
    ingest_here(recordings, tmp_path / "corpus", small)
    wide = replace(small, limits=VideoLimits())

    left = dry_run([recordings], tmp_path / "corpus", wide)
    tried = dry_run([recordings], tmp_path / "corpus", wide, IngestChoices(retry_quarantined=True))

    assert (left.recordings, left.in_quarantine) == (0, 3)
    assert (tried.recordings, tried.in_quarantine) == (3, 0)


def test_settings_are_read_back_from_the_corpus(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus", replace(ODD, actions="xinput"))

    settings = settings_of(Corpus.open(tmp_path / "corpus").info)

    assert settings == replace(ODD, limits=VideoLimits(min_decoded=0.9))


def test_a_mended_file_goes_in_and_the_row_of_its_old_bytes_goes(
    cli: Run, recordings: Path, tmp_path: Path
) -> None:
    whole = (recordings / "play1.mp4").read_bytes()
    (recordings / "play1.mp4").write_bytes(whole[:1000])
    (recordings / "play2.csv").write_text("")
    flags = ("--tokenizer", "none", "--workers", "0")
    first = cli("ingest", recordings.parent, "--out", tmp_path / "corpus", *flags)
    assert first.returncode == 3, first.stderr
    assert refused(tmp_path / "corpus") == {"play1.mp4": "truncated", "play2.mp4": "log_empty"}

    (recordings / "play1.mp4").write_bytes(whole)
    again = cli(
        *("quarantine", "retry", tmp_path / "corpus", "--reason", "truncated"),
        *("--workers", "0", "--json"),
    )

    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["found"], report["ingested"]) == (1, 1)
    assert refused(tmp_path / "corpus") == {"play2.mp4": "log_empty"}
    assert Corpus.open(tmp_path / "corpus").verify().ok


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_be_read_now_goes_in(recordings: Path, tmp_path: Path) -> None:
    (recordings / "play1.mp4").chmod(0)
    ingest_here(recordings, tmp_path / "corpus")
    assert refused(tmp_path / "corpus") == {"play1.mp4": "unreadable"}
    (recordings / "play1.mp4").chmod(0o644)

    retry(tmp_path / "corpus", LocalRunner(), reason="unreadable")

    assert refused(tmp_path / "corpus") == {}


def test_what_is_gone_or_was_never_refused_is_said(recordings: Path, tmp_path: Path) -> None:
    (recordings / "play1.mp4").write_bytes(b"")
    ingest_here(recordings, tmp_path / "corpus")
    shutil.rmtree(recordings)

    with pytest.raises(NoInputsError, match="1 inputs are no longer there"):
        retry(tmp_path / "corpus", LocalRunner())
    with pytest.raises(NoInputsError, match="nothing refused for log_range"):
        retry(tmp_path / "corpus", LocalRunner(), reason="log_range")


def test_an_unknown_reason_is_a_usage_error(cli: Run, tmp_path: Path) -> None:
    run = cli("quarantine", "retry", tmp_path, "--reason", "bad luck")

    assert run.returncode == 2
    assert "--reason 'bad luck': expected empty_file" in run.stderr
