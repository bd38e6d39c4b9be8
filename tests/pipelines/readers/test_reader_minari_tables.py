"""Minari's Arrow and Parquet forms: the same episodes as in its HDF5 form, a table each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp
from test_reader_minari import DISCRETE, IMAGE, SIZE, box, images, many

from wham_data.files.arrow_file import arrow_batches
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.video import encode_jpeg
from wham_data.schemas.errors import Reason, RefusedInput

FORMS = ["arrow", "parquet"]
DUO = {"type": "Tuple", "subspaces": [DISCRETE | {"start": 1}, box([-1, -1], [1, 1])]}


def encoded(space: dict[str, Any], values: Any, pad: int = 0, jpegs: bool = True) -> pa.Array:
    """Values of a space as Minari's own storage encodes them, with `pad` more rows."""
    inner = space.get("subspaces")
    if inner is not None:
        named = inner.items() if isinstance(inner, dict) else enumerate(inner)
        arrays = [encoded(each, values[name], pad, jpegs) for name, each in named]
        names = [str(name) for name in (inner if isinstance(inner, dict) else range(len(inner)))]
        return pa.StructArray.from_arrays(arrays, names=names)
    if space["type"] == "Discrete":
        return pa.array([*values, *[0] * pad], pa.int64())
    values = np.asarray(values)
    if values.ndim == 4 and jpegs:
        return pa.array([encode_jpeg(picture) for picture in values], pa.binary())
    rows = np.pad(values.reshape(len(values), -1), ((0, pad), (0, 0)))
    kind = pa.list_(pa.from_numpy_dtype(rows.dtype), rows.shape[1])
    return pa.FixedSizeListArray.from_arrays(rows.ravel(), type=kind)


def write(
    folder: Path,
    episodes: dict[int, tuple[Any, Any]],
    form: str = "arrow",
    action_space: dict[str, Any] = DISCRETE,
    observation_space: dict[str, Any] = IMAGE,
    jpegs: bool = True,
) -> Path:
    """A data set: actions and observations of each episode by its number."""
    for number, (actions, observations) in episodes.items():
        seen = encoded(observation_space, observations, jpegs=jpegs)
        steps = len(seen) - 1
        table = {
            "episode_id": np.full(steps + 1, number, np.int32),
            "observations": seen,
            "actions": encoded(action_space, actions, 1),
            "rewards": np.append(np.arange(steps, dtype=np.float64), 0),
            "terminations": np.zeros(steps + 1, bool),
            "infos": pa.array(["{}"] * (steps + 1)),
        }
        batch = pa.RecordBatch.from_pydict(table)
        ds.write_dataset(
            batch,
            folder / "data",
            format=form,
            partitioning=["episode_id"],
            existing_data_behavior="overwrite_or_ignore",
        )
        facts = {"id": number, "total_steps": steps}
        (folder / f"data/{number}/metadata.json").write_text(json.dumps(facts))
    said = {
        "dataset_id": "toy/pad-v0",
        "action_space": json.dumps(action_space),
        "observation_space": json.dumps(observation_space),
        "env_spec": json.dumps({"id": "Toy-v0"}),
        "data_format": form,
    }
    (folder / "data/metadata.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("jpegs", [True, False])
def test_episodes_are_read_as_minari_wrote_them(tmp_path: Path, form: str, jpegs: bool) -> None:
    episodes = {0: ([1, 4, 0], images(4)), 12: ([2], images(2, 10))}

    found = recordings_in(write(tmp_path, episodes, form, jpegs=jpegs))

    assert list(found) == [f"data/0/part-0.{form}", f"data/12/part-0.{form}"]
    first, second = found.values()
    assert [read_stamp(frame) for frame in frames_of(first, SIZE)] == [0, 1, 2, 3]
    assert [read_stamp(frame) for frame in frames_of(second, SIZE, [1])] == [11]
    assert first.actions is not None
    assert first.actions.space.name == "discrete5"
    assert first.actions.values[:3].argmax(axis=1).tolist() == [1, 4, 0]
    assert np.isnan(first.actions.values[3]).all(), "the action after the last observation"
    assert first.rewards is not None
    assert first.rewards.tolist() == [0, 1, 2, 0]
    assert {each.provenance.game for each in discover([tmp_path]).recordings} == {"Toy-v0"}
    assert not discover([tmp_path]).ignored


@pytest.mark.parametrize("form", FORMS)
def test_entries_keep_their_names_and_places(tmp_path: Path, form: str) -> None:
    spaces = many(eye=many(left=IMAGE, right=IMAGE), items=box([0, 0, 0], [9, 9, 9]))
    eyes = {"left": images(3), "right": images(3, 40)}
    items = np.arange(9, dtype=np.float32).reshape(3, 3)
    stick = np.array([[0.5, -1], [0, 1]], np.float32)
    written = write(
        tmp_path, {0: (([1, 5], stick), {"eye": eyes, "items": items})}, form, DUO, spaces
    )

    opened = the_recording(written, picture="eye/right")

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [40, 41, 42]
    assert opened.states is not None
    assert opened.states.tolist() == items.tolist()
    assert opened.actions is not None
    assert opened.actions.space.names[0] == "_index_0_is_1"
    assert opened.actions.values[:2].tolist() == [[1, 0, 0, 0, 0, 0.5, -1], [0, 0, 0, 0, 1, 0, 1]]
    assert any("eye/left" in note for note in opened.notes)


def test_lists_of_older_releases_and_their_empty_last_row_are_read(tmp_path: Path) -> None:
    space = {"type": "MultiDiscrete", "nvec": [2, 3]}
    write(tmp_path, {0: ([0, 0], np.zeros((3, 2), np.float32))}, "arrow", DISCRETE, box([0], [1]))
    path = tmp_path / "data/0/part-0.arrow"
    with pa.ipc.open_file(path) as file:
        table = file.read_all()
    lists = pa.array([[1, 0], [0, 2], None])
    table = table.set_column(table.schema.get_field_index("actions"), "actions", lists)
    with pa.ipc.new_file(path, table.schema) as new:
        new.write_table(table, max_chunksize=1)
    said = json.loads((tmp_path / "data/metadata.json").read_text())
    said |= {
        "action_space": json.dumps(space),
        "observation_space": json.dumps(box([0, 0], [1, 1])),
    }
    (tmp_path / "data/metadata.json").write_text(json.dumps(said))

    track = the_recording(tmp_path).actions

    assert track is not None
    assert track.values[:2].tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]


