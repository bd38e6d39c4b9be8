"""Which column tells the time, in which unit, and how a clock that counts from 1970 meets the video's."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from wham_data.pipelines.readers.kit.column_guesses import key
from wham_data.pipelines.readers.video_log.log_cells import date_of
from wham_data.pipelines.readers.video_log.log_format import TimeKind
from wham_data.pipelines.readers.video_log.log_table import (
    TIME_DIGITS,
    LogFile,
    TimeUnit,
    WantedColumns,
)
from wham_data.pipelines.readers.video_log.log_words import listed, named_like
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, plain_number

TIME: Final = "time"
TIME_COLUMNS: Final = (TIME, "timestamp", "t", "ts", "time_stamp", "datetime", "date", "elapsed")
COUNTING_COLUMNS: Final = ("frame", "step")
FEWEST_UNIX_S, MOST_UNIX_S = 1e9, 4e9
"""Unix times of the years 2001 to 2096, in seconds."""
LEAST_SHARE, MOST_SHARE = 0.1, 2.0
"""How long a log may be in the unit that is found out, as a share of the video's length."""

_TIME_NAME: Final = re.compile(r"(?:.*\.)?(?:t|timestamp)(?:_\w+)?_(s|ms|us|ns)", re.ASCII)
_BRACKETED: Final = re.compile(
    r"(?:.*\.)?(?:t|time|time ?stamp|elapsed)\s*[\[(]\s*(.+?)\s*[\])]", re.IGNORECASE
)
_TICKS: Final = re.compile(r"qpc|(?<!s)tick|counter", re.IGNORECASE)
_LIKE_TIME: Final = re.compile(
    r".*(?:time|elapsed|clock|stamp|since).*?"
    r"(?:[_ .(\[](s)|[_ .(\[]?(secs?|seconds|ms|msec|millis|milliseconds|us|usec|micros|microseconds|ns|nsec|"
    r"nanos|nanoseconds))[)\]]?",
    re.IGNORECASE,
)
_UNITS: Final[dict[str, TimeUnit]] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "time_s"),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "time_ms"),
    **dict.fromkeys(("us", "µs", "usec", "micros", "microsecond", "microseconds"), "time_us"),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), "time_ns"),
}


def time_column(
    columns: tuple[str, ...],
    mapped: Mapping[str, str],
    column_of: Callable[[str], str | None],
    may_count: bool,
    stamps: str = "",
) -> tuple[str, TimeUnit, bool, bool]:
    """The one time column, its unit, whether it numbers frames instead, and whether it says its unit.

    A mapping that names one outranks the others.

    Args:
        columns: names found in the log.
        mapped: meaning -> column.
        column_of: the column of a meaning, None where there is none.
        may_count: a log without any time may number frames.
        stamps: the only column whose type says that it holds time stamps; "": there is none.

    Raises:
        RefusedInput: LOG_COLUMN, there is none, or there are several.
    """
    named: list[TimeUnit] = [unit for unit in TIME_DIGITS if unit in mapped]
    if TIME in mapped and not named:
        return mapped[TIME], "time_ns", False, False
    found = [(unit, column_of(unit)) for unit in named or TIME_DIGITS]
    times = [(column, unit) for unit, column in found if column is not None]
    times = times or [(n, unit) for n in columns for unit in TIME_DIGITS if n.lower() == unit]
    times = times or [(name, unit) for name in columns for unit in _unit_of(name)]
    if len(times) == 1:
        return (*times[0], False, True)
    if times:
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"two time columns: {listed([column for column, _ in times])}; expected exactly one",
        )
    counting = [column for column in map(column_of, COUNTING_COLUMNS) if column is not None]
    if counting and may_count:
        return counting[0], "time_ns", True, True
    unsaid = named_like(columns, TIME_COLUMNS) or stamps
    if unsaid:
        return unsaid, "time_ns", False, False
    raise RefusedInput(
        Reason.LOG_COLUMN,
        f"no time column ({', '.join(TIME_DIGITS)}); the log has {listed(columns)}; "
        f"{_time_line(columns)}",
    )


def _time_line(columns: tuple[str, ...]) -> str:
    """What to write beside a log without a time column: the line, where a name is like one."""
    for name in columns:
        if _TICKS.search(name):
            return (
                f"if {listed([name])} counts ticks, say so beside the log: tick_rate = 10000000 (so many a "
                f'second) and columns = {{ {key(name)} = "time_ticks" }}'
            )
    for name in columns:
        match = _LIKE_TIME.fullmatch(name)
        unit = _UNITS.get((match[1] or match[2]).lower()) if match else None
        if unit:
            return f'if {listed([name])} tells it, say so beside the log: columns = {{ {key(name)} = "{unit}" }}'
    return "map the one that holds the time under [columns]"


def _unit_of(name: str) -> tuple[TimeUnit, ...]:
    """What a column that looks like the time counts in: one unit, or none."""
    match = _TIME_NAME.fullmatch(name)
    if match is None and (bracketed := _BRACKETED.fullmatch(name)):
        unit = _UNITS.get(bracketed[1].lower())
        return (unit,) if unit else ()
    return tuple(unit for unit in TIME_DIGITS if match and unit == f"time_{match[1]}")


