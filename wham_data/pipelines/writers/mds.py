"""`mds`: shards of MosaicML's streaming, of which a sample is a step.

    <split>/index.json           the shards, in order
    <split>/<part>.<number>.mds  up to 1024 samples

A shard is the number of its samples, where each of them starts and the last one ends (all uint32),
a description of the columns as JSON, and the samples: the lengths of a sample's columns that have no
fixed one (uint32), then the columns. They are ordered by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, grouped
from wham_data.pipelines.writers.samples import Sample, samples_of
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace

INDEX: Final = "index.json"
MOST_SAMPLES: Final = 1024
MOST_PIXELS: Final = 1 << 26
"""In the pictures of a shard, so that it is a few hundred MB at most and offsets have 32 bits."""
SCALARS: Final = {"int32": 4, "int64": 8, "uint8": 1, "float32": 4}


@dataclass(frozen=True, slots=True)
class MdsWriter:
    """Writer of MDS shards."""

    name: ClassVar[str] = "mds"
    about: ClassVar[str] = "shards of MosaicML's streaming, a sample per step"
    order: ClassVar[int] = 70
    demands: ClassVar[Demands] = Demands(pictures=False, known=False, steady=False, numbered=True)

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """Says what the columns cannot."""
        del content
        return ["mds has no null: numbers that are not known are NaN, a text that is not is empty"]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """Some thousand steps each."""
        return grouped(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write the shards of a part; their entries of the index."""
        del place
        columns = columns_of(content)
        samples = chain.from_iterable(samples_of(each, content) for each in part.stretches)
        most = max(1, min(MOST_SAMPLES, MOST_PIXELS // (content.size[0] * content.size[1])))
        (folder / part.split).mkdir()
        shards = []
        for number, first in enumerate(range(0, part.n_steps, most)):
            count = min(most, part.n_steps - first)
            path = folder / part.split / f"{part.name}.{number:05d}.mds"
            rows = (_row(sample, columns) for sample in islice(samples, count))
            _write_shard(path, rows, count, _described(columns))
            shards.append({"name": path.name, "bytes": path.stat().st_size, "samples": count})
        return {"shards": shards}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write the index of each split."""
        described = _described(columns_of(content))
        for split in dict.fromkeys(each.split for each in written):
            shards = [
                {
                    **described,
                    "raw_data": {"basename": shard["name"], "bytes": shard["bytes"], "hashes": {}},
                    "samples": shard["samples"],
                    "zip_data": None,
                }
                for each in written
                if each.split == split
                for shard in each.facts["shards"]
            ]
            (folder / split).mkdir()
            index = json.dumps({"version": 2, "shards": shards}, sort_keys=True)
            (folder / split / INDEX).write_text(index)


def columns_of(content: Content) -> dict[str, str]:
    """The encoding of each column, ordered by name."""
    rows, across = content.grid
    columns = {
        "action_known": "uint8",
        "actions": f"ndarray:float32:{content.space.size}",
        "episode": "str",
        "frame": content.coding if content.pictures else None,
        "reward": "float32" if content.reward else None,
        "state": f"ndarray:float32:{content.state_size}" if content.state_size else None,
        "step": "int32",
        "text": "str" if content.text else None,
        "time_ns": "int64",
        "tokens": f"ndarray:uint16:{rows},{across}" if content.vocabulary else None,
    }
    return {name: encoding for name, encoding in columns.items() if encoding is not None}


def _size_of(encoding: str) -> int | None:
    """Bytes of every value of an encoding; None where they differ."""
    if not encoding.startswith("ndarray:"):
        return SCALARS.get(encoding)
    _, dtype, shape = encoding.split(":")
    return int(np.dtype(dtype).itemsize * np.prod([int(n) for n in shape.split(",")]))


def _described(columns: Mapping[str, str]) -> dict[str, Any]:
    """What each shard says of itself."""
    return {
        "column_encodings": list(columns.values()),
        "column_names": list(columns),
        "column_sizes": [_size_of(encoding) for encoding in columns.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _row(sample: Sample, columns: Mapping[str, str]) -> bytes:
    """The bytes of a sample."""
    values = []
    for name, encoding in columns.items():
        size, value = _size_of(encoding), getattr(sample, name)
        if encoding == "str":
            value = (value or "").encode("utf-8", "replace")
        elif encoding in SCALARS:
            value = np.array(value, encoding).tobytes()
        elif size is not None:
            value = np.full(size // 4, np.nan, "<f4") if value is None else value
            value = value.tobytes()
        values.append((size, value))
    sizes = np.array([len(value) for size, value in values if size is None], "<u4")
    return sizes.tobytes() + b"".join(value for _, value in values)


def _write_shard(
    path: Path, rows: Iterable[bytes], count: int, described: Mapping[str, Any]
) -> None:
    """Write rows as they come; where they start is put in at the end."""
    config = json.dumps(described, sort_keys=True).encode()
    starts = [4 + 4 * (count + 1) + len(config)]
    with path.open("wb") as file:
        file.seek(starts[0])
        for row in rows:
            file.write(row)
            starts.append(starts[-1] + len(row))
        file.seek(0)
        file.write(np.array([count, *starts], "<u4").tobytes() + config)
