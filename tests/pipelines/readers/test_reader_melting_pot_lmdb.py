"""LMDB shards: players of a match, arrays by name, and a tree that is walked without the library."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.readings import frames_of, recordings_in
from makers.video_clips import read_stamp, stamped

from wham_data.files.lmdb_file import LmdbFile
from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

lmdb = pytest.importorskip("lmdb")

SIZE = (96, 64)
FRAMES = 4
ACTIONS = [[2, 7], [0, 1], [8, 3]]


def store(folder: Path, items: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(folder), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key.encode(), value)
    environment.close()
    return folder / "data.mdb"


def shard(folder: Path, rows: int = 1, **changes: Any) -> Path:
    """Frame k of row i shows number 10 i + k; arrays that `changes` names replace those there are."""
    arrays: dict[str, Any] = {
        "rgb": np.stack(
            [[stamped(10 * row + k, *SIZE) for k in range(FRAMES)] for row in range(rows)]
        ),
        "actions": np.array([ACTIONS] * rows, np.int64),
        "coords": np.arange(rows * FRAMES * 4, dtype=np.float32).reshape(rows, FRAMES, 2, 2),
        **changes,
    }
    items = {"prompts_shape": b"%d" % rows}
    for row in range(rows):
        items |= {f"prompts_{row}_data": b"a red player", f"game_{row}_data": b"clean_up"}
    for name, array in arrays.items():
        if array is not None:
            items[f"{name}_shape"] = " ".join(map(str, array.shape)).encode()
            items |= {f"{name}_{row}_data": array[row].tobytes() for row in range(len(array))}
    return store(folder, items)


def test_every_player_of_every_row_is_a_recording_of_its_match(tmp_path: Path) -> None:
    shard(tmp_path / "shard_0", rows=2)

    found = discover([tmp_path]).recordings

    assert [r.part for r in found] == [f"row_{i}_player_{p}" for i in (0, 1) for p in (0, 1)]
    assert {(r.provenance.match, r.provenance.game) for r in found} == {
        ("shard_0/row_0", "clean_up"),
        ("shard_0/row_1", "clean_up"),
    }
    assert [r.provenance.subject for r in found] == ["0", "1", "0", "1"]


def test_players_share_the_frames_and_have_their_own_actions_and_states(tmp_path: Path) -> None:
    shard(tmp_path, rows=2)

    *_, opened = recordings_in(tmp_path).values()

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [10, 11, 12, 13]
    assert opened.actions is not None
    assert opened.actions.values[:3].argmax(axis=1).tolist() == [7, 1, 3]
    assert np.isnan(opened.actions.values[3]).all(), "after the last frame none is known"
    assert opened.states is not None
    assert opened.states[:2].tolist() == [[18, 19], [22, 23]]
    assert opened.texts == ["a red player"] * FRAMES


def test_a_mapping_says_which_array_holds_what(tmp_path: Path) -> None:
    channels_first = np.stack([stamped(k, *SIZE) for k in range(FRAMES)]).transpose(0, 3, 1, 2)
    moves = np.array([[0, 1, 2, 3]], np.uint8)
    shard(tmp_path / "in", rgb=None, actions=None, video=channels_first[None].copy(), moves=moves)
    mapping = tmp_path / "mapping.toml"
    mapping.write_text('frames = "video"\nactions = "moves"\nstates = ""\n')

    (opened,) = recordings_in(tmp_path / "in", mapping=str(mapping)).values()
    (led,) = recordings_in(tmp_path / "in", mapping=str(mapping), timing="leads").values()

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1, 2, 3]
    assert opened.states is None
    assert opened.actions is not None
    assert led.actions is not None
    assert opened.actions.values.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert led.actions.values[:3].argmax(axis=1).tolist() == [1, 2, 3]


def test_a_mapping_that_says_something_else_is_a_usage_error(tmp_path: Path) -> None:
    shard(tmp_path / "in")
    mapping = tmp_path / "mapping.toml"
    mapping.write_text('frame = "video"\n')

    with pytest.raises(UsageError, match="did you mean frames"):
        recordings_in(tmp_path / "in", mapping=str(mapping))


def test_a_shard_of_other_arrays_is_left_alone(tmp_path: Path) -> None:
    store(tmp_path, {"labels_shape": b"3"})

    assert recordings_in(tmp_path, "melting-pot-lmdb") == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"actions": np.full((1, 3, 2), 9)}, Reason.LOG_RANGE),
        ({"actions": np.full((1, 3, 2), -1)}, Reason.LOG_RANGE),
        ({"actions": np.zeros((1, 2, 2), np.int64)}, Reason.LOG_COVERAGE),
        ({"actions": np.zeros((1, 3, 2), "V3")}, Reason.LOG_TYPE),
        ({"rgb": np.zeros((1, FRAMES, 8, 8), np.uint8)}, Reason.NOT_A_VIDEO),
        ({"rgb": np.zeros((1, FRAMES, 8, 8, 3), np.float32)}, Reason.CORRUPT),
    ],
)
def test_arrays_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    shard(tmp_path, **changes)

    with pytest.raises(RefusedInput) as refused:
        recordings_in(tmp_path)

    assert refused.value.reason is reason


def test_keys_and_values_are_those_that_the_library_gives(tmp_path: Path) -> None:
    rng = random.Random(0)
    sizes = [0, 3, 100, 1900, 2100, 9000]
    items = {f"key_{rng.randrange(10**6)}": rng.randbytes(rng.choice(sizes)) for _ in range(1500)}
    path = store(tmp_path, items)

    content = path.read_bytes()
    places = LmdbFile.open(path).places

    assert {key.decode(): content[start:stop] for key, (start, stop) in places.items()} == items


def test_a_damaged_file_is_refused_and_nothing_else(tmp_path: Path) -> None:
    content = shard(tmp_path / "whole").read_bytes()
    rng = random.Random(1)
    for _ in range(40):
        damaged = bytearray(content[: rng.randrange(len(content))])
        for _ in range(min(20, len(damaged))):
            damaged[rng.randrange(min(len(damaged), 3 * 4096))] = rng.randrange(256)
        path = tmp_path / "data.mdb"
        path.write_bytes(damaged)
        try:
            LmdbFile.open(path)
        except RefusedInput as why:
            assert why.reason in (Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_LARGE)  # noqa: PT017


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_the_actions_of_a_player_who_is_gone_are_not_known(tmp_path: Path, dtype: Any) -> None:
    shard(tmp_path, alive=np.array([[[1, 1], [1, 0], [1, 0]]], dtype))

    one, two = recordings_in(tmp_path).values()

    assert one.actions is not None
    assert two.actions is not None
    assert np.isnan(one.actions.values).any(axis=1).tolist() == [False, False, False, True]
    assert np.isnan(two.actions.values).any(axis=1).tolist() == [False, True, True, True]
    assert any("gone in 2 frames" in note for note in two.notes)
