"""Write shards: Parquet files whose pages are raw matrices. Equal steps give equal bytes.

Every column chunk of a fixed-length column is one page, PLAIN and uncompressed, of a REQUIRED field.
So the page header is followed by the matrix itself (rows x 2N bytes of tokens, rows x 4A bytes of
actions), and a reader maps it without decoding. A row group has 4,096 rows (4.4 MB of WHAM tokens),
or 1,024 rows if the steps hold pictures, so that it fits into memory.

The file contains only the steps and the settings of the corpus: no time, host, path or random number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wham_data.corpus.storage.contract import hash_file, one_line
from wham_data.schemas.corpus_info import (
    CorpusInfo,
    Layout,
    canonical_json,
    content_hash,
)
from wham_data.schemas.errors import UsageError
from wham_data.schemas.steps import FLOAT, TOKEN, EpisodeSteps, shard_schema

ROWS_PER_GROUP: Final = 4_096
ROWS_PER_GROUP_WITH_FRAMES: Final = 1_024
MOST_ROWS_PER_GROUP: Final = 16_384
MOST_TEXT_BYTES: Final = 65_536
"""Most bytes of a text or an episode's name. A picture may be this much larger than its pixels."""
WHOLE_PAGE: Final = 2**31 - 1
"""Page size limit above any row group: a column chunk is then a single page."""
CORPUS_KEY: Final = b"wham_data.corpus"
EPISODES_KEY: Final = b"wham_data.episodes"


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows [start, start + n_steps) of a shard hold one episode."""

    episode: str
    start: int
    n_steps: int


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that is written and durable.

    name      file name under `shards/`
    sha256    over its bytes, hex digits
    n_bytes   its size
    rows      count of its rows; each row is a step
    episodes  the rows of each episode, in order
    """

    name: str
    sha256: str
    n_bytes: int
    rows: int
    episodes: tuple[RowRange, ...]


def shard_id(recordings: Iterable[str], settings_hash: str) -> str:
    """24 hex digits that name the shard with these recordings (hashes) and these settings."""
    return content_hash(["shard", settings_hash, sorted(recordings)])


def rows_per_group(info: CorpusInfo) -> int:
    """The count of steps in a row group; the last one of a shard may hold fewer."""
    return ROWS_PER_GROUP if info.frames == "none" else ROWS_PER_GROUP_WITH_FRAMES


def write_shard_to(
    path: Path,
    episodes: Iterable[EpisodeSteps],
    info: CorpusInfo,
    name: str,
    *,
    captioned: bool = False,
) -> ShardFile:
    """Write steps to a file, with one row group and one piece of an episode in memory at a time.

    Args:
        path: a private file; it is not synced here.
        episodes: whole episodes, or their pieces in order without other episodes in between.
        info: the settings of the corpus, which decide the columns.
        name: the file name that the shard will get.
        captioned: the shard has the column `text`, even if the sources of the corpus have no texts.

    Raises:
        UsageError: there are no steps, or steps that do not match `info`.
        WhamDataError: the disk is full or fails.
    """
    ranges: list[RowRange] = []
    columns = replace(info, text=True) if captioned else info
    with one_line(path):
        writer = _parquet_writer(path, shard_schema(columns), info.layout)
    try:
        for table in _row_groups(episodes, columns, ranges):
            with one_line(path):
                writer.write_table(table, row_group_size=len(table))
        listed = [[each.episode, each.start, each.n_steps] for each in ranges]
        writer.add_key_value_metadata(
            {CORPUS_KEY: corpus_metadata(info), EPISODES_KEY: canonical_json(listed)}
        )
        with one_line(path):
            writer.close()
    except BaseException:
        # If the disk is full the footer cannot be written either; only the first error matters.
        with suppress(OSError, pa.ArrowException):
            writer.close()
        raise
    rows = sum(each.n_steps for each in ranges)
    if not rows:
        raise UsageError(f"shard {name}: there is no step to write")
    return ShardFile(name, hash_file(path), path.stat().st_size, rows, tuple(ranges))


def corpus_metadata(info: CorpusInfo) -> str:
    """The settings of the corpus as JSON text, for the key-value metadata of a shard."""
    return canonical_json(info.to_dict())


