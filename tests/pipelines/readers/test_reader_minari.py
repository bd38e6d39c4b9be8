"""Minari's data sets: an episode each, one observation more than actions, spaces as declared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped

from wham_data.pipelines.readers import discover
from wham_data.pipelines.video import encode_jpeg
from wham_data.schemas.errors import Reason, RefusedInput

SIZE = (96, 64)
IMAGE = {"type": "Box", "dtype": "uint8", "shape": [64, 96, 3], "low": 0, "high": 255}
DISCRETE = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 5}


def box(low: list[float], high: list[float]) -> dict[str, Any]:
    return {"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low, "high": high}


def many(**spaces: Any) -> dict[str, Any]:
    return {"type": "Dict", "subspaces": spaces}


def images(count: int, first: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([stamped(first + k, *SIZE) for k in range(count)])


def coded(pictures: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, Any]:
    """JPEGs as Minari keeps them: runs of bytes of any length."""
    blobs = np.empty(len(pictures), object)
    blobs[:] = [np.frombuffer(encode_jpeg(picture), np.uint8) for picture in pictures]
    return blobs


def write(
    folder: Path,
    episodes: dict[str, dict[str, Any]],
    action_space: dict[str, Any] = DISCRETE,
    observation_space: dict[str, Any] = IMAGE,
) -> Path:
    """A data set; the keys of an episode are paths in its group."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {
        "dataset_id": "toy/pad-v0",
        "action_space": json.dumps(action_space),
        "observation_space": json.dumps(observation_space),
        "env_spec": json.dumps({"id": "Toy-v0"}),
    }
    (folder / "metadata.json").write_text(json.dumps(said))
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for name, arrays in episodes.items():
            for path, values in arrays.items():
                if values.dtype == object:
                    values = file.create_dataset(
                        f"{name}/{path}", data=values, dtype=h5py.vlen_dtype(np.uint8)
                    )
                else:
                    file[f"{name}/{path}"] = values
    return folder


def episode(actions: Any, observations: Any = None) -> dict[str, Any]:
    actions = np.asarray(actions)
    return {
        "observations": images(len(actions) + 1) if observations is None else observations,
        "actions": actions,
        "rewards": np.arange(len(actions), dtype=np.float64),
    }


@pytest.mark.parametrize("form", ["array", "jpegs", "jpegs of one length"])
def test_pictures_are_read_in_each_of_the_forms_that_minari_writes(
    tmp_path: Path, form: str
) -> None:
    pictures: Any = images(4)
    if form == "jpegs":
        pictures = coded(pictures)
    elif form == "jpegs of one length":
        pictures = np.stack([coded(images(1))[0]] * 4)
    write(tmp_path, {"episode_0": episode([1, 4, 0], pictures)})

    stamps = [read_stamp(frame) for frame in frames_of(the_recording(tmp_path), SIZE)]

    assert stamps == ([0, 0, 0, 0] if form == "jpegs of one length" else [0, 1, 2, 3])


def test_an_action_acts_after_its_observation_and_none_after_the_last(tmp_path: Path) -> None:
    write(tmp_path, {"episode_0": episode([1, 4, 0])})

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.space.name == "discrete5"
    assert opened.actions.values[:3].argmax(axis=1).tolist() == [1, 4, 0]
    assert np.isnan(opened.actions.values[3]).all()
    assert opened.rewards is not None
    assert opened.rewards.tolist() == [0, 1, 2, 0]


def test_episodes_are_recordings_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, {f"episode_{k}": episode([0], images(2, 10 * k)) for k in (10, 9, 2)})

    found = recordings_in(tmp_path)

    assert list(found) == [f"main_data.hdf5#episode_{k}" for k in (2, 9, 10)]
    assert [read_stamp(frames_of(opened, SIZE)[0]) for opened in found.values()] == [20, 90, 100]
    assert {found.provenance.game for found in discover([tmp_path]).recordings} == {"Toy-v0"}


@pytest.mark.parametrize(
    ("space", "actions", "name", "first"),
    [
        (DISCRETE | {"start": 3}, [4, 3], "discrete5", [0, 1, 0, 0, 0]),
        (box([-1, -1], [1, 1]), [[0.5, -1], [0, 0]], "vector2", [0.5, -1]),
        (box([0, -20], [1, 20]), [[1, -20], [0, 0]], "numbers2", [1, -20]),
        (box([-np.inf], [np.inf]), [[1e9], [0]], "numbers1", [1e9]),
        ({"type": "MultiBinary", "n": 2}, [[1, 0], [0, 0]], "toy_pad_v0", [1, 0]),
        (
            {"type": "MultiDiscrete", "nvec": [2, 3], "start": [0, 1]},
            [[1, 3], [0, 1]],
            "toy_pad_v0",
            [0, 1, 0, 0, 1],
        ),
    ],
)
def test_actions_are_in_the_space_that_is_declared(
    tmp_path: Path, space: dict[str, Any], actions: Any, name: str, first: list[float]
) -> None:
    write(tmp_path, {"episode_0": episode(actions)}, space)

    track = the_recording(tmp_path).actions

    assert track is not None
    assert track.space.name == name
    assert track.values[0].tolist() == first


