"""RLDS: records with checksums, steps as declared, the last action known to be none."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped

from wham_data.files.tfrecord import crc32c, masked
from wham_data.files.wire_format import packed_varints
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.video import encode_png
from wham_data.schemas.errors import Reason, RefusedInput

SIZE = (96, 64)
NAME = "toy-train.tfrecord-00000-of-00001"


def tensor(dtype: str, *shape: int) -> dict[str, Any]:
    declared = {"dimensions": [str(n) for n in shape]} if shape else {}
    return {"tensor": {"dtype": dtype, "shape": declared, "encoding": "none"}}


def features(**entries: Any) -> dict[str, Any]:
    return {"featuresDict": {"features": entries}}


IMAGE = {"image": {"dtype": "uint8", "shape": {"dimensions": ["64", "96", "3"]}}}
STEP = {
    "action": tensor("float32", 2),
    "observation": features(image=IMAGE, speed=tensor("int64")),
    "reward": tensor("float32"),
    "is_last": tensor("bool"),
    "language_instruction": {"text": {}},
}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    octets = [
        value >> 7 * place & 127 | 128 for place in range(max(1, -(-value.bit_length() // 7)))
    ]
    return bytes([*octets[:-1], octets[-1] & 127])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Any) -> bytes:
    """A tf.train.Feature: a list of bytes, floats or whole numbers."""
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, each) for each in values))
    array = np.asarray(values).reshape(-1)
    if array.dtype.kind == "f":
        return field(2, field(1, array.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(each)) for each in array)))


def example(columns: dict[str, Any]) -> bytes:
    entries = (
        field(1, field(1, name.encode()) + field(2, feature(values)))
        for name, values in columns.items()
    )
    return field(1, b"".join(entries))


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    sums = [struct.pack("<I", masked(crc32c(part))) for part in (length, content)]
    return length + sums[0] + content + sums[1]


def episode(count: int, first: int = 0, **changes: Any) -> dict[str, Any]:
    """Step k shows number first + k."""
    columns = {
        "steps/action": np.stack([np.arange(count) * 0.5, np.full(count, -7.0)], axis=1),
        "steps/observation/image": [encode_png(stamped(first + k, *SIZE)) for k in range(count)],
        "steps/observation/speed": [300 * k - 300 for k in range(count)],
        "steps/reward": [0.5] * count,
        "steps/is_last": [k == count - 1 for k in range(count)],
        "steps/language_instruction": [b"go", *[b""] * (count - 1)],
    }
    columns |= {f"steps/{name.replace('__', '/')}": values for name, values in changes.items()}
    return {name: values for name, values in columns.items() if values is not None}


def write(folder: Path, *episodes: dict[str, Any], step: dict[str, Any] = STEP) -> Path:
    declared = features(steps={"sequence": {"feature": features(**step), "length": "-1"}})
    (folder / "features.json").write_text(json.dumps(declared))
    path = folder / NAME
    path.write_bytes(b"".join(record(example(columns)) for columns in episodes))
    return path


def test_a_step_is_a_frame_an_action_a_reward_a_state_and_a_text(tmp_path: Path) -> None:
    write(tmp_path, episode(3))

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1, 2]
    assert opened.actions is not None
    assert opened.actions.space.name == "numbers2"
    assert opened.actions.values[:2].tolist() == [[0, -7], [0.5, -7]]
    assert opened.rewards is not None
    assert opened.rewards.tolist() == [0.5, 0.5, 0]
    assert opened.states is not None
    assert opened.states.tolist() == [[-300], [0], [300]]
    assert opened.texts == ["go", None, None]


def test_the_action_of_the_last_step_is_not_known(tmp_path: Path) -> None:
    write(tmp_path, episode(3))

    track = the_recording(tmp_path).actions

    assert track is not None
    assert np.isnan(track.values).any(axis=1).tolist() == [False, False, True]


def test_every_record_is_a_recording(tmp_path: Path) -> None:
    write(tmp_path, episode(2, first=10), episode(3, first=20))

    found = recordings_in(tmp_path)

    assert list(found) == [f"{NAME}#record_0", f"{NAME}#record_1"]
    assert [read_stamp(frames_of(opened, SIZE)[-1]) for opened in found.values()] == [11, 22]


@pytest.mark.parametrize(
    ("action", "values", "options", "space", "first"),
    [
        (tensor("int64"), [2, 0], {"choices": "3"}, "discrete3", [0, 0, 1]),
        ({"classLabel": {"numClasses": "2"}}, [1, 0], {}, "discrete2", [0, 1]),
        (tensor("bool", 2), [[1, 0], [0, 0]], {}, "toy", [1, 0]),
    ],
)
def test_actions_are_in_the_space_that_is_declared(
    tmp_path: Path,
    action: Any,
    values: Any,
    options: dict[str, str],
    space: str,
    first: list[float],
) -> None:
    write(tmp_path, episode(2, action=values), step={**STEP, "action": action})

    track = the_recording(tmp_path, **options).actions

    assert track is not None
    assert track.space.name == space
    assert track.values[0].tolist() == first


def test_entries_of_an_action_keep_their_names(tmp_path: Path) -> None:
    inner = features(turn=tensor("float32", 2), open_gripper=tensor("bool"))
    columns = episode(2, action=None, action__turn=[[1.0, 2.0]] * 2, action__open_gripper=[1, 0])
    write(tmp_path, columns, step={**STEP, "action": inner})

    track = the_recording(tmp_path).actions

    assert track is not None
    assert track.space.names == ("open_gripper", "turn_0", "turn_1")
    assert track.values[0].tolist() == [1, 1, 2]


def test_a_record_that_differs_from_its_checksum_is_refused_and_the_others_read(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, episode(2), episode(2))
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)

    with pytest.raises(RefusedInput) as refused:
        recordings_in(tmp_path)

    assert refused.value.reason is Reason.CORRUPT
    path.write_bytes(path.read_bytes()[: len(content) // 2])
    the_recording(tmp_path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, episode(2))
    path.write_bytes(path.read_bytes()[:-1])

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.TRUNCATED


def test_tfrecords_of_something_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_bytes(record(example({"image": [b"x"]})))
    (tmp_path / "b.tfrecord").write_bytes(b"not a record at all")
    (tmp_path / "c.tfrecord").write_bytes(record(b"\xff" * 20))

    assert recordings_in(tmp_path) == {}


def test_without_features_the_numbers_of_a_step_mean_nothing(tmp_path: Path) -> None:
    write(tmp_path, episode(2))
    (tmp_path / "features.json").unlink()

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is Reason.METADATA


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"action": None}, Reason.LOG_COLUMN),
        ({"reward": [1.0]}, Reason.LOG_COVERAGE),
        ({"observation__speed": None}, Reason.LOG_COLUMN),
        ({"observation__image": [1, 2]}, Reason.LOG_TYPE),
        ({"observation__image": [b"no picture"] * 2}, Reason.CORRUPT),
        ({"language_instruction": [b"x" * 20_000, b""]}, Reason.TOO_LARGE),
    ],
)
def test_an_episode_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    write(tmp_path, episode(2, **changes))

    with pytest.raises(RefusedInput) as refused:
        frames_of(the_recording(tmp_path), SIZE)

    assert refused.value.reason is reason


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=700))
def test_the_checksum_is_that_of_one_bit_after_the_other(data: bytes) -> None:
    state = 0xFFFFFFFF
    for octet in data:
        state ^= octet
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)

    assert crc32c(data) == state ^ 0xFFFFFFFF


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_packed_numbers_come_out_as_they_went_in(numbers: list[int]) -> None:
    assert packed_varints(b"".join(map(varint, numbers))).tolist() == numbers


def image(dtype: str, channels: int) -> dict[str, Any]:
    shape = {"dimensions": ["-1", "-1", str(channels)]}
    return {"image": {"dtype": dtype, "shape": shape}}


@pytest.mark.parametrize(
    ("images", "taken"),
    [
        ({"depth": image("uint16", 1), "rgb": IMAGE}, "rgb"),
        ({"a_mask": image("uint8", 1), "rgb": IMAGE, "wrist": IMAGE}, "rgb"),
        ({"alpha": image("uint8", 4), "zoom": image("uint8", 3)}, "zoom"),
        ({"depth": image("uint16", 1), "grey": image("uint8", 1)}, "grey"),
        ({"depth": image("uint16", 1)}, None),
    ],
)
def test_the_picture_is_the_first_in_colour_and_the_others_are_named(
    tmp_path: Path, images: dict[str, Any], taken: str | None
) -> None:
    """The one that must be taken shows numbers from 40 on, the others from 0."""
    shown = {
        f"observation__{name}": [
            encode_png(stamped(k + 40 * (name == taken), *SIZE)) for k in range(3)
        ]
        for name in images
    }
    step = STEP | {"observation": features(**images, speed=tensor("int64"))}
    write(tmp_path, episode(3, observation__image=None, **shown), step=step)

    opened = the_recording(tmp_path)

    assert opened.pictureless == (taken is None)
    if taken:
        assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [40, 41, 42]
    for name in images:
        assert any(f"observation/{name}" in note for note in opened.notes) == (name != taken)


def test_an_episode_without_steps_is_refused_as_empty(tmp_path: Path) -> None:
    write(tmp_path, {"episode_metadata/file": [b"x"]}, episode(2))
    first, second = discover([tmp_path]).recordings

    assert len(open_recording(second).frame_times_ns) == 2
    with pytest.raises(RefusedInput) as refused:
        open_recording(first)
    assert refused.value.reason is Reason.LOG_EMPTY
