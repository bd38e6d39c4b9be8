"""Shards: Parquet files whose pages are raw matrices, the same bytes for the same steps.

Every column chunk of a fixed-length column is one page, PLAIN and uncompressed, of a REQUIRED
field, so behind the page header lies the matrix itself (rows x 2N bytes of tokens, rows x 4A of
actions) and a reader maps it without decoding. A mapped shard has row groups of 4,096 rows (4.4 MB
of WHAM tokens); of 1,024 where steps carry pictures, so that a row group fits into memory.

Nothing but the steps and the corpus' agreement goes into the file: no time, host, path or random
number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wham_data.corpus.pages import LONGEST_HEADER, PageHeader, read_page_header
from wham_data.corpus.storage.contract import Leased, hash_file, one_line
from wham_data.schemas.corpus_info import (
    CorpusInfo,
    Layout,
    canonical_json,
    content_hash,
    parse_json,
)
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.steps import FLOAT, TOKEN, EpisodeSteps, shard_schema

ROWS_PER_GROUP: Final = 4_096
ROWS_PER_GROUP_WITH_FRAMES: Final = 1_024
BLOCK_ROWS: Final = 64
MOST_ROWS_PER_GROUP: Final = 16_384
MOST_TEXT_BYTES: Final = 65_536
"""A text or an episode's name is no longer; a picture not either, beyond its raw pixels."""
MOST_HEADER_BYTES: Final = 65_536
WHOLE_PAGE: Final = 2**31 - 1
"""Page size limit above any row group: a column chunk is then a single page."""
CORPUS_KEY: Final = b"wham_data.corpus"
EPISODES_KEY: Final = b"wham_data.episodes"
CONTAINER_ERRORS: Final = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows [start, start + n_steps) of a shard hold one episode."""

    episode: str
    start: int
    n_steps: int


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that has been written, durably.

    name     file name under `shards/`
    sha256   over its bytes
    n_bytes  its size
    rows     steps in it
    episodes where each episode lies, in row order
    """

    name: str
    sha256: str
    n_bytes: int
    rows: int
    episodes: tuple[RowRange, ...]


def shard_id(recordings: Iterable[str], settings_hash: str) -> str:
    """Name of the shard made of these recordings (hashes) under these settings: 24 hex digits."""
    return content_hash(["shard", settings_hash, sorted(recordings)])


def rows_per_group(info: CorpusInfo) -> int:
    """How many steps a row group holds; the last one may hold fewer."""
    return ROWS_PER_GROUP if info.frames == "none" else ROWS_PER_GROUP_WITH_FRAMES


def write_shard_to(
    path: Path, episodes: Iterable[EpisodeSteps], info: CorpusInfo, name: str
) -> ShardFile:
    """Write steps to `path`, holding one row group and one piece of an episode in memory.

    Args:
        path: a private file, not synced here.
        episodes: episodes, or their pieces in order; an episode's pieces follow one another.
        info: decides the columns.
        name: what the file will be called.

    Raises:
        UsageError: no step at all, or steps that are not what `info` says.
        WhamDataError: the disk is full or fails.
    """
    ranges: list[RowRange] = []
    with one_line(path):
        writer = _parquet_writer(path, shard_schema(info), info.layout)
    try:
        for table in _row_groups(episodes, info, ranges):
            with one_line(path):
                writer.write_table(table, row_group_size=len(table))
        listed = [[each.episode, each.start, each.n_steps] for each in ranges]
        writer.add_key_value_metadata(
            {CORPUS_KEY: corpus_metadata(info), EPISODES_KEY: canonical_json(listed)}
        )
        with one_line(path):
            writer.close()
    except BaseException:
        # The footer cannot be written either when the disk is full; the first error tells why.
        with suppress(OSError, pa.ArrowException):
            writer.close()
        raise
    rows = sum(each.n_steps for each in ranges)
    if not rows:
        raise UsageError(f"shard {name}: there is no step to write")
    return ShardFile(name, hash_file(path), path.stat().st_size, rows, tuple(ranges))


def corpus_metadata(info: CorpusInfo) -> str:
    """What a shard's key-value metadata repeats of corpus.json."""
    return canonical_json(info.to_dict())


