"""Page headers, read strictly, and the matrices behind them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.corpora import info, small_corpus, steps

from wham_data.corpus.pages import PageHeader, read_page_header
from wham_data.schemas.errors import IntegrityError
from wham_data.schemas.steps import TOKEN

# A data page of 4 values in 24 bytes, PLAIN, as pyarrow writes it.
HEADER = bytes.fromhex("1500153015302c15081500150615060000")


def test_a_header_tells_where_its_body_begins() -> None:
    assert read_page_header(HEADER + b"body") == PageHeader(len(HEADER), 24, 24, True, 4)


def test_a_dictionary_coded_page_is_not_plain() -> None:
    coded = HEADER.replace(bytes.fromhex("15081500"), bytes.fromhex("15081510"))

    assert not read_page_header(coded).plain


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_bytes_that_are_no_header_are_an_error_and_nothing_worse(data: bytes) -> None:
    with suppress(ValueError):
        read_page_header(data)


@settings(deadline=None)
@given(st.integers(0, len(HEADER) - 1))
def test_a_header_that_was_cut_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="header"):
        read_page_header(HEADER[:length])


def test_a_matrix_is_where_the_shard_says(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    view = corpus.open_shard(corpus.episodes["shard"][0])

    (offset,) = view.matrix_offsets("tokens")

    first = np.frombuffer(view.path.read_bytes(), TOKEN, count=6, offset=int(offset))
    assert (first == steps(view.episodes[0].episode).tokens[0]).all()


def test_a_column_of_two_pages_is_no_matrix(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    path = corpus.shard_path(corpus.episodes["shard"][0])
    table = pq.read_table(path)
    metadata = pq.read_metadata(path).metadata
    schema = pq.read_schema(path).with_metadata({**metadata})
    path.unlink()
    with pq.ParquetWriter(
        path, schema, compression="NONE", use_dictionary=["episode"], max_rows_per_page=10
    ) as writer:
        writer.write_table(table.cast(schema))

    with pytest.raises(IntegrityError, match="tokens is not one raw matrix"):
        corpus.open_shard(path.name).matrix_offsets("tokens")


def test_a_cold_shard_has_no_matrix(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", layout="cold")

    with pytest.raises(IntegrityError, match="compact"):
        corpus.open_shard(corpus.episodes["shard"][0]).matrix_offsets("actions")


def test_a_matrix_of_a_corpus_without_tokens_starts_elsewhere(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", tokenizer=None)
    view = corpus.open_shard(corpus.episodes["shard"][0])

    (offset,) = view.matrix_offsets("actions")

    found = np.frombuffer(view.path.read_bytes(), "<f4", count=3, offset=int(offset))
    assert (found == steps(view.episodes[0].episode, corpus=info()).actions[0]).all()
    assert pa.types.is_fixed_size_binary(pq.read_schema(view.path).field("actions").type)
