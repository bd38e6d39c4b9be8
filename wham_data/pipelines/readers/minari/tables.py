"""What an episode of Minari holds, however it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.gymnasium_spaces import Entry
from wham_data.pipelines.readers.kit.open_recordings import Picture
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput

MOST_BYTES: Final = 256 << 20
MOST_STATE: Final = 4096


@dataclass(frozen=True, slots=True)
class Tables:
    """An episode of T steps, without its pictures.

    actions   numbers [T, ...] by the entry's path
    numbers   numbers [T + 1, ...] by path: what was observed before each action and after the last
    rewards   float32 [T], of each action; None: there are none
    pictures  how many pictures the entry has that was asked for; None: none was
    """

    actions: dict[str, NDArray[Any]]
    numbers: dict[str, NDArray[Any]]
    rewards: NDArray[np.float32] | None
    pictures: int | None


class EpisodeForm(Protocol):
    """An episode in one of the forms that Minari writes."""

    def tables(
        self, actions: Sequence[str], numbers: Sequence[str], picture: Entry | None
    ) -> Tables:
        """Read everything but the pictures.

        Args:
            actions: paths of the entries of an action.
            numbers: paths of the entries of an observation to read.
            picture: the entry whose pictures are to be counted.

        Raises:
            RefusedInput: the file is damaged, or has another layout.
        """
        ...

    def pictures(self, entry: Entry, picks: Index) -> Iterator[Picture | None]:
        """See `kit.open_recordings.Pictures`; a JPEG that cannot be decoded is None."""
        ...


def states_of(tables: Tables, count: int) -> NDArray[np.float32] | None:
    """Everything in the observations that is a number, float32 [count, S]; None if nothing is.

    Raises:
        RefusedInput: TOO_LARGE, over `MOST_STATE` numbers; LOG_COVERAGE, not one for each frame.
    """
    columns: list[NDArray[np.float32]] = []
    for path, array in tables.numbers.items():
        if len(array) != count:
            raise RefusedInput(
                Reason.LOG_COVERAGE, f"{len(array)} of {path} for {count} observations"
            )
        columns.append(array.reshape(count, -1).astype(np.float32))
    width = sum(column.shape[1] for column in columns)
    if width > MOST_STATE:
        raise RefusedInput(Reason.TOO_LARGE, f"observations of {width} numbers, limit {MOST_STATE}")
    return np.concatenate(columns, axis=1) if columns else None
