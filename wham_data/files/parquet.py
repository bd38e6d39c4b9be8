"""Reads untrusted Parquet files: columns as a whole, or rows as a stream.

columns_of(path)                                       # names, without reading any row
table = read_columns(path, ["timestamp", "action"])    # a pyarrow Table
table, rows = read_where(path, ["action"], "episode", 3)   # the rows of one episode
for data in stream_column(path, "frames", picks): ...  # one value at a time
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wham_data.files.found import open_regular, sniff
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

MOST_TABLE_BYTES: Final = 256 << 20
MOST_GROUP_BYTES: Final = 512 << 20
ROWS_AT_A_TIME: Final = 16


def columns_of(path: Path) -> tuple[str, ...]:
    """Names of a file's top-level columns; () if the file is not a Parquet file."""
    if sniff(path) != "parquet":
        return ()
    try:
        with opened_parquet(path) as file:
            return tuple(file.schema_arrow.names)
    except RefusedInput:
        return ()


@contextmanager
def opened_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """An open file whose footer has been read. Errors of the library become `RefusedInput`.

    Raises:
        RefusedInput: LOG_EMPTY or LOG_SYNTAX.
    """
    with open_regular(path) as source:
        if not source.peek(1):  # type: ignore[attr-defined]  # a BufferedReader
            raise RefusedInput(Reason.LOG_EMPTY, f"{path.name} is empty (0 bytes)")
        try:
            yield _file(source)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise RefusedInput(
                Reason.LOG_SYNTAX, f"{path.name} is no sound Parquet file: {first_line[:200]}"
            ) from None


