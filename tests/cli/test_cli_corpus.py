"""What the corpus commands print, and the codes they leave with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from makers.corpora import small_corpus
from typer.testing import CliRunner

from wham_data.cli import corpus_commands
from wham_data.cli.figures import card, stats
from wham_data.corpus.balance.weights import read_weights
from wham_data.corpus.corpus import Corpus
from wham_data.schemas.errors import Reason, UsageError
from wham_data.schemas.manifest import QuarantineRow

app = typer.Typer()
for command in (corpus_commands.info, stats.stats, corpus_commands.verify, corpus_commands.compact):
    app.command(command.__name__)(command)
app.command("card")(card.card)
app.add_typer(corpus_commands.quarantine_app, name="quarantine")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = small_corpus(tmp_path / "c", settings={"axis_rule": "mean"})
    settings = corpus.info.settings_hash
    refused = [
        QuarantineRow("in/cut.mp4", "ab" * 32, "decode", Reason.TRUNCATED, "cut", settings, 9, 3),
        QuarantineRow("in/\x1b[2Jevil.mp4", "cd" * 32, "open", Reason.NOT_A_VIDEO, "no", settings),
    ]
    corpus.commit([], refused)
    return corpus


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def told(*arguments: object) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    found = json.loads(said(*arguments, "--json"))
    assert isinstance(found, dict)
    return found


def test_info_says_what_a_corpus_is_on_one_screen(corpus: Corpus) -> None:
    text = said("info", corpus.location)
    for part in (
        "version 2",
        "80 steps at 10 Hz",
        "4 episodes of 3 recordings",
        "30x20",
        "pad: a, b, x",
        "tiny, 2x3 tokens of 64, fingerprint fingerprint-1",
        "2 shards",
        "train 2 episodes",
        "CC0-1.0",
        "2 inputs: not_a_video 1, truncated 1",
        "axis_rule mean",
    ):
        assert part in text
    assert len(text.splitlines()) <= 24
    assert told("info", corpus.location)["info"]["rate"] == "10"
    assert told("info", corpus.location, "--version", 1)["steps"] == 40


def test_stats_are_a_table_with_bars_or_an_object(corpus: Corpus) -> None:
    text = said("stats", corpus.location)
    assert "codes in use" in text
    assert "█" in text
    assert "mean hold" in text
    found = told("stats", corpus.location)
    assert (found["steps"], len(found["axes"][0]["counts"])) == (80, 21)


def test_balance_is_tables_or_an_object_and_writes_weights(corpus: Corpus, tmp_path: Path) -> None:
    out, target = tmp_path / "weights.parquet", tmp_path / "target.toml"
    target.write_text("[game]\nmaze = 0.25\n[control]\na = 0.5\n")
    options = ("--balance", "--target", target, "--flatten", "game", "--out", out)
    text = said("stats", corpus.location, *options)
    for part in (
        "held at once",
        "all that was held",
        "weighted",
        "target",
        "effective sample size",
    ):
        assert part in text
    assert len(read_weights(out)) == 4
    found = told("stats", corpus.location, *options)
    assert found["weights"]["flatten"] == "game"
    assert found["target"]["game"] == {"maze": 0.25}
    with pytest.raises(UsageError, match="go with --balance"):
        said("stats", corpus.location, "--flatten", "game")
    with pytest.raises(UsageError, match="say with --flatten"):
        said("stats", corpus.location, "--balance", "--out", out)


def test_card_names_its_files_and_what_a_person_must_still_say(
    corpus: Corpus, tmp_path: Path
) -> None:
    text = said("card", corpus.location)
    assert "README.md, croissant.json, card.toml" in text
    assert "missing in card.toml: purpose, consent" in text
    assert "players: names hidden" in text
    found = told(
        "card", corpus.location, "--out", tmp_path / "card", "--show-players", "--version", 1
    )
    assert (found["version"], found["players"]) == (1, "names shown")
    assert "purpose" in found["missing"]


def test_verify_leaves_with_4_and_a_line_per_problem_when_something_is_wrong(
    corpus: Corpus,
) -> None:
    assert "ok: 2 shards, 4 episodes, 80 steps" in said("verify", corpus.location)
    assert told("verify", corpus.location, "--quick")["ok"] is True
    path = corpus.shard_path(corpus.episodes["shard"][0])
    path.write_bytes(path.read_bytes()[:-1])
    result = CliRunner().invoke(app, ["verify", corpus.location])
    assert result.exit_code == 4
    assert f"problem: shards/{path.name}: corrupt: sha256 is" in result.stdout
    assert "2 problems: " in result.stdout
    result = CliRunner().invoke(app, ["verify", corpus.location, "--json"])
    assert result.exit_code == 4
    assert len(json.loads(result.stdout)["problems"]) == 2


def test_compact_tells_before_and_after(corpus: Corpus, tmp_path: Path) -> None:
    assert "2 shards" in said("compact", corpus.location)
    found = told("compact", corpus.location, "--cold", "--out", tmp_path / "cold")
    assert (found["shards_after"], found["location"]) == (1, str(tmp_path / "cold"))
    with pytest.raises(UsageError, match="say where with --out"):
        said("compact", corpus.location, "--cold")


def test_the_quarantine_is_listed_by_reason_and_shown_by_path_or_hash(corpus: Corpus) -> None:
    text = said("quarantine", "list", corpus.location)
    assert "truncated            in/cut.mp4: cut" in text
    assert "\x1b" not in text
    assert "2 of 2 refused inputs" in text
    found = told("quarantine", "list", corpus.location, "--reason", "truncated")
    assert [row["path"] for row in found["quarantined"]] == ["in/cut.mp4"]
    for name in ("cut.mp4", "in/cut.mp4", "abab"):
        assert "frames_expected  9" in said("quarantine", "show", corpus.location, name)
    with pytest.raises(UsageError, match="no refused input is called"):
        said("quarantine", "show", corpus.location, "nothing")
