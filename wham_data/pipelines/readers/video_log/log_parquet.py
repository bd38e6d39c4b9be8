"""Parquet logs: types and sizes are looked at in the footer before anything is unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wham_data.files.found import open_regular
from wham_data.pipelines.readers.video_log.log_cells import (
    is_button_word,
    number_of,
    text_times,
    understood,
)
from wham_data.pipelines.readers.video_log.log_format import LogFormat, TimeKind
from wham_data.pipelines.readers.video_log.log_table import (
    MAX_CELLS_BYTES,
    MAX_COLUMNS,
    NO_TIME,
    TIME_DIGITS,
    LogTable,
    WantedColumns,
    check_room,
    distinct,
)
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

NUMBER_TYPES: Final = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")


@dataclass(frozen=True, slots=True)
class ParquetLog:
    """A Parquet file of plain number columns.

    kinds  column -> its type; fields of structs are columns whose names are joined with dots
    """

    path: Path
    kinds: dict[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.kinds)

    @property
    def format(self) -> LogFormat:
        """See `LogFile.format`."""
        stamps = [name for name, kind in self.kinds.items() if kind == "timestamp"]
        time = stamps[0] if len(stamps) == 1 else ""
        return LogFormat(form="Parquet", encoding="", delimiter="", header_line=0, time_column=time)

    @classmethod
    def open(cls, path: Path) -> ParquetLog:
        """Read the footer.

        Raises:
            RefusedInput: it is empty or no Parquet file.
        """
        with open_regular(path) as source:
            start = source.read(4)
            if not start:
                raise RefusedInput(Reason.LOG_EMPTY, "the log is empty (0 bytes)")
            if start != b"PAR1":
                raise RefusedInput(Reason.LOG_SYNTAX, "not a Parquet file")
            schema = _opened(source).schema
            kinds = {}
            for place in range(min(len(schema), MAX_COLUMNS)):
                leaf = schema.column(place)
                if leaf.max_repetition_level:
                    kinds[leaf.path.partition(".")[0]] = "list"
                    continue
                logical = leaf.logical_type.type
                plain = logical in ("NONE", "INT") and leaf.physical_type in NUMBER_TYPES
                kinds[leaf.path] = leaf.physical_type if plain else logical.lower()
                if leaf.physical_type == "INT96":  # holds nothing but time stamps
                    kinds[leaf.path] = "timestamp"
        return cls(path, kinds)

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        table = self._table([column])
        return distinct(table[column].to_pylist())

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns.

        Raises:
            RefusedInput: a column has the wrong type, a time is missing, or it is too large.
        """
        names = [wanted.time, *wanted.numbers]
        labels = [wanted.control] if wanted.control is not None else []
        for name in names:
            dates = name == wanted.time and self.kinds[name] == "timestamp"
            if self.kinds[name] not in (*NUMBER_TYPES, "string") and not dates:
                raise _wrong_type(name, self.kinds[name], "numbers")
        for name in labels:
            if self.kinds[name] not in ("string", "INT32", "INT64"):
                raise _wrong_type(name, self.kinds[name], "strings")
        table = self._table([*names, *labels])
        times_ns, kind = self._times(table[wanted.time], wanted)
        form = understood(self.format, wanted, kind, len(table))
        numbers = np.empty((len(table), len(wanted.numbers)))
        worded = np.zeros(numbers.shape, np.bool_)
        for place, name in enumerate(wanted.numbers):
            if self.kinds[name] == "string":
                cells = table[name].to_pylist()
                numbers[:, place] = [
                    number_of(cell, name, f"row {row}") for row, cell in enumerate(cells, 1)
                ]
                worded[:, place] = list(map(is_button_word, cells))
            else:
                numbers[:, place] = table[name].cast(pa.float64(), safe=False).to_numpy()
        if wanted.control is None:
            return LogTable(times_ns, numbers, words=worded, format=form)
        controls = table[wanted.control].combine_chunks().cast(pa.string())
        if wanted.skips_nameless:
            controls = controls.fill_null("")
        controls = controls.dictionary_encode()
        if controls.null_count:
            row = int(np.flatnonzero(controls.is_null().to_numpy(zero_copy_only=False))[0]) + 1
            raise RefusedInput(Reason.LOG_TYPE, f"row {row}: column {wanted.control} is null")
        return LogTable(
            times_ns,
            numbers,
            tuple(controls.dictionary.to_pylist()),
            controls.indices.to_numpy().astype(np.int64),
            words=worded,
            format=form,
        )

    def _times(self, column: pa.ChunkedArray, wanted: WantedColumns) -> tuple[Nanos, TimeKind]:
        """The time of each row, and what the column holds."""
        kind = self.kinds[wanted.time]
        if kind not in ("string", "timestamp"):
            return _number_times(column, wanted), wanted.unit
        _check_no_null(column, wanted.time)
        try:
            if kind == "string":
                times_ns, found = text_times(column, wanted.unit)
                if found.startswith("dates"):
                    return times_ns, found
                raise _wrong_type(wanted.time, kind, "numbers or dates")
            stamps = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
        except (pa.ArrowException, ValueError) as error:
            raise RefusedInput(
                Reason.LOG_TYPE, f"column {wanted.time} holds no sound dates: {_first_line(error)}"
            ) from None
        return stamps.to_numpy(), "dates" if column.type.tz else "dates without a zone"

    def _table(self, names: list[str]) -> pa.Table:
        """Some columns, unpacked within the limits."""
        with open_regular(self.path) as source:
            file = _opened(source)
            _check_footer(file.metadata, len(set(names)))
            try:
                table = file.read(columns=names, use_threads=False)
                while any(pa.types.is_struct(column.type) for column in table.schema):
                    table = table.flatten()
            except (pa.ArrowException, OSError) as error:
                raise RefusedInput(
                    Reason.LOG_SYNTAX, f"damaged Parquet file: {_first_line(error)}"
                ) from None
        return table


