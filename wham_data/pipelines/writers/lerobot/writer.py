"""`lerobot`: a LeRobot dataset, v3.0 (many episodes in a file) or v2.1 (files for each episode).

    v3.0  data/chunk-000/file-000.parquet   videos/<camera>/chunk-000/file-000.mp4
          meta/episodes/chunk-000/file-000.parquet   meta/tasks.parquet
    v2.1  data/chunk-000/episode_000000.parquet   videos/chunk-000/<camera>/episode_000000.mp4
          meta/episodes.jsonl   meta/episodes_stats.jsonl   meta/tasks.jsonl
    both  meta/info.json   meta/stats.json

Episodes are numbered split after split, because `info.json` describes a split as a range of episodes.
With the option `pictures=image` the rows contain the stored pictures unchanged, without any loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.video import decode_image, write_video
from wham_data.pipelines.writers.clips import crf_option
from wham_data.pipelines.writers.lerobot.tables import (
    CAMERA,
    Pictures,
    PictureStats,
    Stats,
    column,
    features_of,
    plain_rate,
    schema_of,
    stats_of,
    tasks_table,
    together,
)
from wham_data.pipelines.writers.parts import (
    Content,
    Demands,
    Part,
    Place,
    Written,
    by_split,
    grouped,
    one_each,
)
from wham_data.pipelines.writers.stretches import Stretch, Unfit
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import Reason
from wham_data.schemas.manifest import SPLITS

CHUNK: Final = 1000
"""Files of a folder."""
ROWS_AT_ONCE: Final = 128
_V3_DATA: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_V3_VIDEO: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_V2_DATA: Final = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_V2_LISTS: Final = {
    "episodes.jsonl": ("episode_index", "tasks", "length"),
    "episodes_stats.jsonl": ("episode_index", "stats"),
}
_V2_VIDEO: Final = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


@dataclass(frozen=True, slots=True)
class LeRobotWriter:
    """Writer of LeRobot datasets."""

    name: ClassVar[str] = "lerobot"
    about: ClassVar[str] = "a LeRobot dataset v3.0 or v2.1"
    order: ClassVar[int] = 20
    version: str = choice("3.0", "2.1", about="version of the layout")
    pictures: Pictures = choice(
        "video",
        "image",
        "none",
        about="as H.264 videos, in the rows as they are stored, or left out",
    )
    crf: int = crf_option()

    @property
    def demands(self) -> Demands:
        """Known actions at one rate, and pictures unless the option leaves them out."""
        return Demands(pictures=self.pictures != "none", numbered=True)

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any space."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """A note if the rate is not a whole number, as LeRobot expects."""
        if content.steady_rate.denominator == 1:
            return []
        return [f"LeRobot expects a whole number of frames per second, not {content.rate}"]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """v3.0: several episodes in a file; v2.1: a file for each. All share the list of tasks."""
        ordered = [each for _, members in by_split(stretches) for each in members]
        tasks: dict[str, int] = {}
        for stretch in ordered:
            try:
                for text in tasks_of(stretch):
                    tasks.setdefault(text, len(tasks))
            except Unfit:
                continue  # `write` fails on the same episode, and reports it
        made = grouped(ordered) if self.version == "3.0" else one_each(ordered)
        for number, part in enumerate(made):
            yield replace(part, name=f"file-{number:06d}", shared=tasks)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write the rows of a part and its video."""
        number = int(part.name.removeprefix("file-"))
        chunk, file = divmod(number, CHUNK)
        slots = {"chunk_index": chunk, "file_index": file, "video_key": CAMERA}
        if self.version == "2.1":
            slots |= {"episode_index": place.episodes, "episode_chunk": place.episodes // CHUNK}
        features = features_of(content, self.pictures)
        seen = [PictureStats.of(stretch.n_steps) for stretch in part.stretches]
        figures: list[dict[str, Stats]] = []
        tasks: list[list[int]] = []
        data = folder / self._data_path.format_map(slots)
        data.parent.mkdir(parents=True)
        with pq.ParquetWriter(data, schema_of(features), compression="snappy") as rows:
            first = place.steps
            for offset, (stretch, pictured) in enumerate(zip(part.stretches, seen, strict=True)):
                columns = _columns(stretch, content, part.shared)
                counted = np.arange(stretch.n_steps)
                columns["timestamp"] = (counted / float(content.steady_rate)).astype(np.float32)
                columns["frame_index"] = counted
                columns["episode_index"] = np.full_like(counted, place.episodes + offset)
                columns["index"] = first + counted
                for table in _tables(stretch, columns, rows.schema, pictured):
                    rows.write_table(table)
                figures.append({name: stats_of(columns[name]) for name in columns})
                tasks.append(np.unique(columns["task_index"]).tolist())
                first += stretch.n_steps
        if self.pictures == "video":
            video = folder / self._video_path.format_map(slots)
            video.parent.mkdir(parents=True)
            frames = (p.passed(s.frames()) for s, p in zip(part.stretches, seen, strict=True))
            rate = content.steady_rate
            write_video(video, chain.from_iterable(frames), rate, crf=self.crf, reproducible=True)
        if self.pictures != "none":
            for each, pictured in zip(figures, seen, strict=True):
                each[CAMERA] = pictured.stats
        texts = {number: text for text, number in part.shared.items()}
        used = {number: texts[number] for number in sorted(set(chain.from_iterable(tasks)))}
        return {"file": number, "stats": figures, "tasks": tasks, "texts": list(used.items())}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write `meta`."""
        meta = folder / "meta"
        meta.mkdir()
        tasks = _task_list(written)
        episodes = list(_episodes(written, content, tasks))
        stats = {
            name: together([each["stats"][name] for each in episodes])
            for name in episodes[0]["stats"]
        }
        _write_json(meta / "stats.json", stats)
        _write_json(meta / "info.json", self._info(written, content, len(tasks)))
        if self.version == "3.0":
            pq.write_table(tasks_table(tasks), meta / "tasks.parquet")
            path = meta / "episodes/chunk-000/file-000.parquet"
            path.parent.mkdir(parents=True)
            video = CAMERA if self.pictures == "video" else None
            pq.write_table(pa.Table.from_pylist([_v3_row(e, video) for e in episodes]), path)
            return
        _write_lines(
            meta / "tasks.jsonl",
            [{"task_index": number, "task": task} for number, task in enumerate(tasks)],
        )
        for name, fields in _V2_LISTS.items():
            _write_lines(
                meta / name, [{field: each[field] for field in fields} for each in episodes]
            )

    @property
    def _data_path(self) -> str:
        return _V3_DATA if self.version == "3.0" else _V2_DATA

    @property
    def _video_path(self) -> str:
        return _V3_VIDEO if self.version == "3.0" else _V2_VIDEO

    def _info(self, written: Sequence[Written], content: Content, tasks: int) -> dict[str, Any]:
        episodes = sum(len(each.episodes) for each in written)
        info = {
            "codebase_version": f"v{self.version}",
            "robot_type": None,
            "total_episodes": episodes,
            "total_frames": sum(sum(each.steps) for each in written),
            "total_tasks": tasks,
            "chunks_size": CHUNK,
            "fps": plain_rate(content.steady_rate),
            "splits": _splits(written),
            "data_path": self._data_path,
            "video_path": self._video_path if self.pictures == "video" else None,
            "features": features_of(content, self.pictures),
        }
        if self.version == "3.0":
            return {**info, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
        videos = episodes if self.pictures == "video" else 0
        return {**info, "total_videos": videos, "total_chunks": -(-episodes // CHUNK)}


def tasks_of(stretch: Stretch) -> list[str]:
    """The task at each step: the step's text, or "play" and the game's name if it has none."""
    play = f"play {stretch.row.game}" if stretch.row.game else "play"
    texts = stretch.texts()
    return [play] * stretch.n_steps if texts is None else [text or play for text in texts]


def _columns(stretch: Stretch, content: Content, tasks: Mapping[str, int]) -> dict[str, Any]:
    """The values of an episode by feature, without the counters (index, episode, frame)."""
    columns: dict[str, Any] = {"action": stretch.actions()}
    for name, there, values in (
        ("observation.state", content.state_size > 0, stretch.states()),
        ("next.reward", content.reward, stretch.rewards()),
    ):
        if there and values is None:
            raise stretch.refuse(
                Reason.LOG_COLUMN, f"has no {name}, which others of the corpus have"
            )
        if there:
            columns[name] = values
    columns["task_index"] = np.array([tasks[text] for text in tasks_of(stretch)], np.int64)
    return columns


def _tables(
    stretch: Stretch, columns: Mapping[str, Any], schema: pa.Schema, pictured: PictureStats
) -> Iterator[pa.Table]:
    """The rows of an episode, a few at a time."""
    coded = stretch.coded_frames() if CAMERA in schema.names else None
    for start in range(0, stretch.n_steps, ROWS_AT_ONCE):
        stop = min(stretch.n_steps, start + ROWS_AT_ONCE)
        rows: dict[str, Any] = {name: values[start:stop] for name, values in columns.items()}
        if coded is not None:
            rows[CAMERA] = [next(coded) for _ in range(start, stop)]
            for picture in rows[CAMERA]:
                pictured.add(decode_image(picture) if pictured.wants_next else None)
        arrays = [column(rows[name], schema.field(name).type) for name in schema.names]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _episodes(
    written: Sequence[Written], content: Content, tasks: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The metadata of each episode, in order."""
    for part in written:
        into = 0
        for number, steps in enumerate(part.steps):
            first = part.place.steps + into
            seconds = [float(n / content.steady_rate) for n in (into, into + steps)]
            yield {
                "episode_index": part.place.episodes + number,
                "tasks": [tasks[task] for task in part.facts["tasks"][number]],
                "length": steps,
                "file": divmod(part.facts["file"], CHUNK),
                "range": (first, first + steps),
                "seconds": seconds,
                "stats": part.facts["stats"][number],
            }
            into += steps


def _v3_row(episode: Mapping[str, Any], video: str | None) -> dict[str, Any]:
    """A row of `meta/episodes`."""
    chunk, file = episode["file"]
    row: dict[str, Any] = {
        **{name: episode[name] for name in ("episode_index", "tasks", "length")},
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": episode["range"][0],
        "dataset_to_index": episode["range"][1],
    }
    if video is not None:
        row[f"videos/{video}/chunk_index"] = chunk
        row[f"videos/{video}/file_index"] = file
        row[f"videos/{video}/from_timestamp"] = episode["seconds"][0]
        row[f"videos/{video}/to_timestamp"] = episode["seconds"][1]
    for name, figures in episode["stats"].items():
        row |= {f"stats/{name}/{figure}": value for figure, value in figures.items()}
    return {**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _task_list(written: Sequence[Written]) -> list[str]:
    """The texts of the tasks by number. A task that only failed episodes have is blank."""
    texts = {number: text for each in written for number, text in each.facts["texts"]}
    return [texts.get(number, "") for number in range(max(texts) + 1)]


def _splits(written: Sequence[Written]) -> dict[str, str]:
    """For each split, its range of episodes as `first:stop`."""
    counts = {s: sum(len(each.episodes) for each in written if each.split == s) for s in SPLITS}
    ends = np.cumsum(list(counts.values())).tolist()
    return {s: f"{end - n}:{end}" for (s, n), end in zip(counts.items(), ends, strict=True) if n}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
