"""A shard is a raw matrix in a Parquet file: the same steps, the same bytes, and no surprises in it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.corpora import PAD, TOKENIZER, info, steps

from wham_data.corpus.shard_view import ShardView, matrix_of, steps_from
from wham_data.corpus.shards import (
    CORPUS_KEY,
    EPISODES_KEY,
    ShardFile,
    rows_per_group,
    shard_id,
    write_shard_to,
)
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.steps import TOKEN, EpisodeSteps, shard_schema

TESTS = Path(__file__).parents[1]
NAME = f"{'0' * 24}.parquet"


def written(path: Path, *episodes: EpisodeSteps, corpus: CorpusInfo | None = None) -> ShardFile:
    return write_shard_to(path, episodes, corpus or info(), NAME)


def pieces(whole: EpisodeSteps, *cuts: int) -> list[EpisodeSteps]:
    edges = [0, *cuts, whole.n_steps]
    assert whole.tokens is not None
    return [
        EpisodeSteps(
            episode=whole.episode,
            time_ns=whole.time_ns[a:b],
            actions=whole.actions[a:b],
            action_known=whole.action_known[a:b],
            tokens=whole.tokens[a:b],
            first_step=a,
        )
        for a, b in itertools.pairwise(edges)
    ]


def same(left: EpisodeSteps, right: EpisodeSteps) -> bool:
    return all(
        np.array_equal(
            getattr(left, name), getattr(right, name), equal_nan=name in ("actions", "state")
        )
        for name in ("time_ns", "actions", "action_known", "tokens", "state", "reward")
        if getattr(left, name) is not None or getattr(right, name) is not None
    ) and (left.episode, left.frames, left.text) == (right.episode, right.frames, right.text)


def test_the_pages_of_tokens_and_actions_are_the_raw_matrix(tmp_path: Path) -> None:
    path = tmp_path / NAME
    long, short = steps("long", 5000), steps("short", 30)
    written(path, long, short)
    footer = pq.read_metadata(path)
    group = rows_per_group(info())
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [
        group,
        5030 - group,
    ]
    assert long.tokens is not None
    assert short.tokens is not None
    matrices = {
        "tokens": np.concatenate([long.tokens, short.tokens]),
        "actions": np.concatenate([long.actions, short.actions]),
        "step": np.concatenate([np.arange(5000), np.arange(30)]).astype(np.int32),
        "time_ns": np.concatenate([long.time_ns, short.time_ns]),
    }
    content = path.read_bytes()
    for name, matrix in matrices.items():
        column = footer.schema.names.index(name)
        for number, rows in enumerate((matrix[:group], matrix[group:])):
            chunk = footer.row_group(number).column(column)
            end = chunk.data_page_offset + chunk.total_compressed_size
            body = rows.tobytes()
            # All of the chunk but one small header is the matrix: there is no second page.
            assert 0 < chunk.total_compressed_size - len(body) < 128
            assert content[end - len(body) : end] == body
            assert chunk.compression == "UNCOMPRESSED"
            assert not chunk.has_dictionary_page


def test_the_same_steps_are_the_same_bytes_in_another_process_and_in_other_pieces(
    tmp_path: Path,
) -> None:
    whole = steps("walk", 9000)
    once = written(tmp_path / "a", steps("before"), whole, steps("after"))
    cut = pieces(whole, 1, 700, 4095, 8999)
    assert written(tmp_path / "b", steps("before"), *cut, steps("after")) == once
    program = (
        "import sys; from pathlib import Path; from makers.corpora import info, steps\n"
        "from wham_data.corpus.shards import write_shard_to\n"
        "episodes = [steps('before'), steps('walk', 9000), steps('after')]\n"
        f"print(write_shard_to(Path(sys.argv[1]), episodes, info(), '{NAME}').sha256)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, "-c", program, str(tmp_path / "c")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == once.sha256
    assert hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == once.sha256
    assert (tmp_path / "a").stat().st_size == once.n_bytes


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    first, second = steps("one", 4100), steps("two", 20)
    shard = written(tmp_path / NAME, first, second)
    view = ShardView(tmp_path / NAME, info())
    assert view.episodes == shard.episodes
    assert [(e.episode, e.start, e.n_steps) for e in view.episodes] == [
        ("one", 0, 4100),
        ("two", 4100, 20),
    ]
    for expected, place in zip((first, second), view.episodes, strict=True):
        tables = [t for _, t in view.read_rows(place.start, place.start + place.n_steps)]
        assert same(steps_from(place.episode, pa.concat_tables(tables)), expected)


def test_optional_columns_are_stored_where_the_corpus_has_them(tmp_path: Path) -> None:
    corpus = info(frames="png", state_size=2, reward=True, text=True)
    plain = steps("a", 3)
    rich = replace(
        plain,
        frames=[b"\x89PNG1", b"\x89PNG2", b"\x89PNG3"],
        state=np.arange(6, dtype=np.float32).reshape(3, 2),
        reward=np.array([0, 1, 0.5], np.float32),
        text=["go", None, "stop"],
    )
    bare = replace(plain, episode="b", frames=[b"\x89PNG"] * 3)
    written(tmp_path / NAME, rich, bare, corpus=corpus)
    view = ShardView(tmp_path / NAME, corpus)
    assert same(steps_from("a", view.read_group(0).slice(0, 3)), rich)
    assert same(steps_from("b", view.read_group(0).slice(3, 3)), replace(bare, text=[None] * 3))


def test_field_metadata_tells_dtype_shape_and_names(tmp_path: Path) -> None:
    written(tmp_path / NAME, steps("a"))
    schema = pq.read_schema(tmp_path / NAME)
    tokens, actions = schema.field("tokens").metadata, schema.field("actions").metadata
    assert (tokens[b"dtype"], json.loads(tokens[b"shape"])) == (b"uint16", [2, 3])
    assert json.loads(tokens[b"dims"]) == ["row", "column"]
    assert (actions[b"dtype"], json.loads(actions[b"names"])) == (b"float32", ["a", "b", "x"])
    assert not any(schema.field(name).nullable for name in schema.names)
    metadata = pq.read_metadata(tmp_path / NAME).metadata
    assert CorpusInfo.from_json(metadata[CORPUS_KEY]) == info()
    assert json.loads(metadata[EPISODES_KEY]) == [["a", 0, 20]]


def test_a_shard_is_named_by_recordings_and_settings_in_any_order() -> None:
    assert shard_id(["b", "a"], "s") == shard_id(["a", "b"], "s")
    assert shard_id(["a"], "s") != shard_id(["a", "b"], "s") != shard_id(["a", "b"], "t")
    assert len(shard_id(["a"], "s")) == 24


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tokens": np.zeros((20, 5), np.uint16)}, "tokens is fixed_size_binary"),
        ({"tokens": np.full((20, 6), 64, np.uint16)}, "token 64 is not below"),
        ({"tokens": None}, "tokens is none"),
        (
            {"actions": np.zeros((20, 2), np.float32), "action_known": np.ones(20, bool)},
            "actions is",
        ),
        ({"reward": np.zeros(20, np.float32)}, "has reward"),
    ],
)
def test_steps_that_are_not_what_the_corpus_says_are_refused(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        written(tmp_path / NAME, replace(steps("a"), **change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"actions": np.zeros((20, 3), np.float32)}, "step 6: a known action is finite"),
        ({"action_known": np.ones(20, bool)}, "step 6: a known action is finite"),
        ({"time_ns": np.zeros(20, np.int64)}, "does not increase"),
        ({"actions": np.zeros((20, 3))}, "actions is float64"),
        ({"tokens": np.zeros((19, 6), np.uint16)}, r"tokens is uint16 \[19, 6\]"),
        ({"frames": [b""]}, "1 frames for 20 steps"),
        ({"first_step": -1}, "31 bits"),
    ],
)
def test_steps_that_contradict_themselves_cannot_be_built(
    change: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        replace(steps("a"), **change)


def test_pieces_must_follow_one_another(tmp_path: Path) -> None:
    first, second = pieces(steps("a"), 10)
    with pytest.raises(UsageError, match="begins at step 10, but the last piece"):
        written(tmp_path / "1", second)
    with pytest.raises(UsageError, match="but the last piece was of episode"):
        written(tmp_path / "2", first, steps("b"), second)
    with pytest.raises(UsageError, match="no step to write"):
        written(tmp_path / "3")


def test_a_flipped_bit_in_a_page_is_found_on_reading(tmp_path: Path) -> None:
    path = tmp_path / NAME
    whole = steps("a", 500)
    written(path, whole)
    assert whole.tokens is not None
    content = bytearray(path.read_bytes())
    content[content.index(whole.tokens.tobytes()) + 77] ^= 4
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="row group 0 is corrupt"):
        ShardView(path, info()).read_group(0)


def rewritten(path: Path, change: Any, **options: Any) -> None:
    """The shard at `path` as somebody else would write it, changed."""
    table = pq.read_table(path)
    metadata = {k: v for k, v in pq.read_metadata(path).metadata.items() if k != b"ARROW:schema"}
    table = change(table.replace_schema_metadata(metadata))
    pq.write_table(table, path, **{"compression": "NONE", "use_dictionary": ["episode"], **options})


def without_metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({})


def of_another_tokenizer(table: pa.Table) -> pa.Table:
    other = info(tokenizer=replace(TOKENIZER, fingerprint="fingerprint-2"))
    return table.replace_schema_metadata({**table.schema.metadata, CORPUS_KEY: other.to_json()})


def of_a_newer_format(table: pa.Table) -> pa.Table:
    text = json.dumps({**info().to_dict(), "format_version": 99})
    return table.replace_schema_metadata({**table.schema.metadata, CORPUS_KEY: text})


def ragged(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("tokens")
    rows = [*table.column("tokens").to_pylist()[:-1], b"\0\0"]
    return table.set_column(index, pa.field("tokens", pa.binary(), nullable=False), [rows])


def listing(table: pa.Table, *listed: Any) -> pa.Table:
    return table.replace_schema_metadata(
        {**table.schema.metadata, EPISODES_KEY: json.dumps(listed)}
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop_columns(["actions"]), "column actions is missing"),
        (lambda t: t.append_column("more", [[0] * len(t)]), "columns .*more, expected"),
        (without_metadata, "no corpus metadata"),
        (of_another_tokenizer, 'tokenizer.fingerprint: "fingerprint-2", not "fingerprint-1"'),
        (of_a_newer_format, "needs wham-data >= 99"),
        (ragged, "column tokens is binary, expected fixed_size_binary"),
        (lambda t: listing(t, ["a", 0, 19]), "its episodes have 19 steps, but it has 20 rows"),
        (lambda t: listing(t, ["a", 0, 10], ["b", 11, 9]), "does not go on at row 10"),
        (lambda t: listing(t, ["a", 0, 10], ["a", 10, 10]), "twice"),
        (lambda t: listing(t, {"a": 1}), "does not go on at row 0"),
        (lambda t: t.slice(0, 5), "its episodes have 20 steps, but it has 5 rows"),
    ],
)
def test_a_file_that_is_no_shard_of_the_corpus_is_refused_before_a_page_is_read(
    tmp_path: Path, change: Any, told: str
) -> None:
    written(tmp_path / NAME, steps("a"))
    rewritten(tmp_path / NAME, change)
    with pytest.raises(IntegrityError, match=told):
        ShardView(tmp_path / NAME, info())


@pytest.mark.parametrize("cut", [0, 3, 300, -300, -1])
def test_a_truncated_shard_is_refused(tmp_path: Path, cut: int) -> None:
    written(tmp_path / NAME, steps("a", 200))
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:cut])
    with pytest.raises(IntegrityError, match="truncated or not a Parquet file"):
        ShardView(tmp_path / NAME, info())


def test_a_table_of_text_called_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("episode,step\na,0\n")
    with pytest.raises(IntegrityError, match="not a Parquet file"):
        ShardView(tmp_path / NAME, info())


def test_few_bytes_that_claim_millions_of_rows_are_refused(tmp_path: Path) -> None:
    n = 3_000_000
    corpus = info(tokenizer=None)
    columns = {
        "episode": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["a"]),
        "step": np.zeros(n, np.int32),
        "time_ns": np.zeros(n, np.int64),
        "actions": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(12), n, [None, pa.py_buffer(bytes(12 * n))]
        ),
        "action_known": np.ones(n, bool),
    }
    schema = shard_schema(corpus).with_metadata(
        {CORPUS_KEY: corpus.to_json(), EPISODES_KEY: json.dumps([["a", 0, n]])}
    )
    bomb = tmp_path / NAME
    pq.write_table(pa.table(columns, schema=schema), bomb, row_group_size=n, use_dictionary=True)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(IntegrityError, match="3000000 rows, too large"):
        ShardView(bomb, corpus)
    pq.write_table(
        pa.table(columns, schema=schema), bomb, row_group_size=16_384, use_dictionary=True
    )
    with pytest.raises(IntegrityError, match="not a raw matrix"):
        ShardView(bomb, corpus)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"compression": "zstd"}, "column episode is compressed"),
        ({"use_dictionary": True}, "column step is coded with a dictionary"),
    ],
)
def test_pages_that_must_be_decoded_are_refused_in_a_mapped_shard(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    written(tmp_path / NAME, steps("a"))
    rewritten(tmp_path / NAME, lambda table: table, **options)
    with pytest.raises(IntegrityError, match=told):
        ShardView(tmp_path / NAME, info())


def test_a_text_too_long_to_be_one_is_neither_written_nor_read(tmp_path: Path) -> None:
    corpus = info(text=True, layout="cold")
    with pytest.raises(UsageError, match="a text of 100000, expected at most 65536 bytes"):
        written(tmp_path / NAME, replace(steps("a", 2), text=["x" * 100_000, None]), corpus=corpus)
    (tmp_path / NAME).unlink()
    written(tmp_path / NAME, replace(steps("a", 2), text=["x", None]), corpus=corpus)
    index = len(shard_schema(corpus)) - 1

    def bomb(table: pa.Table) -> pa.Table:
        return table.set_column(index, "text", pa.array(["x" * 1_000_000, None]))

    rewritten(tmp_path / NAME, bomb, compression="zstd")
    with pytest.raises(IntegrityError, match=r"column text claims 1000\d+ bytes for 2 rows"):
        ShardView(tmp_path / NAME, corpus)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=f"{NAME}: the shard is missing"):
        ShardView(tmp_path / NAME, info())


def test_a_cold_shard_holds_the_same_steps_in_fewer_bytes(tmp_path: Path) -> None:
    whole = steps("a", 5000)
    assert whole.tokens is not None
    whole.tokens[:] = whole.tokens[0]
    mapped = written(tmp_path / "mapped", whole)
    cold = written(tmp_path / "cold", whole, corpus=info(layout="cold"))
    assert cold.n_bytes < mapped.n_bytes / 2
    view = ShardView(tmp_path / "cold", info(layout="cold"))
    assert same(steps_from("a", pa.concat_tables(t for _, t in view.read_rows(0, 5000))), whole)


def test_a_fixed_length_column_is_viewed_without_a_copy() -> None:
    numbers = np.arange(12, dtype=np.uint16).reshape(4, 3)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(6), 4, [None, pa.py_buffer(numbers)])
    view = matrix_of(column.slice(1, 2), TOKEN)
    assert np.array_equal(view, numbers[1:3])
    assert np.shares_memory(view, numbers)


def test_corpus_json_says_the_same_after_a_round_trip() -> None:
    for each in (info(), info(rate="native"), info(rate=Fraction(30000, 1001), tokenizer=None)):
        assert CorpusInfo.from_json(each.to_json()) == each
        assert CorpusInfo.from_json(each.to_json()).settings_hash == each.settings_hash


def test_differences_between_two_corpora_are_readable_lines() -> None:
    other = info(
        rate=Fraction(20), tokenizer=replace(TOKENIZER, fingerprint="f2"), settings={"seed": 1}
    )
    assert info().diff(other) == [
        'rate: "10", not "20"',
        "settings.seed: absent, not 1",
        'tokenizer.fingerprint: "fingerprint-1", not "f2"',
    ]
    assert info().settings_hash != other.settings_hash


def test_equal_numbers_are_equal_settings_and_the_layout_is_none() -> None:
    assert info(settings={"gap": 1.0}).settings_hash == info(settings={"gap": 1}).settings_hash
    assert info(layout="cold").settings_hash == info().settings_hash
    assert info(layout="cold").diff(info()) == []


def test_unknown_fields_of_corpus_json_are_kept() -> None:
    text = json.dumps({**info().to_dict(), "x_note": {"from": "later"}})
    assert json.loads(CorpusInfo.from_json(text).to_json())["x_note"] == {"from": "later"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "corrupt or truncated JSON"),
        ("[]", "expected an object"),
        ('{"format_version": 1, "format_version": 1}', "twice"),
        ('{"format_version": 99}', "needs wham-data >= 99"),
        ('{"format_version": true}', "expected int"),
        ('{"format_version": 1}', "field 'rate' is missing"),
        ("[" * 100_000, "nested too deep"),
        (json.dumps({**info().to_dict(), "rate": "1/0"}), "not the description"),
        (json.dumps({**info().to_dict(), "rate": "NaN"}), "not the description"),
        (json.dumps({**info().to_dict(), "size": [300]}), "two whole numbers"),
        (json.dumps({**info().to_dict(), "fit": "melt"}), "none of"),
        (json.dumps({**info().to_dict(), "settings": {"a": [1]}}), "expected a text or a number"),
        ('{"format_version": NaN}', "NaN is not a number"),
    ],
)
def test_a_damaged_corpus_json_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(IntegrityError, match=told) as caught:
        CorpusInfo.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"vocab_size": 65_537}, {"grid": (0, 5)}, {"grid": (300, 300)}, {"name": ""}]
)
def test_a_tokenizer_must_fit_two_bytes_a_token(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TokenizerInfo(**{**TOKENIZER.to_dict(), "grid": (2, 3), "frame_size": (30, 20), **change})


def test_the_widths_of_a_shard_follow_from_the_corpus() -> None:
    schema = shard_schema(info())
    assert schema.field("tokens").type == pa.binary(2 * 6)
    assert schema.field("actions").type == pa.binary(4 * PAD.size)
    assert "tokens" not in shard_schema(info(tokenizer=None)).names
