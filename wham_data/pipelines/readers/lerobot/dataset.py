"""What the `meta` folder of a LeRobot dataset tells: cameras, episodes, and where their files lie."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from wham_data.files.json_lines import json_lines, read_json
from wham_data.files.parquet import columns_of, read_columns, read_where
from wham_data.pipelines.readers.lerobot.layout import DEFAULTS, filled
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput

SMALLEST_RATE: Final = 0.1
MOST_RATE: Final = 1000
_VERSION: Final = re.compile(r"v([23])\.\d{1,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class VideoSpan:
    """Where the frames of an episode lie: in which video, between which of its seconds."""

    chunk: int = 0
    file: int = 0
    start_s: float = 0.0
    stop_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode as the dataset lists it.

    chunk, file  of its rows (v3.0)
    videos       by camera (v3.0)
    table        the file that lists it (v3.0)
    """

    number: int
    chunk: int = 0
    file: int = 0
    videos: Mapping[str, VideoSpan] = field(default_factory=dict)
    table: Path | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset by its `info.json`.

    content  of that file
    joint  v3.0: many episodes in a file
    """

    info: Path
    content: Mapping[str, Any]
    rate: Fraction
    joint: bool

    @classmethod
    def open(cls, info: Path) -> Dataset | None:
        """The dataset; None for an `info.json` of something else.

        Raises:
            RefusedInput: it cannot be read, or says what makes no sense.
        """
        content = read_json(info)
        if not isinstance(content, dict) or not {"codebase_version", "features", "fps"} <= set(
            content
        ):
            return None
        version = _VERSION.fullmatch(str(content["codebase_version"]))
        if version is None:
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED,
                f"LeRobot {str(content['codebase_version'])[:40]}, expected v2.0, v2.1 or v3.0",
            )
        fps, features = content["fps"], content["features"]
        if not is_number(fps) or not SMALLEST_RATE <= fps <= MOST_RATE:
            raise RefusedInput(Reason.METADATA, f"info.json: fps is {str(fps)[:40]}")
        if not isinstance(features, dict) or not all(
            isinstance(each, dict) for each in features.values()
        ):
            raise RefusedInput(Reason.METADATA, "info.json: features is no table of tables")
        return cls(info, content, Fraction(str(fps)).limit_denominator(1001), version[1] == "3")

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.info.parent.parent

    @property
    def name(self) -> str:
        """Its folder and the one above it, which is the owner's name on the hub."""
        return f"{self.root.parent.name}/{self.root.name}"

    @property
    def cameras(self) -> tuple[str, ...]:
        """Features that are pictures in colour, as videos or in the rows."""
        return tuple(
            name
            for name, each in self.features.items()
            if each.get("dtype") in ("video", "image") and not _is_depth(each)
        )

    @property
    def videos(self) -> tuple[str, ...]:
        """Features that are videos, depth maps among them."""
        features = self.features.items()
        return tuple(name for name, each in features if each.get("dtype") == "video")

    @property
    def features(self) -> Mapping[str, Mapping[str, Any]]:
        """What each column and video is, by name."""
        features: Mapping[str, Mapping[str, Any]] = self.content["features"]
        return features

    def episodes(self, meta: Sequence[Path]) -> Iterator[Episode]:
        """Every episode, in the order of the lists.

        Args:
            meta: the files below `meta`, sorted.

        Raises:
            RefusedInput: LOG_MISSING, there is no list; or one is damaged.
        """
        folder = self.info.parent
        listed = False
        for path in meta:
            if self.joint and path.is_relative_to(folder / "episodes") and columns_of(path):
                listed = True
                yield from self._episodes_in(read_columns(path, self._columns), path)
        lines = folder / "episodes.jsonl"
        if not self.joint and lines in meta:
            listed = True
            for line in json_lines(lines):
                number = line.get("episode_index")
                if type(number) is not int or not 0 <= number < 1 << 31:
                    raise RefusedInput(Reason.METADATA, "episodes.jsonl: no episode_index")
                yield Episode(number)
        if not listed:
            raise RefusedInput(Reason.LOG_MISSING, "meta holds no list of episodes")

    def episode(self, number: int, files: Sequence[Path]) -> Episode:
        """The episode of a number, as the lists among `files` have it.

        Raises:
            RefusedInput: LOG_MISSING, it is in none of them.
        """
        if not self.joint:
            return Episode(number)
        for path in files:
            if path.is_relative_to(self.info.parent / "episodes"):
                table, _ = read_where(path, self._columns, "episode_index", number)
                for episode in self._episodes_in(table, path):
                    return episode
        raise RefusedInput(Reason.LOG_MISSING, f"meta lists no episode {number}")

    def tables(self, episode: Episode, present: frozenset[Path]) -> tuple[Path, ...]:
        """Files of `meta`, other than `info.json`, that say something of an episode."""
        tasks = self.info.with_name("tasks.parquet" if self.joint else "tasks.jsonl")
        return tuple(
            path for path in (episode.table, tasks) if path is not None and path in present
        )

    def tasks(self) -> dict[int, str]:
        """What was to be done, by number of the task; {} where the dataset does not say."""
        if not self.joint:
            lines = self.info.with_name("tasks.jsonl")
            found = json_lines(lines) if lines.is_file() else iter(())
            pairs = [(line.get("task_index"), line.get("task")) for line in found]
        else:
            path = self.info.with_name("tasks.parquet")
            names = columns_of(path)
            if len(names) != 2 or "task_index" not in names:
                return {}
            text = names[1 - names.index("task_index")]
            columns = read_columns(path, ["task_index", text])
            pairs = list(zip(*(column.to_pylist() for column in columns), strict=True))
        return {k: v for k, v in pairs if isinstance(k, int) and isinstance(v, str)}

    def data_of(self, episode: Episode) -> Path:
        """Where its rows are said to lie."""
        places = {"chunk_index": episode.chunk, "file_index": episode.file}
        return self._place("data_path", episode, places)

    def video_of(self, episode: Episode, camera: str | None) -> Path:
        """Where what a camera saw is said to lie; `info.json` for what is no video."""
        if camera not in self.videos:
            return self.info
        span = episode.videos.get(camera, VideoSpan())
        places: dict[str, int | str] = {
            "chunk_index": span.chunk,
            "file_index": span.file,
            "video_key": camera,
        }
        return self._place("video_path", episode, places)

    def _place(self, name: str, episode: Episode, places: Mapping[str, int | str]) -> Path:
        """Where a template of `info.json` says that a file lies."""
        template = self.content.get(name)
        per_chunk = self.content.get("chunks_size")
        chunk = episode.number // per_chunk if isinstance(per_chunk, int) and per_chunk > 0 else 0
        slots = {"episode_index": episode.number, "episode_chunk": chunk, **places}
        text = template if isinstance(template, str) else DEFAULTS[name, self.joint]
        return self.root / filled(text, slots)

    @property
    def _columns(self) -> list[str]:
        places = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        of_videos = [f"videos/{camera}/{place}" for camera in self.videos for place in places]
        return ["episode_index", "data/chunk_index", "data/file_index", *of_videos]

    def _episodes_in(self, table: pa.Table, path: Path) -> Iterator[Episode]:
        """The episodes of rows with `_columns`."""
        columns = [column.to_pylist() for column in table.columns]
        for row in zip(*columns, strict=True):
            whole = [value for place, value in enumerate(row) if place < 3 or (place - 3) % 4 < 2]
            if not all(is_number(value) and abs(value) < 1 << 31 for value in row) or not all(
                isinstance(value, int) and value >= 0 for value in whole
            ):
                raise RefusedInput(Reason.METADATA, f"{path.name}: not the numbers of an episode")
            number, chunk, file, *rest = row
            videos = {
                camera: VideoSpan(*rest[4 * place : 4 * place + 4])
                for place, camera in enumerate(self.videos)
            }
            yield Episode(number, chunk, file, videos, path)


def _is_depth(feature: Mapping[str, Any]) -> bool:
    info = feature.get("info", feature.get("video_info"))
    return isinstance(info, dict) and info.get("video.is_depth_map") is True
