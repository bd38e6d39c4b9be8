"""The `nitrogen` reader: labels by time, led to their frame, on videos that somebody fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, write_clip

from wham_data.pipelines.readers import discover
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

SPACE = load_space("nitrogen21")
ROWS = 5


def chunk(root: Path, number: int = 0, table: str = "actions_raw", **changes: Any) -> Path:
    """The labels of half a second: row i has the left stick at i/10 and south down if i is odd."""
    folder = root / f"vid/vid_chunk_{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "chunk_size": ROWS,
        "original_video": {
            "resolution": [224, 384],
            "video_id": "vid",
            "start_time": number * 0.5,
            "end_time": number * 0.5 + 0.5,
        },
        "game": "toy",
        "bbox_controller_overlay": [192, 112, 400, 56],
    }
    (folder / "metadata.json").write_text(json.dumps(told | changes))
    columns: dict[str, Any] = {name: [0] * ROWS for name in SPACE.names[:17]}
    columns["south"] = [i % 2 for i in range(ROWS)]
    columns["j_left"] = [[i / 10, -i / 10] for i in range(ROWS)]
    columns["j_right"] = pa.array([[0, 1]] * ROWS, pa.list_(pa.int64()))
    pq.write_table(pa.table(columns), folder / f"{table}.parquet")
    return folder


def left_stick(values: np.ndarray) -> list[float]:
    return [float(value) for value in values[:, SPACE.index("j_left_x")]]


def test_what_acts_after_a_frame_is_the_row_of_the_next_one(tmp_path: Path) -> None:
    write_clip(chunk(tmp_path) / "any.mp4", [0, 100, 200, 300, 400])

    opened = the_recording(tmp_path, overlay="shown")

    assert [read_stamp(frame) for frame in frames_of(opened)] == [0, 1, 2, 3, 4]
    assert opened.actions is not None
    assert opened.actions.times_ns.tolist() == opened.frame_times_ns.tolist()
    assert left_stick(opened.actions.values[:4]) == [0.1, 0.2, 0.3, 0.4]
    assert opened.actions.values[:4, SPACE.index("south")].tolist() == [1, 0, 1, 0]
    assert opened.actions.values[0, SPACE.index("j_left_y")] == -0.1
    assert np.isnan(opened.actions.values[4]).all()


def test_rows_go_to_a_video_of_another_rate_by_time(tmp_path: Path) -> None:
    write_clip(chunk(tmp_path) / "any.mp4", [0, 60, 103, 150, 197, 240, 420])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    milliseconds = opened.actions.times_ns // 1_000_000
    assert milliseconds.tolist() == [0, 103, 197, 300, 420]


def test_chunks_of_a_whole_video_are_stretches_of_it_on_one_clock(tmp_path: Path) -> None:
    chunk(tmp_path, 0)
    chunk(tmp_path, 1)
    write_clip(tmp_path / "vid.mp4", [100 * k for k in range(10)])

    opened = recordings_in(tmp_path, overlay="shown")

    second = opened["vid.mp4#vid_chunk_0001"]
    assert [read_stamp(frame) for frame in frames_of(second)] == [5, 6, 7, 8, 9]
    assert second.frame_times_ns[0] == 500_000_000
    assert {r.provenance.match for r in discover([tmp_path]).recordings} == {"vid"}
    assert {r.provenance.license for r in discover([tmp_path]).recordings} == {"CC-BY-NC-4.0"}


@pytest.mark.parametrize("size", [(192, 112), (96, 56)])
def test_the_picture_of_the_pad_is_black_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    write_clip(chunk(tmp_path) / "any.mp4", [0, 100, 200, 300, 400])

    frames = frames_of(the_recording(tmp_path), size)

    width, height = size
    assert (frames[:, height // 2 : height * 3 // 4, width // 2 :] == 0).all()
    assert (frames[:, : height // 2 - 2].max(axis=(1, 2, 3)) > 100).all()
    assert (frames[:, height * 3 // 4 + 2 :].max(axis=(1, 2, 3)) > 50).all()


def test_labels_without_a_video_are_actions_without_pictures(tmp_path: Path) -> None:
    chunk(tmp_path, table="actions_processed")

    opened = the_recording(tmp_path)

    assert opened.pictureless
    assert opened.actions is not None
    assert left_stick(opened.actions.values[:4]) == [0.1, 0.2, 0.3, 0.4]
    assert opened.notes == ("labels of actions_processed.parquet", "no video: actions only")


def test_a_missing_overlay_is_told(tmp_path: Path) -> None:
    write_clip(chunk(tmp_path, bbox_controller_overlay=None) / "any.mp4", [0, 100, 200, 300, 400])

    assert any("nothing is painted over" in note for note in the_recording(tmp_path).notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox_controller_overlay": "everywhere"},
        {"chunk_size": -1},
        {"original_video": {"video_id": "vid", "start_time": 3, "end_time": 2}},
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    told = chunk(tmp_path, **changes) / "metadata.json"

    refused = dict(discover([tmp_path]).refused)

    assert refused[told.resolve()].reason == Reason.METADATA


def test_a_table_without_a_stick_is_refused(tmp_path: Path) -> None:
    folder = chunk(tmp_path)
    table = pq.read_table(folder / "actions_raw.parquet")
    pq.write_table(table.drop_columns("j_right"), folder / "actions_raw.parquet")

    with pytest.raises(RefusedInput, match="j_right") as refused:
        the_recording(tmp_path)
    assert refused.value.reason == Reason.LOG_COLUMN
