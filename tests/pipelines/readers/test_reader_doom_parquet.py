"""The `doom-parquet` reader: two layouts, two timings, episodes inside files and across them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped

from wham_data.pipelines.readers import discover
from wham_data.pipelines.video import encode_jpeg
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import OpenRecording


def first(path: Path, steps: list[int], episode: int = 0, **columns: Any) -> None:
    """Row of step k: the picture k, action k, health 100 - k."""
    told: dict[str, Any] = {
        "episode_id": [episode] * len(steps),
        "frames": [encode_jpeg(stamped(k)) for k in steps],
        "actions": steps,
        "health": [100 - k for k in steps],
        "step_ids": steps,
    }
    pq.write_table(pa.table(told | columns), path)


def second(path: Path, rows: list[tuple[int, int]]) -> None:
    """Rows of (episode, step): the picture and the action of that step."""
    told = {
        "image": [{"bytes": encode_jpeg(stamped(k)), "path": None} for _, k in rows],
        "episode": pa.array([episode for episode, _ in rows], pa.int32()),
        "frame_index": pa.array([k for _, k in rows], pa.int32()),
        "action": pa.array([k for _, k in rows], pa.int32()),
    }
    pq.write_table(pa.table(told), path, row_group_size=2)


def stamps(opened: OpenRecording) -> list[int]:
    return [read_stamp(frame) for frame in frames_of(opened)]


def actions(opened: OpenRecording) -> list[int | None]:
    assert opened.actions is not None
    values = opened.actions.values
    return [None if np.isnan(row).any() else int(row.argmax()) for row in values]


def test_an_action_of_the_first_led_to_the_frame_of_its_row(tmp_path: Path) -> None:
    first(tmp_path / "episode_0.parquet", [0, 1, 2])

    opened = the_recording(tmp_path)

    assert stamps(opened) == [0, 1, 2]
    assert actions(opened) == [1, 2, None]
    assert opened.states is not None
    assert opened.states.tolist() == [[100], [99], [98]]
    assert opened.frame_times_ns.tolist() == [0, 114_285_715, 228_571_429]


def test_an_action_of_the_second_acts_after_its_frame(tmp_path: Path) -> None:
    second(tmp_path / "train.parquet", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)])

    opened = recordings_in(tmp_path)

    assert {name: (stamps(o), actions(o)) for name, o in opened.items()} == {
        "train.parquet#episode_0": ([0, 1, 2], [0, 1, 2]),
        "train.parquet#episode_1": ([0, 1], [0, 1]),
    }


def test_the_timing_and_the_number_of_actions_are_options(tmp_path: Path) -> None:
    second(tmp_path / "train.parquet", [(0, 0), (0, 1), (0, 2)])

    opened = the_recording(tmp_path, timing="leads", action_count="3", frame_rate="10")

    assert opened.actions is not None
    assert opened.actions.space.name == "discrete3"
    assert actions(opened) == [1, 2, None]
    assert opened.frame_end_ns == 300_000_000
    with pytest.raises(UsageError, match="action_count"):
        discover([tmp_path], options={"action_count": "many"})


def test_an_episode_that_goes_on_in_the_next_file_is_one(tmp_path: Path) -> None:
    second(tmp_path / "train-0.parquet", [(0, 0), (1, 0), (1, 1)])
    second(tmp_path / "train-1.parquet", [(1, 2), (1, 3), (2, 0)])

    opened = recordings_in(tmp_path)

    assert {name: stamps(o) for name, o in opened.items()} == {
        "train-0.parquet#episode_0": [0],
        "train-0.parquet#episode_1": [0, 1, 2, 3],
        "train-1.parquet#episode_2": [0],
    }


def test_episodes_of_one_number_in_two_files_are_two(tmp_path: Path) -> None:
    first(tmp_path / "a.parquet", [0, 1])
    first(tmp_path / "b.parquet", [0, 1])

    assert len(recordings_in(tmp_path)) == 2


@pytest.mark.parametrize(
    ("timing", "known"), [("leads", [1, None, 5, None]), ("after", [0, None, 4, 5])]
)
def test_what_acted_while_frames_are_missing_is_not_known(
    tmp_path: Path, timing: str, known: list[int | None]
) -> None:
    first(tmp_path / "a.parquet", [0, 1, 4, 5])

    opened = the_recording(tmp_path, timing=timing)

    assert actions(opened) == known
    assert opened.frame_times_ns[2] == 457_142_858
    assert opened.notes == ("1 gaps in step_ids",)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"actions": [0, 99]}, Reason.LOG_RANGE),
        ({"actions": [0.0, 1.0]}, Reason.LOG_TYPE),
        ({"step_ids": [1, 1]}, Reason.LOG_CLOCK),
    ],
)
def test_damage_is_refused(tmp_path: Path, columns: dict[str, Any], reason: Reason) -> None:
    first(tmp_path / "a.parquet", [0, 1], **columns)

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)
    assert refused.value.reason == reason


def test_a_picture_that_cannot_be_decoded_is_lost_not_guessed(tmp_path: Path) -> None:
    frames = [encode_jpeg(stamped(0)), b"no picture"]
    first(tmp_path / "a.parquet", [0, 1], frames=frames)

    with pytest.raises(RefusedInput, match="cannot be decoded"):
        frames_of(the_recording(tmp_path))
