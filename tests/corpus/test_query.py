"""SQL over a corpus gives the corpus' own numbers, and reads nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.corpora import add_shard, info, small_corpus
from makers.exports import picture_corpus

import wham_data
from wham_data.corpus import Corpus
from wham_data.corpus.query import (
    MOST_SQL,
    first_rows,
    plain_rows,
    query,
    scans_files,
    tables_of,
    write_csv,
    write_parquet,
)
from wham_data.corpus.stats import corpus_stats, with_hours
from wham_data.schemas.actions import ActionSpace, Dimension, load_space
from wham_data.schemas.errors import IntegrityError, UsageError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two shards: ann-0 and ann-1 in train, bob-0 and cem-0 in val; every seventh action unknown."""
    return small_corpus(tmp_path_factory.mktemp("query") / "corpus")


def answer(corpus: Corpus, sql: str) -> list[tuple[Any, ...]]:
    return first_rows(query(corpus, sql), 1000).rows()


def test_hours_of_each_player_are_those_of_stats(corpus: Corpus) -> None:
    stats = corpus_stats(corpus)
    wanted = {each.name: pytest.approx(each.hours, rel=1e-12) for each in stats.by["player"]}

    for table in ("episodes", "steps"):
        assert dict(answer(corpus, f"SELECT player, SUM(hours) FROM {table} GROUP BY 1")) == wanted


def test_the_mean_of_a_button_is_its_share_in_stats(corpus: Corpus) -> None:
    shares = {each.name: each.share for each in corpus_stats(corpus).buttons}

    ((a, b),) = answer(corpus, "SELECT AVG(a), AVG(b) FROM steps")

    assert (a, b) == pytest.approx((shares["a"], shares["b"]), rel=1e-12)


@pytest.mark.parametrize("space", ["wham16", "vpt", "csgo51", "numbers3"])
def test_every_column_of_every_step_is_that_of_the_corpus(tmp_path: Path, space: str) -> None:
    rich = {"state_size": 2, "reward": True, "text": True}
    episodes = {"e0": {"player": "ann", "game": "toy"}, "e1": {"split": "val", "map": "m"}}
    corpus = picture_corpus(tmp_path / "corpus", space, episodes, unknown=(1,), **rich)

    found = query(corpus, "SELECT * FROM steps").collect()

    mine = corpus.scan().collect()
    stored = [name for name in mine.columns if name != "reward"]
    assert found.select(stored).equals(mine.select(stored))
    assert found["reward"].to_list() == mine["reward"].to_list()
    assert found["action_known"].to_list() == mine["actions"].is_not_null().to_list()
    for number, name in enumerate(load_space(space).names):
        assert found[name].to_list() == mine["actions"].list.get(number).to_list()
    about = corpus.episodes.select("episode", "game", "map", "match", "player")
    wanted = mine.select("episode").join(about, on="episode", how="left", maintain_order="left")
    assert found.select(about.columns).equals(wanted)


def test_episodes_are_the_manifest_with_rate_and_hours(corpus: Corpus) -> None:
    found = query(corpus, "SELECT * FROM episodes ORDER BY episode").collect()

    manifest = with_hours(corpus).unnest("clock")
    assert found.select(manifest.columns).equals(manifest)
    assert found["rate"].to_list() == [10.0] * 4


@pytest.mark.parametrize(("fps", "rate"), [(60.0, 60.0), (29.97, 29.97), (0.0, None)])
def test_at_native_rate_the_rate_is_that_of_the_source(
    tmp_path: Path, fps: float, rate: float | None
) -> None:
    corpus = picture_corpus(
        tmp_path / "corpus", "vector2", {"e": {"source_fps": fps}}, rate="native", frames="none"
    )

    ((found, hours, n),) = answer(corpus, "SELECT MIN(rate), SUM(hours), COUNT(hours) FROM steps")

    assert found == rate
    assert n == (0 if rate is None else 6)
    assert hours == (pytest.approx(6 / rate / 3600) if rate else None)


