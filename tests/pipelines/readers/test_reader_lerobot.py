"""The `lerobot` reader: v3.0 with shared files, v2.1 with a file for each episode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped, write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.video import encode_png
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

FPS = 20
LENGTHS = (4, 3)
NAMES = ["MOVE_X", "MOVE_Y"]
CAMERA = "observation.images.game"


def info(version: str = "v3.0", cameras: tuple[str, ...] = (CAMERA,), **changes: Any) -> Any:
    joint = version == "v3.0"
    return {
        "codebase_version": version,
        "fps": FPS,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if joint
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if joint
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            **{camera: {"dtype": "video", "shape": [112, 192, 3]} for camera in cameras},
            "action": {"dtype": "float32", "shape": [2], "names": NAMES},
        },
        **changes,
    }


def rows(first: int, episode: int, length: int) -> dict[str, Any]:
    numbers = range(first, first + length)
    return {
        "action": pa.array([[n / 16, -n / 16] for n in numbers], pa.list_(pa.float32(), 2)),
        "observation.state": pa.array([[float(n)] for n in numbers], pa.list_(pa.float32())),
        "next.reward": pa.array([n / 2 for n in numbers], pa.float32()),
        "frame_index": list(range(length)),
        "episode_index": [episode] * length,
        "task_index": [episode] * length,
    }


def written(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


def v3(root: Path, cameras: tuple[str, ...] = (CAMERA,), **changes: Any) -> Path:
    """Two episodes of four and three frames that share their files."""
    meta = root / "meta"
    episodes: dict[str, Any] = {
        "episode_index": [0, 1],
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
    }
    for camera in cameras:
        episodes[f"videos/{camera}/chunk_index"] = [0, 0]
        episodes[f"videos/{camera}/file_index"] = [0, 0]
        episodes[f"videos/{camera}/from_timestamp"] = [0.0, 0.2]
        episodes[f"videos/{camera}/to_timestamp"] = [0.2, 0.35]
        video = root / f"videos/{camera}/chunk-000/file-000.mp4"
        video.parent.mkdir(parents=True)
        write_clip(video, [50 * k for k in range(7)])
    written(meta / "episodes/chunk-000/file-000.parquet", episodes)
    written(meta / "tasks.parquet", {"task_index": [0, 1], "task": ["walk", "jump"]})
    tables = [pa.table(rows(0, 0, 4)), pa.table(rows(4, 1, 3))]
    data = root / "data/chunk-000/file-000.parquet"
    data.parent.mkdir(parents=True)
    with pq.ParquetWriter(data, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    (meta / "info.json").write_text(json.dumps(info(cameras=cameras, **changes)))
    return root


def v2(root: Path) -> Path:
    """The same episodes, a file each."""
    meta = root / "meta"
    meta.mkdir(parents=True)
    for episode, length in enumerate(LENGTHS):
        written(root / f"data/chunk-000/episode_{episode:06d}.parquet", rows(0, episode, length))
        video = root / f"videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        write_clip(video, [50 * k for k in range(length)])
    (meta / "info.json").write_text(json.dumps(info("v2.1")))
    (meta / "tasks.jsonl").write_text('{"task_index": 1, "task": "jump"}\n')
    (meta / "episodes.jsonl").write_text(
        "".join(f'{{"episode_index": {e}, "length": {n}}}\n' for e, n in enumerate(LENGTHS))
    )
    return root


def test_episodes_of_a_shared_video_begin_at_their_own_first_frame(tmp_path: Path) -> None:
    opened = recordings_in(v3(tmp_path))

    video = f"videos/{CAMERA}/chunk-000/file-000.mp4"
    assert sorted(opened) == [f"{video}#episode_0", f"{video}#episode_1"]
    second = opened[f"{video}#episode_1"]
    assert [read_stamp(frame) for frame in frames_of(second)] == [4, 5, 6]
    assert second.frame_times_ns.tolist() == [0, 50_000_000, 100_000_000]
    assert second.frame_end_ns == 150_000_000
    assert second.actions is not None
    assert second.actions.space.names == ("MOVE_X", "MOVE_Y")
    assert second.actions.values.tolist() == [[n / 16, -n / 16] for n in (4, 5, 6)]
    assert second.states is not None
    assert second.states.tolist() == [[4.0], [5.0], [6.0]]
    assert second.rewards is not None
    assert second.rewards.tolist() == [2.0, 2.5, 3.0]
    assert second.texts == ["jump"] * 3


def test_an_episode_of_v2_has_files_of_its_own(tmp_path: Path) -> None:
    opened = recordings_in(v2(tmp_path))

    second = opened[f"videos/chunk-000/{CAMERA}/episode_000001.mp4#episode_1"]
    assert [read_stamp(frame) for frame in frames_of(second)] == [0, 1, 2]
    assert second.actions is not None
    assert second.actions.values[:, 0].tolist() == [0, 1 / 16, 2 / 16]
    assert second.texts == ["jump"] * 3


def test_cameras_are_subjects_of_one_match_on_one_clock(tmp_path: Path) -> None:
    cameras = ("observation.images.left", "observation.images.right")
    found = discover([v3(tmp_path, cameras)])

    first = [r for r in found.recordings if r.part.startswith("episode_0/")]
    assert [r.provenance.subject for r in first] == list(cameras)
    assert len({r.provenance.match for r in first}) == 1
    assert [open_recording(r).frame_times_ns[0] for r in first] == [0, 0]


def test_a_camera_that_nobody_wants_is_not_refused(tmp_path: Path) -> None:
    source = v3(tmp_path, ("observation.images.left", "observation.images.right"))

    assert len(recordings_in(source, cameras="right")) == 2


def test_names_of_the_actions_tell_the_space(tmp_path: Path) -> None:
    source = v3(tmp_path)
    told = info()
    told["features"]["action"]["names"] = {"axes": ["MOVE_X", "MOVE_Y"]}
    (source / "meta/info.json").write_text(json.dumps(told))
    space = tmp_path / "moves.toml"
    space.write_text(
        'name = "moves"\n[[dimensions]]\nnames = ["MOVE_X", "MOVE_Y"]\nkind = "axis"\n'
    )

    for opened in recordings_in(source, space=str(space)).values():
        assert opened.actions is not None
        assert opened.actions.space.name == "moves"
    with pytest.raises(UsageError, match="nonsense"):
        discover([source], options={"space": "nonsense"})


def test_a_row_without_a_frame_and_a_frame_without_a_row_are_told(tmp_path: Path) -> None:
    source = v2(tmp_path)
    write_clip(
        source / f"videos/chunk-000/{CAMERA}/episode_000000.mp4", [0, 50, 150, 200], rate=FPS
    )
    opened = recordings_in(source)[f"videos/chunk-000/{CAMERA}/episode_000000.mp4#episode_0"]

    assert opened.actions is not None
    assert opened.actions.values[:3, 0].tolist() == [0, 1 / 16, 3 / 16]
    assert np.isnan(opened.actions.values[3]).all()
    assert "1 rows without a frame: left out" in opened.notes


def test_pictures_may_lie_in_the_rows(tmp_path: Path) -> None:
    (tmp_path / "meta/episodes").mkdir(parents=True)
    told = info(cameras=())
    told["features"][CAMERA] = {"dtype": "image", "shape": [112, 192, 3]}
    (tmp_path / "meta/info.json").write_text(json.dumps(told))
    listed = {"episode_index": [0], "data/chunk_index": [0], "data/file_index": [0]}
    written(tmp_path / "meta/episodes/chunk-000/file-000.parquet", listed)
    pictures = [{"bytes": encode_png(stamped(k)), "path": None} for k in range(3)]
    written(
        tmp_path / "data/chunk-000/file-000.parquet", {**rows(0, 0, 3), CAMERA: pa.array(pictures)}
    )

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened)] == [0, 1, 2]
    assert opened.frame_end_ns == 150_000_000


def test_a_missing_video_is_refused_for_its_episode(tmp_path: Path) -> None:
    source = v2(tmp_path)
    (source / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    first, second = discover([source]).recordings[::-1]

    open_recording(first)
    with pytest.raises(RefusedInput, match="no video of") as refused:
        open_recording(second)
    assert refused.value.reason == Reason.NO_FRAMES


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codebase_version": "v1.6"}, Reason.FORMAT_NOT_ALLOWED),
        ({"fps": 0}, Reason.METADATA),
        ({"features": [1]}, Reason.METADATA),
    ],
)
def test_metadata_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    source = v3(tmp_path)
    (source / "meta/info.json").write_text(json.dumps(info() | changes))

    refused = dict(discover([source]).refused)

    assert refused[source.resolve() / "meta/info.json"].reason == reason


def test_a_template_is_filled_and_never_run(tmp_path: Path) -> None:
    for hostile in ("{chunk_index.__class__}", "../{video_key:09999999d}", "/etc/passwd"):
        source = v3(tmp_path / str(len(hostile)), data_path=hostile)

        for recording in discover([source]).recordings:
            with pytest.raises(RefusedInput, match="its rows are not there"):
                open_recording(recording)


def with_times(root: Path, seconds: list[float], type: pa.DataType | None = None) -> Path:
    """A dataset of one episode of four frames, at `fps` 20 in its video, with a timestamp each."""
    meta = root / "meta"
    meta.mkdir(parents=True)
    stamps = pa.array(seconds, type or pa.float32())
    table = rows(0, 0, len(seconds)) | {"timestamp": stamps}
    written(root / "data/chunk-000/episode_000000.parquet", table)
    video = root / f"videos/chunk-000/{CAMERA}/episode_000000.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    write_clip(video, [50 * k for k in range(len(seconds))])
    (meta / "info.json").write_text(json.dumps(info("v2.1")))
    (meta / "episodes.jsonl").write_text('{"episode_index": 0, "length": 4}\n')
    return root


@pytest.mark.parametrize(
    ("seconds", "type", "shown_ms"),
    [
        ([0, 0.05, 0.1, 0.15], None, [0, 50, 100, 150]),
        ([0, 0.1, 0.2, 0.3], None, [0, 100, 200, 300]),
        ([0, 0.025, 0.05, 0.075], None, [0, 25, 50, 75]),
        ([0, 0.05, 0.35, 0.4], None, [0, 50, 350, 400]),
        ([7.0, 7.1, 7.2, 7.3], pa.float64(), [0, 100, 200, 300]),
        ([0, 90, 180, 270], pa.int64(), [0, 90, 180, 270]),
        ([3, 3, 3, 3], None, [0, 50, 100, 150]),
    ],
    ids=["nominal", "half as fast", "twice as fast", "a pause", "since boot", "in ms", "no clock"],
)
def test_real_times_of_the_rows_beat_the_nominal_rate(
    tmp_path: Path, seconds: list[float], type: pa.DataType | None, shown_ms: list[int]
) -> None:
    opened = the_recording(with_times(tmp_path, seconds, type))

    assert opened.frame_times_ns.tolist() == [ms * 1_000_000 for ms in shown_ms]
    assert opened.actions is not None
    assert opened.actions.values[:, 0].tolist() == [k / 16 for k in range(4)]
    said = any("timestamp" in note for note in opened.notes)
    assert said == (seconds != [0, 0.05, 0.1, 0.15])


@pytest.mark.parametrize(
    "seconds", [[0, 0.05, 0.04, 0.15], [0, 0.05, 0.05, 0.15], [0, 0.05, np.nan, 0.15]]
)
def test_times_that_do_not_increase_are_refused(tmp_path: Path, seconds: list[float]) -> None:
    with pytest.raises(RefusedInput, match="timestamp") as refused:
        the_recording(with_times(tmp_path, seconds))
    assert refused.value.reason is Reason.LOG_CLOCK