def steps_table(steps: EpisodeSteps, info: CorpusInfo) -> pa.Table:
    """The steps as rows of `shard_schema(info)`, sharing the memory of their arrays.

    Raises:
        UsageError: columns, their widths or values do not match the settings of the corpus.
    """
    schema = shard_schema(info)
    n = steps.n_steps
    columns: dict[str, Any] = {
        "episode": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), [steps.episode]),
        "step": pa.array(np.arange(steps.first_step, steps.first_step + n, dtype=np.int32)),
        "time_ns": pa.array(steps.time_ns),
        "tokens": _bytes_of(steps.tokens, TOKEN),
        # NaN has many bit patterns. Write only one of them: equal steps must give equal bytes.
        "actions": _bytes_of(
            np.where(steps.action_known[:, None], steps.actions, np.float32(np.nan)), FLOAT
        ),
        "action_known": pa.array(steps.action_known),
        "frame": None if steps.frames is None else pa.array(steps.frames, pa.binary()),
        "state": _bytes_of(steps.state, FLOAT),
        "reward": None if steps.reward is None else pa.array(steps.reward),
        "text": None if steps.text is None else pa.array(steps.text, pa.string()),
    }
    for name, things in (("frame", steps.frames), ("text", steps.text)):
        longest = max((len(thing) for thing in things or () if thing is not None), default=0)
        # A character has at most four bytes of UTF-8.
        if longest * (4 if name == "text" else 1) > most_bytes(name, info):
            raise UsageError(
                f"episode {steps.episode}: a {name} of {longest}, expected at most "
                f"{most_bytes(name, info)} bytes"
            )
    surplus = [
        name for name, column in columns.items() if column is not None and name not in schema.names
    ]
    if surplus:
        raise UsageError(
            f"episode {steps.episode}: has {', '.join(surplus)}, which the corpus does not have"
        )
    for field in schema:
        column = columns[field.name]
        if column is None and field.nullable:
            columns[field.name] = pa.nulls(n, field.type)
        elif column is None or column.type != field.type:
            found = "none" if column is None else column.type
            raise UsageError(
                f"episode {steps.episode}: {field.name} is {found}, but the corpus has {field.type}"
            )
    if steps.tokens is not None and info.tokenizer is not None and n:
        largest = int(steps.tokens.max())
        if largest >= info.tokenizer.vocab_size:
            raise UsageError(
                f"episode {steps.episode}: token {largest} is not below the tokenizer's vocabulary "
                f"of {info.tokenizer.vocab_size}"
            )
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _parquet_writer(path: Path, schema: pa.Schema, layout: Layout) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        data_page_version="1.0",
        compression="NONE" if layout == "mapped" else "ZSTD",
        compression_level=None if layout == "mapped" else 9,
        use_dictionary=["episode"],
        # Minima and maxima of a token matrix are useless and would make the footer large.
        write_statistics=["step", "time_ns"],
        data_page_size=WHOLE_PAGE,
        max_rows_per_page=MOST_ROWS_PER_GROUP,
        write_batch_size=MOST_ROWS_PER_GROUP,
        write_page_checksum=True,
        store_schema=True,
    )


def most_bytes(name: str, info: CorpusInfo) -> int:
    """Most bytes of one value in a column of variable length."""
    width, height = info.size if name == "frame" else (0, 0)
    return MOST_TEXT_BYTES + width * height * 4


def _row_groups(
    episodes: Iterable[EpisodeSteps], info: CorpusInfo, ranges: list[RowRange]
) -> Iterator[pa.Table]:
    """The steps in row groups; appends the rows of each episode to `ranges`."""
    group = rows_per_group(info)
    waiting = shard_schema(info).empty_table()
    for steps in episodes:
        _append_range(ranges, steps)
        waiting = pa.concat_tables([waiting, steps_table(steps, info)])
        whole = len(waiting) - len(waiting) % group
        for start in range(0, whole, group):
            yield _one_chunk(waiting.slice(start, group))
        waiting = waiting.slice(whole)
    if len(waiting):
        yield _one_chunk(waiting)


def _one_chunk(table: pa.Table) -> pa.Table:
    """The same rows with one dictionary of episode names, listed in order of appearance.

    A chunked table would be written as several pages per column.
    """
    return table.unify_dictionaries().combine_chunks()


def _append_range(ranges: list[RowRange], steps: EpisodeSteps) -> None:
    last = ranges[-1] if ranges else RowRange("", 0, 0)
    after = last.start + last.n_steps
    if steps.episode == last.episode and steps.first_step == last.n_steps:
        ranges[-1] = RowRange(last.episode, last.start, last.n_steps + steps.n_steps)
    elif steps.first_step == 0 and all(each.episode != steps.episode for each in ranges):
        ranges.append(RowRange(steps.episode, after, steps.n_steps))
    else:
        raise UsageError(
            f"episode {steps.episode}: a piece begins at step {steps.first_step}, but the last "
            f"piece was of episode {last.episode} and ended after {last.n_steps} steps"
        )


def _bytes_of(array: NDArray[Any] | None, dtype: np.dtype[Any]) -> pa.Array | None:
    """Each row of a matrix as fixed-length little-endian bytes, sharing its memory."""
    if array is None:
        return None
    rows = np.ascontiguousarray(array, dtype)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1] * dtype.itemsize), len(rows), [None, pa.py_buffer(rows)]
    )
