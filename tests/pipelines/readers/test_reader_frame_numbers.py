"""Logs that count frames or tics instead of telling the time, and logs that share a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.readings import the_recording
from makers.video_clips import write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.frame_numbers import frames_at_tics, rows_by_frame
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.pipelines.readers.video_log.log_rows import open_log, with_vector
from wham_data.pipelines.readers.video_log.log_table import WantedColumns
from wham_data.schemas.actions import ActionSpace, Dimension, load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack, OpenRecording

TIC_NS = 28_571_429
COLUMNS = "left_x,left_y,right_x,right_y," + ",".join(f"button_{i}" for i in range(12))
TENTH_S = range(0, 1000, 100)
"""Milliseconds at which the frames of a short clip come on screen."""


def row(left_x: float) -> str:
    return f"{left_x},0,0,0," + ",".join("0" * 12)


def log(head: str, rows: list[str]) -> str:
    return f"{head},{COLUMNS}\n" + "".join(f"{each}\n" for each in rows)


def track_of(recording: OpenRecording) -> ActionTrack:
    assert recording.actions is not None
    return recording.actions


def left_x(recording: OpenRecording) -> list[float]:
    track = track_of(recording)
    return track.values[:, track.space.index("left_x")].tolist()


def refusal(folder: Path) -> RefusedInput:
    (found,) = discover([folder]).recordings
    with pytest.raises(RefusedInput) as caught:
        open_recording(found)
    return caught.value


# --- a log called actions --------------------------------------------------------------------


def test_actions_csv_belongs_to_the_only_video_of_its_folder(tmp_path: Path) -> None:
    write_clip(tmp_path / "dream.mp4", TENTH_S)
    (tmp_path / "actions.csv").write_text(log("step", [f"{k},{row(k / 10)}" for k in range(10)]))
    (found,) = discover([tmp_path]).recordings
    assert [path.name for path in found.files] == ["dream.mp4", "actions.csv"]
    (named,) = discover([tmp_path / "dream.mp4"]).recordings
    assert named.files == found.files


def test_actions_csv_belongs_to_none_of_two_videos(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, TENTH_S)
    (tmp_path / "actions.csv").write_text(log("step", [f"0,{row(0)}"]))
    found = discover([tmp_path])
    assert not found.recordings
    assert {why.reason for _, why in found.refused} == {Reason.LOG_MISSING}


def test_a_log_of_the_videos_own_name_is_read_before_a_shared_one(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", TENTH_S)
    for name in ("a.csv", "actions.csv"):
        (tmp_path / name).write_text(log("step", [f"{k},{row(0)}" for k in range(10)]))
    (found,) = discover([tmp_path]).recordings
    assert [path.name for path in found.files] == ["a.mp4", "a.csv"]


# --- rows that number frames -----------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with a second of video at 10 frames per second."""
    write_clip(tmp_path / "a.mp4", TENTH_S)
    return tmp_path


def test_a_row_of_a_frame_acts_after_it(clip: Path) -> None:
    (clip / "a.csv").write_text(log("step", [f"{k},{row(k / 10)}" for k in range(10)]))
    recording = the_recording(clip)
    track = track_of(recording)
    assert track.times_ns.tolist() == recording.frame_times_ns.tolist()
    assert track.end_ns == recording.frame_end_ns
    assert left_x(recording) == [k / 10 for k in range(10)]


def test_a_frame_without_a_row_has_no_known_action(clip: Path) -> None:
    kept = [k for k in range(10) if k != 3]
    (clip / "a.csv").write_text(log("frame", [f"{k},{row(k / 10)}" for k in kept]))
    recording = the_recording(clip)
    assert np.isnan(left_x(recording)[3])
    assert left_x(recording)[4] == 0.4
    assert "9 rows for 10 frames" in recording.notes


def test_rows_that_number_frames_have_no_clock_to_correct(clip: Path) -> None:
    (clip / "a.csv").write_text(log("step", [f"{k},{row(0)}" for k in range(10)]))
    (clip / "a.toml").write_text('actions = "wham16"\noffset_ms = 5\n')
    assert refusal(clip).reason == Reason.METADATA


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([-1, 0, 1, 2, 3, 4, 5], Reason.LOG_CLOCK),
        ([0, 1, 1, 2, 3, 4, 5], Reason.LOG_CLOCK),
        ([0, 1, 2], Reason.LOG_COVERAGE),
        (list(range(40)), Reason.LOG_COVERAGE),
    ],
)
def test_rows_that_do_not_number_the_frames_are_refused(
    clip: Path, numbers: list[int], reason: Reason
) -> None:
    rows = [f"{number},{row(place / 50)}" for place, number in enumerate(numbers)]
    (clip / "a.csv").write_text(log("step", rows))
    assert refusal(clip).reason == reason


@pytest.mark.parametrize("last", [6, 14])
def test_rows_that_count_faster_or_slower_than_the_frames_need_a_word(
    clip: Path, last: int
) -> None:
    rows = [f"{number},{row(0)}" for number in range(last + 1)]
    (clip / "a.csv").write_text(log("step", rows))
    why = refusal(clip)
    assert (why.reason, '[columns] step = "frame"' in why.message) == (Reason.LOG_COVERAGE, True)
    (clip / "a.toml").write_text('[columns]\nstep = "frame"\n')
    assert len(left_x(the_recording(clip))) == 10


