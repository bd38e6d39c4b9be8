"""Refused inputs with the same bytes: each is in the quarantine once, and the counts add up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from makers.recordings import Cut, cut, ingest_here

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.retry import retry
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.schemas.errors import NoInputsError


def empty_archive(folder: Path, name: str) -> Path:
    (folder / f"{name}.npz").write_bytes(b"")
    return folder / f"{name}.npz"


def error_page(folder: Path, name: str) -> Path:
    (folder / f"{name}.mp4").write_text("<!doctype html><h1>404</h1>")
    return folder / f"{name}.mp4"


def pointer(folder: Path, name: str) -> Path:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    (folder / f"{name}.mp4").write_text(text)
    return folder / f"{name}.mp4"


def log_without_controls(folder: Path, name: str) -> Path:
    """A recording that is recognised, and refused when it is opened."""
    video = cut(folder, name, Cut("coinrun", 0, 1))
    video.with_suffix(".csv").write_text("time_s,jump\n0,0\n1,1\n")
    video.with_suffix(".toml").unlink()
    return video


KINDS = (empty_archive, error_page, pointer, log_without_controls)
Maker = Callable[[Path, str], Path]


def listed(corpus: Path) -> list[str]:
    return [Path(path).stem for path in Corpus.open(corpus).quarantine["path"]]


def assert_adds_up(report: IngestReport) -> None:
    there = report.ingested + report.already_there + report.duplicates + report.quarantined
    assert report.found == there + report.not_reached + report.forgotten
    assert sum(report.reasons.values()) == report.quarantined


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cut(tmp_path / "in", "good", Cut("coinrun", 0, 1))
    return tmp_path / "in"


@pytest.mark.parametrize("make", KINDS)
def test_each_is_listed_once_in_this_run_and_the_next(
    folder: Path, tmp_path: Path, make: Maker
) -> None:
    for name in "abc":
        make(folder, name)

    first = ingest_here(folder, tmp_path / "corpus")
    make(folder, "d")
    second = ingest_here(folder, tmp_path / "corpus")

    assert (first.ingested, first.duplicates, first.quarantined) == (1, 0, 3)
    assert (second.already_there, second.duplicates, second.quarantined) == (1, 0, 4)
    assert listed(tmp_path / "corpus") == ["a", "b", "c", "d"]
    assert_adds_up(first)
    assert_adds_up(second)


@pytest.mark.parametrize("make", KINDS)
def test_a_first_run_in_which_nothing_is_read_lists_each(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        make(tmp_path / "in", name)

    report = ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert (report.found, report.duplicates, report.quarantined) == (3, 0, 3)
    assert_adds_up(report)


def test_a_retry_lists_what_is_left_and_takes_off_what_is_mended(
    folder: Path, tmp_path: Path
) -> None:
    made = [log_without_controls(folder, name) for name in "abc"]
    ingest_here(folder, tmp_path / "corpus")

    again = retry(tmp_path / "corpus", LocalRunner())
    assert (again.found, again.quarantined, listed(tmp_path / "corpus")) == (3, 3, ["a", "b", "c"])

    other = cut(tmp_path / "other", "other", Cut("coinrun", 1, 1))
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(other.with_suffix(ending), made[1].with_suffix(ending))
    mended = retry(tmp_path / "corpus", LocalRunner())
    assert (mended.found, mended.ingested, mended.quarantined) == (3, 1, 2)
    assert listed(tmp_path / "corpus") == ["a", "c"]


def test_a_file_that_was_moved_is_listed_where_it_is_now(folder: Path, tmp_path: Path) -> None:
    made = log_without_controls(folder, "a")
    log_without_controls(folder, "b")
    ingest_here(folder, tmp_path / "corpus")
    for ending in (".mp4", ".csv"):
        made.with_suffix(ending).rename(folder / f"c{ending}")

    report = ingest_here(folder, tmp_path / "corpus")

    assert report.quarantined == 2
    assert listed(tmp_path / "corpus") == ["b", "c"]


def test_a_copy_of_what_is_in_the_corpus_stays_a_duplicate(folder: Path, tmp_path: Path) -> None:
    ingest_here(folder, tmp_path / "corpus")
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(folder / f"good{ending}", folder / f"copy{ending}")

    report = ingest_here(folder, tmp_path / "corpus")

    assert (report.already_there, report.duplicates, report.quarantined) == (1, 1, 0)
    with pytest.raises(NoInputsError):
        retry(tmp_path / "corpus", LocalRunner())