@pytest.mark.parametrize(
    ("sql", "opened"),
    [
        ("SELECT COUNT(*) FROM steps", 2),
        ("SELECT AVG(a) FROM steps WHERE player = 'ann'", 1),
        ("SELECT SUM(b) FROM steps WHERE split = 'val' AND episode <> 'bob-0'", 1),
        ("SELECT AVG(a) FROM steps WHERE player = 'nobody'", 0),
        ("SELECT a FROM steps LIMIT 3", 1),
        ("SELECT player, COUNT(*) FROM episodes GROUP BY player", 0),
    ],
)
def test_only_the_shards_that_are_needed_are_opened(corpus: Corpus, sql: str, opened: int) -> None:
    seen: list[str] = []

    class Watched(Corpus):
        def open_shard(self, name: str) -> Any:
            seen.append(name)
            return super().open_shard(name)

    watched = Watched.open(corpus.location)

    first_rows(query(watched, sql), 10)

    assert len(seen) == opened


def test_an_earlier_version_is_asked_as_it_was(corpus: Corpus) -> None:
    first = Corpus.open(corpus.location, version=corpus.version - 1)

    assert answer(first, "SELECT episode FROM episodes ORDER BY 1") == [("ann-0",), ("ann-1",)]
    assert answer(first, "SELECT COUNT(*) FROM steps") == [(40,)]


def test_names_are_quoted_where_they_are_odd_and_renamed_where_they_are_taken(
    tmp_path: Path,
) -> None:
    names = ("hotbar.1", "left", "step", "A", "a")
    space = ActionSpace("odd", tuple(Dimension(name, "button", 0, 1) for name in names))
    corpus = picture_corpus(tmp_path / "corpus", space, 1, frames="none")

    found = answer(corpus, 'SELECT "hotbar.1", "left", action_step, A, action_a FROM steps')

    assert found == [tuple(each) for each in corpus.scan().collect()["actions"].to_list()]