def unit_in_row(units: Mapping[str, str], column: str) -> TimeUnit | None:
    """The unit that a row of units below the header gives a column; None where it gives none."""
    return _UNITS.get(units.get(column, "").strip("[]() ").lower())


def found_unit(file: LogFile, column: str, video_ns: int) -> TimeUnit:
    """What a time column counts in, where only its content can tell.

    The length of the log tells: in one unit alone it is between a tenth and twice that of the video.
    Dates need no unit.

    Args:
        file: the log.
        column: the one that tells the time.
        video_ns: how long the video is.

    Raises:
        RefusedInput: LOG_COLUMN, the log fits the video in no unit.
    """
    span_ns, dates = _span(file, column)
    if dates:
        return "time_ns"
    for unit, digits in TIME_DIGITS.items():
        if LEAST_SHARE <= span_ns * 10.0 ** (digits - 9) / video_ns <= MOST_SHARE:
            return unit
    raise RefusedInput(
        Reason.LOG_COLUMN,
        f"column {listed([column])} tells the time, but not in which unit, and in none does the log "
        f"last about as long as the video ({plain_number(video_ns / SECOND_NS)} s): say it under [columns], "
        f'such as {listed([column])} = "time_ms"; if it counts ticks of a counter, write '
        f"tick_rate = 10000000 (so many a second) beside the log",
    )


def _span(file: LogFile, column: str) -> tuple[float, bool]:
    """From the least to the greatest time, in nanoseconds if they are seconds; and whether dates."""
    try:
        table = file.read(WantedColumns(column, "time_s", ()))
        scale = 1.0
    except RefusedInput as why:
        if why.reason is not Reason.LOG_CLOCK:
            raise
        table = file.read(WantedColumns(column, "time_ns", ()))
        scale = float(SECOND_NS)
    times_ns = table.times_ns
    span = (int(np.max(times_ns)) - int(np.min(times_ns))) * scale
    return span, table.format.time_kind.startswith("dates")


def start_of(said: object) -> tuple[int, bool]:
    """`start` of the metadata in nanoseconds since 1970, and whether it names its zone.

    Raises:
        ValueError: it is no date with a time of day.
    """
    if isinstance(said, datetime.datetime):
        return date_of(said.isoformat())
    if not isinstance(said, str):
        raise ValueError("it has no time of day")
    return date_of(said.strip())


def check_start(kind: TimeKind, zone: bool | None, first_ns: int) -> None:
    """Refuse a `start` that cannot be on the log's clock.

    Args:
        kind: what the log's time column holds.
        zone: whether `start` names its zone; None: there is none.
        first_ns: the log's first time, on its own clock.

    Raises:
        RefusedInput: METADATA.
    """
    if zone is None:
        return
    if kind == "dates without a zone" and zone:
        raise RefusedInput(
            Reason.METADATA,
            "start names a time zone, the dates of the log none: write start as the log's clock "
            "showed it, without a zone",
        )
    if kind != "dates without a zone" and not zone:
        raise RefusedInput(
            Reason.METADATA,
            "start names no time zone, which the log's clock needs: write it with Z (UTC) or with "
            "the zone's offset, such as +01:00",
        )
    if not is_unix(first_ns):
        raise RefusedInput(
            Reason.METADATA,
            f"start is a date, but the log does not count from 1970 (its first time is "
            f"{plain_number(first_ns / SECOND_NS, 6)} s): give offset_ms instead",
        )


def is_unix(time_ns: int) -> bool:
    """Whether a time may be one since 1970, of this age."""
    return FEWEST_UNIX_S <= time_ns / SECOND_NS < MOST_UNIX_S


def offset_words(first_ns: int, start_ns: int, kind: TimeKind, created_ns: int | None) -> str:
    """The lines that would put a log that counts from 1970 on the video's clock, and how sure they are.

    Args:
        first_ns: the log's first row, nanoseconds since 1970.
        start_ns: the video's first frame, on its own clock.
        kind: what the log's time column holds.
        created_ns: when the video's container says that it was made; None: it does not.
    """
    words = (
        f'write {offset_line(first_ns - start_ns)} (or start = "{shown_date(first_ns - start_ns, kind)}") '
        "beside the log if its first row is at the video's first frame: nothing in the files says so"
    )
    if created_ns is None:
        return words
    apart_s = (created_ns - first_ns) / SECOND_NS
    return words + (
        f". The video says creation_time {shown_date(created_ns, 'dates')}, {plain_number(abs(apart_s))} s "
        f"{'after' if apart_s >= 0 else 'before'} the first row, which would be {offset_line(created_ns)}: "
        "exact to a second at best, and some recorders write the end, or local time, there"
    )


def offset_line(zero_ns: int) -> str:
    """The line of metadata that says what the log's clock shows at the video's zero, exactly."""
    whole, rest = divmod(abs(zero_ns), 1_000_000)
    fraction = f".{rest:06}".rstrip("0") if rest else ""
    return f"offset_ms = {'-' * (zero_ns < 0)}{whole}{fraction}"


def shown_date(time_ns: int, kind: TimeKind) -> str:
    """A time since 1970 as a date, with a zone where the log has one, or numbers."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    date = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{date.isoformat()}{fraction}{'' if kind == 'dates without a zone' else 'Z'}"
