"""The players of one match, seen at one time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.corpora import info, recording_of, rows_for, steps

from wham_data.corpus import Corpus
from wham_data.corpus.shards import shard_id
from wham_data.schemas.errors import UsageError

TENTH = 100_000_000
START = 5 * TENTH


def a_match(location: Path, rate: str | None = None) -> Corpus:
    """Ann plays from 0.5 s to 2.5 s, Bob from 1.0 s to 3.0 s, on one clock; Cem plays elsewhere."""
    corpus = Corpus.create(location, info(**({"rate": rate} if rate else {})))
    for name, start_ns, match in (("ann", START, "m"), ("bob", 2 * START, "m"), ("cem", 0, "n")):
        episode = steps(f"{name}-0", 20, corpus=corpus.info)
        times_ns = start_ns + np.arange(20, dtype=np.int64) * TENTH
        episode = replace(episode, time_ns=times_ns)
        shard = corpus.write_shard(
            [episode], shard_id([recording_of(f"{name}-0")], corpus.info.settings_hash)
        )
        fields = {"match": match, "player": name, "source_fps": 10.0}
        corpus.commit(rows_for(shard, [episode], corpus.info, **fields))
    return corpus


@pytest.mark.parametrize("rate", [None, "native"])
def test_all_players_of_a_match_are_given_at_one_time(tmp_path: Path, rate: str | None) -> None:
    corpus = a_match(tmp_path / "corpus", rate)

    seen = corpus.at("m", 12 * TENTH + 1)

    assert seen["player"].to_list() == ["ann", "bob"]
    assert seen["step"].to_list() == [7, 2]
    assert seen["time_ns"].to_list() == [12 * TENTH, 12 * TENTH]
    assert seen["tokens"][1].to_list() == steps("bob-0", 20).tokens[2].tolist()  # type: ignore[index]


@pytest.mark.parametrize("rate", [None, "native"])
def test_a_player_who_was_not_there_has_no_row(tmp_path: Path, rate: str | None) -> None:
    corpus = a_match(tmp_path / "corpus", rate)

    assert corpus.at("m", 9 * TENTH)["player"].to_list() == ["ann"]
    assert corpus.at("m", START - 1)["player"].to_list() == []
    assert corpus.at("m", 25 * TENTH - 1)["player"].to_list() == ["ann", "bob"]
    assert corpus.at("m", 25 * TENTH)["player"].to_list() == ["bob"]


def test_a_match_that_nobody_played_is_said_to_be_unknown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no episode of the match 'x'.*known matches: m, n"):
        a_match(tmp_path / "corpus").at("x", 0)
