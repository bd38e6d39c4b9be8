"""Read shards: check the footer first, then read row groups or raw matrices.

A file may be damaged or malicious. So `ShardView` refuses a footer that states more data than the
file can hold, before it allocates any memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wham_data.corpus.pages import LONGEST_HEADER, PageHeader, read_page_header
from wham_data.corpus.shards import (
    CORPUS_KEY,
    EPISODES_KEY,
    MOST_ROWS_PER_GROUP,
    RowRange,
    most_bytes,
)
from wham_data.corpus.storage.contract import Leased, one_line
from wham_data.files.found import stand_in
from wham_data.schemas.corpus_info import CorpusInfo, parse_json
from wham_data.schemas.errors import IntegrityError, UsageError, short_message
from wham_data.schemas.steps import FLOAT, TOKEN, EpisodeSteps, shard_schema

BLOCK_ROWS: Final = 64
MOST_HEADER_BYTES: Final = 65_536
CONTAINER_ERRORS: Final = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def steps_from(episode: str, rows: pa.Table) -> EpisodeSteps:
    """The steps in consecutive rows of a shard: the reverse of `steps_table`.

    Args:
        episode: name of the episode.
        rows: T > 0 rows of `shard_schema`, all of this episode.
    """
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
    """A column of fixed-length bytes as numbers, sharing its memory.

    Args:
        column: fixed-length bytes without nulls.
        dtype: of the numbers in them.

    Returns:
        `dtype` [rows, numbers in a row].
    """
    width = column.type.byte_width
    if not len(column):
        return np.empty((0, width // dtype.itemsize), dtype)
    body = np.frombuffer(column.buffers()[1], np.uint8)
    rows = body[column.offset * width : (column.offset + len(column)) * width]
    return rows.view(dtype).reshape(len(column), width // dtype.itemsize)


class ShardView:
    """A shard opened for reading; its footer is checked before any page is read.

    Attributes:
        path: path of the shard on this machine.
        where: name of the shard in messages.
        rows: count of its rows; each row is a step.
        episodes: the rows of each episode as the footer lists them, in order and without gaps.
    """

    def __init__(
        self,
        path: Path,
        info: CorpusInfo,
        where: str | None = None,
        leased: Leased | None = None,
        footer: bytes | None = None,
    ) -> None:
        """Open and check.

        Args:
            path: a file on this machine.
            info: of the corpus it belongs to.
            where: name of the shard in messages. Default: the path.
            leased: the lease that keeps the file in the cache, if it is a copy.
            footer: the end of the file with its whole footer, if the rest of it is not here; then
                no rows can be read.

        Raises:
            IntegrityError: it is not a shard of this corpus; the message says what was found and
                what was expected.
        """
        self.path, self.where = path, where or str(path)
        self._leased = leased
        self._file = _parquet_file(path, self.where, footer)
        # Captions add the column without a change of corpus.json.
        captioned = "text" in self._file.schema_arrow.names
        self._schema = shard_schema(replace(info, text=info.text or captioned))
        self._check_schema()
        self._check_corpus(info)
        self._check_sizes(info)
        self.rows: int = self._file.metadata.num_rows
        self.episodes = self._listed_episodes()

    @property
    def has_text(self) -> bool:
        """Whether the shard has the column `text`. If not, its texts are read as null."""
        return "text" in self._schema.names

    @property
    def n_groups(self) -> int:
        """The count of row groups."""
        return int(self._file.metadata.num_row_groups)

    def group_rows(self, group: int) -> int:
        """The count of rows in one row group."""
        return int(self._file.metadata.row_group(group).num_rows)

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group, after a check of its page checksums.

        Args:
            group: number of the row group, from 0.
            columns: names of the columns to read; None: all.

        Raises:
            IntegrityError: a page is damaged.
        """
        try:
            table = self._file.read_row_group(group, columns, use_threads=False)
        except CONTAINER_ERRORS as error:
            raise IntegrityError(
                f"{self.where}: row group {group} is corrupt: {short_message(error)}"
            ) from error
        if len(table) != self.group_rows(group):
            raise IntegrityError(
                f"{self.where}: row group {group} has {len(table)} rows, its footer says "
                f"{self.group_rows(group)}"
            )
        return self._with_text(table, columns)

    def _with_text(self, table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
        if self.has_text or "text" not in (columns or ()):
            return table
        return table.append_column("text", pa.nulls(len(table), pa.string()))

    def read_rows(
        self, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Rows [start, stop), at most a row group at a time: (number of the first row, rows) each."""
        first = 0
        for group in range(self.n_groups):
            after = first + self.group_rows(group)
            low, high = max(start, first), min(stop, after)
            if low < high:
                yield low, self.read_group(group, columns).slice(low - first, high - low)
            first = after

    def read_episode(self, rows: RowRange) -> EpisodeSteps:
        """All steps of one episode.

        Args:
            rows: the episode and its rows, as the manifest has them.

        Raises:
            IntegrityError: a page is damaged, or the shard has other rows for this episode.
        """
        if rows not in self.episodes:
            raise self._bad(
                f"the manifest says that episode {rows.episode} is its rows {rows.start} to "
                f"{rows.start + rows.n_steps}, the shard does not"
            )
        pieces = self.read_rows(rows.start, rows.start + rows.n_steps)
        return steps_from(rows.episode, pa.concat_tables(table for _, table in pieces))

    def must_hold(self, episode: str, row_start: int, n_steps: int) -> None:
        """Make sure that an episode is where the manifest says.

        Raises:
            IntegrityError: it is not.
        """
        if RowRange(episode, row_start, n_steps) not in self.episodes:
            raise IntegrityError(f"{self.where}: does not hold {episode} where the manifest says")

    def stream_rows(
        self, start: int, stop: int, columns: Sequence[str], block: int = BLOCK_ROWS
    ) -> Iterator[pa.Table]:
        """Rows [start, stop) in blocks; only one block is in memory at a time.

        Args:
            start, stop: row numbers in the shard.
            columns: names of the columns to read.
            block: most rows of a block.

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
                yield self._with_text(pa.Table.from_batches([batch]), columns)
        except CONTAINER_ERRORS as error:
            raise self._bad(f"row group {group} is corrupt: {short_message(error)}") from error

    def matrix_offsets(self, column: str) -> NDArray[np.int64]:
        """The byte in the file at which the matrix of each row group begins, int64 [n_groups].

        The rows of the group follow from there without gaps.

        Args:
            column: a required column of fixed-length bytes.

        Raises:
            IntegrityError: a column chunk is not one plain page, as in every cold shard.
        """
        offsets = []
        with one_line(self.path), self.path.open("rb") as file:
            for group in range(self.n_groups):
                chunk = self.chunk(column, group)
                file.seek(chunk.start)
                page = self.matrix_page(column, group, file.read(min(LONGEST_HEADER, len(chunk))))
                offsets.append(chunk.start + page.header_bytes)
        return np.array(offsets, np.int64)

    def chunk(self, column: str, group: int) -> range:
        """The bytes in the file that hold a column of a row group."""
        index = self._schema.get_field_index(column)
        chunk = self._file.metadata.row_group(group).column(index)
        return range(chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size)

    def matrix_page(self, column: str, group: int, head: bytes) -> PageHeader:
        """The header of the page that is the whole column chunk, and whose body is a raw matrix.

        Args:
            column: a required column of fixed-length bytes.
            group: number of the row group.
            head: the first LONGEST_HEADER bytes of the chunk.

        Raises:
            IntegrityError: the column chunk is not one plain page, as in every cold shard.
        """
        try:
            page = read_page_header(head)
        except ValueError as error:
            raise self._bad(f"row group {group}: {column} begins with {error}") from error
        rows = self.group_rows(group)
        size = rows * (self._schema.field(column).type.bit_width // 8)
        if page != PageHeader(len(self.chunk(column, group)) - size, size, size, True, rows):
            raise self._bad(
                f"row group {group}: column {column} is not one raw matrix; `wham-data "
                "compact` makes shards that can be mapped"
            )
        return page

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
        if text == info.canonical.encode():
            return
        theirs = CorpusInfo.from_json(text, self.where)
        differences = theirs.diff(info)
        if differences:
            raise self._bad(f"made for another corpus: {'; '.join(differences[:5])}")

    def _check_sizes(self, info: CorpusInfo) -> None:
        """Refuse a footer that states more data than the file can hold, before allocating memory."""
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


def _wrong_with_chunk(
    chunk: pq.ColumnChunkMetaData, field: pa.Field, rows: int, info: CorpusInfo
) -> str | None:
    """Why a column chunk cannot be one of ours (and may need far too much memory); None: it can."""
    if chunk.num_values != rows:
        return f"has {chunk.num_values} values in {rows} rows"
    if chunk.has_dictionary_page and field.name != "episode":
        return "is coded with a dictionary, not a raw matrix"
    if info.layout == "mapped" and chunk.compression != "UNCOMPRESSED":
        return f"is compressed ({chunk.compression}), not a raw matrix"
    fixed = pa.types.is_fixed_size_binary(field.type)
    width = field.type.byte_width if fixed else most_bytes(field.name, info)
    if chunk.total_uncompressed_size > rows * width + MOST_HEADER_BYTES:
        return f"claims {chunk.total_uncompressed_size} bytes for {rows} rows, too large"
    whole = rows * width if fixed else 0
    if info.layout == "mapped" and not field.nullable and chunk.total_compressed_size < whole:
        return f"has {chunk.total_compressed_size} bytes, not a raw matrix of {whole}"
    return None


def _parquet_file(path: Path, where: str, footer: bytes | None) -> pq.ParquetFile:
    if not path.is_file():
        raise IntegrityError(f"{where}: the shard is missing")
    try:
        if footer is not None:
            return pq.ParquetFile(pa.BufferReader(footer))
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except CONTAINER_ERRORS as error:
        damaged = f"corrupt, truncated or not a Parquet file ({short_message(error)})"
        other = stand_in(path) if path.stat().st_size else None
        raise IntegrityError(f"{where}: {other or damaged}") from error
