"""`lmdb`: shards with Self-Forcing's keys, the format of ActionParty's matches of Melting Pot.

    <split>/<part>/data.mdb    <array>_shape       the array's shape as text, the number of rows first
                               <array>_<i>_data    row i of it as bytes

A row is a clip of a fixed number of steps, because an array has the same shape in all rows.

    rgb            uint8   (rows, T, H, W, 3)
    actions        int64   (rows, T)        of Melting Pot: the number of each step's action
    action_values  float32 (rows, T, A)     of everything else: the action in the corpus' own space
    coords         float32 (rows, T, S)     the state
    prompts, game  UTF-8   (rows,)          the text at the first step; the game
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.kit.options import count_option
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, grouped
from wham_data.pipelines.writers.stretches import Numbers, Stretch
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import MissingPartError, Reason, UsageError

MOST_STEPS: Final = 100_000
MOST_ROW_BYTES: Final = 1 << 30
ROOM_BYTES: Final = 1 << 20
"""Address space per row for keys, texts and partly filled pages, in bytes."""


@dataclass(frozen=True, slots=True)
class LmdbWriter:
    """Writer of LMDB shards with Self-Forcing's keys."""

    name: ClassVar[str] = "lmdb"
    about: ClassVar[str] = "LMDB shards of clips with Self-Forcing's keys, as ActionParty's"
    order: ClassVar[int] = 100
    demands: ClassVar[Demands] = Demands(numbered=True)
    clip: int = count_option(81, about="steps of a row", most=MOST_STEPS)

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any space."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """Refuses pictures too large for a row, which is held in memory; notes what is lost."""
        size = self._picture_bytes(content)
        if size > MOST_ROW_BYTES:
            raise UsageError(
                f"lmdb: the pictures of a row take {size >> 20} MB, at most "
                f"{MOST_ROW_BYTES >> 20} are written: use --option clip=N with fewer steps"
            )
        return [
            f"episodes are cut into clips of {self.clip} steps, what is left over is not written",
            f"lmdb has no clock: steps are {content.steady_rate} a second",
            *(() if _is_melting_pot(content) else ("actions are written as action_values",)),
        ]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A shard for each part; a part has a few thousand steps."""
        return grouped(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one shard, row after row."""
        del place
        for stretch in part.stretches:
            if stretch.n_steps < self.clip:
                raise stretch.refuse(
                    Reason.TOO_SHORT, f"{stretch.n_steps} steps, a clip has {self.clip}"
                )
        rows = sum(each.n_steps // self.clip for each in part.stretches)
        shard = _Shard(folder / part.split / part.name, rows, self._picture_bytes(content))
        try:
            for stretch in part.stretches:
                for row in self._clips(stretch, content):
                    shard.append(row)
        finally:
            shard.close()
        return {"rows": rows}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Does nothing: no file describes the whole export."""

    def _clips(self, stretch: Stretch, content: Content) -> Iterator[dict[str, Any]]:
        """The values of each row of an episode, by the name of the array."""
        actions, states, texts = stretch.actions(), stretch.states(), stretch.texts()
        codes = _codes(stretch, actions) if _is_melting_pot(content) else None
        frames = stretch.frames()
        for first in range(0, stretch.n_steps - self.clip + 1, self.clip):
            steps = slice(first, first + self.clip)
            row: dict[str, Any] = {"rgb": np.stack(list(islice(frames, self.clip)))}
            if codes is None:
                row["action_values"] = actions[steps]
            else:
                row["actions"] = codes[steps]
            if content.state_size:
                missing = np.full((self.clip, content.state_size), np.nan, np.float32)
                row["coords"] = missing if states is None else states[steps]
            if content.text:
                row["prompts"] = (texts[first] if texts else None) or ""
            row["game"] = stretch.row.game or ""
            yield row

    def _picture_bytes(self, content: Content) -> int:
        return 3 * content.size[0] * content.size[1] * self.clip


class _Shard:
    """A new LMDB environment. Rows are appended to it.

    Args:
        folder: the folder to make for it.
        rows: number of rows to append.
        row_bytes: size of the pictures of one row, in bytes.

    Raises:
        MissingPartError: the package is not installed.
    """

    def __init__(self, folder: Path, rows: int, row_bytes: int) -> None:
        try:
            import lmdb
        except ImportError:
            raise MissingPartError("--to lmdb needs the package lmdb: pip install lmdb") from None
        folder.mkdir(parents=True)
        room = (rows + 16) * (2 * row_bytes + ROOM_BYTES)
        self._environment = lmdb.open(str(folder), map_size=room, lock=False, sync=False)
        self._rows, self._written = rows, 0

    def append(self, arrays: Mapping[str, NDArray[Any] | str]) -> None:
        """Append a row to the file."""
        with self._environment.begin(write=True) as transaction:
            for name, row in arrays.items():
                if isinstance(row, str):
                    shape: tuple[int, ...] = (self._rows,)
                    data = row.encode("utf-8", "replace")
                else:
                    shape, data = (self._rows, *row.shape), row.tobytes()
                transaction.put(f"{name}_shape".encode(), " ".join(map(str, shape)).encode())
                transaction.put(f"{name}_{self._written}_data".encode(), data)
        self._written += 1

    def close(self) -> None:
        """No more rows come."""
        self._environment.close()


def _is_melting_pot(content: Content) -> bool:
    return content.space == load_space("meltingpot9")


def _codes(stretch: Stretch, actions: Numbers) -> NDArray[np.int64]:
    """The number of each step's action, int64 [T].

    Raises:
        Unfit: a step has no action or several.
    """
    if (several := np.flatnonzero(actions.sum(axis=1) != 1)).size:
        raise stretch.refuse(
            Reason.LOG_RANGE, f"step {several[0]}: {actions[several[0]].sum():g} actions, not one"
        )
    return np.asarray(actions.argmax(axis=1), np.int64)
