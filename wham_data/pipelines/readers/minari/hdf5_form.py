"""Minari's HDF5 form: all episodes in one file, a group `episode_<i>` each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from wham_data.files.hdf5 import (
    dataset_at,
    has,
    names_in,
    opened_hdf5,
    read_array,
    read_blobs,
    read_rows,
)
from wham_data.pipelines.readers.kit.gymnasium_spaces import Entry
from wham_data.pipelines.readers.kit.open_recordings import Picture, picture_in
from wham_data.pipelines.readers.minari.tables import MOST_BYTES, Tables
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

JPEG: Final = b"\xff\xd8\xff"
Pictured = Literal["array", "jpegs", "jpegs of one length"]
_EPISODE: Final = re.compile(r"episode_(0|[1-9]\d{0,8})", re.ASCII)


def episodes_in(path: Path) -> list[int]:
    """The numbers of a file's episodes, sorted; [] where it holds none of Minari's.

    Raises:
        RefusedInput: the file is damaged.
    """
    with opened_hdf5(path) as file:
        found = (_EPISODE.fullmatch(name) for name in names_in(file))
        numbers = sorted(int(match[1]) for match in found if match)
        wanted = (
            [f"episode_{numbers[0]}/{name}" for name in ("observations", "actions")]
            if numbers
            else []
        )
        return numbers if all(has(file, name) for name in wanted) else []


@dataclass(frozen=True, slots=True)
class Hdf5Episode:
    """The group of an episode."""

    path: Path
    group: str

    def tables(
        self, actions: Sequence[str], numbers: Sequence[str], picture: Entry | None
    ) -> Tables:
        """See `EpisodeForm.tables`."""
        with opened_hdf5(self.path) as file:

            def read(name: str, path: str) -> np.ndarray:
                return read_array(file, self._at(name, path), most_bytes=MOST_BYTES)

            shown = None if picture is None else _pictured(file, self._shown(picture))[1]
            rewards = None
            if has(file, f"{self.group}/rewards"):
                rewards = read("rewards", "").astype(np.float32)
            return Tables(
                {path: read("actions", path) for path in actions},
                {path: read("observations", path) for path in numbers},
                rewards,
                shown,
            )

    def pictures(self, entry: Entry, picks: Index) -> Iterator[Picture | None]:
        """See `EpisodeForm.pictures`."""
        name = self._shown(entry)
        with opened_hdf5(self.path) as file:
            form, _ = _pictured(file, name)
            if form == "array":
                yield from map(entry.rgb, read_rows(file, name, picks))
                return
            coded = (
                read_blobs(file, name, picks)
                if form == "jpegs"
                else (row.tobytes() for row in read_rows(file, name, picks))
            )
            yield from map(picture_in, coded)

    def _at(self, name: str, path: str) -> str:
        return f"{self.group}/{name}/{path}" if path else f"{self.group}/{name}"

    def _shown(self, entry: Entry) -> str:
        return self._at("observations", entry.path)


def _pictured(file: object, name: str) -> tuple[Pictured, int]:
    """How pictures are kept, and how many there are.

    JPEGs that happen to be equally long lie in a plain table of bytes.
    """
    try:
        return "jpegs", len(dataset_at(file, name, blobs=True))
    except RefusedInput as why:
        if why.reason is not Reason.LOG_TYPE:
            raise
    data = dataset_at(file, name)
    table = data.ndim == 2 and data.dtype == np.uint8 and len(data) > 0
    if table and data[0, : len(JPEG)].tobytes() == JPEG:
        return "jpegs of one length", len(data)
    return "array", len(data)