def _opened(source: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            source, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RefusedInput(
            Reason.LOG_SYNTAX, f"not a sound Parquet file: {_first_line(error)}"
        ) from None


def _check_footer(footer: pq.FileMetaData, columns: int) -> None:
    """Refuse a file without rows, and one that would not fit into memory.

    Row groups say how large they are; Arrow ends the process over some damaged column footers.
    """
    if not footer.num_rows:
        raise RefusedInput(Reason.LOG_EMPTY, "the log is empty: no rows")
    check_room(footer.num_rows, columns)
    groups = range(footer.num_row_groups)
    unpacked = sum(footer.row_group(group).total_byte_size for group in groups)
    if unpacked > MAX_CELLS_BYTES:
        raise RefusedInput(
            Reason.TOO_LARGE, f"unpacks to {unpacked} bytes (limit {MAX_CELLS_BYTES}): too large"
        )


def _wrong_type(name: str, found: str, expected: str) -> RefusedInput:
    return RefusedInput(Reason.LOG_TYPE, f"column {name} has type {found}, expected {expected}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_no_null(column: pa.ChunkedArray, name: str) -> None:
    """Refuse a row without a time."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) + 1
        raise RefusedInput(
            Reason.LOG_NOT_FINITE, f"row {row}: column {name}: the time is missing (null)"
        )


def _number_times(column: pa.ChunkedArray, wanted: WantedColumns) -> Nanos:
    """Integer or float times to nanoseconds: integers exactly, floats to the nearest."""
    where = f"column {wanted.time}"
    _check_no_null(column, wanted.time)
    scale = 10 ** TIME_DIGITS[wanted.unit]
    most = (2**63 - 1) // scale - 1
    values = column.to_numpy()
    if values.dtype.kind == "b":
        raise RefusedInput(Reason.LOG_TYPE, f"{where} has type BOOLEAN, expected numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise RefusedInput(Reason.LOG_NOT_FINITE, f"row {row}: {where}: the time is not finite")
    if len(values) and (values.max() > most or values.min() < -most):
        raise RefusedInput(Reason.LOG_CLOCK, f"{where}: {NO_TIME.format(values.max())}")
    if values.dtype.kind != "f":
        times_ns: Nanos = values.astype(np.int64) * scale
        return times_ns
    # Whole units apart: their nanoseconds may need more digits than a float has.
    whole = np.floor(values.astype(np.float64))
    part = values.astype(np.float64) - whole
    times_ns = whole.astype(np.int64) * scale
    times_ns += np.rint(part * scale).astype(np.int64)
    return times_ns
