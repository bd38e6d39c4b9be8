"""DIAMOND's Counter-Strike episodes: 51 numbers an action, tied to the recording they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped

from wham_data.pipelines.readers import discover
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

SIZE = (96, 64)
COUNT = 5


def saved(path: Path, **changes: Any) -> Path:
    """An episode in which frame k shows number k and action k holds key k down."""
    frames = np.stack([stamped(k, *SIZE) for k in range(COUNT)])
    episode = {
        "obs": torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
        "act": torch.eye(COUNT, 51, dtype=torch.float64),
        "rew": torch.arange(COUNT, dtype=torch.float32),
        "end": torch.zeros(COUNT, dtype=torch.uint8),
        "trunc": torch.zeros(COUNT, dtype=torch.uint8),
        "info": {"original_file_id": "1-200/hdf5_dm_july2021_3.hdf5"},
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(episode, path)
    return path


def test_frames_actions_and_rewards_come_out_as_saved(tmp_path: Path) -> None:
    saved(tmp_path / "train/000/00/0/0.pt")

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1, 2, 3, 4]
    assert opened.actions is not None
    assert opened.actions.space == load_space("csgo51")
    assert (opened.actions.values == np.eye(COUNT, 51)).all()
    assert opened.rewards is not None
    assert opened.rewards.tolist() == [0, 1, 2, 3, 4]
    assert opened.frame_times_ns[1] == 62_500_000, "16 frames a second"


def test_the_match_is_the_recording_that_it_was_made_from(tmp_path: Path) -> None:
    saved(tmp_path / "0.pt")

    (found,) = discover([tmp_path]).recordings

    assert found.format == "diamond-csgo"
    assert found.provenance.match == "hdf5_dm_july2021_3"


def test_an_episode_that_names_no_recording_has_no_match(tmp_path: Path) -> None:
    saved(tmp_path / "0.pt", info={})

    (found,) = discover([tmp_path]).recordings

    assert found.provenance.match is None


def test_ataris_numbered_actions_are_left_alone(tmp_path: Path) -> None:
    saved(tmp_path / "0.pt", act=torch.zeros(COUNT, dtype=torch.int64))

    assert recordings_in(tmp_path, "diamond-csgo") == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"act": torch.zeros(COUNT, 50)}, Reason.LOG_COLUMN),
        ({"act": torch.full((COUNT, 51), 0.5)}, Reason.LOG_RANGE),
        ({"act": torch.zeros(COUNT - 1, 51)}, Reason.LOG_COVERAGE),
    ],
)
def test_an_episode_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    saved(tmp_path / "0.pt", **changes)

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is reason
