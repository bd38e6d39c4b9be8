"""The pictures of an episode, small: what all measures of pictures are made from.

A small picture has a cell for each of ROWS x COLUMNS equal parts of the picture: the mean colour there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shard_view import ShardView, matrix_of
from wham_data.pipelines.video import decode_image
from wham_data.schemas.errors import IntegrityError, RefusedInput
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import TOKEN

ROWS: Final = 36
COLUMNS: Final = 60
BLOCK: Final = 256
"""Pictures that are in memory at a time."""
TOKENS_AT_ONCE: Final = 32

Small = NDArray[np.uint8]
"""uint8 [n, ROWS, COLUMNS, 3] RGB."""
Decode = Callable[[NDArray[np.uint16]], Frames]
"""uint16 [n, N] tokens in, uint8 [n, H, W, 3] pictures out."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where the pictures of a corpus come from.

    column  "frame" where the corpus stores them, "tokens" where they are decoded
    decode  of tokens; None: they are stored
    """

    corpus: Corpus
    column: str
    decode: Decode | None

    def of(self, row: dict[str, Any]) -> Iterator[Small]:
        """The small pictures of all steps of an episode, in order, at most BLOCK at a time.

        Raises:
            IntegrityError: the shard is damaged, or a picture does not decode.
        """
        view = self._view(row)
        stop = row["row_start"] + row["n_steps"]
        for table in view.stream_rows(row["row_start"], stop, [self.column], BLOCK):
            yield self._small(table.column(self.column).combine_chunks(), view.where)

    def some(self, row: dict[str, Any], steps: Sequence[int]) -> Small:
        """The small pictures of some steps of an episode; the steps must be in order."""
        view, first, made = self._view(row), 0, [np.empty((0, ROWS, COLUMNS, 3), np.uint8)]
        stop = row["row_start"] + row["n_steps"]
        for table in view.stream_rows(row["row_start"], stop, [self.column], BLOCK):
            here = [step - first for step in steps if first <= step < first + len(table)]
            taken = table.column(self.column).combine_chunks().take(pa.array(here, pa.int64()))
            if here:
                made.append(self._small(taken, view.where))
            first += len(table)
        return np.concatenate(made)

    def _view(self, row: dict[str, Any]) -> ShardView:
        view = self.corpus.open_shard(row["shard"])
        view.must_hold(row["episode"], row["row_start"], row["n_steps"])
        return view

    def _small(self, coded: pa.Array, where: str) -> Small:
        if self.decode is None:
            return np.stack([small_of(_picture(each.as_py(), where)) for each in coded])
        tokens = matrix_of(coded, TOKEN)
        parts = [tokens[at : at + TOKENS_AT_ONCE] for at in range(0, len(tokens), TOKENS_AT_ONCE)]
        return np.stack([small_of(each) for part in parts for each in self.decode(part)])


def small_of(picture: Frames) -> NDArray[np.uint8]:
    """A picture as the mean colours of its cells.

    Args:
        picture: uint8 [H, W, 3] of any size; one with fewer pixels than cells is enlarged.

    Returns:
        uint8 [ROWS, COLUMNS, 3].
    """
    height, width = picture.shape[:2]
    down, across = -(-ROWS // height), -(-COLUMNS // width)
    if down > 1 or across > 1:
        picture = picture.repeat(down, axis=0).repeat(across, axis=1)
        height, width = picture.shape[:2]
    tops, lefts = np.arange(ROWS) * height // ROWS, np.arange(COLUMNS) * width // COLUMNS
    sums = np.add.reduceat(picture, tops, axis=0, dtype=np.uint32)
    sums = np.add.reduceat(sums, lefts, axis=1)
    area = np.diff(tops, append=height)[:, None] * np.diff(lefts, append=width)[None]
    return np.asarray((sums + area[..., None] // 2) // area[..., None], np.uint8)


def _picture(coded: bytes, where: str) -> Frames:
    try:
        return decode_image(coded)
    except RefusedInput as why:
        raise IntegrityError(f"{where}: {why}") from None
