"""Open-Oasis' clips: both of its files of actions, and what is wrong with one of them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.minecraft_clips import clip, done, minerl, shown
from makers.readings import recordings_in, the_recording

from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput

NAME = "Player7-f153ac423f61-20210806-224813.chunk_000"
DONE = [
    {"camera_pitch": -3.0, "camera_yaw": 20.0},
    {"forward": 1, "hotbar.3": 1},
    {},
    {"camera_yaw": 1.5, "attack": 1},
    {"ESC": 1, "drop": 1},
]


def binned() -> list[dict[str, Any]]:
    bins = [(34, 80), (40, 40), (40, 40), (40, 43), (40, 40)]
    return [
        minerl(np.array(pair, np.int64), **{k: 1 for k in said if not k.startswith("camera")})
        for pair, said in zip(bins, DONE, strict=True)
    ]


def one_hot() -> torch.Tensor:
    rows = torch.zeros(5, 25)
    rows[0, 15], rows[0, 16] = -0.15, 1.0  # cameraX is the pitch
    rows[1, 11] = rows[1, 4] = 1
    rows[3, 16], rows[3, 21] = 0.075, 1
    rows[4, 1] = rows[4, 24] = 1
    return rows


def saved(tmp_path: Path, content: object, ending: str = "actions", frames: int = 5) -> Path:
    video = clip(tmp_path / f"{NAME}.mp4", frames)
    torch.save(content, video.with_suffix(f".{ending}.pt"))
    return video


@pytest.mark.parametrize(
    ("content", "ending"), [(binned(), "actions"), (one_hot(), "one_hot_actions")]
)
def test_bins_and_columns_are_the_same_actions_after_each_frame(
    tmp_path: Path, content: object, ending: str
) -> None:
    saved(tmp_path, content, ending)

    opened = the_recording(tmp_path)

    assert shown(opened) == [0, 1, 2, 3, 4]
    assert done(opened) == DONE
    assert opened.actions is not None
    assert opened.actions.space.name == "oasis25"
    assert opened.frame_times_ns[1] == 50_000_000


def test_one_file_is_enough_and_two_are_compared(tmp_path: Path) -> None:
    video = saved(tmp_path, binned())
    torch.save(one_hot(), video.with_suffix(".one_hot_actions.pt"))
    assert the_recording(tmp_path).notes == ()

    torch.save(one_hot() * 0, video.with_suffix(".one_hot_actions.pt"))
    opened = the_recording(tmp_path)

    assert done(opened) == DONE
    assert opened.notes == (f"the two files of actions differ: {NAME}.actions.pt is taken",)


def test_the_contractor_is_the_player_and_both_files_are_the_recording(tmp_path: Path) -> None:
    saved(tmp_path, binned())
    (found,) = discover([tmp_path]).recordings

    assert (found.format, found.provenance.player) == ("open-oasis", "Player7")
    assert [path.name for path in found.files] == [f"{NAME}.mp4", f"{NAME}.actions.pt"]


@pytest.mark.parametrize(("frames", "kept"), [(4, 4), (6, 5)])
def test_the_shorter_of_frames_and_actions_decides(tmp_path: Path, frames: int, kept: int) -> None:
    saved(tmp_path, binned(), frames=frames)
    opened = the_recording(tmp_path)

    assert shown(opened) == list(range(kept))
    assert done(opened) == DONE[:kept]
    assert opened.notes == (f"5 actions for {frames} frames: the first {kept} of each are taken",)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([Harmful()], Reason.PICKLED_OBJECTS),
        ([], Reason.LOG_EMPTY),
        (binned()[:2], Reason.LOG_COVERAGE),
        ([3] * 5, Reason.LOG_TYPE),
        ({"forward": 1}, Reason.LOG_TYPE),
        (torch.zeros(5, 24), Reason.LOG_TYPE),
        (torch.full((5, 25), 7.0), Reason.LOG_RANGE),
        ([{"camera": np.array([40, 40])}] * 5, Reason.LOG_COLUMN),
        ([minerl(None)] * 5, Reason.LOG_COLUMN),
        ([minerl(np.array([40, 40, 40]))] * 5, Reason.LOG_COLUMN),
        ([minerl(np.array([400, 40]))] * 5, Reason.LOG_RANGE),
        ([minerl(np.array([40, 40]), jump="yes")] * 5, Reason.LOG_TYPE),
        ([minerl(np.array([40, 40]), jump=10**400)] * 5, Reason.LOG_TYPE),
    ],
)
def test_a_file_of_anything_else_is_refused(
    tmp_path: Path, content: object, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, content)

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is reason
    assert not (tmp_path / "harm").exists()


def test_a_bare_pickle_is_never_loaded(tmp_path: Path) -> None:
    video = saved(tmp_path, binned())
    video.with_suffix(".actions.pt").write_bytes(pickle.dumps(binned()))

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is Reason.PICKLED_OBJECTS


def test_a_video_without_actions_is_not_of_this_format(tmp_path: Path) -> None:
    clip(tmp_path / f"{NAME}.mp4")
    assert recordings_in(tmp_path, "open-oasis") == {}
