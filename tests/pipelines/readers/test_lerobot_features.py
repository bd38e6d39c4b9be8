"""What a LeRobot dataset's features are: whatever they are called, their numbers keep their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.readings import recordings_in, the_recording
from test_reader_lerobot import info, rows, v2, v3, written

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.lerobot.features import Vector, roles_of, space_of
from wham_data.pipelines.readers.lerobot.layout import Layout
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import NoInputsError, Reason, RefusedInput

FLOATS = {"dtype": "float32"}


def numbers(**widths: int) -> dict[str, Any]:
    return {name: {**FLOATS, "shape": [width]} for name, width in widths.items()}


def table_of(columns: dict[str, list[list[float]]], type: Any = None) -> dict[str, Any]:
    """Rows of one episode with these columns."""
    count = len(next(iter(columns.values())))
    held = {
        name: pa.array(values, pa.list_(type or pa.float32())) for name, values in columns.items()
    }
    return {**held, "frame_index": range(count), "episode_index": [0] * count}


def dataset(
    root: Path,
    features: dict[str, Any],
    columns: dict[str, list[list[float]]],
    version: str = "v3.0",
    type: Any = None,
    **changes: Any,
) -> Path:
    """A dataset of one episode without pictures and without statistics."""
    said = info(version, cameras=(), **{"features": features, **changes})
    table = table_of(columns, type)
    if version == "v3.0":
        written(root / "data/chunk-000/file-000.parquet", table)
        listed = {"episode_index": [0], "data/chunk_index": [0], "data/file_index": [0]}
        written(root / "meta/episodes/chunk-000/file-000.parquet", listed)
    else:
        written(root / "data/chunk-000/episode_000000.parquet", table)
        (root / "meta").mkdir()
        (root / "meta/episodes.jsonl").write_text('{"episode_index": 0, "length": 3}\n')
    (root / "meta/info.json").write_text(json.dumps(said))
    return root


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize(
    "values",
    [
        [[0.0, -179.5], [90.25, 12.0], [180.0, -0.5]],
        [[1.0, -1.57], [1.5, 3.125], [-3.0, 0.5]],
        [[-100.0, 99.5], [100.0, 0.0], [0.25, 50.0]],
        [[0.5, 0.25], [-0.5, 1.0], [0.0, 0.125]],
        [[3.0e30, -2.0e38], [0.0, 1.0e-30], [1.0, 2.0]],
    ],
    ids=["degrees", "radians", "percent", "within one", "of any size"],
)
def test_numbers_without_a_declared_range_keep_their_values(
    tmp_path: Path, version: str, values: list[list[float]]
) -> None:
    named = {"action": {**FLOATS, "shape": [2], "names": ["arm.pos", "hand.pos"]}}

    track = the_recording(dataset(tmp_path, named, {"action": values}, version)).actions

    assert track is not None
    assert track.values.tolist() == np.float32(values).astype(np.float64).tolist()
    assert (track.clamped, track.space.names) == (0, ("arm.pos", "hand.pos"))


def test_a_range_that_is_declared_is_kept_to(tmp_path: Path) -> None:
    values = [[0.5, 1.02], [0.0, 0.0], [0.25, -1.0]]
    source = dataset(tmp_path / "set", numbers(action=2), {"action": values})

    track = the_recording(source, space="vector2").actions

    assert track is not None
    assert (track.values.max(), track.clamped) == (1.0, 1)
    far = dataset(tmp_path / "far", numbers(action=2), {"action": [[90.0, 0.0]]})
    with pytest.raises(RefusedInput, match="another unit"):
        the_recording(far, space="vector2")


@pytest.mark.parametrize(
    ("names", "dimensions"),
    [
        (["x", "y"], ("x", "y")),
        ([["left_waist", "right_waist"]], ("left_waist", "right_waist")),
        ({"motors": ["a.pos", "b.pos"]}, ("a.pos", "b.pos")),
        ({"axes": [["dx"], ["dy"]]}, ("dx", "dy")),
        ({"left": ["grip"], "right": ["grip"]}, ("left.grip", "right.grip")),
        ({"y": 1, "x": 0}, ("x", "y")),
        (["left arm/1", "2nd"], ("left_arm_1", "_2nd")),
        (["j", "j"], ("j", "j_2")),
        (["\u03b8" * 80, "k" * 80], ("_" * 64, "k" * 64)),
        (["actions"], ("action_0", "action_1")),
        (["x", "y", "z"], ("action_0", "action_1")),
        ([0, 1], ("action_0", "action_1")),
        (None, ("action_0", "action_1")),
        (7, ("action_0", "action_1")),
    ],
)
def test_names_of_numbers_survive_in_every_form(names: Any, dimensions: tuple[str, ...]) -> None:
    space, notes = space_of([Vector.of("action", {**FLOATS, "names": names}, 2)], "so101_follower")

    assert space.names == dimensions
    assert bool(notes) == (names in (["left arm/1", "2nd"], ["j", "j"]) or "k" * 80 in str(names))
    assert np.abs(space.ranges()).min() > 1e38


def test_the_space_bears_the_robots_name_and_numbers_without_names_none() -> None:
    one = Vector.of("action", {**FLOATS, "names": ["x"]}, 1)

    assert space_of([one], "so101_follower")[0].name == "lerobot_so101_follower"
    assert space_of([one], None)[0].name == "lerobot"
    assert space_of([one], "my arm!")[0].name == "lerobot_my_arm_"
    assert space_of([Vector("action", 7)], "panda")[0] == load_space("numbers7")
    pad = load_space("xinput16")
    assert space_of([Vector("action", 16, pad.names)], "gamepad")[0] == pad


def test_switches_are_buttons_and_several_features_stand_side_by_side() -> None:
    arm = Vector.of("action.arm", {**FLOATS, "names": ["x", "y"]}, 2)
    hand = Vector.of("action.hand", {"dtype": "bool", "names": None}, 1)

    space, _ = space_of([arm, hand, Vector("action.head", 2)])

    assert space.names == ("arm.x", "arm.y", "hand", "head_0", "head_1")
    assert [each.kind for each in space.dimensions] == ["axis", "axis", "button", "axis", "axis"]


@given(st.lists(st.text(max_size=70), min_size=1, max_size=8))
def test_any_names_make_a_space(names: list[str]) -> None:
    space, _ = space_of([Vector("action", len(names), tuple(names))], "any")

    assert space.size == len(names)


ARM = numbers(joint_position=7, gripper_position=1, actions=8)


@pytest.mark.parametrize(
    ("features", "actions", "states", "notes"),
    [
        (numbers(**{"action": 2, "observation.state": 1}), ["action"], ["observation.state"], ""),
        (numbers(actions=2, state=1), ["actions"], ["state"], "action taken from actions"),
        (numbers(**{"action.joints": 2}), ["action.joints"], [], "taken from action.joints"),
        (
            numbers(**{"action.arm": 2, "action.hand": 1, "state.arm": 2}),
            ["action.arm", "action.hand"],
            ["state.arm"],
            "observation.state taken from state.arm",
        ),
        (numbers(**{"action": 2, "action.eef": 1}), ["action"], [], "left out: action.eef"),
        (ARM, ["actions"], [], "left out: joint_position, gripper_position"),
        (numbers(**{"ctrl": 2, "qpos": 1}), [], [], "actions are not known"),
        (numbers(**{"ctrl": 2, "qpos": 1}), [], [], "left out: ctrl, qpos"),
        (
            {**numbers(action=1), "action.text": {"dtype": "string"}, "timestamp": FLOATS},
            ["action"],
            [],
            "",
        ),
    ],
)
def test_features_by_other_names_are_taken_or_named(
    features: dict[str, Any], actions: list[str], states: list[str], notes: str
) -> None:
    roles = roles_of(features, list(features))

    assert (list(roles.actions), list(roles.states)) == (actions, states)
    assert notes in "; ".join(roles.notes)
    assert bool(roles.notes) == bool(notes)


@pytest.mark.parametrize("lists", [[[1.0], [2.0, 3.0, 4.0]], [[], [1.0, 2.0]], [[1.0, 2.0], None]])
def test_actions_of_different_lengths_are_never_laid_end_to_end(
    tmp_path: Path, lists: list[list[float]]
) -> None:
    with pytest.raises(RefusedInput, match="as many numbers a row") as refused:
        the_recording(dataset(tmp_path, numbers(action=2), {"action": lists}))
    assert refused.value.reason is Reason.LOG_TYPE


def test_an_option_names_the_features(tmp_path: Path) -> None:
    columns = {"qpos": [[7.0, 8.0]] * 3, "grip": [[0.5]] * 3, "ctrl": [[30.0]] * 3}
    source = dataset(tmp_path, numbers(qpos=2, grip=1, ctrl=1), columns)

    opened = the_recording(source, action="ctrl", state="qpos,grip")

    assert opened.actions is not None
    assert opened.actions.values.tolist() == [[30.0]] * 3
    assert opened.states is not None
    assert opened.states.tolist() == [[7.0, 8.0, 0.5]] * 3
    with pytest.raises(RefusedInput, match="no feature arm; numbers there: qpos, grip, ctrl"):
        the_recording(source, action="arm")


def test_actions_of_which_none_is_known_are_never_so_in_silence(tmp_path: Path) -> None:
    from wham_data import ingest

    source = dataset(tmp_path / "in", numbers(ctrl=1), {"ctrl": [[30.0]] * 3})

    with pytest.raises(NoInputsError, match=r"left out: ctrl \(--option action=NAME"):
        ingest([source], out=tmp_path / "out", tokenizer=None)


def test_a_folder_by_another_name_than_the_template_is_found_and_told(tmp_path: Path) -> None:
    source = v3(tmp_path)
    (source / "videos").rename(source / "video")
    (source / "data").rename(source / "rows")

    opened = recordings_in(source)

    assert len(opened) == 2
    for each in opened.values():
        assert each.actions is not None
        notes = "; ".join(each.notes)
        assert "read from video/observation" in notes
        assert "read from rows/chunk-000/file-000.parquet: info.json says data/chunk" in notes


def test_templates_that_are_missing_are_lerobots_own(tmp_path: Path) -> None:
    for source in (v2(tmp_path / "v2"), v3(tmp_path / "v3")):
        said = json.loads((source / "meta/info.json").read_text())
        del said["data_path"], said["video_path"]
        (source / "meta/info.json").write_text(json.dumps(said))

        assert len(recordings_in(source)) == 2


def test_of_two_folders_that_fit_none_is_taken(tmp_path: Path) -> None:
    source = v3(tmp_path, data_path="table/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    written(source / "old/chunk-000/file-000.parquet", rows(0, 0, 4))

    with pytest.raises(RefusedInput, match=r"no table/chunk-000/file-000.parquet") as refused:
        open_recording(discover([source]).recordings[0])
    assert refused.value.reason is Reason.LOG_MISSING


def test_the_folder_meta_is_no_place_for_rows(tmp_path: Path) -> None:
    listed = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    layout = Layout.of(tmp_path, [listed, tmp_path / "more/data/chunk-000/file-000.parquet"])

    assert layout.find(tmp_path / "data/chunk-000/file-000.parquet") is None
    assert layout.find(Path("/elsewhere/chunk-000/file-000.parquet")) is None
