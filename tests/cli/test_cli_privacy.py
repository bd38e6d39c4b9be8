"""What `forget` and `vacuum` print, and what they make of their arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from makers.corpora import add_shard, small_corpus
from typer.testing import CliRunner

from wham_data.cli import corpus_commands, forget
from wham_data.corpus.corpus import Corpus
from wham_data.schemas.errors import MismatchError, UsageError
from wham_data.schemas.player_key import read_player_key

app = typer.Typer()
app.command("info")(corpus_commands.info)
app.command("forget")(forget.forget)
app.command("vacuum")(forget.vacuum)


def said(*arguments: object, **variables: str) -> str:
    words = [str(each) for each in arguments]
    result = CliRunner().invoke(app, words, catch_exceptions=False, env=variables)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_player_is_forgotten_and_a_vacuum_frees_the_room(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c").location

    text = said("forget", corpus, "--player", "ann")
    assert "version 3, without 2 episodes of 1 recordings (40 steps)" in text
    assert f"until: wham-data vacuum {corpus}" in text

    listed = said("vacuum", corpus, "--dry-run").splitlines()
    assert [line.partition("/")[0] for line in listed[:-1]] == [
        "forgotten: shards",
        "forgotten: episodes",
    ]
    assert "would remove 2 forgotten" in listed[-1]
    report = json.loads(said("vacuum", corpus, "--json"))
    assert (report["oldest_version"], len(report["files"]["forgotten"])) == (3, 2)
    assert "1, stored by name" in said("info", corpus)


def test_the_account_of_a_forgetting_does_not_say_of_whom(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c").location
    said("forget", corpus, "--match", "m1")

    (account,) = (tmp_path / "c" / "runs").iterdir()
    assert json.loads(account.read_text())["command"] == "forget"
    assert "m1" not in account.read_text()


def test_with_a_key_a_player_is_named_as_everybody_calls_him(tmp_path: Path) -> None:
    file = tmp_path / "player.key"
    file.write_text("a secret of sixteen bytes or more\n")
    key = read_player_key(file, tmp_path / "c")
    corpus = small_corpus(tmp_path / "c", settings={"player_key": key.check})
    corpus.commit(add_shard(corpus, "eve-0", player=key.pseudonym("eve")))
    assert f"stored as pseudonyms of the key {key.check}" in said("info", corpus.location)

    with pytest.raises(UsageError, match="give the pseudonym, or the name and --player-key FILE"):
        said("forget", corpus.location, "--player", "eve")
    said("forget", corpus.location, "--player", "eve", WHAM_DATA_PLAYER_KEY=str(file))

    assert "eve-0" not in Corpus.open(tmp_path / "c").episodes["episode"].to_list()
    file.write_text("another secret of sixteen bytes")
    with pytest.raises(MismatchError, match="pseudonyms of another key"):
        said("forget", corpus.location, "--player", "bob", "--player-key", file)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("24h", 86_400), ("2", 7200), ("90s", 90), ("1.5d", 129_600)]
)
def test_an_age_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert forget.parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1h", "1w", "nan", "1e3"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time such as 24h, 30m or 7d"):
        forget.parse_age(text)
