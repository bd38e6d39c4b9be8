"""Dates and Unix times: read once the metadata says when the video starts, else refused with the line."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.logs import by_ms, read_log, sampled
from makers.video_clips import write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.log_cells import date_of
from wham_data.pipelines.readers.video_log.time_column import offset_words
from wham_data.schemas.errors import Reason, RefusedInput

START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
START_NS = 1_772_366_400_250_000_000
HELD = {0: 0, 300: 1, 900: 0, 3900: 0}


def iso(ms: int, zone: timezone = UTC) -> str:
    return (START + timedelta(milliseconds=ms)).astimezone(zone).isoformat(timespec="milliseconds")


def events(time: Callable[[int], object], name: str = "timestamp") -> str:
    lines = [f"{time(ms)},button_A,{held}" for ms, held in HELD.items()]
    return "\n".join([f"{name},control,value", *lines]) + "\n"


SPELLINGS: dict[str, Callable[[int], str]] = {
    "UTC": lambda ms: iso(ms).replace("+00:00", "Z"),
    "an offset": lambda ms: iso(ms, timezone(timedelta(hours=5, minutes=30))),
    "an offset without a colon": lambda ms: iso(ms, timezone(-timedelta(hours=3))).replace(
        "-03:00", "-0300"
    ),
    "a space": lambda ms: iso(ms).replace("T", " "),
    "nanoseconds": lambda ms: iso(ms).replace("+", "000000+"),
    "basic": lambda ms: (START + timedelta(milliseconds=ms)).strftime("%Y%m%dT%H%M%S.%fZ"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "toml",
    [
        'start = "2026-03-01T12:00:00.250Z"',
        "start = 2026-03-01T13:00:00.250+01:00",
        "offset_ms = 1772366400250",
    ],
)
def test_dates_are_on_the_clock_of_a_declared_start(
    tmp_path: Path, spelling: str, toml: str
) -> None:
    log = read_log(tmp_path, events(SPELLINGS[spelling]), toml)
    assert by_ms(log, "button_A") == HELD
    assert log.format.time_kind == "dates"
    assert [note for note in log.notes if "holds dates" in note]


@pytest.mark.parametrize(
    ("toml", "read"),
    [("start = 2026-03-01T12:00:00.250", True), ("offset_ms = 1772366400250", True),
     ("start = 2026-03-01T12:00:00.250Z", False)],
)  # fmt: skip
def test_dates_without_a_zone_need_a_start_without_one(
    tmp_path: Path, toml: str, read: bool
) -> None:
    text = events(lambda ms: iso(ms).removesuffix("+00:00"))
    if read:
        log = read_log(tmp_path, text, toml)
        assert by_ms(log, "button_A") == HELD
        assert [note for note in log.notes if "without a time zone" in note]
    else:
        with pytest.raises(RefusedInput, match="without a zone"):
            read_log(tmp_path, text, toml)


UNIX = {"time_s": 10**9, "time_ms": 10**6, "time_us": 10**3, "time_ns": 1}


@pytest.mark.parametrize("unit", UNIX)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("toml", ["start = 2026-03-01T12:00:00.250Z", "offset_ms = 1772366400250"])
def test_unix_times_are_on_the_clock_of_a_declared_start(
    tmp_path: Path, unit: str, named: bool, toml: str
) -> None:
    def time(ms: int) -> str:
        whole, rest = divmod(START_NS + ms * 10**6, UNIX[unit])
        return f"{whole}.{rest:09}" if unit == "time_s" else str(whole)

    log = read_log(tmp_path, events(time, unit if named else "timestamp"), toml)
    assert by_ms(log, "button_A") == HELD


@pytest.mark.parametrize(
    ("toml", "text", "words"),
    [
        ("start = 2026-03-01T12:00:00", events(SPELLINGS["UTC"]), "names no time zone"),
        ("start = 2026-03-01T12:00:00", events(lambda ms: 1772366400 + ms / 1000), "no time zone"),
        ("start = 2026-03-01T12:00:00Z", events(lambda ms: ms / 1000), "does not count from 1970"),
        ('start = "noon"', events(SPELLINGS["UTC"]), "start must be a date"),
        ("start = 2026-03-01", events(SPELLINGS["UTC"]), "start must be a date"),
        ("start = 2026-03-01T12:00:00Z\noffset_ms = 0", events(SPELLINGS["UTC"]), "offset_ms"),
        (
            "tick_rate = 1000\n[columns]\ntimestamp = 'time_ticks'",
            events(SPELLINGS["UTC"]),
            "ticks",
        ),
    ],
)
def test_a_start_that_cannot_be_on_the_log_s_clock_is_refused(
    tmp_path: Path, toml: str, text: str, words: str
) -> None:
    with pytest.raises(RefusedInput, match=words) as caught:
        read_log(tmp_path, text, toml)
    assert caught.value.reason is Reason.METADATA


@pytest.mark.parametrize(
    ("cell", "words"),
    [("2026-13-01T12:00:00Z", "line 3"), ("3.5", "line 3"), ("soon", "line 3"), ("", "line 3"),
     ("2026-03-01T12:00:01", "without a zone"), ("1066-10-14T09:00:00Z", "year")],
)  # fmt: skip
def test_a_cell_that_is_no_date_like_the_others_is_refused_with_its_line(
    tmp_path: Path, cell: str, words: str
) -> None:
    text = events(SPELLINGS["UTC"]).replace(SPELLINGS["UTC"](300), cell)
    with pytest.raises(RefusedInput, match=words) as caught:
        read_log(tmp_path, text, "offset_ms = 1772366400250")
    assert "line 3" in caught.value.message


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_dates_are_read_as_python_reads_them(when: datetime, minutes: int) -> None:
    zoned = when.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
    assert date_of(zoned.isoformat()) == (since // timedelta(microseconds=1) * 1000, True)


# --- Parquet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("name", ["timestamp", "time_ns", "t"])
def test_a_column_of_time_stamps_is_exact(
    tmp_path: Path, unit: str, zone: str | None, name: str
) -> None:
    whole = [0, 1000, 3000]
    stamps = pa.array([1_772_366_400_000 + ms for ms in whole], pa.timestamp("ms"))
    columns = {
        name: stamps.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone)),
        "control": ["button_A"] * 3,
        "value": [0, 1, 0],
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    log = read_log(tmp_path, sink.getvalue(), "offset_ms = 1772366400000", name="log.parquet")
    assert by_ms(log, "button_A") == {0: 0, 1000: 1, 3000: 0}
    assert log.format.time_kind == ("dates" if zone else "dates without a zone")


@pytest.mark.parametrize("name", ["recorded_at", "__index_level_0__", "wall clock"])
def test_the_only_column_of_time_stamps_tells_the_time_whatever_its_name(
    tmp_path: Path, name: str
) -> None:
    stamps = pa.array([1_772_366_400_000, 1_772_366_403_000], pa.timestamp("ms"))
    table = pa.table({name: stamps, "control": ["button_A"] * 2, "value": [1, 0]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    log = read_log(tmp_path, sink.getvalue(), "offset_ms = 1772366400000", name="log.parquet")
    assert (by_ms(log, "button_A"), log.format.time_column) == ({0: 1, 3000: 0}, name)


def test_dates_with_and_without_a_fraction_are_one_column(tmp_path: Path) -> None:
    """As pandas writes them: no fraction where it is zero."""
    text = events(lambda ms: iso(ms - 250).replace(".000", "").replace("T", " "))
    log = read_log(tmp_path, text, "offset_ms = 1772366400000")
    assert by_ms(log, "button_A") == HELD


@pytest.mark.parametrize("int96", [False, True])
def test_time_stamps_of_pandas_are_read(tmp_path: Path, int96: bool) -> None:
    frame = pd.DataFrame({
        "timestamp": pd.to_datetime([1_772_366_400_000, 1_772_366_403_000], unit="ms"),
        "control": "button_A", "value": [1, 0],
    })  # fmt: skip
    sink = io.BytesIO()
    frame.to_parquet(sink, use_deprecated_int96_timestamps=int96)
    toml = "start = 2026-03-01T12:00:00"
    log = read_log(tmp_path, sink.getvalue(), toml, name="log.parquet")
    assert by_ms(log, "button_A") == {0: 1, 3000: 0}


def test_dates_as_texts_in_parquet_are_read(tmp_path: Path) -> None:
    table = {"t": ["2026-03-01T12:00:00Z", "2026-03-01T12:00:03Z"], "control": ["button_A"] * 2,
             "value": [1, 0]}  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.table(table), sink)
    log = read_log(tmp_path, sink.getvalue(), "offset_ms = 1772366400000", name="log.parquet")
    assert by_ms(log, "button_A") == {0: 1, 3000: 0}


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "name", "what"),
    [
        (SPELLINGS["UTC"], "timestamp", "timestamp holds dates"),
        (lambda ms: f"{(START_NS + ms * 10**6) / 1e9:.3f}", "time_s", "Unix epoch in seconds"),
        (lambda ms: START_NS // 10**6 + ms, "t", "Unix epoch in milliseconds"),
        (lambda ms: START_NS + ms * 10**6, "time_ns", "Unix epoch in nanoseconds"),
    ],
)
def test_a_log_since_1970_without_a_start_is_refused_with_the_line_to_write(
    tmp_path: Path, time: Callable[[int], object], name: str, what: str
) -> None:
    tags = {"creation_time": "2026-03-01T12:00:04Z"}
    write_clip(tmp_path / "a.mp4", range(0, 4000, 200), tags=tags)
    (tmp_path / "a.csv").write_text(events(time, name))
    (tmp_path / "a.toml").write_text('actions = "xinput16"\n')
    recording = discover([tmp_path]).recordings[0]
    with pytest.raises(RefusedInput) as caught:
        open_recording(recording)
    assert caught.value.reason is Reason.LOG_CLOCK
    message = caught.value.message
    assert what in message
    assert "offset_ms = 1772366400250 " in message
    assert "creation_time 2026-03-01T12:00:04Z, 3.75 s after the first row" in message
    (tmp_path / "a.toml").write_text('actions = "xinput16"\noffset_ms = 1772366400250\n')
    assert open_recording(recording).actions is not None


@pytest.mark.parametrize(("declared", "first_ms"), [(0, 7_000_000), (-50, 90_000), (1234.5, 8e9)])
def test_a_log_with_another_zero_is_refused_with_the_line_to_write(
    tmp_path: Path, declared: float, first_ms: float
) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 4000, 200))
    (tmp_path / "a.csv").write_text(events(lambda ms: first_ms + ms, "time_ms"))
    toml = 'actions = "xinput16"\noffset_ms = '
    (tmp_path / "a.toml").write_text(f"{toml}{declared}\n")
    recording = discover([tmp_path]).recordings[0]
    line = f"offset_ms = {first_ms:.0f} would put"
    with pytest.raises(RefusedInput, match=line) as caught:
        open_recording(recording)
    assert caught.value.reason is Reason.LOG_CLOCK
    (tmp_path / "a.toml").write_text(f"{toml}{first_ms:.0f}\n")
    assert open_recording(recording).actions is not None


@pytest.mark.parametrize(
    ("first_ns", "start_ns", "created_ns", "words"),
    [
        (START_NS, 0, None, ('offset_ms = 1772366400250 (or start = "2026-03-01T12:00:00.25Z")',)),
        (START_NS + 1, 0, None, ("offset_ms = 1772366400250.000001 ",)),
        (START_NS, 40_000_000, None, ("offset_ms = 1772366400210 ",)),
        (START_NS, 0, START_NS - 2 * 10**9, ("2 s before the first row", "= 1772366398250")),
        (START_NS, 0, START_NS + 10**9, ("1 s after the first row", "creation_time", "exact to")),
    ],
)
def test_the_words_of_an_offset_give_numbers_and_how_sure_they_are(
    first_ns: int, start_ns: int, created_ns: int | None, words: tuple[str, ...]
) -> None:
    said = offset_words(first_ns, start_ns, "dates", created_ns)
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize("name", ["TIME_MS", "Time_ms", "time_MS"])
def test_the_time_column_may_have_capitals(tmp_path: Path, name: str) -> None:
    text = sampled([0, 1000, 2000]).replace("time_ms", name)
    assert read_log(tmp_path, text).track.times_ns.tolist() == [0, 10**9, 2 * 10**9]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("elapsed_ms", 'columns = { elapsed_ms = "time_ms" }'),
        ("elapsedMs", 'columns = { elapsedMs = "time_ms" }'),
        ("game clock (s)", 'columns = { "game clock (s)" = "time_s" }'),
        ("since_start_us", 'columns = { since_start_us = "time_us" }'),
        ("qpc", 'tick_rate = 10000000 .* columns = { qpc = "time_ticks" }'),
        ("QpcTicks", 'tick_rate = 10000000 .* columns = { QpcTicks = "time_ticks" }'),
        ("u", "map the one that holds the time"),
    ],
)
def test_a_log_without_a_time_column_is_refused_with_the_line_to_write(
    tmp_path: Path, name: str, line: str
) -> None:
    pattern = line.replace("{", "[{]").replace("(", "[(]").replace(")", "[)]")
    with pytest.raises(RefusedInput, match=f"no time column.*{pattern}"):
        read_log(tmp_path, sampled([0, 1000, 2000]).replace("time_ms", name))


@pytest.mark.parametrize("name", ["timestamp", "t"])
def test_a_time_in_no_unit_names_ticks(tmp_path: Path, name: str) -> None:
    text = sampled([884213377123, 884223377123, 884243377123]).replace("time_ms", name)
    with pytest.raises(RefusedInput, match="tick_rate = 10000000"):
        read_log(tmp_path, text)