def _file(source: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(
        source, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20
    )


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Columns with all their rows.

    Raises:
        RefusedInput: LOG_COLUMN, a column is missing; TOO_LARGE, the columns have over 256 MB
            unpacked.
    """
    with opened_parquet(path) as file:
        _check_columns(file, names, path)
        size = sum(_unpacked(file, group, names) for group in range(file.num_row_groups))
        if size > MOST_TABLE_BYTES or file.metadata.num_rows > MOST_TABLE_BYTES // 8:
            raise RefusedInput(
                Reason.TOO_LARGE,
                f"{path.name}: {file.metadata.num_rows} rows unpack to {size} bytes, "
                f"limit {MOST_TABLE_BYTES}",
            )
        return file.read(columns=list(names), use_threads=False).select(list(names))


def parquet_batches(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a file as batches of a few rows.

    Raises:
        RefusedInput: LOG_COLUMN, a column is missing; TOO_LARGE, a row group has over 512 MB
            unpacked.
    """
    with opened_parquet(path) as file:
        _check_columns(file, names, path)
        for group in range(file.num_row_groups):
            _check_group(file, group, names, path)
            yield from file.iter_batches(ROWS_AT_A_TIME, [group], list(names), use_threads=False)


def _check_group(file: pq.ParquetFile, group: int, names: Sequence[str], path: Path) -> None:
    if (size := _unpacked(file, group, names)) > MOST_GROUP_BYTES:
        raise RefusedInput(Reason.TOO_LARGE, f"{path.name}: a row group unpacks to {size} bytes")


def stream_column(path: Path, name: str, picks: Index) -> Iterator[Any]:
    """Rows of a column as Python values (bytes, dict, list, number), read a few rows at a time.

    Args:
        path: the file.
        name: the column's name.
        picks: row numbers in the file, int64, strictly increasing.

    Raises:
        RefusedInput: LOG_COLUMN, the column is missing; TOO_LARGE, a row group has over 512 MB
            unpacked.
    """
    with opened_parquet(path) as file:
        _check_columns(file, [name], path)
        positions = iter(picks.tolist())
        pick = next(positions, None)
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if pick is None:
                return
            if pick < stop:
                _check_group(file, group, [name], path)
                at = start
                for batch in file.iter_batches(ROWS_AT_A_TIME, [group], [name], use_threads=False):
                    while pick is not None and pick < at + len(batch):
                        yield batch.column(name)[pick - at].as_py()
                        pick = next(positions, None)
                    at += len(batch)
            start = stop


def _check_columns(file: pq.ParquetFile, names: Sequence[str], path: Path) -> None:
    if missing := [name for name in names if name not in file.schema_arrow.names]:
        raise RefusedInput(Reason.LOG_COLUMN, f"{path.name} has no column {', '.join(missing)}")


def _unpacked(file: pq.ParquetFile, group: int, names: Sequence[str]) -> int:
    """Unpacked size of columns of a row group in bytes, as the footer gives it."""
    chunks = file.metadata.row_group(group)
    return sum(
        column.total_uncompressed_size
        for column in map(chunks.column, range(chunks.num_columns))
        if any(f"{column.path_in_schema}.".startswith(f"{name}.") for name in names)
    )


def read_where(path: Path, names: Sequence[str], column: str, value: int) -> tuple[pa.Table, Index]:
    """The rows where `column`, of whole numbers, equals `value`, and their numbers in the file.

    A row group is not read if the footer shows that it cannot contain the value.

    Args:
        path: the file.
        names: columns to read.
        column: the column to compare.
        value: the value that `column` must have.

    Returns:
        The rows as a table of `names`, and their row numbers, int64 [rows], strictly increasing.

    Raises:
        RefusedInput: LOG_COLUMN, a column is missing; LOG_TYPE, `column` holds no whole numbers;
            TOO_LARGE, a row group has over 512 MB unpacked, or the rows have over 256 MB.
    """
    needed = list(dict.fromkeys([*names, column]))
    with opened_parquet(path) as file:
        _check_columns(file, needed, path)
        if not pa.types.is_integer(file.schema_arrow.field(column).type):
            raise RefusedInput(Reason.LOG_TYPE, f"{path.name}: {column} holds no whole numbers")
        tables, rows, start, taken = [file.schema_arrow.empty_table().select(needed)], [], 0, 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if _may_have(file, group, column, value):
                size = max(_unpacked(file, group, needed), 8 * count * len(needed))
                if size > MOST_GROUP_BYTES:
                    raise RefusedInput(
                        Reason.TOO_LARGE, f"{path.name}: a row group unpacks to {size} bytes"
                    )
                table = file.read_row_group(group, columns=needed, use_threads=False)
                found = np.flatnonzero(table[column].to_numpy() == value)
                tables.append(table.take(found).select(needed))
                rows.append(found + start)
                taken += tables[-1].nbytes
                if taken > MOST_TABLE_BYTES:
                    raise RefusedInput(
                        Reason.TOO_LARGE,
                        f"{path.name}: rows of over {MOST_TABLE_BYTES} bytes with {column} {value}",
                    )
            start += count
    numbers = np.concatenate([np.zeros(0, np.int64), *rows])
    return pa.concat_tables(tables).select(list(names)), numbers


def numbers_of(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """A column of numbers, or of lists of numbers of one length, as [N, A]. A null is NaN.

    Raises:
        RefusedInput: LOG_TYPE, the column has another type, or its lists differ in length.
    """
    values, rows = column.combine_chunks(), len(column)
    while pa.types.is_nested(values.type) and hasattr(values, "flatten"):
        if pa.types.is_struct(values.type) or values.null_count or _is_ragged(values):
            break
        values = values.flatten()
    size = len(values) // max(1, rows)
    plain = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if not (plain or pa.types.is_boolean(values.type)) or size * rows != len(values):
        raise RefusedInput(
            Reason.LOG_TYPE, f"{name} is {column.type}, expected as many numbers a row"
        )
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array.reshape(rows, size)


def _is_ragged(lists: pa.Array) -> bool:
    """Whether lists differ in length."""
    if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
        return False
    return len(lists.value_lengths().unique()) > 1


def _may_have(file: pq.ParquetFile, group: int, column: str, value: int) -> bool:
    """Whether a column of a row group may contain a value, by the statistics in the footer."""
    chunks = file.metadata.row_group(group)
    for chunk in map(chunks.column, range(chunks.num_columns)):
        if (
            chunk.path_in_schema == column
            and (statistics := chunk.statistics)
            and statistics.has_min_max
        ):
            return bool(statistics.min <= value <= statistics.max)
    return True