def test_entries_of_actions_and_observations_keep_their_names(tmp_path: Path) -> None:
    arrays = {
        "actions/stick": np.array([[0.25, -2.0]], np.float32),
        "actions/jump": np.array([2]),
        "observations/eye/left": images(2),
        "observations/speed": np.array([[7.0], [8.0]]),
    }
    jump = {"type": "Discrete", "n": 3}
    write(
        tmp_path,
        {"episode_0": arrays},
        many(stick=box([-1, -2], [1, 2]), jump=jump),
        many(speed=box([-9], [9]), eye=many(left=IMAGE)),
    )

    opened = the_recording(tmp_path, picture="eye/left")

    assert opened.actions is not None
    assert opened.actions.space.names == (
        "stick_0",
        "stick_1",
        "jump_is_0",
        "jump_is_1",
        "jump_is_2",
    )
    assert opened.actions.space.ranges()[1].tolist() == [-2, 2]
    assert opened.actions.values[0].tolist() == [0.25, -2, 0, 0, 1]
    assert opened.states is not None
    assert opened.states.tolist() == [[7], [8]]
    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1]


def test_a_data_set_without_pictures_is_actions_and_states(tmp_path: Path) -> None:
    observations = np.array([[0.0, 1.0], [2.0, 3.0]])
    write(tmp_path, {"episode_0": episode([1], observations)}, DISCRETE, box([-9, -9], [9, 9]))

    opened = the_recording(tmp_path)

    assert opened.pictureless
    assert opened.states is not None
    assert opened.states.tolist() == observations.tolist()


def test_a_damaged_jpeg_is_one_lost_frame(tmp_path: Path) -> None:
    pictures = coded(images(200))
    pictures[7] = pictures[7][:20]
    write(tmp_path, {"episode_0": episode([0] * 199, pictures)})

    opened = the_recording(tmp_path)

    assert len(frames_of(opened, SIZE)) == 200
    assert opened.lost_frames().tolist() == [7]


def refused(folder: Path, **options: str) -> Reason:
    with pytest.raises(RefusedInput) as caught:
        frames_of(the_recording(folder, **options), SIZE)
    return caught.value.reason


@pytest.mark.parametrize(
    ("arrays", "space", "reason"),
    [
        (episode([0, 5, 0]), DISCRETE, Reason.LOG_RANGE),
        (episode([0, -1, 0]), DISCRETE, Reason.LOG_RANGE),
        (episode([0.0, 1.0]), DISCRETE, Reason.LOG_TYPE),
        (episode([0, 1], images(2)), DISCRETE, Reason.LOG_COVERAGE),
        (episode([[0, 1]]), DISCRETE, Reason.LOG_COLUMN),
        (episode([0], np.zeros((2, 8, 8, 3), np.uint8)), DISCRETE, Reason.NOT_A_VIDEO),
        (episode([0]), {"type": "Text", "max_length": 3}, Reason.METADATA),
        (episode([0]), {"type": "Discrete", "n": "5"}, Reason.METADATA),
        (episode([0]), {"type": "Discrete", "n": 1 << 40}, Reason.METADATA),
        (episode([0]), {"type": "Dict"}, Reason.METADATA),
        (episode([0]), {}, Reason.METADATA),
    ],
)
def test_an_episode_that_makes_no_sense_is_refused(
    tmp_path: Path, arrays: dict[str, Any], space: dict[str, Any], reason: Reason
) -> None:
    write(tmp_path, {"episode_0": arrays}, space)

    assert refused(tmp_path) is reason


def test_without_metadata_actions_mean_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"episode_0": episode([0])})
    (tmp_path / "metadata.json").unlink()

    assert refused(tmp_path) is Reason.METADATA


@pytest.mark.parametrize("text", ["[1]", "3", "{", '{"env_spec": 3}'])
def test_metadata_that_are_no_declarations_are_refused_and_the_search_goes_on(
    tmp_path: Path, text: str
) -> None:
    write(tmp_path, {"episode_0": episode([0])})
    (tmp_path / "metadata.json").write_text(text)

    assert refused(tmp_path) in (Reason.METADATA, Reason.LOG_SYNTAX)


def test_a_picture_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"episode_0": episode([0])})

    assert refused(tmp_path, picture="eye") is Reason.METADATA


def pixels(channels: int, dtype: str = "uint8") -> dict[str, Any]:
    shape = [64, 96, channels] if channels else [64, 96]
    return {"type": "Box", "dtype": dtype, "shape": shape, "low": 0, "high": 255}


@pytest.mark.parametrize(
    ("spaces", "taken"),
    [
        ({"front": pixels(3), "wrist": pixels(3)}, "front"),
        ({"depth": pixels(0, "float32"), "front": pixels(3)}, "front"),
        ({"mask": pixels(1), "front": pixels(3), "depth": pixels(1, "uint16")}, "front"),
        ({"grey": pixels(0), "depth": pixels(0, "float64")}, "grey"),
    ],
)
def test_what_is_not_the_picture_is_named_and_is_no_state(
    tmp_path: Path, spaces: dict[str, Any], taken: str
) -> None:
    """The one that must be taken shows numbers from 40 on, the others from 0."""
    seen = {}
    for name, space in spaces.items():
        shown = images(3, 40 if name == taken else 0)
        shown = shown[..., : space["shape"][2]] if len(space["shape"]) == 3 else shown[..., 0]
        seen[f"observations/{name}"] = shown.astype(space["dtype"])
    seen["observations/items"] = np.arange(6.0).reshape(3, 2)
    arrays = {"actions": np.array([1, 2]), **seen}
    space = many(**spaces, items=box([0, 0], [9, 9]))
    write(tmp_path, {"episode_0": arrays}, observation_space=space)

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [40, 41, 42]
    assert opened.states is not None
    assert opened.states.tolist() == [[0, 1], [2, 3], [4, 5]]
    for name in spaces:
        assert any(name in note for note in opened.notes) == (name != taken)


def test_an_episode_without_steps_is_refused_as_empty(tmp_path: Path) -> None:
    write(tmp_path, {"episode_0": episode(np.zeros(0, np.int64))})

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)
    assert refused.value.reason is Reason.LOG_EMPTY
