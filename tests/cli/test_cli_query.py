"""`wham-data query`: a table that fits, notes of what is left out, whole files."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from makers.commands import Run
from makers.corpora import add_shard, info, small_corpus

from wham_data.cli.corpus_commands import rows_table
from wham_data.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query") / "corpus"
    small_corpus(folder)
    return folder


def test_hours_of_each_player_are_a_table(cli: Run, corpus: Path) -> None:
    sql = "SELECT player, SUM(n_steps) AS steps, SUM(hours) AS hours FROM episodes GROUP BY 1 ORDER BY 1"

    done = cli("query", corpus, sql)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "player  steps       hours",
        "ann        40  0.00111111",
        "bob        40  0.00111111",
    ]


def test_a_long_result_is_cut_with_a_note(cli: Run, corpus: Path) -> None:
    done = cli("query", corpus, "SELECT episode, step FROM steps", "--rows", "5")

    assert len(done.stdout.splitlines()) == 6
    assert done.stderr == "the first 5 rows; --rows prints more, --csv or --parquet write all\n"


@pytest.mark.parametrize(("width", "shown"), [(5, 1), (11, 1), (12, 2), (20, 2), (200, 3)])
def test_a_table_has_the_columns_that_fit(width: int, shown: int) -> None:
    table = pl.DataFrame({"long name": [1, 20], "b": [None, "x"], "c": ["y" * 60, ""]})

    columns, lines = rows_table(table, width)

    assert columns == shown
    assert len(lines) == 3
    assert lines[0].startswith("long name")
    assert lines[2].startswith("       20")
    assert max(map(len, lines)) <= max(width, len("long name"))


def test_files_have_all_rows_and_replace_what_is_there(
    cli: Run, corpus: Path, tmp_path: Path
) -> None:
    sql = "SELECT episode, step, a FROM steps"
    (tmp_path / "x.csv").write_text("old")

    for option, name in (("--csv", "x.csv"), ("--parquet", "x.parquet")):
        done = cli("query", corpus, sql, option, tmp_path / name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    mine = Corpus.open(corpus).scan().collect()["actions"].list.get(0).to_list()
    assert pl.read_csv(tmp_path / "x.csv")["a"].to_list() == mine
    assert pl.read_parquet(tmp_path / "x.parquet")["a"].to_list() == mine
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.parquet"]


def test_csv_goes_to_stdout_too(cli: Run, corpus: Path) -> None:
    done = cli("query", corpus, "SELECT episode FROM episodes ORDER BY 1", "--csv", "-")

    assert done.stdout == "episode\nann-0\nann-1\nbob-0\ncem-0\n"


def test_json_is_one_object_with_the_types(cli: Run, corpus: Path) -> None:
    sql = "SELECT episode, step, a, tokens FROM steps WHERE step IN (5, 6) AND episode = 'ann-0'"

    done = cli("query", corpus, sql, "--json")

    mine = Corpus.open(corpus).scan().filter(episode="ann-0").collect()
    assert json.loads(done.stdout) == {
        "columns": {"episode": "String", "step": "Int32", "a": "Float64", "tokens": "List(UInt16)"},
        "rows": [
            {
                "episode": "ann-0",
                "step": step,
                "a": mine["actions"][step][0] if step == 5 else None,
                "tokens": mine["tokens"][step].to_list(),
            }
            for step in (5, 6)
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT * FROM read_csv('/etc/passwd')"], "SQL: read_csv: a query reads the tables"),
        (["DROP TABLE steps"], "SQL: expected one query that begins with SELECT, WITH or FROM"),
        (["SELECT nope FROM steps"], 'SQL: unable to find column "nope"'),
        (["SELECT 1", "--json", "--csv", "x"], "--json, --csv and --parquet: give only one"),
        (["SELECT tokens FROM steps", "--csv", "x"], "--csv: column tokens is List(UInt16)"),
        (["SELECT 1", "--csv", "{corpus}/x"], "lies inside the corpus; write to another folder"),
        (["SELECT 1", "--parquet", "{corpus}/corpus.json"], "lies inside the corpus"),
        (["SELECT 1", "--csv", "none/x"], "none/x: there is no folder none; make it first"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    cli: Run, corpus: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [each.replace("{corpus}", str(corpus)) for each in arguments]
    before = sorted(corpus.rglob("*"))

    done = cli("query", corpus, *given, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (sorted(corpus.rglob("*")), list(tmp_path.iterdir())) == (before, [])


def test_names_from_recordings_cannot_move_the_cursor(cli: Run, tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0", player="\x1b[2Jann\nx"))

    done = cli("query", tmp_path / "corpus", "SELECT player FROM episodes")

    assert done.stdout == "player\n\\x1b[2Jann\\nx\n"
