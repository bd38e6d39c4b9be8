"""What runs recorded is compared with the log, so that no commit is lost without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from makers.corpora import add_shard, info, small_corpus

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.vacuum import vacuum
from wham_data.schemas.errors import IntegrityError, Reason
from wham_data.schemas.manifest import QuarantineRow


def with_three_commits(tmp_path: Path) -> tuple[Corpus, str]:
    """A corpus with three commits to each table, and the name of the run that made them."""
    corpus = small_corpus(tmp_path / "c")
    corpus.commit(add_shard(corpus, "dan-0"))
    for name in "xyz":
        row = QuarantineRow(
            name, name * 64, "open", Reason.TRUNCATED, "cut off", info().settings_hash
        )
        corpus.commit([], [row])
    name = corpus.record_run({"command": "ingest", "report": {"version": corpus.version}})
    assert corpus.verify().ok
    return corpus, name


@pytest.mark.parametrize("table", ["episodes", "quarantine"])
@pytest.mark.parametrize("lost", [1, 2])
def test_commits_at_the_end_of_a_log_that_runs_tell_of_and_that_are_gone(
    tmp_path: Path, table: str, lost: int
) -> None:
    corpus, name = with_three_commits(tmp_path)
    log = tmp_path / "c" / table / "_delta_log"
    for version in range(4 - lost, 4):
        (log / f"{version:020d}.json").unlink()

    (problem,) = Corpus.open(tmp_path / "c").verify().problems

    assert problem.startswith(f"{log}/{4 - lost:020d}.json: damaged: this log entry ")
    assert (
        f"the log ends with version {3 - lost}, but the run runs/{name} left version 3" in problem
    )
    with pytest.raises(IntegrityError, match="a commit is lost"):
        vacuum(corpus)


def test_the_version_of_a_run_of_an_earlier_release_counts_too(tmp_path: Path) -> None:
    _, name = with_three_commits(tmp_path)
    report = tmp_path / "c" / "runs" / name
    report.write_text(json.dumps({"command": "ingest", "report": {"version": 4}}))
    (problem,) = Corpus.open(tmp_path / "c").verify().problems
    assert "version 3, but" in problem
    report.write_text(json.dumps({"command": "ingest", "report": {"version": None}}))
    assert Corpus.open(tmp_path / "c").verify().ok


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_torn_report_of_a_run_is_named(tmp_path: Path, content: str) -> None:
    _, name = with_three_commits(tmp_path)
    report = tmp_path / "c" / "runs" / name
    report.write_text(content)
    (problem,) = Corpus.open(tmp_path / "c").verify().problems
    assert problem.startswith(f"{report}: damaged: {len(content)} bytes that are no report")
