"""Notes: what was chosen, guessed or left out of a recording stays with its episodes."""

from __future__ import annotations

import json
from pathlib import Path

import deltalake
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.commands import Run
from makers.corpora import add_shard, info, small_corpus
from makers.recordings import Cut, cut, ingest_here

from wham_data.corpus import Corpus
from wham_data.corpus.compact import compact, compact_to
from wham_data.corpus.forget import forget
from wham_data.corpus.stats import corpus_stats, summarize
from wham_data.schemas.errors import Reason, RefusedInput, noted
from wham_data.schemas.manifest import (
    MOST_NOTE_CHARACTERS,
    MOST_NOTES,
    bounded_notes,
    kind_of_note,
)

NOTES = ("3 duplicate rows dropped", "the log counts from the first frame")


def noted_corpus(path: Path) -> Corpus:
    corpus = Corpus.create(path, info())
    corpus.commit(add_shard(corpus, "ann-0", "ann-1", player="ann", notes=NOTES))
    corpus.commit(add_shard(corpus, "bob-0", notes=("12 duplicate rows dropped",)))
    corpus.commit(add_shard(corpus, "cem-0"))
    return corpus


def notes_of(corpus: Corpus) -> dict[str, list[str] | None]:
    return dict(corpus.episodes.select("episode", "notes").iter_rows())


def test_each_episode_keeps_the_notes_of_its_recording(tmp_path: Path) -> None:
    corpus = noted_corpus(tmp_path / "c")

    assert notes_of(corpus) == {
        "ann-0": [*NOTES],
        "ann-1": [*NOTES],
        "bob-0": ["12 duplicate rows dropped"],
        "cem-0": [],
    }
    table = deltalake.DeltaTable(tmp_path / "c" / "episodes").to_pyarrow_table()
    assert table.sort_by("episode")["notes"].to_pylist() == [*notes_of(corpus).values()]


def test_they_are_counted_by_kind_without_their_numbers(tmp_path: Path) -> None:
    corpus = noted_corpus(tmp_path / "c")

    kinds = {"N duplicate rows dropped": 3, "the log counts from the first frame": 2}
    assert corpus_stats(corpus).notes == kinds
    assert (summarize(corpus).noted, summarize(corpus).notes) == (3, kinds)


@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("12 rows with missing values", "N rows with missing values"),
        ("last line torn (line 12): dropped", "last line torn (line N): dropped"),
        ("taken as offset_ms = -1500", "taken as offset_ms = N"),
        ("on a scale of 0.5 to 1,023", "on a scale of N to N"),
        ("s 07.csv not used beside s07.jsonl", "s FILE not used beside FILE"),
        ("button_0 ends in rows 1 and 2.", "button_0 ends in rows N and N."),
        ("nothing to count", "nothing to count"),
    ],
)
def test_a_kind_is_a_note_without_numbers_and_file_names(note: str, kind: str) -> None:
    assert kind_of_note(note) == kind


@settings(deadline=None)
@given(st.lists(st.text(max_size=400), max_size=60))
def test_what_is_stored_is_bounded_and_harmless(notes: list[str]) -> None:
    stored = bounded_notes(notes)

    assert len(stored) <= MOST_NOTES
    assert all(0 < len(note) <= MOST_NOTE_CHARACTERS and note.isprintable() for note in stored)
    assert bounded_notes(stored) == stored


def test_of_too_many_notes_the_last_says_how_many_are_left_out() -> None:
    stored = bounded_notes([f"note {number}" for number in range(40)])

    assert stored[-1] == "and 9 more notes"
    assert stored[:-1] == tuple(f"note {number}" for number in range(31))


def test_compacting_keeps_them_and_forgetting_takes_them_away(tmp_path: Path) -> None:
    corpus = noted_corpus(tmp_path / "c")
    before = notes_of(corpus)

    compact(corpus)
    compact_to(corpus, tmp_path / "cold", "cold")
    forget(corpus, {"player": ["ann"]})

    assert notes_of(Corpus.open(tmp_path / "cold")) == before
    left = notes_of(Corpus.open(tmp_path / "c"))
    assert left == {name: notes for name, notes in before.items() if name[:3] != "ann"}