def refusal(folder: Path) -> RefusedInput:
    (recording,) = discover([folder]).recordings
    with pytest.raises(RefusedInput) as caught:
        frames_of(open_recording(recording), SIZE)
    return caught.value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(b""), Reason.LOG_EMPTY),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), Reason.TRUNCATED),
        (lambda path: path.write_bytes(b"PAR1" + path.read_bytes()[4:]), Reason.LOG_SYNTAX),
        (lambda path: path.write_bytes(b"ARROW1\0\0\0\0ARROW1"), Reason.LOG_SYNTAX),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, change: Any, reason: Reason) -> None:
    write(tmp_path, {0: ([1], images(2))})
    change(tmp_path / "data/0/part-0.arrow")

    assert refusal(tmp_path).reason is reason


@pytest.mark.parametrize(
    ("episode", "changes", "reason"),
    [
        (([], images(1)), {}, Reason.LOG_EMPTY),
        (([7], images(2)), {}, Reason.LOG_RANGE),
        (([1], images(2)), {"observation_space": many(eye=IMAGE)}, Reason.LOG_COLUMN),
        (
            ([1], images(2)),
            {"observation_space": IMAGE | {"shape": [9, 96, 3]}},
            Reason.NOT_A_VIDEO,
        ),
        (([1], images(2)), {"action_space": box([0, 0], [1, 1])}, Reason.LOG_COLUMN),
    ],
)
def test_what_the_metadata_do_not_declare_is_refused(
    tmp_path: Path, episode: Any, changes: dict[str, Any], reason: Reason
) -> None:
    write(tmp_path, {0: episode}, jpegs=False)
    said = json.loads((tmp_path / "data/metadata.json").read_text())
    said |= {name: json.dumps(space) for name, space in changes.items()}
    (tmp_path / "data/metadata.json").write_text(json.dumps(said))

    assert refusal(tmp_path).reason is reason


def test_a_table_that_is_packed_or_in_pieces_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {0: ([1], images(2))})
    path = tmp_path / "data/0/part-0.arrow"
    with pa.ipc.open_file(path) as file:
        table = file.read_all()
    with pa.ipc.new_file(
        path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as new:
        new.write_table(table)
    (tmp_path / "data/0/part-1.arrow").write_bytes(path.read_bytes())

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.FORMAT_NOT_ALLOWED
    assert "compressed" in refusal(tmp_path).message


def test_tables_without_such_metadata_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {0: ([1], images(2))})
    (tmp_path / "data/metadata.json").write_text('{"name": "of something else"}')

    found = discover([tmp_path])

    assert not found.recordings
    assert not found.refused


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("set"), {0: ([1, 2], images(3)[:, :32, :32])}, jpegs=False)


@given(place=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(table: Path, place: int, value: int) -> None:
    path = table / "data/0/part-0.arrow"
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    changed = table / "changed.arrow"
    changed.write_bytes(content)

    try:
        for batch in arrow_batches(changed, ["actions", "observations"]):
            batch.column("actions").to_pylist()
    except RefusedInput:
        pass
