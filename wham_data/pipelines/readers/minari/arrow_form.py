"""Minari's Arrow and Parquet forms: a folder for each episode, with one table.

    data/<i>/part-0.arrow    observations, actions, rewards, ...; T + 1 rows

Entries of a Dict or Tuple are fields of a struct. The actions and rewards of the last row are padding,
because Minari has one more observation than actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from wham_data.files.arrow_file import arrow_batches
from wham_data.files.parquet import numbers_of, parquet_batches
from wham_data.pipelines.readers.kit.gymnasium_spaces import Entry
from wham_data.pipelines.readers.kit.open_recordings import Picture, picture_in
from wham_data.pipelines.readers.minari.tables import MOST_BYTES, Tables
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

OBSERVATIONS, ACTIONS, REWARDS = "observations", "actions", "rewards"
MEMBER: Final = "_index_"
"""What Minari's HDF5 form calls the entries of a Tuple, before their number."""


@dataclass(frozen=True, slots=True)
class ArrowEpisode:
    """The table of an episode."""

    path: Path

    def tables(
        self, actions: Sequence[str], numbers: Sequence[str], picture: Entry | None
    ) -> Tables:
        """See `EpisodeForm.tables`."""
        wanted = [(REWARDS, ""), *((ACTIONS, each) for each in actions)]
        wanted += [(OBSERVATIONS, each) for each in numbers]
        chunks: dict[tuple[str, str], list[pa.Array]] = {each: [] for each in wanted}
        rows = size = 0
        for batch in self._batches([OBSERVATIONS, ACTIONS, REWARDS]):
            for (column, path), found in chunks.items():
                found.append(_leaf(batch, column, path))
                size += found[-1].nbytes
            if size > MOST_BYTES:
                raise RefusedInput(
                    Reason.TOO_LARGE, f"{self.path.name}: numbers of over {MOST_BYTES} bytes"
                )
            rows += len(batch)
        if rows < 2:
            raise RefusedInput(Reason.LOG_EMPTY, f"{self.path.name} has no steps")

        def read(column: str, path: str, count: int) -> np.ndarray:
            whole = pa.chunked_array(chunks[column, path]).slice(0, count)
            return numbers_of(whole, f"{column} {path}".strip())

        return Tables(
            {path: read(ACTIONS, path, rows - 1) for path in actions},
            {path: read(OBSERVATIONS, path, rows) for path in numbers},
            read(REWARDS, "", rows - 1)[:, 0].astype(np.float32),
            None if picture is None else rows,
        )

    def pictures(self, entry: Entry, picks: Index) -> Iterator[Picture | None]:
        """See `EpisodeForm.pictures`."""
        start = 0
        for batch in self._batches([OBSERVATIONS]):
            leaf = _leaf(batch, OBSERVATIONS, entry.path)
            mine = picks[(picks >= start) & (picks < start + len(batch))] - start
            for pick in mine.tolist():
                yield _picture(leaf[pick], entry)
            start += len(batch)

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        parquet = self.path.suffix == ".parquet"
        return (parquet_batches if parquet else arrow_batches)(self.path, names)


def _leaf(batch: pa.RecordBatch, column: str, path: str) -> pa.Array:
    """The column of an entry.

    Raises:
        RefusedInput: LOG_COLUMN, there is none.
    """
    found = batch.column(column)
    for part in path.split("/") if path else ():
        names = (part, part.removeprefix(MEMBER))
        kind = found.type
        place = -1
        if pa.types.is_struct(kind) and not found.null_count:
            place = max(map(kind.get_field_index, names))
        if place < 0:
            raise RefusedInput(Reason.LOG_COLUMN, f"no {path} in {column}")
        found = found.field(place)
    return found


def _picture(value: Any, entry: Entry) -> Picture | None:
    """A picture, kept as a JPEG or as its pixels."""
    if not value.is_valid:
        return None
    if pa.types.is_binary(value.type) or pa.types.is_large_binary(value.type):
        return picture_in(value.as_py())
    if not pa.types.is_nested(value.type) or pa.types.is_struct(value.type):
        raise RefusedInput(Reason.NOT_A_VIDEO, f"pictures {entry.path} are {value.type}")
    pixels = value.values.to_numpy(zero_copy_only=False)
    shaped = pixels.size == np.prod(entry.shape)
    return entry.rgb(pixels.reshape(entry.shape) if shaped else pixels)