def without_notes(table: Path) -> None:
    """Make a table as a release wrote it that knew no notes."""
    for entry in sorted((table / "_delta_log").iterdir()):
        lines = [json.loads(line) for line in entry.read_text().splitlines()]
        for line in lines:
            if "metaData" in line:
                schema = json.loads(line["metaData"]["schemaString"])
                schema["fields"] = [each for each in schema["fields"] if each["name"] != "notes"]
                line["metaData"]["schemaString"] = json.dumps(schema)
            if "add" in line:
                old = table / line["add"]["path"]
                line["add"]["path"] = f"old-{old.name[5:]}"
                pq.write_table(
                    pq.read_table(old).drop_columns(["notes"]), table / line["add"]["path"]
                )
                line["add"]["size"] = (table / line["add"]["path"]).stat().st_size
                old.unlink()
        entry.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_a_corpus_of_a_time_without_notes_is_read_and_goes_on(tmp_path: Path) -> None:
    small_corpus(tmp_path / "c")
    without_notes(tmp_path / "c" / "episodes")
    without_notes(tmp_path / "c" / "quarantine")
    corpus = Corpus.open(tmp_path / "c")
    assert set(notes_of(corpus).values()) == {None}
    assert summarize(corpus).noted == 0
    assert corpus.verify().ok

    corpus.commit(add_shard(corpus, "dan-0", notes=NOTES))

    assert notes_of(Corpus.open(tmp_path / "c"))["dan-0"] == [*NOTES]
    assert notes_of(Corpus.open(tmp_path / "c"))["ann-0"] is None
    foreign = deltalake.DeltaTable(tmp_path / "c" / "episodes").to_pyarrow_table()
    assert sorted(foreign["episode"].to_pylist()) == sorted(notes_of(corpus))
    compact(corpus)
    assert corpus.verify().ok


def test_a_refusal_carries_what_was_noted_before_it() -> None:
    why = RefusedInput(Reason.CORRUPT, "torn", notes=("b",))

    def refused() -> None:
        with noted(["a", "b"]):
            raise why

    with pytest.raises(RefusedInput):
        refused()

    function, arguments = why.__reduce__()
    assert callable(function)
    assert function(*arguments).notes == ("a", "b")


def rewritten(log: Path, *, late_ns: int = 0, twice: int = 0, **extra: int) -> None:
    """Change a log: later by so much, with its first row so many times more, and with more columns."""
    head, *rows = (line.partition(",")[::2] for line in log.read_text().splitlines())
    cells = [(str(int(time) + late_ns), rest, *map(str, extra.values())) for time, rest in rows]
    lines = [(*head, *extra), *cells[:1] * twice, *cells]
    log.write_text("".join(",".join(line) + "\n" for line in lines))


def test_ingest_stores_them_and_commands_show_them(cli: Run, tmp_path: Path) -> None:
    rewritten(cut(tmp_path / "in", "good", Cut("coinrun", 0, 2)).with_suffix(".csv"), twice=3)
    late = cut(tmp_path / "in", "late", Cut("coinrun", 4, 2)).with_suffix(".csv")
    rewritten(late, late_ns=10**13, mood=1)

    ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert [*notes_of(Corpus.open(tmp_path / "corpus")).values()] == [["3 duplicate rows dropped"]]
    assert (
        "1 of 1 episodes: N duplicate rows dropped (1)" in cli("info", tmp_path / "corpus").stdout
    )
    assert "       1  N duplicate rows dropped\n" in cli("stats", tmp_path / "corpus").stdout
    shown = cli("quarantine", "show", tmp_path / "corpus", "late.mp4").stdout
    assert "note             extra columns ignored: mood" in shown