HOSTILE = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM READ_CSV ('{file}')",
    "SELECT * FROM \"read_csv\"('{file}')",
    "SELECT * FROM /* x */ read_csv /* y */ ('{file}')",
    "SELECT * FROM steps, read_parquet('{file}')",
    "SELECT * FROM read_json('{file}')",
    "SELECT * FROM read_ndjson('{file}')",
    "SELECT * FROM read_ipc('{file}')",
    "FROM read_csv('{file}')",
    "WITH t AS (SELECT * FROM read_csv('{file}')) SELECT * FROM t",
    "SELECT a FROM steps WHERE a IN (SELECT a FROM read_csv('{file}'))",
    "SELECT (SELECT MAX(a) FROM read_csv('{file}')) FROM steps",
    "SELECT * FROM steps UNION ALL SELECT * FROM read_csv('{file}')",
    "SELECT * FROM '{file}'",
    'SELECT * FROM "{file}"',
    "SELECT * FROM scan_csv('{file}')",
    "SELECT * FROM glob('{file}')",
    "SELECT * INTO OUTFILE '{new}' FROM steps",
    "SELECT * INTO '{new}' FROM steps",
    "COPY steps TO '{new}'",
    "COPY (SELECT * FROM steps) TO '{new}'",
    "CREATE TABLE t AS SELECT * FROM read_csv('{file}')",
    "CREATE EXTERNAL TABLE t LOCATION '{file}'",
    "EXPLAIN SELECT * FROM read_csv('{file}')",
    "DROP TABLE steps",
    "DELETE FROM episodes",
    "TRUNCATE TABLE steps",
    "INSERT INTO episodes SELECT * FROM episodes",
    "UPDATE steps SET a = 1",
    "SELECT 1; DROP TABLE steps",
    "-- SELECT\nDROP TABLE steps",
    "/* SELECT */ DROP TABLE steps",
    "ATTACH '{file}'",
    "",
    ";",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_sql_reads_and_writes_no_files(corpus: Corpus, tmp_path: Path, sql: str) -> None:
    file, new = tmp_path / "secret.csv", tmp_path / "new.csv"
    file.write_text("a\nsecret\n")

    with pytest.raises(UsageError) as refused:
        query(corpus, sql.format(file=file, new=new)).collect()

    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("SQL: ")
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_whatever_polars_reads_files_with_is_seen_in_the_plan(
    corpus: Corpus, tmp_path: Path
) -> None:
    rows = pl.DataFrame({"episode": ["secret"]})
    rows.write_csv(tmp_path / "x.csv")
    rows.write_parquet(tmp_path / "x.parquet")
    rows.write_ipc(tmp_path / "x.ipc")
    rows.write_ndjson(tmp_path / "x.json")
    steps = tables_of(corpus)["steps"]

    for scan in (
        pl.scan_csv(tmp_path / "x.csv"),
        pl.scan_parquet(tmp_path / "x.parquet"),
        pl.scan_ipc(tmp_path / "x.ipc"),
        pl.scan_ndjson(tmp_path / "x.json"),
    ):
        assert scans_files(scan)
        assert scans_files(steps.join(scan, on="episode").select("episode").head(1))
    assert not any(map(scans_files, tables_of(corpus).values()))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nope FROM steps", 'unable to find column "nope"'),
        ("SELECT * FROM nope", "'nope' was not found; the tables are episodes and steps"),
        ("SELECT * FROM", "Expected: identifier"),
        ("SELECT CAST(player AS INT) FROM steps", "conversion from `str` to `i32` failed"),
        ("SELECT AVG(player) FROM steps", "not supported for dtype `str`"),
        ("SELECT " + "1 + " * MOST_SQL + "1", f"expected at most {MOST_SQL}"),
    ],
)
def test_an_error_of_sql_is_one_line(corpus: Corpus, sql: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        first_rows(query(corpus, sql), 10)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_error_that_quotes_a_name_of_the_corpus_is_printable(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0", player="\x1b[2Jann\nx"))

    with pytest.raises(UsageError) as refused:
        first_rows(query(corpus, "SELECT CAST(player AS INT) FROM steps"), 10)

    assert str(refused.value).isprintable()


def test_a_damaged_shard_is_an_error_of_the_corpus_and_not_of_the_query(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    shard = corpus.shard_path(corpus.episodes["shard"][0])
    content = bytearray(shard.read_bytes())
    content[200] ^= 255
    shard.chmod(0o644)
    shard.write_bytes(content)

    with pytest.raises(IntegrityError, match=shard.name):
        first_rows(query(corpus, "SELECT * FROM steps"), 1000)


LIKE_SQL = st.text("SELECT*FROMsteps ()',;-/a1=", max_size=60).map("SELECT ".__add__)


@settings(max_examples=40, deadline=None)
@given(sql=st.text(max_size=60) | LIKE_SQL)
def test_any_text_is_answered_or_refused_in_one_line(corpus: Corpus, sql: str) -> None:
    message = ""
    try:
        first_rows(query(corpus, sql), 10)
    except UsageError as error:
        message = str(error)

    assert "\n" not in message


def test_files_hold_all_rows(corpus: Corpus, tmp_path: Path) -> None:
    found = query(corpus, "SELECT episode, step, a, x FROM steps")

    write_csv(found, tmp_path / "x.csv")
    write_parquet(query(corpus, "SELECT * FROM steps"), tmp_path / "x.parquet")

    mine = corpus.scan().collect()
    read = pl.read_csv(tmp_path / "x.csv")
    assert read["step"].to_list() == mine["step"].to_list()
    assert np.array_equal(
        read["x"].cast(pl.Float32).fill_null(7), mine["actions"].list.get(2).fill_null(7)
    )
    assert pl.read_parquet(tmp_path / "x.parquet").select(mine.columns).equals(mine)


@pytest.mark.parametrize("column", ["tokens", "actions"])
def test_csv_holds_no_lists(corpus: Corpus, tmp_path: Path, column: str) -> None:
    with pytest.raises(UsageError, match=f"--csv: column {column} is List"):
        write_csv(query(corpus, f"SELECT {column} FROM steps"), tmp_path / "x.csv")


def test_json_holds_bytes_and_numbers_that_are_not_finite() -> None:
    rows = pl.DataFrame(
        {"b": [b"\xff\x00", None], "f": [float("nan"), float("inf")], "l": [[1], []]}
    )

    assert plain_rows(rows) == [
        {"b": "/wA=", "f": None, "l": [1]},
        {"b": None, "f": None, "l": []},
    ]


def test_the_function_is_public(corpus: Corpus) -> None:
    found = wham_data.query(corpus, "SELECT COUNT(*) AS n FROM steps").collect()

    assert found["n"].to_list() == [80]
