"""What a controller log is read into, and the limits that hold for every form of it.

A log is read in two steps, because which columns matter is for the caller to say: opening it gives
the column names, `read` the wanted columns. Times become integer nanoseconds without passing
through a float wherever the file holds them as text or integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.video_log.log_format import LogFormat
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

MAX_CELLS_BYTES: Final = 1 << 30
MAX_COLUMNS: Final = 4096
NO_TIME: Final = "{} is no possible time: is it in another unit, such as a Unix epoch in ms?"

TimeUnit = Literal["time_s", "time_ms", "time_us", "time_ns"]
TIME_DIGITS: Final[dict[TimeUnit, int]] = {"time_s": 9, "time_ms": 6, "time_us": 3, "time_ns": 0}


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """What to read of a log.

    time     name of the time column, and what it counts in
    numbers  names of the columns read as numbers
    control  name of the column that names a control (event logs), or None
    skips_nameless  a row that names no control is kept as one of a control "", not refused
    """

    time: str
    unit: TimeUnit
    numbers: tuple[str, ...]
    control: str | None = None
    skips_nameless: bool = False


@dataclass(frozen=True, slots=True)
class LogTable:
    """The wanted columns, one row per line of the log, in the order of the file.

    times_ns       int64   [N]     on the log's clock
    numbers        float64 [N, C]  not finite where the log has no sound value
    control_names  the distinct controls of an event log, in order of appearance
    controls       int64   [N]     positions in `control_names`; empty for a sampled log
    notes          what a person should know
    words          bool    [N, C]  cells that were words for a button (press, up); empty: none
    devices        int64   [N]     which device each row is of; empty: there is one
    span_ns        first and last time of the whole log, where these are rows of one device only
    format         how the log was understood
    """

    times_ns: Nanos
    numbers: NDArray[np.float64]
    control_names: tuple[str, ...] = ()
    controls: Index = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: tuple[str, ...] = ()
    words: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    devices: Index = field(default_factory=lambda: np.zeros(0, np.int64))
    span_ns: tuple[int, int] | None = None
    format: LogFormat = field(default_factory=LogFormat)


class LogFile(Protocol):
    """A log of which the column names are known."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns; those of nested objects are joined with dots."""
        ...

    @property
    def format(self) -> LogFormat:
        """How the log was understood, as far as it is before rows are read."""
        ...

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns.

        Raises:
            RefusedInput: with the line, row or column that is wrong.
        """
        ...

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """A column read as names: the distinct ones in order of appearance, and int64 [N]."""
        ...


def distinct(cells: Iterable[object]) -> tuple[tuple[str, ...], Index]:
    """Cells as names: the distinct ones in order of appearance, and the place of each, int64."""
    places: dict[str, int] = {}
    codes = [places.setdefault(str(cell).strip(), len(places)) for cell in cells]
    return tuple(places), np.array(codes, np.int64)


def check_room(rows: int, columns: int) -> None:
    """Refuse what would not fit into memory as numbers."""
    if rows * columns * 8 > MAX_CELLS_BYTES:
        raise RefusedInput(
            Reason.TOO_LARGE,
            f"{rows} rows of {columns} columns are {rows * columns * 8} bytes "
            f"(limit {MAX_CELLS_BYTES}): too large",
        )
