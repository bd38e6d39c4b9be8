"""The steps of a corpus as a polars LazyFrame with ordinary list columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

from wham_data.after_fork import check_polars
from wham_data.corpus.readable import ReadableCorpus, has_text
from wham_data.corpus.shard_view import matrix_of
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.declarations import nearest
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.steps import FLOAT, TOKEN

PLACES: Final = ("episode", "shard", "row_start", "n_steps")
"""Columns of the manifest that say where the steps of an episode are."""


def sorted_frame(rows: pa.Table, by: str) -> pl.DataFrame:
    """The rows of a table as a frame, sorted by a column."""
    return cast(pl.DataFrame, pl.from_arrow(rows)).sort(by)


def scan_steps(corpus: ReadableCorpus) -> pl.LazyFrame:
    """See `Corpus.scan`. The result stays at the version that the corpus has now."""
    check_polars("Corpus.scan")
    manifest = corpus.episodes.select("split", *PLACES)
    return scan_with(corpus, manifest, scan_schema(corpus))


def scan_with(
    corpus: ReadableCorpus, manifest: pl.DataFrame, schema: Mapping[str, pl.DataType]
) -> pl.LazyFrame:
    """The steps of the episodes in `manifest`, with these columns.

    Args:
        corpus: the corpus to read.
        manifest: a row for each episode: the columns of PLACES, and others.
        schema: columns and their types: those of `scan_schema`, and columns of `manifest`, which
            have the same value in all steps of an episode. A filter on these alone reads only the
            shards of the episodes that it leaves.
    """

    def steps(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001  a batch is always a row group: one page holds it
    ) -> Iterator[pl.DataFrame]:
        columns = list(schema) if with_columns is None else with_columns
        rows = manifest
        if predicate is not None:
            used = predicate.meta.root_names()
            columns = columns + [name for name in used if name not in columns]
            if set(used) <= set(manifest.columns):
                rows = rows.filter(predicate)
        for piece in pieces(corpus, rows, columns):
            batch = piece if n_rows is None else piece.head(n_rows)
            if n_rows is not None:
                n_rows -= len(batch)
            if predicate is not None:
                batch = batch.filter(predicate)
            yield batch if with_columns is None else batch.select(with_columns)
            if n_rows == 0:
                return

    return register_io_source(steps, schema=dict(schema))


def steps_at(corpus: ReadableCorpus, match: str, time_ns: int) -> pl.DataFrame:
    """See `Corpus.at`."""
    check_polars("Corpus.at")
    episodes = corpus.episodes.filter(pl.col("match") == match)
    if not len(episodes):
        known = sorted(set(corpus.episodes["match"].drop_nulls()))
        raise UsageError(
            f"no episode of the match {match[:80]!r}{nearest(match, known, 'matches')}"
        )
    schema = scan_schema(corpus)
    rows = [pl.DataFrame(schema=schema)]
    for episode in episodes.iter_slices(1):
        step = _step_at(corpus, episode.row(0, named=True), time_ns)
        if step is not None:
            one = episode.with_columns(pl.col("row_start") + step, n_steps=pl.lit(1))
            rows += pieces(corpus, one, list(schema))
    who = episodes.select("episode", "player", "subject")
    return pl.concat(rows).join(who, on="episode").sort("player", "subject", "episode")


def _step_at(corpus: ReadableCorpus, episode: Mapping[str, Any], time_ns: int) -> int | None:
    """The number of the step that covers a time; None: the episode has no such step."""
    since_ns, rate = time_ns - episode["start_ns"], corpus.info.rate
    if since_ns < 0:
        return None
    if isinstance(rate, Fraction):
        step = since_ns * rate.numerator // (SECOND_NS * rate.denominator)
        return step if step < episode["n_steps"] else None
    start, stop = episode["row_start"], episode["row_start"] + episode["n_steps"]
    tables = [t for _, t in corpus.open_shard(episode["shard"]).read_rows(start, stop, ["time_ns"])]
    times_ns = pa.concat_tables(tables).column("time_ns").to_numpy()
    step = int(np.searchsorted(times_ns, time_ns, side="right")) - 1
    if step == len(times_ns) - 1 and (time_ns - times_ns[-1]) * episode["source_fps"] >= SECOND_NS:
        return None  # the last step lasts as long as a typical frame of the source
    return step


def scan_schema(corpus: ReadableCorpus) -> dict[str, pl.DataType]:
    """The columns of `Corpus.scan()` and their types."""
    info = corpus.info
    floats, tokens = pl.List(pl.Float32()), pl.List(pl.UInt16())
    schema: dict[str, pl.DataType] = {"episode": pl.String(), "split": pl.String()}
    schema |= {"step": pl.Int32(), "time_ns": pl.Int64()}
    schema |= {"tokens": tokens} if info.tokenizer else {}
    schema |= {"actions": floats}
    schema |= {"frame": pl.Binary()} if info.frames != "none" else {}
    schema |= {"state": floats} if info.state_size else {}
    schema |= {"reward": pl.Float32()} if info.reward else {}
    schema |= {"text": pl.String()} if has_text(corpus) else {}
    return schema


def pieces(
    corpus: ReadableCorpus, manifest: pl.DataFrame, names: list[str]
) -> Iterator[pl.DataFrame]:
    """The steps of some episodes, at most a row group at a time.

    Args:
        corpus: the corpus to read.
        manifest: a row for each episode, with the columns of PLACES.
        names: columns to read: of `scan_schema`, or of `manifest`.

    Raises:
        IntegrityError: a shard is damaged, or rows of the manifest overlap.
    """
    # `step` is always read, because a table without columns does not know its count of rows.
    told = [name for name in names if name in manifest.columns and name != "episode"]
    stored = list(dict.fromkeys(["step", *(name for name in names if name not in told)]))
    if "actions" in stored:
        stored.append("action_known")
    for (shard,), episodes in manifest.sort("shard", "row_start").group_by(
        "shard", maintain_order=True
    ):
        view = corpus.open_shard(str(shard))
        starts = episodes["row_start"].to_numpy()
        stops = starts + episodes["n_steps"].to_numpy()
        if (starts[1:] < stops[:-1]).any() or starts[0] < 0 or stops[-1] > view.rows:
            raise IntegrityError(
                f"{view.where}: the manifest's rows overlap or reach beyond its {view.rows} rows"
            )
        for first, table in view.read_rows(int(starts[0]), int(stops[-1]), stored):
            rows = np.arange(first, first + len(table))
            owner = np.searchsorted(starts, rows, side="right") - 1
            # Rows that the manifest does not name are skipped: another shard has their recording.
            exists = rows < stops[owner]
            if not exists.all():
                table, owner = table.filter(pa.array(exists)), owner[exists]
            columns = {name: _column(table, name) for name in names if name not in told}
            columns |= {name: episodes[name].gather(owner) for name in told}
            yield pl.DataFrame(columns).select(names)


def _column(table: pa.Table, name: str) -> pl.Series:
    array = table.column(name).combine_chunks()
    if name == "tokens":
        array = _lists(array, TOKEN)
    elif name == "actions":
        array = _lists(array, FLOAT, missing=~_flags(table.column("action_known").combine_chunks()))
    elif name == "state":
        array = _lists(array, FLOAT, missing=_flags(array.is_null()))
    elif name == "episode":
        array = array.cast(pa.large_string())
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _lists(
    array: pa.Array, dtype: np.dtype[np.generic], missing: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Fixed-length bytes as lists of numbers, sharing their memory; `missing` rows are null."""
    values = matrix_of(array, dtype)
    offsets = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
    mask = None if missing is None or not missing.any() else pa.array(missing)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)), mask=mask)


def _flags(array: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)
