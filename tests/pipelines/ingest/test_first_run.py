"""A first run of which nothing can be read leaves as much to look at as any other."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import PLAIN, Cut, cut, ingest_here

from wham_data.corpus import Corpus
from wham_data.corpus.commit_rules import quarantine_after
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.retry import retry
from wham_data.pipelines.ingest.settings import IngestChoices
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.manifest import UNSETTLED, QuarantineRow, quarantine_table
from wham_data.schemas.player_key import PlayerKey

QUICK = ("--tokenizer", "none", "--workers", "0")
REASONS = {
    "alone.mp4": "log_missing",
    "columns.mp4": "log_column",
    "empty.mp4": "log_empty",
    "page.mp4": "not_a_video",
}


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    """Four recordings, each refused for another reason."""
    folder = tmp_path / "in"
    video = cut(folder, "alone", Cut("coinrun", 0, 1), player="ann")
    for name, log in (("columns", "time_s,jump\n0,0\n1,1\n"), ("empty", "")):
        shutil.copy(video, folder / f"{name}.mp4")
        (folder / f"{name}.csv").write_text(log)
    video.with_suffix(".csv").unlink()
    video.with_suffix(".toml").unlink()
    (folder / "page.mp4").write_text("<!doctype html><h1>404</h1>")
    return folder


def test_each_file_is_told_with_its_reason(cli: Run, unreadable: Path, tmp_path: Path) -> None:
    run = cli("ingest", unreadable, "--out", tmp_path / "corpus", *QUICK)

    assert run.returncode == 6
    told = {Path(line.partition(": ")[0]).name: line for line in run.stderr.splitlines()}
    assert {name: line.rpartition("[")[2][:-1] for name, line in told.items()} == REASONS
    assert "found 4 = ingested 0 + already there 0 + duplicates 0 + quarantined 4" in run.stdout
    assert "no corpus begun" in run.stdout
    assert "no action space" not in run.stderr + run.stdout


def test_as_json_too(cli: Run, unreadable: Path, tmp_path: Path) -> None:
    run = cli("ingest", unreadable, "--out", tmp_path / "corpus", *QUICK, "--json")

    account = json.loads(run.stdout)
    assert (run.returncode, account["version"], account["quarantined"]) == (6, None, 4)
    assert account["reasons"] == dict.fromkeys(REASONS.values(), 1)


def test_a_dry_run_lists_them_and_writes_nothing(
    cli: Run, unreadable: Path, tmp_path: Path
) -> None:
    command = ("ingest", unreadable, "--out", tmp_path / "corpus", *QUICK, "--dry-run")

    text, account = cli(*command), cli(*command, "--json")

    assert (text.returncode, account.returncode) == (6, 6)
    assert all(f"{unreadable}/{name}: " in text.stdout for name in REASONS)
    refused = json.loads(account.stdout)["refused"]
    assert {Path(path).name for path in refused} == set(REASONS)
    assert not (tmp_path / "corpus").exists()


def test_the_quarantine_lists_and_shows_them(cli: Run, unreadable: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    cli("ingest", unreadable, "--out", corpus, *QUICK)

    listed = cli("quarantine", "list", corpus)
    shown = cli("quarantine", "show", corpus, "columns.mp4")
    info = cli("info", corpus)

    assert listed.stdout.endswith("4 of 4 refused inputs\n")
    assert "log_column" in shown.stdout
    assert info.returncode == 2
    assert "no corpus here (corpus.json is missing): no recording could be read yet" in info.stderr


def test_a_folder_with_neither_corpus_nor_quarantine_has_none(cli: Run, tmp_path: Path) -> None:
    run = cli("quarantine", "list", tmp_path)

    assert run.returncode == 2
    assert run.stderr.endswith("no corpus here (corpus.json is missing)\n")


def test_running_it_again_changes_nothing(unreadable: Path, tmp_path: Path) -> None:
    first = ingest_here(unreadable, tmp_path / "corpus")
    second = ingest_here(unreadable, tmp_path / "corpus")

    assert (first.quarantined, second.quarantined, second.exit_code) == (4, 4, 6)
    (tables,) = (tmp_path / "corpus" / "quarantine").glob("*.parquet")
    assert tables.is_file()
    assert len(list((tmp_path / "corpus" / "runs").iterdir())) == 2


def test_the_next_run_begins_the_corpus_in_the_same_place(unreadable: Path, tmp_path: Path) -> None:
    ingest_here(unreadable, tmp_path / "corpus")
    cut(unreadable, "alone", Cut("coinrun", 0, 1))

    report = ingest_here(unreadable, tmp_path / "corpus")

    corpus = Corpus.open(tmp_path / "corpus")
    assert (report.ingested, report.quarantined, report.exit_code) == (1, 3, 3)
    rows = corpus.quarantine.rows(named=True)
    assert {Path(row["path"]).name for row in rows} == set(REASONS) - {"alone.mp4"}
    assert {row["settings"] for row in rows} == {corpus.info.settings_hash}
    assert corpus.verify().ok


def test_what_was_refused_before_there_was_a_corpus_can_be_tried_again(
    unreadable: Path, tmp_path: Path
) -> None:
    ingest_here(unreadable, tmp_path / "corpus")
    with pytest.raises(UsageError, match="no recording could be read yet"):
        retry(tmp_path / "corpus", LocalRunner())
    cut(tmp_path / "good", "one", Cut("coinrun", 2, 1))
    ingest_here(tmp_path / "good", tmp_path / "corpus")

    report = retry(tmp_path / "corpus", LocalRunner())

    corpus = Corpus.open(tmp_path / "corpus")
    assert report.quarantined == 4
    assert set(corpus.quarantine["settings"]) == {corpus.info.settings_hash}


def test_a_player_is_hidden_in_a_quarantine_before_there_is_a_corpus_too(tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "ann", Cut("coinrun", 0, 1))
    video.with_suffix(".csv").write_text("time_s,jump\n0,0\n1,1\n")

    key = PlayerKey(b"k" * 32)
    run_ingest(
        [tmp_path / "in"],
        tmp_path / "corpus",
        PLAIN,
        LocalRunner(),
        IngestChoices(player_key=key),
    )

    (run,) = (tmp_path / "corpus" / "runs").iterdir()
    stored = [path.read_bytes() for path in (tmp_path / "corpus" / "quarantine").glob("*.parquet")]
    assert all(b"ann.mp4" not in each for each in (*stored, run.read_bytes()))


def row(path: str, sha256: str, settings: str, message: str = "m") -> QuarantineRow:
    why = RefusedInput(Reason.CORRUPT, message)
    return QuarantineRow.of(why, path=path, sha256=sha256, stage="ingest", settings=settings)


@pytest.mark.parametrize(
    ("refused", "resolved", "left"),
    [
        ([row("a", "1", "s")], [], {("a", "s"), ("b", "")}),
        ([row("a", "2", "s")], [], {("a", "s"), ("b", "")}),  # mended, and refused again
        ([row("b", "", "s")], [], {("a", ""), ("b", "s")}),  # without a hash: unreadable
        ([], [("1", "s")], {("b", "")}),
        ([], [("a", "s"), ("2", "s")], {("b", "")}),
        ([row("c", "3", "s")], [], {("a", ""), ("b", ""), ("c", "s")}),
        ([row("a", "1", UNSETTLED, "other")], [], {("a", ""), ("b", "")}),
    ],
)
def test_a_row_without_settings_goes_when_its_input_is_judged_under_some(
    refused: list[QuarantineRow], resolved: list[tuple[str, str]], left: set[tuple[str, str]]
) -> None:
    old = quarantine_table([row("a", "1", UNSETTLED), row("b", "", UNSETTLED)], datetime.now(UTC))

    kept, new = quarantine_after(old, refused, resolved)

    pairs = zip(kept["path"].to_pylist(), kept["settings"].to_pylist(), strict=True)
    assert {*pairs, *((each.path, each.settings) for each in new)} == left
    assert len(kept) + len(new) == len(left)


@pytest.mark.parametrize(
    ("whole", "torn", "strict", "code"),
    [(1, 0, False, 0), (1, 1, False, 3), (1, 1, True, 1), (0, 2, False, 6), (2, 0, True, 0)],
)
def test_a_dry_run_exits_as_the_run_does(
    whole: int, torn: int, strict: bool, code: int, cli: Run, tmp_path: Path
) -> None:
    for number in range(whole):
        cut(tmp_path / "in", f"whole-{number}", Cut("coinrun", number, 1))
    for number in range(torn):
        video = cut(tmp_path / "in", f"torn-{number}", Cut("doom", number, 1))
        video.write_bytes(video.read_bytes()[:2000])
    command = ("ingest", tmp_path / "in", "--out", tmp_path / "corpus", *QUICK)
    command += ("--strict",) if strict else ()

    codes = [cli(*command, *more).returncode for more in (["--dry-run"], [])]

    assert codes == [code, code]
