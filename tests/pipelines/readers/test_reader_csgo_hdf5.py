"""Pearce and Zhu's Counter-Strike: blue before red, lost frames, nothing followed out of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped

from wham_data.pipelines.readers import discover
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

SIZE = (96, 64)
SPACE = load_space("csgo51")
NAME = "hdf5_dm_july2021_3.hdf5"


def action(*pressed: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.isin(SPACE.names, [*pressed, "mouse_x_0", "mouse_y_0"]).astype(np.float64)


def write(path: Path, count: int = 12, **changes: Any) -> Path:
    """Frame k shows number k, and in the odd ones W is held; what `changes` names None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for k in range(count):
        rows[f"frame_{k}_x"] = stamped(k, *SIZE)[:, :, ::-1]
        rows[f"frame_{k}_y"] = action("w") if k % 2 else action()
        rows[f"frame_{k}_xaux"] = np.full(54, float(k))
        rows[f"frame_{k}_helperarr"] = np.array([k == 5, 0.0])
    with h5py.File(path, "w") as file:
        for name, value in (rows | changes).items():
            if value is not None:
                file[name] = value
    return path


def test_frames_are_sorted_by_number_and_turned_to_rgb(tmp_path: Path) -> None:
    write(tmp_path / NAME)

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == list(range(12))
    assert (frames_of(opened, SIZE, [11])[0] == stamped(11, *SIZE)).all()
    assert opened.frame_times_ns[2] == 125_000_000, "16 frames a second"


def test_an_action_belongs_to_its_frame_and_the_games_memory_is_the_state(tmp_path: Path) -> None:
    write(tmp_path / NAME)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.values[:, SPACE.index("w")].tolist() == [0, 1] * 6
    assert opened.states is not None
    assert opened.states.shape == (12, 56)
    assert opened.states[5, [0, 53, 54, 55]].tolist() == [5, 5, 1, 0]


def test_the_bins_of_the_mouse_are_in_the_order_of_the_files() -> None:
    names = np.array(SPACE.names)

    assert names[[13, 24, 35]].tolist() == ["mouse_left_1000", "mouse_x_0", "mouse_right_1000"]
    assert names[[36, 43, 50]].tolist() == ["mouse_up_200", "mouse_y_0", "mouse_down_200"]


def test_a_lost_frame_leaves_the_others_at_their_times(tmp_path: Path) -> None:
    write(tmp_path / NAME, frame_3_x=None, frame_3_xaux=None, frame_3_helperarr=None)

    opened = the_recording(tmp_path)

    numbers = [0, 1, 2, *range(4, 12)]
    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == numbers
    assert opened.frame_times_ns.tolist() == [k * 62_500_000 for k in numbers]
    assert opened.actions is not None
    assert opened.actions.values[3, SPACE.index("w")] == 1, "its action is in the file"
    assert opened.notes == ("1 of 12 frames are not in the file",)


def test_a_missing_action_is_not_known_and_missing_state_is_none(tmp_path: Path) -> None:
    write(tmp_path / NAME, frame_3_y=None, frame_4_xaux=None)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert np.flatnonzero(np.isnan(opened.actions.values).any(axis=1)).tolist() == [3]
    assert opened.states is None


def test_the_file_is_the_match_and_names_the_map(tmp_path: Path) -> None:
    write(tmp_path / "hdf5_dm_inferno_expert_2.hdf5", 1)

    (found,) = discover([tmp_path]).recordings

    assert found.provenance.match == "hdf5_dm_inferno_expert_2"
    assert found.provenance.map == "inferno"
    assert found.provenance.license is not None


def test_other_hdf5_files_are_left_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["frame_x"] = file["images"] = np.zeros(3)

    assert recordings_in(tmp_path, "csgo-hdf5") == {}


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / NAME)
    path.write_bytes(path.read_bytes()[:-1000])

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frame_2_y": np.zeros(50)}, Reason.LOG_COLUMN),
        ({"frame_2_y": np.full(51, 0.5)}, Reason.LOG_RANGE),
        ({"frame_0_x": np.zeros((8, 8), np.uint8)}, Reason.NOT_A_VIDEO),
        ({"frame_2_x": np.zeros((8, 8, 3), np.uint8)}, Reason.RESOLUTION_CHANGE),
        ({"frame_2_x": np.zeros((64, 96, 3), np.float32)}, Reason.RESOLUTION_CHANGE),
        ({"frame_2_x": h5py.ExternalLink("elsewhere.hdf5", "x")}, Reason.LOG_COLUMN),
        ({"frame_900000_x": np.zeros((64, 96, 3), np.uint8)}, Reason.TOO_LARGE),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    write(tmp_path / NAME, **changes)

    with pytest.raises(RefusedInput) as refused:
        frames_of(the_recording(tmp_path), SIZE)

    assert refused.value.reason is reason