# --- rows that number actions ----------------------------------------------------------------


@pytest.mark.parametrize(("head", "last"), [("step,action", 9), ("frame,action", 8)])
def test_a_number_of_an_action_is_the_button_of_that_number(
    clip: Path, head: str, last: int
) -> None:
    numbers = [k * 3 % 4 for k in range(last + 1)]
    (clip / "a.csv").write_text("\n".join([head, *(f"{k},{n}" for k, n in enumerate(numbers))]))
    (clip / "a.toml").write_text('actions = "discrete4"\n')
    values = track_of(the_recording(clip)).values[: last + 1]
    assert values.argmax(axis=1).tolist() == numbers
    assert (values.sum(axis=1) == 1).all()


@pytest.mark.parametrize("wrong", ["4", "-1", "1.5", "left"])
def test_a_number_that_is_no_action_of_the_space_is_refused(clip: Path, wrong: str) -> None:
    numbers = ["0", "1", "2", wrong, *"012301"]
    lines = ["step,action", *(f"{k},{n}" for k, n in enumerate(numbers))]
    (clip / "a.csv").write_text("\n".join(lines))
    (clip / "a.toml").write_text('actions = "discrete4"\n')
    assert refusal(clip).reason in (Reason.LOG_RANGE, Reason.LOG_TYPE)


