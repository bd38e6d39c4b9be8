"""A dry run on more recordings than it opens, against what the ingest then makes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.once import made_once
from makers.recordings import PLAIN, Cut, cut, cuts, ingest_here

from wham_data.pipelines.ingest import dry_run as dry_runs
from wham_data.pipelines.ingest.dry_run import Thoroughness, dry_run
from wham_data.pipelines.ingest.estimate.sampling import Estimated
from wham_data.pipelines.ingest.estimate.text import dry_run_text
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.schemas.errors import Reason

TORN = (7, 22, 41)
QUICK = Thoroughness(sample=20, measure=0)
PICTURES = replace(PLAIN, frames="jpeg")


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 recordings of 0.6 to 3 s, three of them torn, all an hour old. Only to be read."""

    def make(folder: Path) -> Path:
        for number, piece in enumerate(cuts(60, 3.0)):
            length = 0.6 + 2.4 * (number * 37 % 60) / 60
            video = cut(folder, f"play{number:02}", replace(piece, seconds=length))
            if number in TORN:
                video.write_bytes(video.read_bytes()[:1500])
        for path in folder.iterdir():
            os.utime(path, (path.stat().st_mtime - 3600,) * 2)
        return folder

    return made_once(tmp_path_factory, "sixty", make)


@pytest.fixture(scope="module")
def truth(sixty: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[IngestReport, Path]:
    out = tmp_path_factory.mktemp("truth") / "corpus"
    return ingest_here(sixty, out, PICTURES), out


def holds(told: Estimated, true: float) -> bool:
    assert told.low is not None
    assert told.high is not None
    return told.low * 0.998 <= true <= told.high * 1.002


def test_totals_of_60_recordings_from_20_of_them(
    sixty: Path, truth: tuple[IngestReport, Path], tmp_path: Path
) -> None:
    told = dry_run([sixty], tmp_path / "out", PICTURES, thoroughness=Thoroughness(sample=20))
    report, _ = truth
    seen = told.forecast

    assert (seen.sampled, seen.of, seen.exact, told.found) == (20, 60, False, 60)
    assert holds(seen.steps, report.steps)
    assert holds(seen.hours, report.hours)
    assert holds(seen.bytes, report.bytes)
    assert holds(seen.recordings, report.ingested)
    assert holds(seen.refused, report.quarantined)
    assert seen.steps.estimate == pytest.approx(report.steps, rel=0.25)
    assert seen.measured > 0
    assert seen.needs is not None
    assert seen.needs.cpu_hours is not None
    assert seen.needs.cpu_hours.estimate > 0
    assert not (tmp_path / "out").exists()


def test_most_samples_have_the_truth_in_their_range(
    sixty: Path, truth: tuple[IngestReport, Path], tmp_path: Path
) -> None:
    seen = [
        dry_run([sixty], tmp_path / "out", PLAIN, thoroughness=replace(QUICK, seed=seed)).forecast
        for seed in range(8)
    ]
    steps = np.mean([holds(each.steps, truth[0].steps) for each in seen])
    refused = np.mean([holds(each.refused, truth[0].quarantined) for each in seen])
    print(f"coverage in 8 samples: steps {steps}, refused {refused}")

    assert steps >= 0.75
    assert refused >= 0.75


def test_the_same_seed_gives_the_same_answer(sixty: Path, tmp_path: Path) -> None:
    one, again = (dry_run([sixty], tmp_path / "out", PLAIN, thoroughness=QUICK) for _ in range(2))

    assert replace(one.forecast, needs=None) == replace(again.forecast, needs=None)


@pytest.mark.parametrize("sample", [60, None])
def test_a_sample_of_all_is_exact(
    sixty: Path, truth: tuple[IngestReport, Path], tmp_path: Path, sample: int | None
) -> None:
    thoroughness = replace(QUICK, sample=sample)
    told = dry_run([sixty], tmp_path / "out", PLAIN, thoroughness=thoroughness)
    report, _ = truth

    assert told.forecast.exact
    assert told.forecast.steps == Estimated.exactly(report.steps)
    assert told.forecast.refused == Estimated.exactly(len(TORN))
    assert (told.recordings, len(told.refused)) == (report.ingested, len(TORN))
    assert {*told.forecast.reasons} == {*report.reasons}


def test_what_is_there_already_is_not_estimated(
    sixty: Path, truth: tuple[IngestReport, Path]
) -> None:
    told = dry_run([sixty], truth[1], PICTURES, thoroughness=QUICK)

    assert (told.already_there, told.in_quarantine, told.forecast.of) == (57, 3, 0)


def test_where_there_is_too_much_to_read_pieces_of_the_files_tell_copies(
    sixty: Path,
    truth: tuple[IngestReport, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dry_runs, "MOST_HASHED", 1000)
    copy = tmp_path / "again" / "play03.mp4"
    copy.parent.mkdir()
    for ending in (".mp4", ".csv", ".toml"):
        copy.with_suffix(ending).write_bytes((sixty / f"play03{ending}").read_bytes())

    new = dry_run([sixty, copy.parent], tmp_path / "out", PLAIN, thoroughness=QUICK)
    known = dry_run([sixty, copy.parent], truth[1], PICTURES, thoroughness=QUICK)

    assert (new.duplicates, new.forecast.of, new.forecast.exact) == (1, 60, False)
    assert "three pieces" in dry_run_text(new)
    assert (known.already_there, known.in_quarantine, known.duplicates) == (57, 3, 0)
    assert known.forecast.of == 1  # a copy of what the corpus has is not recognised by pieces
    assert known.forecast.by_pieces


def test_what_earlier_runs_have_noted_does_not_count_as_too_much_to_read(
    sixty: Path, truth: tuple[IngestReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_runs, "MOST_HASHED", 0)
    known = dry_run([sixty], truth[1], PICTURES, thoroughness=QUICK)

    assert (known.already_there, known.in_quarantine, known.forecast.of) == (57, 3, 0)


def test_a_huge_file_that_is_refused_is_not_read_through(tmp_path: Path) -> None:
    cut(tmp_path / "in", "a", Cut("doom", 0, 1))
    with (tmp_path / "in" / "huge.npz").open("wb") as file:
        file.truncate(1 << 40)  # zeros that take no place on the disk
    told = dry_run([tmp_path / "in"], tmp_path / "out", PLAIN, thoroughness=QUICK)

    assert (told.recordings, told.refused_unopened, told.forecast.by_pieces) == (1, 1, True)
    assert told.seconds < 60


def test_when_the_time_is_over_what_was_opened_counts(
    sixty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_runs, "LEAST_SECONDS", 0.0)
    told = dry_run(
        [sixty], tmp_path / "out", PLAIN, thoroughness=Thoroughness(seconds=0, measure=0)
    )

    assert (told.forecast.sampled, told.forecast.of) == (1, 60)
    assert told.forecast.steps.high is None
    assert "estimated from 1 of 60 recordings" in dry_run_text(told)


def test_without_measurements_no_time_is_told(sixty: Path, tmp_path: Path) -> None:
    told = dry_run([sixty], tmp_path / "out", PLAIN, thoroughness=QUICK)
    text = dry_run_text(told)

    assert "CPU time:   not known" in text
    assert "nothing was decoded to measure it" in text
    assert "estimated from 20 of 60 recordings" in text


def test_pictures_are_coded_to_see_their_size(sixty: Path, tmp_path: Path) -> None:
    many = replace(PLAIN, frames="png")
    measured = dry_run([sixty], tmp_path / "out", many, thoroughness=replace(QUICK, measure=3.0))
    report = ingest_here(sixty, tmp_path / "corpus", many)
    shards = sum(path.stat().st_size for path in (tmp_path / "corpus" / "shards").iterdir())

    assert report.bytes == shards
    assert holds(measured.forecast.bytes, shards)


def test_a_refused_recording_is_told_with_its_reason(sixty: Path, tmp_path: Path) -> None:
    told = dry_run([sixty], tmp_path / "out", PLAIN, thoroughness=replace(QUICK, sample=60))

    assert [Path(path).name for path in told.refused] == [f"play{n:02}.mp4" for n in TORN]
    assert {*told.forecast.reasons} <= {str(reason) for reason in Reason}
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_is_measured_too(six_recordings: Path, tmp_path: Path) -> None:
    told = dry_run(
        [six_recordings],
        tmp_path / "out",
        IngestSettings(tokenizer="wham-tiny"),
        thoroughness=Thoroughness(measure=4.0, device="cpu"),
    )
    bare = dry_run([six_recordings], tmp_path / "out", PLAIN)

    assert told.forecast.needs is not None
    assert bare.forecast.needs is not None
    assert told.forecast.needs.cpu_hours is not None
    assert bare.forecast.needs.cpu_hours is not None
    assert told.forecast.needs.cpu_hours.estimate > 2 * bare.forecast.needs.cpu_hours.estimate
