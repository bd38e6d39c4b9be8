"""Texts that a model wrote stay with their steps, through everything that happens to a corpus."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import deltalake
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.captioned import texts
from makers.commands import Run
from makers.corpora import add_shard, info, recording_of, small_corpus
from makers.object_stores import Bucket

from wham_data.corpus import Corpus
from wham_data.corpus.captions.answers import (
    FOLDER,
    MERGE_AT,
    Answer,
    AnswerBook,
    Clip,
    Usage,
    forget_answers,
    plain_caption,
)
from wham_data.corpus.captions.texts import captions_after, write_texts
from wham_data.corpus.compact import compact, compact_to
from wham_data.corpus.forget import forget
from wham_data.corpus.query import query
from wham_data.corpus.vacuum import vacuum
from wham_data.pipelines.export.job import export
from wham_data.schemas.errors import IntegrityError, MismatchError
from wham_data.schemas.manifest import Captions

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = "a" * 24
ABOUT = Captions("tiny-vl", "What happens?", SETTINGS, NOON)


def answer(episode: str, start: int, stop: int, text: str) -> Answer:
    return Answer(Clip(recording_of(episode), episode, start, stop), text, NOON)


def captioned(location: Path | str, **changes: object) -> Corpus:
    """A corpus of four episodes of 20 steps; `ann-0` has a text, `ann-1` beside it has one in part."""
    corpus = small_corpus(location, **changes)
    some = [answer("ann-0", 0, 20, "A door."), answer("ann-1", 5, 9, "A red cube.")]
    write_texts(corpus, some, ABOUT, replace_texts=False)
    return corpus


EXPECTED = {
    "ann-0": ["A door."] * 20,
    "ann-1": [None] * 5 + ["A red cube."] * 4 + [None] * 11,
    "bob-0": [None] * 20,
    "cem-0": [None] * 20,
}


def test_steps_get_texts_and_nothing_else_changes(tmp_path: Path) -> None:
    plain = small_corpus(tmp_path / "c")
    before, version = plain.scan().collect().sort("episode", "step"), plain.version
    corpus = Corpus.open(tmp_path / "c")
    written = write_texts(corpus, [answer("ann-0", 0, 30, "A door.")], ABOUT, replace_texts=False)

    assert (written.episodes, written.steps, written.shards) == (1, 20, 1)
    after = corpus.scan().collect().sort("episode", "step")
    assert after.drop("text").equals(before)
    assert corpus.version == version + 1
    assert corpus.info == plain.info
    assert corpus.verify().problems == ()
    assert (
        Corpus.open(tmp_path / "c", version).scan().collect().sort("episode", "step").equals(before)
    )


def test_every_way_to_read_a_corpus_has_the_texts(tmp_path: Path) -> None:
    corpus = captioned(tmp_path / "c")

    assert texts(corpus) == EXPECTED
    assert corpus.read_episode("ann-1").text == EXPECTED["ann-1"]
    assert corpus.read_episode("bob-0").text is None
    found = query(corpus, "SELECT text, COUNT(*) AS n FROM steps GROUP BY text").collect()
    assert {*found.rows()} == {(None, 56), ("A door.", 20), ("A red cube.", 4)}
    assert corpus.at("m1", corpus.episodes["start_ns"][0])["text"].to_list() == ["A door."]


def test_the_manifest_says_which_steps_have_them_to_other_programs_too(tmp_path: Path) -> None:
    captioned(tmp_path / "c")

    table = deltalake.DeltaTable(tmp_path / "c/episodes").to_pyarrow_table().sort_by("episode")
    ann0, ann1, bob, cem = table["captions"].to_pylist()
    assert (bob, cem) == ([], [])
    assert [each["steps"] for each in (*ann0, *ann1)] == [
        [{"start": 0, "end": 20}],
        [{"start": 5, "end": 9}],
    ]
    assert (ann0[0]["model"], ann0[0]["prompt"]) == ("tiny-vl", "What happens?")
    assert ann0[0]["made"] == NOON


def test_texts_that_are_there_are_kept_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    corpus = captioned(tmp_path / "c")
    other = Captions("big-vl", "What?", "b" * 24, NOON)
    new = [answer("ann-1", 0, 20, "A room.")]

    assert write_texts(corpus, new, other, replace_texts=False).steps == 16
    assert texts(corpus)["ann-1"] == ["A room."] * 5 + ["A red cube."] * 4 + ["A room."] * 11
    steps = {each["model"]: each["steps"] for each in captions_of(corpus, "ann-1")}
    assert steps == {
        "tiny-vl": [{"start": 5, "end": 9}],
        "big-vl": [{"start": 0, "end": 5}, {"start": 9, "end": 20}],
    }
    assert write_texts(corpus, new, other, replace_texts=True).steps == 4
    assert [each["model"] for each in captions_of(corpus, "ann-1")] == ["big-vl"]
    version = corpus.version
    assert write_texts(corpus, new, other, replace_texts=True).steps == 0
    assert corpus.version == version


def captions_of(corpus: Corpus, episode: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = corpus.episodes.filter(episode=episode)["captions"].to_list()[
        0
    ]
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.booleans(), min_size=12, max_size=12))))
def test_each_step_belongs_to_the_captions_that_wrote_it_last(
    writes: list[tuple[int, list[bool]]],
) -> None:
    captions: tuple[Captions, ...] = ()
    slowly: dict[int, str] = {}
    for number, mask in writes:
        about = Captions("m", "p", str(number), NOON)
        captions = captions_after(captions, about, np.array(mask, np.bool_))
        slowly |= {step: str(number) for step, written in enumerate(mask) if written}

    assert {
        step: each.settings
        for each in captions
        for low, high in each.steps
        for step in range(low, high)
    } == slowly


def test_an_episode_with_the_same_name_of_another_recording_gets_no_text(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    foreign = Answer(Clip("f" * 64, "ann-0", 0, 20), "A door.", NOON)

    assert write_texts(corpus, [foreign], ABOUT, replace_texts=False).steps == 0


def test_they_survive_a_compaction(tmp_path: Path) -> None:
    corpus = captioned(tmp_path / "c")
    manifest = corpus.episodes["captions"].to_list()
    compact(corpus)
    assert corpus.episodes["shard"].n_unique() == 1
    compact_to(corpus, tmp_path / "cold", "cold")

    for place in ("c", "cold"):
        copy = Corpus.open(tmp_path / place)
        assert texts(copy) == EXPECTED
        assert copy.episodes["captions"].to_list() == manifest
        assert copy.verify().problems == ()


def test_a_compaction_of_shards_without_texts_makes_what_it_made_before(tmp_path: Path) -> None:
    corpus, plain = captioned(tmp_path / "c"), small_corpus(tmp_path / "plain")
    for each in (corpus, plain):
        each.commit(add_shard(each, "dan-0"))
        each.commit(add_shard(each, "eve-0"))
    shards = [row for row in corpus.episodes["shard"] if row in set(plain.episodes["shard"])]

    assert len(set(shards)) == 3  # all but that of ann: an ingest goes on as if there were no texts


def test_whoever_is_forgotten_leaves_no_text_and_no_answer(tmp_path: Path) -> None:
    corpus = captioned(tmp_path / "c")
    book = AnswerBook(corpus.storage, SETTINGS)
    for each in (answer("ann-0", 0, 9, "A door."), answer("bob-0", 0, 9, "A key.")):
        book.keep(each)
    forget(corpus, {"player": ["ann"]})

    assert corpus.episodes["episode"].to_list() == ["bob-0", "cem-0"]
    assert "text" not in corpus.scan().collect_schema()
    assert [each.text for each in book.read().values()] == ["A key."]
    vacuum(corpus, older_than_seconds=0)
    left = b"".join(path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert b"A door." not in left


def test_an_export_has_them_and_is_not_mixed_with_one_from_before(tmp_path: Path) -> None:
    small_corpus(tmp_path / "c", tokenizer=None)
    export(tmp_path / "c", to="parquet", out=tmp_path / "out")
    corpus = captioned(tmp_path / "d", tokenizer=None)
    export(corpus, to="parquet", out=tmp_path / "captioned")

    files = sorted((tmp_path / "captioned").rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert sorted({row["text"] or "" for row in rows}) == ["", "A door.", "A red cube."]
    with pytest.raises(MismatchError, match="text"):
        export(corpus, to="parquet", out=tmp_path / "out")


def test_an_export_notices_new_texts(tmp_path: Path) -> None:
    corpus = captioned(tmp_path / "c", tokenizer=None)
    assert export(corpus, to="parquet", out=tmp_path / "out").written == 4
    write_texts(corpus, [answer("bob-0", 0, 20, "A key.")], ABOUT, replace_texts=False)

    with pytest.raises(MismatchError, match="captions"):
        export(corpus, to="parquet", out=tmp_path / "out")


def test_later_recordings_come_in_as_before_and_have_no_text(tmp_path: Path) -> None:
    corpus = captioned(tmp_path / "c")
    corpus.commit(add_shard(Corpus.open_or_create(tmp_path / "c", info()), "dan-0"))

    assert texts(corpus)["dan-0"] == [None] * 20
    assert corpus.verify().problems == ()


def test_a_manifest_of_a_time_without_captions_is_read_and_gets_some(tmp_path: Path) -> None:
    small_corpus(tmp_path / "c")
    for old in (tmp_path / "c/episodes").glob("*.parquet"):
        rows = pq.read_table(old).drop_columns(["captions"])
        pq.write_table(rows, old)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.episodes["captions"].to_list() == [None] * 4
    assert "text" not in corpus.scan().collect_schema()

    write_texts(corpus, [answer("ann-0", 0, 20, "A door.")], ABOUT, replace_texts=False)
    assert texts(corpus)["ann-0"] == ["A door."] * 20
    assert [len(each or ()) for each in corpus.episodes["captions"].to_list()] == [1, 0, 0, 0]


def test_damage_is_never_copied(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    shard = corpus.shard_path(corpus.episodes.filter(episode="ann-0")["shard"][0])
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)

    with pytest.raises(IntegrityError, match="corrupt"):
        write_texts(corpus, [answer("ann-0", 0, 20, "A door.")], ABOUT, replace_texts=False)


def test_a_compaction_meanwhile_costs_no_text(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    behind = Corpus.open(tmp_path / "c")
    amend = behind.amend

    def late(*arguments: object) -> None:
        behind.amend = amend  # type: ignore[method-assign]
        compact(corpus)
        amend(*arguments)  # type: ignore[arg-type]

    behind.amend = late  # type: ignore[method-assign]
    written = write_texts(behind, [answer("ann-0", 0, 20, "A door.")], ABOUT, replace_texts=False)

    assert (written.episodes, written.steps) == (1, 20)
    assert texts(Corpus.open(tmp_path / "c"))["ann-0"] == ["A door."] * 20


def test_answers_are_kept_one_by_one_and_their_files_stay_few(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    book = AnswerBook(corpus.storage, SETTINGS)
    for step in range(MERGE_AT + 3):
        book.keep(answer("ann-0", step, step + 1, f"Text {step}."))

    assert len(corpus.storage.list(FOLDER)) == 4
    assert len(AnswerBook(corpus.storage, SETTINGS).read()) == MERGE_AT + 3
    assert AnswerBook(corpus.storage, "b" * 24).read() == {}
    book.tidy()
    assert len(corpus.storage.list(FOLDER)) <= 2
    assert len(book.read()) == MERGE_AT + 3


def test_an_answer_is_the_same_after_it_was_kept() -> None:
    clip = Clip("r", "e\u2028\x1f", 3, 9)
    whole = Answer(clip, "A cube.", NOON, "vl-1", Usage(5, 6, 1))

    assert Answer.from_line(whole.to_line()) == whole


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"[]\n", b"{}\n", b"\xff\xfe\n", b"\n"),
        answer("ann-0", 0, 9, "x").to_line().replace(b'"start": 0', b'"start": 9'),
        answer("ann-0", 0, 9, "x").to_line().replace(b'"start": 0', b'"start": -1'),
        answer("ann-0", 0, 9, "x").to_line().replace(b'"start": 0', b'"start": true'),
        answer("ann-0", 0, 9, "x").to_line().replace(b'"x"', b'""'),
        answer("ann-0", 0, 9, "x").to_line().replace(b'"x"', b"7"),
        answer("ann-0", 0, 9, "x").to_line().replace(b"2026-", b"20z6-"),
        answer("ann-0", 0, 9, "x" * 4001).to_line(),
    ],
)
def test_a_damaged_file_of_answers_is_named(tmp_path: Path, content: bytes) -> None:
    corpus = small_corpus(tmp_path / "c")
    (tmp_path / "c/captions").mkdir()
    (tmp_path / f"c/captions/{SETTINGS}-1.jsonl").write_bytes(content)

    with pytest.raises(IntegrityError, match=f"captions/{SETTINGS}-1.jsonl: damaged: line 1"):
        AnswerBook(corpus.storage, SETTINGS).read()
    with pytest.raises(IntegrityError, match="damaged"):
        forget_answers(corpus.storage, ["r"])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" A  door\r\n\topens. ", "A door opens."),
        ("\x1b[31mred\x00\x07", "[31mred"),
        ("\u202eder\u202c \u2066x\u2069", "der x"),
        ("a\ud800b \ue000", "ab"),
        (
            "\u00fc\u4e2d\u0645\u200c \U0001f469\u200d\U0001f680",
            "\u00fc\u4e2d\u0645\u200c \U0001f469\u200d\U0001f680",
        ),
        ("\u2028\u2029\u00a0", ""),
    ],
)
def test_a_caption_is_one_plain_line(text: str, plain: str) -> None:
    assert plain_caption(text) == plain


@given(st.text())
def test_a_plain_caption_stays_as_it_is(text: str) -> None:
    plain = plain_caption(text)

    assert plain_caption(plain) == plain
    assert "\n" not in plain
    plain.encode()


def test_the_summary_of_a_corpus_counts_them(tmp_path: Path, cli: Run) -> None:
    captioned(tmp_path / "c")

    assert "24 steps by tiny-vl (2026-01-01)" in cli("info", tmp_path / "c").stdout


def test_a_corpus_on_a_store_gets_texts_too(bucket: Bucket) -> None:
    corpus = captioned(bucket.location)
    book = AnswerBook(corpus.storage, SETTINGS)
    book.keep(answer("bob-0", 0, 9, "A key."))
    book.keep(answer("bob-0", 9, 12, "A lock."))
    book.tidy()

    assert texts(Corpus.open(bucket.location)) == EXPECTED
    assert len(book.read()) == 2
    assert len(bucket.names("captions")) == 1
