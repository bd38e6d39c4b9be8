"""`doom-parquet`: Doom played by agents, as two community rebuilds of GameNGen publish it.

    episode_id, frames, actions, health, step_ids    `frames` are JPEG bytes; a file for each episode,
                                                     or many episodes in a few files
    image{bytes, path}, episode, frame_index, action

In the first layout, an action led to the frame of its row: the frame was grabbed after the action.
The frame before the first action was not kept. The second layout does not document this; there an
action is taken to act after its frame. The engine runs at 35 Hz, and every fourth frame is kept:
8.75 frames per second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.parquet import (
    columns_of,
    numbers_of,
    read_columns,
    read_where,
    stream_column,
)
from wham_data.pipelines.readers.kit.frame_actions import one_hot, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PictureRecording,
    audit_clock,
    check_length,
    picture_in,
)
from wham_data.pipelines.readers.kit.options import choice, count_option, rate_option
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import MOST_DIMENSIONS, load_space
from wham_data.schemas.clock import Index, steps_ns
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording, RefusedFile

MOST_STEPS: Final = 1 << 23


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of the columns. `leads`: an action led to the frame of its row."""

    episode: str
    step: str
    picture: str
    action: str
    state: str | None
    leads: bool

    @property
    def needed(self) -> frozenset[str]:
        """The columns that a file of this layout must have."""
        return frozenset((self.episode, self.step, self.picture, self.action))


LAYOUTS: Final = (
    Layout("episode_id", "step_ids", "frames", "actions", "health", leads=True),
    Layout("episode_id", "step_id", "frames", "actions", "health", leads=True),
    Layout("episode", "frame_index", "image", "action", None, leads=False),
)


@dataclass(frozen=True, slots=True)
class DoomParquet:
    """Reader of Doom episodes in Parquet files."""

    name: ClassVar[str] = "doom-parquet"
    about: ClassVar[str] = "Doom episodes of GameNGen's community rebuilds, in Parquet"
    order: ClassVar[int] = 220
    frame_rate: Fraction = rate_option("35/4", about="frames per second")
    timing: str = choice(
        "usual", "after", "leads", about="an action acts after its frame, or led to it"
    )
    action_count: int = count_option(
        18, about="how many actions the agent had", most=MOST_DIMENSIONS
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every episode. An episode that continues in the next file of its folder is one recording."""
        whole: list[tuple[Layout, int, list[Path]]] = []
        ended: dict[tuple[Path, Layout], tuple[int, int]] = {}
        for path in files:
            layout = _layout_of(path)
            if layout is None:
                continue
            try:
                episodes = _episodes_in(path, layout)
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            last = ended.get((path.parent, layout))
            for number, (first, stop) in episodes.items():
                if last == (number, first):
                    next(
                        parts
                        for found, episode, parts in reversed(whole)
                        if (found, episode, parts[-1].parent) == (layout, number, path.parent)
                    ).append(path)
                else:
                    whole.append((layout, number, [path]))
                last = None
                ended[path.parent, layout] = (number, stop)
        for _, number, paths in whole:
            yield Recording(
                path=paths[0],
                files=tuple(paths),
                format=self.name,
                provenance=Provenance(game="Doom"),
                part=f"episode_{number}",
            )

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read everything but the pictures."""
        number = int(recording.part.removeprefix("episode_"))
        parts = [_Part.read(path, number) for path in recording.files]
        layout = parts[0].layout
        steps = np.concatenate([part.steps for part in parts])
        if (np.diff(steps) <= 0).any() or not 0 <= steps[0] <= steps[-1] <= MOST_STEPS:
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"{layout.step} of episode {number} does not increase between 0 and {MOST_STEPS}",
            )
        times_ns = steps_ns(steps - steps[0], self.frame_rate)
        end_ns = int(steps_ns(steps[-1:] - steps[0] + 1, self.frame_rate)[0])
        check_length(len(steps), end_ns, limits)
        space = load_space(f"discrete{self.action_count}")
        values = one_hot(np.concatenate([part.actions for part in parts]), space.size)
        leads = layout.leads if self.timing == "usual" else self.timing == "leads"
        skipped = np.flatnonzero(np.diff(steps) > 1)
        values[skipped + leads] = np.nan  # some actions between the kept frames are not known
        states = [part.states for part in parts if part.states is not None]

        def pictures(picks: Index) -> Iterator[Picture | None]:
            base = 0
            for part in parts:
                mine = picks[(picks >= base) & (picks < base + len(part.rows))]
                if len(mine):
                    rows = part.rows[mine - base]
                    yield from map(picture_in, stream_column(part.path, layout.picture, rows))
                base += len(part.rows)

        return PictureRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=audit_clock(times_ns),
            data=FrameData(
                actions=per_frame_track(space, times_ns, end_ns, values, leads=leads),
                states=np.concatenate(states) if len(states) == len(parts) else None,
            ),
            notes=(f"{len(skipped)} gaps in {layout.step}",) if len(skipped) else (),
            pictures=pictures,
            limits=limits,
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of an episode in one file.

    rows     int64 [N]       row numbers in the file
    steps    int64 [N]       step numbers in the episode
    actions  int64 [N]
    states   float32 [N, 1]  the player's health; None if the layout has no health
    """

    path: Path
    layout: Layout
    rows: Index
    steps: Index
    actions: Index
    states: NDArray[np.float32] | None

    @classmethod
    def read(cls, path: Path, episode: int) -> _Part:
        """Read the rows of an episode.

        Raises:
            RefusedInput: the file changed, or a column holds no whole numbers.
        """
        layout = _layout_of(path)
        if layout is None:
            raise RefusedInput(Reason.CHANGED_WHILE_READ, f"{path.name} changed while read")
        state = [name for name in columns_of(path) if name == layout.state]
        names = [layout.step, layout.action, *state]
        table, rows = read_where(path, names, layout.episode, episode)
        if not len(rows):
            raise RefusedInput(Reason.LOG_EMPTY, f"{path.name} has no row of episode {episode}")
        columns = {name: numbers_of(table[name], name) for name in names}
        steps, actions = (_whole(columns[name], name) for name in names[:2])
        states = columns[state[0]].astype(np.float32) if state else None
        return cls(path, layout, rows, steps, actions, states)


def _whole(column: NDArray[Any], name: str) -> Index:
    if column.dtype.kind not in "iu" or column.shape[1] != 1:
        raise RefusedInput(Reason.LOG_TYPE, f"{name} holds {column.dtype}, expected whole numbers")
    return column[:, 0].astype(np.int64)


def _layout_of(path: Path) -> Layout | None:
    names = columns_of(path)
    return next((layout for layout in LAYOUTS if layout.needed.issubset(names)), None)


def _episodes_in(path: Path, layout: Layout) -> dict[int, tuple[int, int]]:
    """The episodes of a file in the order in which they begin: first step and one past the last."""
    table = read_columns(path, [layout.episode, layout.step])
    numbers, steps = (_whole(numbers_of(table[name], name), name) for name in table.column_names)
    found, first = np.unique(numbers, return_index=True)
    last = len(numbers) - 1 - np.unique(numbers[::-1], return_index=True)[1]
    order = np.argsort(first)
    spans = zip(found[order], steps[first[order]], steps[last[order]] + 1, strict=True)
    return {int(number): (int(start), int(stop)) for number, start, stop in spans}
