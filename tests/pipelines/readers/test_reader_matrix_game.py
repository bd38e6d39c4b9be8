"""Matrix-Game's clips: labels and conditions, whose pitch has opposite signs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.minecraft_clips import clip, done, minerl, shown
from makers.readings import recordings_in, the_recording

from wham_data.pipelines.readers import discover
from wham_data.schemas.actions import load_space
from wham_data.schemas.conversion import find_conversion
from wham_data.schemas.errors import Reason, RefusedInput

LABELS = [
    minerl([9, 9], use=1),
    minerl([-5, 5], forward=1),
    minerl([0, 0], jump=1, attack=1),
    minerl([5, 0]),
    minerl([0, -5], back=1),
]
DONE = [
    {"forward": 1, "camera_pitch": -5, "camera_yaw": 5},
    {"jump": 1, "attack": 1},
    {"camera_pitch": 5},
    {"back": 1, "camera_yaw": -5},
    None,
]
KEYBOARD = np.array(
    [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0] * 6, [0, 1, 0, 0, 0, 0]],
    np.float32,
)
MOUSE = np.array([[1, 1], [0.05, 0.05], [-0.0, 0], [-0.05, 0], [0, -0.05]], np.float32)


def labelled(tmp_path: Path, name: str = "0000_forward_camera_ur") -> Path:
    video = clip(tmp_path / f"{name}.mp4", 5, 16)
    labels = tmp_path / "Bench76" / f"test_{name[5:]}.jsonl"
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("".join(f"{json.dumps(line)}\n" for line in LABELS))
    return video


def conditioned(tmp_path: Path, **arrays: np.ndarray) -> Path:
    video = clip(tmp_path / "0000_forward_camera_ur.mp4", 5, 16)
    told = {"keyboard_condition": KEYBOARD, "mouse_condition": MOUSE, **arrays}
    np.savez(video.with_suffix(".conditions.npz"), **told)
    return video


def test_a_label_led_to_its_frame_and_looking_up_is_negative(tmp_path: Path) -> None:
    labelled(tmp_path)

    opened = the_recording(tmp_path)

    assert shown(opened) == [0, 1, 2, 3, 4]
    assert done(opened) == DONE
    assert opened.actions is not None
    assert opened.actions.space.name == "vpt"


def test_a_condition_led_to_its_frame_and_looking_up_is_positive(tmp_path: Path) -> None:
    conditioned(tmp_path)

    track = the_recording(tmp_path).actions

    assert track is not None
    pitch = track.space.dimensions[track.space.index("camera_pitch")]
    assert (track.space.name, pitch.sign) == ("matrixgame8", "up")
    assert track.values[0].tolist() == pytest.approx([1, 0, 0, 0, 0, 0, 0.05, 0.05])
    assert track.values[1].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert np.isnan(track.values[4]).all()


def test_conditions_are_converted_to_the_actions_of_the_labels(tmp_path: Path) -> None:
    labelled(tmp_path)
    conditioned(tmp_path)
    labels = the_recording(tmp_path).actions
    conditions = the_recording(tmp_path, actions="conditions").actions
    assert labels is not None
    assert conditions is not None

    converted = find_conversion(conditions.space, load_space("vpt")).apply(conditions.values)

    np.testing.assert_allclose(converted, labels.values, atol=1e-6)


def test_clips_of_one_action_share_its_labels(tmp_path: Path) -> None:
    labelled(tmp_path, "0000_jump")
    labelled(tmp_path, "0031_jump")

    found = recordings_in(tmp_path)

    assert list(found) == ["0000_jump.mp4", "0031_jump.mp4"]
    assert [done(opened) for opened in found.values()] == [DONE] * 2


def test_what_is_not_taken_accompanies_the_clip(tmp_path: Path) -> None:
    labelled(tmp_path)
    conditioned(tmp_path)

    (found,) = discover([tmp_path]).recordings

    assert [path.name for path in found.files[1:]] == ["test_forward_camera_ur.jsonl"]
    assert [path.suffix for path in found.companions] == [".npz"]


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("mouse_condition", np.zeros((5, 3), np.float32), Reason.LOG_COLUMN),
        ("mouse_condition", np.zeros((4, 2), np.float32), Reason.LOG_COLUMN),
        ("keyboard_condition", np.float32(3), Reason.LOG_COLUMN),
        ("mouse_condition", np.array([["a", "b"]] * 5), Reason.LOG_TYPE),
        ("mouse_condition", np.array([[{}, {}]] * 5, object), Reason.PICKLED_OBJECTS),
        ("keyboard_condition", np.full((5, 6), 0.5, np.float32), Reason.LOG_RANGE),
        ("mouse_condition", np.full((5, 2), 5, np.float32), Reason.LOG_RANGE),
    ],
)
def test_conditions_of_another_shape_are_refused(
    tmp_path: Path, name: str, array: np.ndarray, reason: Reason
) -> None:
    conditioned(tmp_path, **{name: array})

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'camera': [0, 0]}", Reason.LOG_SYNTAX),
        ('{"camera": [0, 0]}', Reason.LOG_COLUMN),
        (json.dumps(minerl([0, 999999])), Reason.LOG_RANGE),
        (json.dumps(minerl([0, 0], jump=2)), Reason.LOG_RANGE),
        (json.dumps(minerl({"x": 1, "y": 2})), Reason.LOG_COLUMN),
    ],
)
def test_a_label_that_says_something_else_is_refused(
    tmp_path: Path, line: str, reason: Reason
) -> None:
    labelled(tmp_path)
    labels = tmp_path / "Bench76/test_forward_camera_ur.jsonl"
    labels.write_text(f"{json.dumps(LABELS[0])}\n{line}\n{json.dumps(LABELS[2])}\n" * 2)

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is reason