VECTORS = [[k / 4, -30.5 + k, 1e-3] for k in range(10)]
CELLS = {
    "JSON": "[{}, {}, {}]",
    "numpy": "[ {}  {}\n {}]",
    "tuple": "({}, {}, {})",
    "bare": "{} {} {}",
    "nested": "[[{}, {}, {}]]",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("declared", ["numbers3", ""])
def test_a_column_may_hold_all_numbers_of_an_action(clip: Path, cell: str, declared: str) -> None:
    rows = [f'{k},"{cell.format(*vector)}"' for k, vector in enumerate(VECTORS)]
    (clip / "a.csv").write_text("\n".join(["step,action", *rows]))
    if declared or cell == CELLS["bare"]:
        (clip / "a.toml").write_text('actions = "numbers3"\n')

    track = track_of(the_recording(clip))

    assert track.space.name == "numbers3"
    assert track.values[: len(VECTORS)].tolist() == VECTORS


def test_lists_of_json_and_parquet_are_vectors_too(clip: Path) -> None:
    rows = [{"step": k, "action": vector, "reward": 0} for k, vector in enumerate(VECTORS)]
    (clip / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert track_of(the_recording(clip)).values[: len(VECTORS)].tolist() == VECTORS

    (clip / "a.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), clip / "a.parquet")
    assert track_of(the_recording(clip)).values[: len(VECTORS)].tolist() == VECTORS


def test_a_declared_space_names_the_numbers_of_a_vector(clip: Path) -> None:
    (clip / "a.csv").write_text("\n".join(["step,action", *(f"{k},[{k / 10}]" for k in range(10))]))
    (clip / "a.toml").write_text('actions = "vector1"\n')

    assert track_of(the_recording(clip)).values[:10, 0].tolist() == [k / 10 for k in range(10)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("[1, 2]", Reason.LOG_COLUMN), ("[1, 2, ...]", Reason.LOG_TYPE), ("left", Reason.LOG_COLUMN)],
)
def test_a_cell_that_is_no_such_vector_is_refused(clip: Path, wrong: str, reason: Reason) -> None:
    rows = [f'{k},"{[1, 2, 3] if k != 4 else wrong}"' for k in range(10)]
    (clip / "a.csv").write_text("\n".join(["step,action", *rows]))
    assert refusal(clip).reason is reason


def test_an_empty_cell_is_an_action_that_is_not_known(clip: Path) -> None:
    rows = [f'{k},"{[1, 2] if k != 4 else ""}"' for k in range(10)]
    (clip / "a.csv").write_text("\n".join(["step,action", *rows]))
    file, _ = with_vector(open_log(clip / "a.csv", LogMetadata()), {}, load_space("numbers2"))
    table = file.read(WantedColumns("step", "time_ns", ("action_0", "action_1")))
    assert np.isnan(table.numbers[4]).all()
    assert table.numbers[5].tolist() == [1, 2]


def test_logs_of_keys_and_logs_with_their_own_columns_have_no_vector(tmp_path: Path) -> None:
    for head, rows in (
        ("time_s,key,action", "0,w,press"),
        ("time_s,MOVE_X,MOVE_Y,action", '0,1,1,"[3, 4]"'),
        ("step,action", "0,1"),
    ):
        (tmp_path / "a.csv").write_text(f"{head}\n{rows}\n")
        file = open_log(tmp_path / "a.csv", LogMetadata())
        space = ActionSpace(
            "moves", tuple(Dimension(f"MOVE_{name}", "axis", -1.0, 1.0) for name in "XY")
        )
        assert with_vector(file, {}, space)[0] is file


def test_rows_in_any_order_and_beyond_the_last_frame_are_brought_to_the_frames() -> None:
    numbers = np.array([2, 0, 1, 3, 1])
    values = np.array([[2.0], [0.0], [1.0], [3.0], [1.0]])
    rows, notes = rows_by_frame(numbers, values, 3)
    assert rows.tolist() == [[0.0], [1.0], [2.0]]
    assert notes == ("1 rows beyond the last frame",)


# --- clocks under other names ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "per_ms"), [("t_ns", 1_000_000), ("t_input_us", 1000), ("timestamp_ms", 1)]
)
def test_the_only_column_that_looks_like_the_time_tells_it(
    clip: Path, column: str, per_ms: int
) -> None:
    (clip / "a.csv").write_text(log(column, [f"{at * per_ms},{row(0)}" for at in TENTH_S]))
    assert track_of(the_recording(clip)).times_ns.tolist() == [at * 1_000_000 for at in TENTH_S]


def test_of_two_columns_that_look_like_the_time_none_is_taken(clip: Path) -> None:
    (clip / "a.csv").write_text(log("t_in_ms,t_out_ms", [f"{at},{at},{row(0)}" for at in TENTH_S]))
    why = refusal(clip)
    assert why.reason == Reason.LOG_COLUMN
    assert "t_in_ms, t_out_ms" in why.message


# --- rows that count the engine's tics -------------------------------------------------------


def paced(tics: int, *, late_ns: int = 0, drift_ppm: float = 0.0) -> np.ndarray:
    """When an engine that is a little uneven wrote the row of each tic."""
    uneven = np.random.default_rng(0).integers(-300_000, 300_000, tics)
    true_ns = np.arange(tics) * TIC_NS + uneven + 500_000
    return (true_ns * (1 + drift_ppm / 1e6)).astype(np.int64) + late_ns


def test_a_frame_for_every_tic_is_the_rows_whatever_the_container_says() -> None:
    stamps = np.arange(50) * TIC_NS
    overrun = np.cumsum(np.random.default_rng(1).integers(TIC_NS, 3 * TIC_NS, 50))
    assert frames_at_tics(np.arange(7, 57), overrun, stamps).tolist() == list(range(50))


def test_dropped_frames_are_found_though_the_logs_clock_is_late_and_drifts() -> None:
    written = paced(9000, late_ns=137_500_000, drift_ppm=900)
    dropped = np.random.default_rng(2).choice(np.arange(1, 8999), 700, replace=False)
    kept = np.setdiff1d(np.arange(9000), dropped)
    shown = frames_at_tics(np.arange(9000), written, paced(9000)[kept])
    assert shown is not None
    assert (
        kept[shown].tolist() == kept[np.searchsorted(kept, np.arange(9000), "right") - 1].tolist()
    )


def test_a_video_that_is_not_paced_by_the_tics_is_left_to_its_own_clock() -> None:
    tics, written = np.arange(300), paced(300)
    assert frames_at_tics(tics, written, np.arange(301) * TIC_NS) is None, "more frames than tics"
    assert frames_at_tics(tics * 2, written, written[:200]) is None, "tics with gaps"
    assert frames_at_tics(tics, written, np.arange(299) * (TIC_NS // 3)) is None, "faster frames"
    assert frames_at_tics(tics, written, written[:200]) is None, "frames that end early"
    slow = (np.arange(299) * 1.01 * TIC_NS).astype(np.int64)
    assert frames_at_tics(tics, written, slow) is None, "clocks that part too fast"
    wavy = np.arange(299) * TIC_NS + np.round(np.sin(np.arange(299) / 20) * 0.7 * TIC_NS)
    assert frames_at_tics(tics, written, wavy.astype(np.int64)) is None, "frames off their rows"


def test_a_log_of_tics_brings_frames_and_actions_together(tmp_path: Path) -> None:
    kept = [k for k in range(30) if k not in (4, 5, 17)]
    write_clip(tmp_path / "video.mp4", [k * 40 for k in kept])
    rows = [f"{k},{139_880_101 + k * 40_036_000},{row(k / 30)}" for k in range(30)]
    (tmp_path / "actions.csv").write_text(log("tick,t_input_ns", rows))
    recording = the_recording(tmp_path)
    written_ns = track_of(recording).times_ns
    assert recording.frame_times_ns.tolist() == written_ns[kept].tolist()
    assert "frame times taken from the log's tick column" in recording.notes


def test_metadata_that_describes_the_clock_outranks_the_tics(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", [k * 40 for k in range(30)])
    rows = [f"{k},{140_000_000 + k * 40_000_000},{row(0)}" for k in range(30)]
    (tmp_path / "a.csv").write_text(log("tick,t_input_ns", rows))
    (tmp_path / "a.toml").write_text('actions = "wham16"\noffset_ms = 100\n')
    recording = the_recording(tmp_path)
    assert recording.frame_times_ns[0] == 0
    assert track_of(recording).times_ns[0] == 40_000_000
