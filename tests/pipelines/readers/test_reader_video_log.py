"""A video beside a controller log: what is read, what is mentioned, what is refused and why."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.video_clips import read_stamp, write_clip

from wham_data.pipelines.align import place_steps, resample_actions
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.controller_log import correct_clock
from wham_data.pipelines.readers.video_log.log_table import WantedColumns
from wham_data.pipelines.readers.video_log.log_text import open_text_log
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import ActionTrack, OpenRecording

HZ = 50
SECONDS = 4.0
COLUMNS = {"t": "time_s", "lx": "left_x", "ly": "left_y", "rx": "right_x", "ry": "right_y"} | {
    f"b{i}": f"button_{i}" for i in range(12)
}
TOML = 'actions = "wham16"\n[columns]\n' + "".join(f'{k} = "{v}"\n' for k, v in COLUMNS.items())

Row = dict[str, object]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 25 frames per second; frame k shows the number k."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", range(0, 4000, 40))


@pytest.fixture
def beside(clip: Path, tmp_path: Path) -> Callable[..., Path]:
    """Puts a log, and metadata, beside a copy of the clip; gives the folder."""

    def put(log: bytes | str, ending: str = ".csv", toml: str | None = TOML) -> Path:
        shutil.copy(clip, tmp_path / "clip.mp4")
        data = log if isinstance(log, bytes) else log.encode()
        (tmp_path / f"clip{ending}").write_bytes(data)
        if toml is not None:
            (tmp_path / "clip.toml").write_text(toml)
        return tmp_path

    return put


def rows(seconds: float = SECONDS, start: float = 0.0, hz: int = HZ) -> list[Row]:
    """A sound log: sticks on circles, buttons in turn; runs to the end, both ends included."""
    made: list[Row] = []
    for k in range(round(seconds * hz) + 1):
        sticks = {"lx": round(np.sin(k / 20), 4), "ly": round(np.cos(k / 20), 4), "rx": 0, "ry": 0}
        buttons = {f"b{i}": int(k // 10 % 12 == i) for i in range(12)}
        made.append({"t": round(start + k / hz, 6), **sticks, **buttons})
    return made


def as_csv(table: Sequence[Row]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def as_jsonl(table: Sequence[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in table)


def as_parquet(table: Sequence[Row], **columns: pa.Array) -> bytes:
    arrow = pa.table({name: [row[name] for row in table] for name in table[0]})
    for name, array in columns.items():
        arrow = arrow.set_column(arrow.schema.names.index(name), name, array)
    sink = io.BytesIO()
    pq.write_table(arrow, sink)
    return sink.getvalue()


def opened(folder: Path) -> OpenRecording:
    found = discover([folder])
    assert len(found.recordings) == 1, found
    return open_recording(found.recordings[0])


def refusal(folder: Path) -> RefusedInput:
    with pytest.raises(RefusedInput) as caught:
        opened(folder)
    assert "\n" not in caught.value.message
    return caught.value


def track_of(recording: OpenRecording) -> ActionTrack:
    assert recording.actions is not None
    return recording.actions


def gzipped_in_two(data: bytes) -> bytes:
    """As a recorder leaves it that was stopped and appended to the same file."""
    return gzip.compress(data[:999]) + gzip.compress(data[999:])


Beside = Callable[..., Path]


# --- sound logs ------------------------------------------------------------------------------


def test_the_three_forms_of_a_log_give_the_same_track(beside: Beside) -> None:
    tracks = []
    for ending, data in (
        (".csv", as_csv(rows())),
        (".jsonl", as_jsonl(rows())),
        (".parquet", as_parquet(rows())),
        (".csv.gz", gzip.compress(as_csv(rows()).encode())),
        (".csv.gz", gzipped_in_two(as_csv(rows()).encode())),
    ):
        folder = beside(data, ending)
        tracks.append(track_of(opened(folder)))
        (folder / f"clip{ending}").unlink()
    for track in tracks:
        assert track.space.name == "wham16"
        assert track.times_ns.tolist() == [k * 20_000_000 for k in range(201)]
        assert track.end_ns == 4_000_000_000
        assert np.array_equal(track.values, tracks[0].values)
    assert tracks[0].values[10].tolist()[:3] == [0, 1, 0]


def test_every_step_shows_the_frame_on_screen_and_the_action_held(beside: Beside) -> None:
    recording = opened(beside(as_csv(rows(start=0.05))))
    track = track_of(recording)
    span = int(track.times_ns[0]), track.end_ns
    (plan,) = place_steps(recording.frame_times_ns, recording.frame_end_ns, span, TEN_HZ)
    batches = recording.frames(plan.picks, (96, 56), fit="stretch", batch=7, threads=1)
    stamps = [read_stamp(frame) for batch in batches for frame in batch]
    assert stamps == [int((0.05 + k / 10) / 0.04) for k in range(len(stamps))]
    assert len(recording.lost_frames()) == 0
    assert resample_actions(track, plan.edges_ns).missing == 0


def test_byte_order_mark_and_windows_line_ends_are_accepted(beside: Beside) -> None:
    text = "\ufeff" + as_csv(rows()).replace("\n", "\r\n")
    assert opened(beside(text)).notes == ()


def test_columns_may_be_mapped_either_way_round(beside: Beside) -> None:
    turned = 'actions = "wham16"\n[columns]\n' + "".join(
        f'{v} = "{k}"\n' for k, v in COLUMNS.items()
    )
    assert len(track_of(opened(beside(as_csv(rows()), toml=turned))).times_ns) == 201


def test_columns_named_like_dimensions_need_no_metadata(beside: Beside) -> None:
    named = [{COLUMNS[name]: value for name, value in row.items()} for row in rows()]
    recording = opened(beside(as_csv(named), toml=None))
    assert track_of(recording).space.name == "wham16"


def test_nested_objects_are_columns_with_dots_matched_by_their_last_part(beside: Beside) -> None:
    nested = [
        {"time_s": row["t"], "pad": {COLUMNS[n]: v for n, v in row.items() if n != "t"}}
        for row in rows()
    ]
    track = track_of(opened(beside(as_jsonl(nested), ".jsonl", toml=None)))
    assert track.values[:, 12].tolist() == [row["lx"] for row in rows()]


def test_metadata_tells_who_played_what(beside: Beside) -> None:
    folder = beside(as_csv(rows()), toml='game = "Maze"\nplayer = 7\nmatch = "m1"\n' + TOML)
    (recording,) = discover([folder]).recordings
    who = recording.provenance
    assert (who.game, who.player, who.match, who.map) == ("Maze", "7", "m1", None)
    assert [path.name for path in recording.files] == ["clip.mp4", "clip.csv", "clip.toml"]


def test_metadata_may_be_json(beside: Beside) -> None:
    folder = beside(as_csv(rows()), toml=None)
    (folder / "clip.json").write_text(json.dumps({"actions": "wham16", "columns": COLUMNS}))
    assert len(track_of(opened(folder)).times_ns) == 201


def test_a_space_of_ones_own_may_lie_beside_the_log(beside: Beside) -> None:
    folder = beside("time_ms,jump\n0,0\n2000,1\n4000,0\n", toml='actions = "two.toml"\n')
    (folder / "two.toml").write_text(
        'name = "one_button"\n[[dimensions]]\nnames = ["jump"]\nkind = "button"\n'
    )
    (recording,) = discover([folder]).recordings
    assert recording.files[-1].name == "two.toml"
    assert track_of(open_recording(recording)).space.names == ("jump",)


def test_offset_and_drift_of_the_log_clock_are_taken_out(beside: Beside) -> None:
    late = [{**row, "t": f"{1.0009 * k / HZ + 0.1375:.9f}"} for k, row in enumerate(rows())]
    toml = "offset_ms = 137.5\ndrift_ppm = 900\n" + TOML
    recording = opened(beside(as_csv(late), toml=toml))
    wrong = track_of(recording).times_ns - np.arange(201) * 20_000_000
    assert np.abs(wrong).max() <= 1
    assert (recording.clock.offset_ns, recording.clock.drift_ppm) == (137_500_000, 900.0)


def test_true_and_false_are_one_and_zero(beside: Beside) -> None:
    spelled = [{**row, "b0": bool(row["b0"])} for row in rows()]
    for ending, text in ((".csv", as_csv(spelled)), (".jsonl", as_jsonl(spelled))):
        folder = beside(text, ending)
        assert track_of(opened(folder)).values[5, 0] == 1
        (folder / f"clip{ending}").unlink()


def test_values_a_little_out_of_range_are_clamped_and_counted(beside: Beside) -> None:
    table = rows()
    table[3]["lx"] = 1.001
    track = track_of(opened(beside(as_csv(table))))
    assert (track.values[3, 12], track.clamped) == (1.0, 1)


# --- the time column -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "text", "ns"),
    [
        ("time_ns", "9007199254740993", 9007199254740993),
        ("time_s", "1700000000.123456789", 1700000000123456789),
        ("time_s", "0.0166666666666666666666", 16666667),
        ("time_s", "2.5e-9", 2),
        ("time_s", "3.5E-9", 4),
        ("time_ms", "16.6666665", 16666666),
        ("time_us", "-0.0005", 0),
        ("time_s", "+1.", 1_000_000_000),
    ],
)
@pytest.mark.parametrize("extra_row", ["", "true\n"])
def test_times_are_read_to_the_nanosecond_by_the_fast_and_the_slow_pass(
    tmp_path: Path, column: str, text: str, ns: int, extra_row: str
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{column},a\n{text},1\n" + (f"{text},{extra_row}" if extra_row else ""))
    wanted = WantedColumns(column, column, ("a",))  # type: ignore[arg-type]
    assert set(open_text_log(path).read(wanted).times_ns.tolist()) == {ns}


@pytest.mark.parametrize("text", ["9007199254740993", "1700000000.123456789"])
def test_times_in_json_are_exact_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"time_ns": {text}, "a": 1}}\n')
    table = open_text_log(path).read(WantedColumns("time_ns", "time_ns", ("a",)))
    assert table.times_ns.tolist() == [round(Fraction(text))]


@given(
    st.lists(st.integers(-(2**61), 2**61), min_size=1, max_size=20),
    st.integers(-(10**12), 10**12),
    st.floats(-5000, 5000),
)
@settings(max_examples=200, deadline=None)
def test_the_clock_correction_equals_exact_arithmetic(
    times: list[int], offset: int, drift: float
) -> None:
    corrected = correct_clock(np.array(times, np.int64), offset, drift)
    for mine, time in zip(corrected.tolist(), times, strict=True):
        exact = (time - offset) / (1 + Fraction(drift) / 10**6)
        assert abs(mine - exact) <= 1 + abs(exact) * Fraction(1, 10**16)


def test_two_time_columns_are_refused(beside: Beside) -> None:
    table = [{**row, "time_ms": 1} for row in rows()]
    table = [{"time_s": row.pop("t"), **row} for row in table]
    why = refusal(beside(as_csv(table), toml=TOML.replace('t = "time_s"\n', "")))
    assert why.reason is Reason.LOG_COLUMN
    assert "two time columns" in why.message


# --- event logs ------------------------------------------------------------------------------

EVENTS = """time_ms,control,value
0,left_x,0
100,button_0,1
130,button_0,0
130,left_x,0.5
4000,left_x,0
"""


def test_an_event_log_carries_states_forward_from_rest(beside: Beside) -> None:
    track = track_of(opened(beside(EVENTS, toml='actions = "wham16"\n')))
    assert (track.times_ns // 10**6).tolist() == [0, 100, 130, 4000]
    assert track.values[:, 0].tolist() == [0, 1, 0, 0]
    assert track.values[:, 12].tolist() == [0, 0, 0.5, 0]
    assert track.max_hold_ns is None


def test_motion_in_an_event_log_is_no_state(beside: Beside) -> None:
    space = 'name = "m"\n[[dimensions]]\nnames = ["dx"]\nkind = "delta"\nlow = -99\nhigh = 99\n'
    log = "time_ms,control,value\n0,dx,1\n50,dx,2\n50,dx,3\n90,dx,4\n4000,dx,0\n"
    folder = beside(log, toml='actions = "m.toml"\n')
    (folder / "m.toml").write_text(space)
    assert track_of(opened(folder)).values[:, 0].tolist() == [1, 5, 4, 0]


def test_an_event_log_in_the_other_forms_reads_the_same(beside: Beside) -> None:
    table: list[Row] = [
        {"time_ms": 0, "control": "a", "value": 1},
        {"time_ms": 4000, "control": "a", "value": 0},
    ]
    toml = 'actions = "wham16"\n[columns]\na = "button_3"\n'
    for ending, data in ((".jsonl", as_jsonl(table)), (".parquet", as_parquet(table))):
        folder = beside(data, ending, toml)
        assert track_of(opened(folder)).values[:, 3].tolist() == [1, 0]
        (folder / f"clip{ending}").unlink()


def test_controls_that_mean_nothing_are_mentioned(beside: Beside) -> None:
    recording = opened(beside(EVENTS + "4000,volume,3\n", toml='actions = "wham16"\n'))
    assert recording.notes == ("extra controls ignored: volume",)


# --- the frame column ------------------------------------------------------------------------


def test_a_frame_column_overrides_the_clock_of_the_container(beside: Beside) -> None:
    """The video took twice as long to play as its 25 frames per second say."""
    table = [{**row, "frame": min(k * 100 // 400, 99)} for k, row in enumerate(rows(8.0))]
    recording = opened(beside(as_csv(table)))
    assert recording.frame_times_ns.tolist() == [k * 80_000_000 for k in range(100)]
    batches = recording.frames(np.array([0, 50, 99]), (96, 56), fit="stretch", batch=4, threads=1)
    assert [read_stamp(f) for batch in batches for f in batch] == [0, 50, 99]


def test_frames_between_two_named_ones_are_spread_evenly(beside: Beside) -> None:
    table = [{**row, "frame": {0: 10, 40: 14, 200: 30}.get(k, "")} for k, row in enumerate(rows())]
    recording = opened(beside(as_csv(table), toml=TOML + 'frame = "frame"\n'))
    assert (recording.frame_times_ns // 10**6).tolist() == [
        *range(0, 800, 200),
        *range(800, 4001, 200),
    ]
    batches = recording.frames(np.array([0, 20]), (96, 56), fit="stretch", batch=4, threads=1)
    assert [read_stamp(f) for batch in batches for f in batch] == [10, 30]


@pytest.mark.parametrize(
    ("frame", "word"), [(lambda k: 99 - k // 3, "back"), (lambda k: k, "video has 100")]
)
def test_frame_numbers_that_cannot_be_are_refused(
    beside: Beside, frame: Callable[[int], int], word: str
) -> None:
    table = [{**row, "frame": frame(k)} for k, row in enumerate(rows())]
    why = refusal(beside(as_csv(table), toml=TOML + 'frame = "frame"\n'))
    assert why.reason is Reason.LOG_CLOCK
    assert word in why.message


# --- faults that are mended or mentioned -----------------------------------------------------


def edited(change: Callable[[list[Row]], object]) -> list[Row]:
    table = rows()
    change(table)
    return table


def shuffled(table: list[Row]) -> None:
    order = np.random.default_rng(0).permutation(len(table))
    table[:] = [table[i] for i in order]


@pytest.mark.parametrize(
    ("log", "word"),
    [
        (as_csv(rows(3.0)), "log covers 3.0 of 4.0 s"),
        (as_csv(rows(2.5, start=1.5)), "starts 1.5 s late"),
        (as_csv(rows(7.0)), "3.0 s beyond the video"),
        (as_csv([row for row in rows() if not 1 < row["t"] < 2.5]), "gap of 1.5 s"),  # type: ignore[operator]
        (as_csv([row for row in rows() for _ in "ab"]), "201 duplicate rows"),
        (as_csv(edited(shuffled)), "time order"),
        (as_csv([{**row, "comment": "=1+1"} for row in rows()]), "ignored: comment"),
        (as_csv(rows()) + "4.02,0,1", "last line torn (line 203)"),
        (as_csv(edited(lambda t: t[9].update(lx="nan"))), "1 rows with missing values"),
        (as_csv(edited(lambda t: t[9].update(lx=""))), "1 rows with missing values"),
    ],
)  # fmt: skip
def test_a_fault_that_costs_little_is_a_note(beside: Beside, log: str, word: str) -> None:
    notes = opened(beside(log)).notes
    assert [note for note in notes if word in note]


def late_clip(folder: Path, data: bytes, toml: str = TOML) -> Path:
    """Four seconds cut from a long stream that kept its time stamps: the first is an hour."""
    write_clip(folder / "clip.mkv", [3_600_000 + 50 * k for k in range(80)])
    (folder / "clip.csv").write_bytes(data)
    (folder / "clip.toml").write_text(toml)
    return folder


def test_a_log_beside_a_clip_of_a_long_stream_counts_from_the_first_frame(tmp_path: Path) -> None:
    recording = opened(late_clip(tmp_path, as_csv(rows(4.0)).encode()))

    track = track_of(recording)
    assert track.times_ns[0] == recording.frame_times_ns[0] == 3600 * 10**9
    assert recording.clock.offset_ns == -3600 * 10**9
    assert [note for note in recording.notes if "offset_ms = -3600000" in note]


def test_a_log_on_the_stream_s_own_clock_is_taken_as_it_is(tmp_path: Path) -> None:
    recording = opened(late_clip(tmp_path, as_csv(rows(4.0, start=3600.0)).encode()))

    assert track_of(recording).times_ns[0] == 3600 * 10**9
    assert recording.clock.offset_ns == 0


def test_a_log_that_would_not_fit_from_the_first_frame_either_is_refused(tmp_path: Path) -> None:
    late_clip(tmp_path, as_csv(rows(4.0, start=3.0)).encode())

    assert refusal(tmp_path).reason == Reason.LOG_CLOCK


def test_a_torn_last_line_of_json_is_dropped(beside: Beside) -> None:
    recording = opened(beside(as_jsonl(rows())[:-20], ".jsonl"))
    assert len(track_of(recording).times_ns) == 200
    assert recording.notes == ("last line torn (line 201): dropped",)


def test_unknown_metadata_is_a_note(beside: Beside) -> None:
    notes = opened(beside(as_csv(rows()), toml="colour = 3\n" + TOML)).notes
    assert notes == ("clip.toml: unknown keys ignored: colour",)


def test_of_two_logs_the_other_one_is_mentioned(beside: Beside) -> None:
    folder = beside(as_jsonl(rows()), ".jsonl")
    (folder / "clip.csv").write_text(as_csv(rows()))
    assert opened(folder).notes == ("clip.jsonl not used beside clip.csv",)


# --- faults for which a recording is refused -------------------------------------------------


def with_text(find: str, put: str) -> str:
    return as_csv(rows()).replace(find, put, 1)


REFUSED: dict[str, tuple[bytes | str, str, Reason, str]] = {
    "ends early": (as_csv(rows(1.0)), ".csv", Reason.LOG_COVERAGE, "covers 1.0 of 4.0 s"),
    "epoch": (as_csv(rows(start=1.7e9)), ".csv", Reason.LOG_CLOCK, "Unix epoch in seconds"),
    "epoch ms": (
        as_csv([{**r, "t": 1.7e12 + 20 * k} for k, r in enumerate(rows())]),
        ".csv", Reason.LOG_CLOCK, "epoch in ms",
    ),
    "milliseconds": (
        as_csv([{**r, "t": 20 * k} for k, r in enumerate(rows())]),
        ".csv", Reason.LOG_CLOCK, "looks like milliseconds",
    ),
    "nanoseconds": (
        as_csv([{**r, "t": 20_000_000 * k} for k, r in enumerate(rows())]),
        ".csv", Reason.LOG_CLOCK, "looks like nanoseconds",
    ),
    "hours as seconds": (
        as_csv([{**r, "t": f"{k / 50 / 3600:.9f}"} for k, r in enumerate(rows())]),
        ".csv", Reason.LOG_CLOCK, "rows per second",
    ),
    "not finite": (
        as_csv(edited(lambda t: [r.update(rx=v) for r, v in zip(t, ["nan", "inf", "-inf"], strict=False)])),
        ".csv", Reason.LOG_NOT_FINITE, "3 of 201 rows",
    ),
    "int16 sticks": (
        as_csv(edited(lambda t: t[7].update(lx=-25356))), ".csv", Reason.LOG_RANGE, "out of range",
    ),
    "half a button": (
        as_csv(edited(lambda t: t[7].update(b4=0.5))), ".csv", Reason.LOG_RANGE, "button",
    ),
    "column missing": (
        as_csv(edited(lambda t: [r.pop("rx") for r in t])), ".csv", Reason.LOG_COLUMN, "column rx",
    ),
    "column twice": (
        as_csv(rows()).replace("lx,ly", "lx,lx", 1), ".csv", Reason.LOG_COLUMN, "duplicate column",
    ),
    "empty": ("", ".csv", Reason.LOG_EMPTY, "empty"),
    "empty parquet": ("", ".parquet", Reason.LOG_EMPTY, "empty"),
    "header only": (as_csv(rows()).split("\n")[0] + "\n", ".csv", Reason.LOG_EMPTY, "no rows"),
    "word": (with_text("\n0.2,", "\n0.2,pressed"), ".csv", Reason.LOG_TYPE, "line 12"),
    "hexadecimal": (
        as_csv(edited(lambda t: t[7].update(lx="0x1F"))), ".csv", Reason.LOG_TYPE, "line 9",
    ),
    "word in json": (
        as_jsonl(edited(lambda t: t[7].update(lx="left"))), ".jsonl", Reason.LOG_TYPE, "line 8",
    ),
    "list in json": (
        as_jsonl(edited(lambda t: t[7].update(lx=[1, 2]))), ".jsonl", Reason.LOG_TYPE, "column lx",
    ),
    "half a utf-16": (
        as_csv(rows()).encode("utf-16")[:-1], ".csv", Reason.LOG_ENCODING, "line 202: not sound UTF-16",
    ),
    "utf-16 bare": (as_csv(rows()).encode("utf-16-le"), ".csv", Reason.LOG_ENCODING, "UTF-16"),
    "latin-1": (
        as_csv([{**r, "who": "Zoë"} for r in rows()]).encode("latin-1"),
        ".csv", Reason.LOG_ENCODING, "line 2",
    ),
    "nul tail": (as_csv(rows()).encode() + bytes(512), ".csv", Reason.LOG_SYNTAX, "NUL"),
    "no header": (
        as_csv(rows()).partition("\n")[2], ".csv", Reason.LOG_SYNTAX, "line 1: numbers, where",
    ),
    "short line": (with_text("\n0.2,", "\n0.2\n0.2,"), ".csv", Reason.LOG_SYNTAX, "line 12"),
    "deep json": (
        as_jsonl(rows()) + "[" * 100_000 + "\n", ".jsonl", Reason.LOG_SYNTAX, "line 202",
    ),
    "huge integer": (
        as_jsonl(rows(0.2)) + '{"t": ' + "9" * 400_000 + "}\n" + as_jsonl(rows(0.2)),
        ".jsonl", Reason.LOG_TYPE, "line 12",
    ),
    "huge exponent": (
        as_jsonl(rows(0.2)) + '{"t": 1e999999}\n', ".jsonl", Reason.LOG_NOT_FINITE, "line 12",
    ),
    "endless line": (as_csv(rows()) + "9" * (2 << 20), ".csv", Reason.TOO_LARGE, "line of"),
    "time null": (
        as_csv(edited(lambda t: t[7].update(t=""))), ".csv", Reason.LOG_NOT_FINITE, "line 9",
    ),
    "clock set back": (
        as_csv(rows(2.003) + rows(2.0, start=1.003)), ".csv", Reason.LOG_CLOCK, "set back",
    ),
    "conflicting rows": (
        as_csv([*rows()[::-1], {**rows()[50], "lx": -1}]), ".csv", Reason.LOG_CLOCK, "conflicting",
    ),
    "text in parquet": (
        as_parquet(rows(), t=pa.array([str(r["t"]) for r in rows()])),
        ".parquet", Reason.LOG_TYPE, "column t",
    ),
    "lists in parquet": (
        as_parquet(rows(), b0=pa.array([[0]] * 201)), ".parquet", Reason.LOG_TYPE, "column b0",
    ),
    "null time in parquet": (
        as_parquet(rows(), t=pa.array([None, *(r["t"] for r in rows()[1:])])),
        ".parquet", Reason.LOG_NOT_FINITE, "row 1",
    ),
    "half a parquet": (as_parquet(rows())[:-90], ".parquet", Reason.LOG_SYNTAX, "Parquet"),
    "gzip bomb": (
        gzip.compress(bytes(64 << 20), mtime=0), ".csv.gz", Reason.TOO_LARGE, "times its size",
    ),
    "half a gzip": (
        gzip.compress(as_csv(rows()).encode())[:-9], ".csv.gz", Reason.LOG_SYNTAX, "cut short",
    ),
    "pickle": (b"\x80\x04N.", ".pkl", Reason.PICKLED_OBJECTS, "never loaded"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_log_that_cannot_be_trusted_is_refused(beside: Beside, case: str) -> None:
    log, ending, reason, word = REFUSED[case]
    why = refusal(beside(log, ending))
    assert (why.reason, word in why.message) == (reason, True), why.message


def test_pickled_objects_in_a_log_are_never_loaded(beside: Beside, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(marker),)

    np.savez(tmp_path / "log.npz", t=np.arange(3.0), evil=np.array([Payload()], dtype=object))
    data = (tmp_path / "log.npz").read_bytes()
    (tmp_path / "log.npz").unlink()
    assert refusal(beside(data, ".npz")).reason is Reason.PICKLED_OBJECTS
    assert not marker.exists()


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("game = 1.5\n", Reason.METADATA),
        ("offset_ms = 'late'\n", Reason.METADATA),
        ("offset_ms = nan\n", Reason.METADATA),
        ("drift_ppm = 1e9\n", Reason.METADATA),
        ("columns = 3\n", Reason.METADATA),
        ("this is no toml\n", Reason.METADATA),
        ("actions = 'no_such_space'\n", Reason.METADATA),
        ("actions = '../../space.toml'\n", Reason.UNSAFE_PATH),
        ("actions = '/dev/zero.toml'\n", Reason.UNSAFE_PATH),
    ],
)
def test_metadata_of_the_wrong_kind_is_refused(beside: Beside, toml: str, reason: Reason) -> None:
    assert refusal(beside(as_csv(rows()), toml=toml)).reason is reason


def test_without_a_space_the_nearest_one_and_what_it_lacks_is_named(beside: Beside) -> None:
    named = [{COLUMNS[n]: v for n, v in row.items() if n != "rx"} for row in rows()]
    why = refusal(beside(as_csv(named), toml=None))
    assert why.reason is Reason.LOG_COLUMN
    assert "wham16" in why.message
    assert "right_x is missing" in why.message


# --- discovery -------------------------------------------------------------------------------


def test_every_video_is_accounted_for(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "alone.mp4")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "page.mp4").write_text("<html>")
    (tmp_path / "log.csv").write_text("time_s\n0\n")
    (tmp_path / ".hidden.mp4").write_text("x")
    (tmp_path / "more.zip").write_bytes(b"PK\x03\x04")
    found = discover([tmp_path])
    assert found.recordings == ()
    assert {path.name: why.reason for path, why in found.refused} == {
        "alone.mp4": Reason.LOG_MISSING,
        "zero.mp4": Reason.EMPTY_FILE,
        "page.mp4": Reason.NOT_A_VIDEO,
        "more.zip": Reason.TRUNCATED,
    }
    assert [path.name for path in found.ignored] == ["log.csv"]


def test_a_log_with_metadata_but_without_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time_s\n0\n")
    (tmp_path / "a.toml").write_text("game = 'x'\n")
    ((path, why),) = discover([tmp_path]).refused
    assert (path.name, why.reason) == ("a.csv", Reason.NOT_A_VIDEO)


def test_a_video_given_by_name_brings_its_log(beside: Beside) -> None:
    folder = beside(as_csv(rows()))
    found = discover([folder / "clip.mp4"])
    assert [path.name for path in found.recordings[0].files] == [
        "clip.mp4",
        "clip.csv",
        "clip.toml",
    ]
    assert found.ignored == ()


def test_a_source_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        discover([tmp_path / "nothing"])


def test_traps_in_the_file_system_are_neither_opened_nor_followed(
    beside: Beside, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = beside(as_csv(rows()))
    outside = tmp_path_factory.mktemp("outside") / "secret.mp4"
    outside.write_bytes((folder / "clip.mp4").read_bytes())
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(folder / "pipe.csv")
    (folder / "dir.mp4").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "out.mp4").symlink_to(outside)
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "again.mp4").symlink_to("clip.mp4")
    with (folder / "hollow.mp4").open("wb") as hollow:
        hollow.truncate(1 << 40)
    found = discover([folder])
    assert [recording.path.name for recording in found.recordings] == ["clip.mp4"]
    assert {path.name: why.reason for path, why in found.refused} == dict.fromkeys(
        ("pipe.mp4", "out.mp4", "dangling.mp4"), Reason.UNSAFE_PATH
    ) | {"hollow.mp4": Reason.TOO_LARGE}


@pytest.mark.parametrize("name", ["-rf", "a\nb", "$(touch x)", "\u202egpj", "x" * 200, "[1]*"])
def test_a_strange_name_is_only_a_name(beside: Beside, name: str) -> None:
    folder = beside(as_csv(rows()))
    for ending in (".mp4", ".csv", ".toml"):
        (folder / f"clip{ending}").rename(folder / f"{name}{ending}")
    assert len(track_of(opened(folder)).times_ns) == 201


def test_a_name_that_is_no_utf8_is_found(beside: Beside) -> None:
    folder = beside(as_csv(rows()))
    for ending in (".mp4", ".csv", ".toml"):
        (folder / f"clip{ending}").rename(folder / os.fsdecode(b"\xff\xfe" + ending.encode()))
    assert len(track_of(opened(folder)).times_ns) == 201


def test_a_video_is_recognised_by_content_under_any_ending(beside: Beside) -> None:
    folder = beside(as_csv(rows()))
    (folder / "clip.mp4").rename(folder / "clip.recording")
    assert len(track_of(opened(folder)).times_ns) == 201
