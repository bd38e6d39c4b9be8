"""The tables of a LeRobot dataset: the columns of a frame's row, and statistics of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.pipelines.writers.parts import Content
from wham_data.schemas.recording import Frames

Pictures = Literal["video", "image", "none"]
Stats = Mapping[str, Any]
CAMERA: Final = "observation.images.game"
SAMPLED_FRAMES: Final = 100
"""Statistics use about this many pictures of an episode, at every other pixel and row."""
COUNTERS: Final = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def features_of(content: Content, pictures: Pictures) -> dict[str, dict[str, Any]]:
    """The entries of `info.json` for each column and video."""
    features: dict[str, dict[str, Any]] = {}
    if pictures != "none":
        width, height = content.size
        if pictures == "video":  # which has even sides
            width, height = width + width % 2, height + height % 2
        features[CAMERA] = {
            "dtype": pictures,
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        if pictures == "video":
            features[CAMERA]["info"] = {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": plain_rate(content.steady_rate),
                "video.channels": 3,
                "has_audio": False,
            }
    if content.state_size:
        names = [f"state_{place}" for place in range(content.state_size)]
        features["observation.state"] = _vector(names)
    space = content.space
    features["action"] = {**_vector(space.names), "info": {"action_space": space.to_dict()}}
    if content.reward:
        features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
    for name, dtype in COUNTERS.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def plain_rate(rate: Fraction) -> int | float:
    """A rate for JSON: an int if it is a whole number, else a float."""
    return int(rate) if rate.denominator == 1 else float(rate)


def schema_of(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """The schema of the rows, with the metadata that the package `datasets` needs."""
    fields: list[pa.Field] = []
    told: dict[str, Any] = {}
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        if feature["dtype"] == "image":
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            told[name] = {"_type": "Image"}
        else:
            value = {"dtype": feature["dtype"], "_type": "Value"}
            (size,) = feature["shape"]
            kind = pa.float32() if feature["dtype"] == "float32" else pa.int64()
            told[name] = value
            if size > 1:
                kind = pa.list_(kind, size)
                told[name] = {"feature": value, "length": size, "_type": "Sequence"}
        fields.append(pa.field(name, kind))
    metadata = {"huggingface": json.dumps({"info": {"features": told}})}
    return pa.schema(fields, metadata=metadata)


def column(values: NDArray[Any] | Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """A column of numbers or of coded pictures."""
    if not isinstance(values, np.ndarray):
        paths = pa.nulls(len(values), pa.string())
        return pa.StructArray.from_arrays([pa.array(values, pa.binary()), paths], fields=list(kind))
    flat = pa.array(np.ascontiguousarray(values).ravel())
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return flat


def stats_of(values: NDArray[Any]) -> Stats:
    """Statistics over the rows of [T] or [T, n], a list of n each. Skips values that are not finite."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    rows = np.where(np.isfinite(rows), rows, np.nan)
    rows[:, np.isnan(rows).all(axis=0)] = 0.0
    return {
        "min": np.nanmin(rows, axis=0).tolist(),
        "max": np.nanmax(rows, axis=0).tolist(),
        "mean": np.nanmean(rows, axis=0).tolist(),
        "std": np.nanstd(rows, axis=0).tolist(),
        "count": [len(rows)],
    }


@dataclass(slots=True)
class PictureStats:
    """Statistics over a few pictures of an episode, per channel, in 0..1. Each is read once."""

    every: int
    seen: int = 0
    count: int = 0
    low: NDArray[np.float64] = field(default_factory=lambda: np.full(3, 255.0))
    high: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def of(cls, n_steps: int) -> PictureStats:
        """Empty statistics for an episode of `n_steps` steps."""
        return cls(every=max(1, n_steps // SAMPLED_FRAMES))

    @property
    def wants_next(self) -> bool:
        """Whether the next picture counts."""
        return self.seen % self.every == 0

    def passed(self, frames: Iterator[Frames]) -> Iterator[Frames]:
        """The same pictures."""
        for frame in frames:
            self.add(frame)
            yield frame

    def add(self, frame: Frames | None) -> None:
        """Add the next picture. It may be None if the statistics skip it."""
        if self.wants_next and frame is not None:
            pixels = frame[::2, ::2].reshape(-1, 3)
            self.low = np.minimum(self.low, pixels.min(axis=0))
            self.high = np.maximum(self.high, pixels.max(axis=0))
            self.total += pixels.mean(axis=0)
            self.squares += np.square(pixels, dtype=np.float64).mean(axis=0)
            self.count += 1
        self.seen += 1

    @property
    def stats(self) -> Stats:
        """The statistics in LeRobot's shape (3, 1, 1)."""
        mean = self.total / self.count
        spread = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        figures = {"min": self.low, "max": self.high, "mean": mean, "std": spread}
        return {
            **{name: (values / 255)[:, None, None].tolist() for name, values in figures.items()},
            "count": [self.count],
        }


def together(stats: Sequence[Stats]) -> Stats:
    """Statistics over all episodes, computed from those of each episode."""
    means, spreads = (np.array([each[name] for each in stats]) for name in ("mean", "std"))
    counts = np.array([each["count"][0] for each in stats], np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    mean = (means * weights).sum(axis=0)
    variance = ((spreads**2 + (means - mean) ** 2) * weights).sum(axis=0)
    return {
        "min": np.min([each["min"] for each in stats], axis=0).tolist(),
        "max": np.max([each["max"] for each in stats], axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """The table `tasks.parquet`. pandas reads it as a data frame with the texts as its index."""
    names = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    said = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": n, "field_name": n, "pandas_type": k, "numpy_type": d, "metadata": None}
            for n, (k, d) in names.items()
        ],
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(said)})