def steps_table(steps: EpisodeSteps, info: CorpusInfo) -> pa.Table:
    """The steps as rows of `shard_schema(info)`, without copying their arrays.

    Raises:
        UsageError: columns or widths are not the corpus'.
    """
    schema = shard_schema(info)
    n = steps.n_steps
    columns: dict[str, Any] = {
        "episode": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), [steps.episode]),
        "step": pa.array(np.arange(steps.first_step, steps.first_step + n, dtype=np.int32)),
        "time_ns": pa.array(steps.time_ns),
        "tokens": _bytes_of(steps.tokens, TOKEN),
        # One NaN only, whichever the caller computed: equal steps must be equal bytes.
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
        if longest * (4 if name == "text" else 1) > _most_bytes(name, info):
            raise UsageError(
                f"episode {steps.episode}: a {name} of {longest}, expected at most "
                f"{_most_bytes(name, info)} bytes"
            )
    surplus = [
        name for name, column in columns.items() if column is not None and name not in schema.names
    ]
    if surplus:
        raise UsageError(
            f"episode {steps.episode}: has {', '.join(surplus)}, which the corpus has not"
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


def steps_from(episode: str, rows: pa.Table) -> EpisodeSteps:
    """The steps in rows of a shard, the reverse of `steps_table`."""
    columns = {name: rows.column(name).combine_chunks() for name in rows.column_names}
    state, reward, text = columns.get("state"), columns.get("reward"), columns.get("text")
    return EpisodeSteps(
        episode=episode,
        time_ns=columns["time_ns"].to_numpy(),
        actions=matrix_of(columns["actions"], FLOAT),
        action_known=columns["action_known"].to_numpy(zero_copy_only=False),
        tokens=matrix_of(columns["tokens"], TOKEN) if "tokens" in columns else None,
        frames=columns["frame"].to_pylist() if "frame" in columns else None,
        state=None if state is None or state.null_count else matrix_of(state, FLOAT),
        reward=None if reward is None or reward.null_count else reward.to_numpy(),
        text=None if text is None else text.to_pylist(),
        first_step=columns["step"][0].as_py(),
    )


def matrix_of(column: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A fixed-length column without nulls as numbers, [rows, width]; nothing is copied."""
    width = column.type.byte_width
    if not len(column):
        return np.empty((0, width // dtype.itemsize), dtype)
    body = np.frombuffer(column.buffers()[1], np.uint8)
    rows = body[column.offset * width : (column.offset + len(column)) * width]
    return rows.view(dtype).reshape(len(column), width // dtype.itemsize)


class ShardView:
    """A shard opened for reading; its footer is checked before any page is read.

    Attributes:
        path: where its bytes are on this machine.
        where: the shard, as messages have it.
        rows: steps in it.
        episodes: where each episode lies, as the shard says; they tile its rows in order.
    """

    def __init__(
        self, path: Path, info: CorpusInfo, where: str | None = None, leased: Leased | None = None
    ) -> None:
        """Open and check.

        Args:
            path: a file on this machine.
            info: of the corpus it belongs to.
            where: how messages name it; the path, unless said.
            leased: what keeps the file in place, if it is a copy.

        Raises:
            IntegrityError: it is no shard of this corpus; the line says what was found and
                expected.
        """
        self.path, self.where = path, where or str(path)
        self._leased = leased
        self._file = _parquet_file(path, self.where)
        self._schema = shard_schema(info)
        self._check_schema()
        self._check_corpus(info)
        self._check_sizes(info)
        self.rows: int = self._file.metadata.num_rows
        self.episodes = self._listed_episodes()

    @property
    def n_groups(self) -> int:
        """How many row groups there are."""
        return int(self._file.metadata.num_row_groups)

    def group_rows(self, group: int) -> int:
        """Steps in one row group."""
        return int(self._file.metadata.row_group(group).num_rows)

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group, page checksums verified.

        Raises:
            IntegrityError: a page is damaged.
        """
        try:
            table = self._file.read_row_group(group, columns, use_threads=False)
        except CONTAINER_ERRORS as error:
            raise IntegrityError(
                f"{self.where}: row group {group} is corrupt: {_line(error)}"
            ) from error
        if len(table) != self.group_rows(group):
            raise IntegrityError(
                f"{self.where}: row group {group} has {len(table)} rows, its footer says "
                f"{self.group_rows(group)}"
            )
        return table

    def read_rows(
        self, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Rows [start, stop), at most a row group at a time, each with its first row's number."""
        first = 0
        for group in range(self.n_groups):
            after = first + self.group_rows(group)
            low, high = max(start, first), min(stop, after)
            if low < high:
                yield low, self.read_group(group, columns).slice(low - first, high - low)
            first = after

    def stream_rows(
        self, start: int, stop: int, columns: Sequence[str], block: int = BLOCK_ROWS
    ) -> Iterator[pa.Table]:
        """Rows [start, stop) in blocks of a row group: no more of them is held at a time.

        Raises:
            IntegrityError: a page is damaged.
        """
        first = 0
        for group in range(self.n_groups):
            after = first + self.group_rows(group)
            if first < stop and start < after:
                at = first
                for table in self._blocks(group, columns, block):
                    low, high = max(start, at), min(stop, at + len(table))
                    at += len(table)
                    if low < high:
                        yield table.slice(low - at + len(table), high - low)
                if at != after:
                    raise self._bad(f"row group {group} ends after {at - first} rows")
            first = after

    def _blocks(self, group: int, columns: Sequence[str], block: int) -> Iterator[pa.Table]:
        try:
            for batch in self._file.iter_batches(block, [group], list(columns), use_threads=False):
                yield pa.Table.from_batches([batch])
        except CONTAINER_ERRORS as error:
            raise self._bad(f"row group {group} is corrupt: {_line(error)}") from error

    def matrix_offsets(self, column: str) -> NDArray[np.int64]:
        """Where in the file each row group's matrix begins, int64 [n_groups].

        From there on, the rows of the group lie one behind the other as they are.

        Args:
            column: a required fixed-length one.

        Raises:
            IntegrityError: a column chunk is not one plain page; a cold shard's never is.
        """
        width = self._schema.field(column).type.bit_width // 8
        index = self._schema.get_field_index(column)
        offsets = []
        with one_line(self.path), self.path.open("rb") as file:
            for group in range(self.n_groups):
                chunk = self._file.metadata.row_group(group).column(index)
                file.seek(chunk.data_page_offset)
                head = file.read(min(LONGEST_HEADER, chunk.total_compressed_size))
                try:
                    page = read_page_header(head)
                except ValueError as error:
                    raise self._bad(f"row group {group}: {column} begins with {error}") from error
                size = chunk.num_values * width
                if page != PageHeader(
                    chunk.total_compressed_size - size, size, size, True, chunk.num_values
                ):
                    raise self._bad(
                        f"row group {group}: column {column} is not one raw matrix; `wham-data "
                        "compact` makes shards that can be mapped"
                    )
                offsets.append(chunk.data_page_offset + page.header_bytes)
        return np.array(offsets, np.int64)

    def _check_schema(self) -> None:
        found = self._file.schema_arrow
        for field in self._schema:
            index = found.get_field_index(field.name)
            if index < 0:
                raise self._bad(f"column {field.name} is missing")
            theirs = found.field(index)
            if theirs.type != field.type:
                raise self._bad(f"column {field.name} is {theirs.type}, expected {field.type}")
            if theirs.nullable and not field.nullable:
                raise self._bad(f"column {field.name} may hold nulls, expected it to be required")
        if found.names != self._schema.names:
            raise self._bad(
                f"columns {', '.join(found.names)}, expected {', '.join(self._schema.names)}"
            )

    def _check_corpus(self, info: CorpusInfo) -> None:
        text = (self._file.metadata.metadata or {}).get(CORPUS_KEY)
        if text is None:
            raise self._bad("no corpus metadata in its footer, so format and tokenizer are unknown")
        if text == corpus_metadata(info).encode():
            return
        theirs = CorpusInfo.from_json(text, self.where)
        differences = theirs.diff(info)
        if differences:
            raise self._bad(f"made for another corpus: {'; '.join(differences[:5])}")

    def _check_sizes(self, info: CorpusInfo) -> None:
        """Refuse a footer that promises more than the file holds, before memory is set aside."""
        footer = self._file.metadata
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        if sum(group.num_rows for group in groups) != footer.num_rows:
            raise self._bad("its row groups do not add up to its number of rows")
        for number, group in enumerate(groups):
            if group.num_rows > MOST_ROWS_PER_GROUP:
                raise self._bad(
                    f"row group {number} has {group.num_rows} rows, too large: more than "
                    f"{MOST_ROWS_PER_GROUP}"
                )
            for index, field in enumerate(self._schema):
                wrong = _wrong_with_chunk(group.column(index), field, group.num_rows, info)
                if wrong:
                    raise self._bad(f"row group {number}: column {field.name} {wrong}")

    def _listed_episodes(self) -> tuple[RowRange, ...]:
        text = (self._file.metadata.metadata or {}).get(EPISODES_KEY)
        if text is None:
            raise self._bad("its footer lists no episodes")
        ranges: list[RowRange] = []
        row = 0
        try:
            listed = parse_json(text)
        except UsageError as error:
            raise self._bad(f"its list of episodes: {error}") from error
        for each in listed if isinstance(listed, list) else [None]:
            match each:
                case [str(episode), int(start), int(n_steps)] if start == row and n_steps > 0:
                    ranges.append(RowRange(episode, start, n_steps))
                    row += n_steps
                case _:
                    raise self._bad(
                        f"its list of episodes does not go on at row {row}: {str(each)[:120]}"
                    )
        if row != self._file.metadata.num_rows:
            raise self._bad(
                f"its episodes have {row} steps, but it has {self._file.metadata.num_rows} rows"
            )
        if len({each.episode for each in ranges}) != len(ranges):
            raise self._bad("an episode is in it twice (duplicate)")
        return tuple(ranges)

    def _bad(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.where}: {what}")


def _parquet_writer(path: Path, schema: pa.Schema, layout: Layout) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        data_page_version="1.0",
        compression="NONE" if layout == "mapped" else "ZSTD",
        compression_level=None if layout == "mapped" else 9,
        use_dictionary=["episode"],
        # Extremes of a token matrix tell nobody anything and would make the footer fat.
        write_statistics=["step", "time_ns"],
        data_page_size=WHOLE_PAGE,
        max_rows_per_page=MOST_ROWS_PER_GROUP,
        write_batch_size=MOST_ROWS_PER_GROUP,
        write_page_checksum=True,
        store_schema=True,
    )


def _wrong_with_chunk(
    chunk: pq.ColumnChunkMetaData, field: pa.Field, rows: int, info: CorpusInfo
) -> str | None:
    """What makes a column chunk one that we do not write, and that may be a bomb."""
    if chunk.num_values != rows:
        return f"has {chunk.num_values} values in {rows} rows"
    if chunk.has_dictionary_page and field.name != "episode":
        return "is coded with a dictionary, not a raw matrix"
    if info.layout == "mapped" and chunk.compression != "UNCOMPRESSED":
        return f"is compressed ({chunk.compression}), not a raw matrix"
    fixed = pa.types.is_fixed_size_binary(field.type)
    width = field.type.byte_width if fixed else _most_bytes(field.name, info)
    if chunk.total_uncompressed_size > rows * width + MOST_HEADER_BYTES:
        return f"claims {chunk.total_uncompressed_size} bytes for {rows} rows, too large"
    whole = rows * width if fixed else 0
    if info.layout == "mapped" and not field.nullable and chunk.total_compressed_size < whole:
        return f"has {chunk.total_compressed_size} bytes, not a raw matrix of {whole}"
    return None


def _most_bytes(name: str, info: CorpusInfo) -> int:
    """The longest value that a column of variable length may hold."""
    width, height = info.size if name == "frame" else (0, 0)
    return MOST_TEXT_BYTES + width * height * 4


def _row_groups(
    episodes: Iterable[EpisodeSteps], info: CorpusInfo, ranges: list[RowRange]
) -> Iterator[pa.Table]:
    """The steps cut into row groups; notes in `ranges` which rows each episode is."""
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
            f"episode {steps.episode}: a piece that begins at step {steps.first_step} does not "
            f"go on where episode {last.episode} ended with {last.n_steps} steps"
        )


def _bytes_of(array: NDArray[Any] | None, dtype: np.dtype[Any]) -> pa.Array | None:
    """Each row of a matrix as fixed-length little-endian bytes, sharing its memory."""
    if array is None:
        return None
    rows = np.ascontiguousarray(array, dtype)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1] * dtype.itemsize), len(rows), [None, pa.py_buffer(rows)]
    )


def _parquet_file(path: Path, where: str) -> pq.ParquetFile:
    if not path.is_file():
        raise IntegrityError(f"{where}: the shard is missing")
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except CONTAINER_ERRORS as error:
        raise IntegrityError(
            f"{where}: corrupt, truncated or not a Parquet file ({_line(error)})"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
