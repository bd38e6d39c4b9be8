"""`dreamer-replay`: the replay chunks of DreamerV3. An episode may continue in the next file.

    <time>-<uuid>-<uuid of the next chunk>-<length>.npz    image, action, reward, is_first, is_last, ...

Every array has room for a whole chunk, but only its first `length` rows were written. The other rows
are whatever was in memory. Each chunk names the next one by its uuid. An episode goes from one
`is_first` to the next. `action[t]` was chosen on seeing `image[t]` and acts after it; with `is_last`
it is zero and has no meaning. `reward[t]` arrived with `image[t]`: it belongs to the action before.
The files store no times: frames are taken as steady, at the rate of the option `frame_rate`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.npz import (
    array_shapes,
    member,
    opened_npz,
    read_numbers,
    read_rows,
)
from wham_data.pipelines.readers.kit.frame_actions import even_times, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PictureRecording,
    audit_clock,
    check_length,
    check_pixels,
)
from wham_data.pipelines.readers.kit.options import rate_option
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Recording, RefusedFile

MEMBERS: Final = frozenset({"image", "action", "reward", "is_first", "is_last"})
MOST_ROWS: Final = 1 << 20
_NAME: Final = re.compile(
    r"(?P<time>\d{8}T\d{6}F?\d*)-(?P<uuid>\w{1,64})-(?P<next>\w{1,64})-(?P<length>\d{1,9})\.npz",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One file. Its first `length` rows were written."""

    path: Path
    uuid: str
    next: str
    length: int

    @classmethod
    def named(cls, path: Path) -> Chunk | None:
        """The chunk that a file's name describes; None if the name has another form."""
        found = _NAME.fullmatch(path.name)
        if found is None:
            return None
        return cls(path, found["uuid"], found["next"], int(found["length"]))


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Rows [start, stop) of a chunk."""

    chunk: Chunk
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class DreamerReplay:
    """Reader of DreamerV3's replay."""

    name: ClassVar[str] = "dreamer-replay"
    about: ClassVar[str] = "replay chunks of DreamerV3, joined into episodes"
    order: ClassVar[int] = 100
    frame_rate: Fraction = rate_option("15", about="frames per second; the files do not say")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every episode of the chunks in each folder."""
        folders: dict[Path, dict[str, Chunk]] = {}
        firsts: dict[Path, Index] = {}
        for path in files:
            chunk = Chunk.named(path)
            if chunk is None:
                continue
            try:
                if not MEMBERS.issubset(array_shapes(path)):
                    continue
                firsts[path] = _first_rows(chunk)
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            folders.setdefault(path.parent, {})[chunk.uuid] = chunk
        for chunks in folders.values():
            for chain in chains(chunks):
                for episode in episodes_in(chain, firsts):
                    yield Recording(
                        path=episode[0].chunk.path,
                        files=tuple(stretch.chunk.path for stretch in episode),
                        format=self.name,
                        part=f"row_{episode[0].start}",
                    )

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read everything but the pictures."""
        episode, whole = _episode_of(recording)
        tables = [_Tables.read(stretch) for stretch in episode]
        actions = np.concatenate([table.actions for table in tables])
        last = np.concatenate([table.is_last for table in tables])
        rewards = np.concatenate([table.rewards for table in tables])
        count = len(actions)
        times_ns, end_ns = even_times(count, self.frame_rate)
        check_length(count, end_ns, limits)
        shapes = {table.image_shape for table in tables}
        if len(shapes) > 1:
            raise RefusedInput(Reason.RESOLUTION_CHANGE, f"pictures of {sorted(shapes)}")
        height, width, _ = shapes.pop()
        check_pixels(width, height, limits)

        numbered = bool((_is_one_hot(actions) | last).all())
        space = load_space(f"{'discrete' if numbered else 'numbers'}{actions.shape[1]}")
        values = actions.astype(np.float64)
        values[last] = np.nan
        notes = [f"no clock in the files: taken as {float(self.frame_rate):g} frames/s"]
        notes += [] if whole else ["the episode begins before the first chunk there is"]
        return PictureRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=audit_clock(times_ns),
            data=FrameData(
                actions=per_frame_track(space, times_ns, end_ns, values),
                rewards=np.append(rewards[1:], np.float32(0.0)),
            ),
            notes=tuple(notes),
            pictures=lambda picks: _pictures(episode, picks),
            limits=limits,
        )


def chains(chunks: Mapping[str, Chunk]) -> list[list[Chunk]]:
    """The chunks in the order in which they follow one another, one list for each stream.

    Chunks that follow one another in a circle have no first chunk: each is a chain of its own.
    """
    followers = {chunk.next for chunk in chunks.values() if chunk.next != chunk.uuid}
    found: list[list[Chunk]] = []
    taken: set[str] = set()
    for start in sorted(chunks.values(), key=lambda c: (c.uuid in followers, c.path)):
        chain: list[Chunk] = []
        here: Chunk | None = start
        while here is not None and here.uuid not in taken:
            taken.add(here.uuid)
            chain.append(here)
            here = chunks.get(here.next)
        if chain:
            found.append(chain)
    return sorted(found, key=lambda chain: chain[0].path)


def episodes_in(chain: list[Chunk], firsts: Mapping[Path, Index]) -> Iterator[list[ChunkRows]]:
    """The episodes of a chain, each as rows of one or more chunks.

    Args:
        chain: chunks that follow one another.
        firsts: for each chunk, the rows at which an episode begins, int64, increasing.
    """
    episode: list[ChunkRows] = []
    for chunk in chain:
        cuts = [row for row in firsts[chunk.path].tolist() if row < chunk.length]
        for start, stop in zip([0, *cuts], [*cuts, chunk.length], strict=True):
            if start in cuts and episode:
                yield episode
                episode = []
            if stop > start:
                episode.append(ChunkRows(chunk, start, stop))
    if episode:
        yield episode


def _episode_of(recording: Recording) -> tuple[list[ChunkRows], bool]:
    """The rows of a recording, and whether it includes the beginning of its episode.

    Raises:
        RefusedInput: the files have changed.
    """
    chain = [chunk for path in recording.files if (chunk := Chunk.named(path)) is not None]
    firsts = {chunk.path: _first_rows(chunk) for chunk in chain}
    for episode in episodes_in(chain, firsts):
        if f"row_{episode[0].start}" == recording.part and episode[0].chunk == chain[0]:
            return episode, episode[0].start in firsts[chain[0].path]
    raise RefusedInput(Reason.CHANGED_WHILE_READ, f"no episode begins at {recording.part} any more")


def _first_rows(chunk: Chunk) -> Index:
    """The rows at which an episode begins.

    Raises:
        RefusedInput: the file is damaged, or shorter than its name says.
    """
    with opened_npz(chunk.path) as archive:
        flags = _column(archive, "is_first", chunk)
    return np.flatnonzero(flags).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Tables:
    """Everything except the pictures of some rows of a chunk.

    actions  float32 [N, A]   rewards  float32 [N]   is_last  bool [N]   image_shape  (H, W, 3)
    """

    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    is_last: NDArray[np.bool_]
    image_shape: tuple[int, ...]

    @classmethod
    def read(cls, stretch: ChunkRows) -> _Tables:
        """Read the rows.

        Raises:
            RefusedInput: the chunk is damaged or shorter than its name says, or pictures are not
                uint8 (N, H, W, 3).
        """
        chunk, rows = stretch.chunk, slice(stretch.start, stretch.stop)
        shape, dtype = array_shapes(chunk.path)["image"]
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[0] < chunk.length:
            raise RefusedInput(
                Reason.NOT_A_VIDEO,
                f"{chunk.path.name}: images are {dtype} {shape}, expected uint8 (N, H, W, 3)",
            )
        with opened_npz(chunk.path) as archive:
            actions = _table(archive, "action", chunk)
            return cls(
                actions[rows],
                _column(archive, "reward", chunk)[rows],
                _column(archive, "is_last", chunk)[rows] > 0,
                shape[1:],
            )


def _table(archive: zipfile.ZipFile, name: str, chunk: Chunk) -> NDArray[np.float32]:
    """The rows of an array that were written, float32 [length, S]."""
    with member(archive, f"{name}.npy") as (_, shape, _):
        rows = shape[0] if shape else 0
    if not chunk.length <= rows <= MOST_ROWS:
        raise RefusedInput(
            Reason.TRUNCATED,
            f"{chunk.path.name}: {name} has {rows} rows, the name promises {chunk.length}",
        )
    return read_numbers(archive, f"{name}.npy", rows, None)[: chunk.length]


def _column(archive: zipfile.ZipFile, name: str, chunk: Chunk) -> NDArray[np.float32]:
    """Like `_table`, for an array with one number per row."""
    table = _table(archive, name, chunk)
    if table.shape[1] != 1:
        raise RefusedInput(
            Reason.LOG_TYPE, f"{chunk.path.name}: {name} has {table.shape[1]} numbers a row"
        )
    return table[:, 0]


def _is_one_hot(actions: NDArray[np.float32]) -> NDArray[np.bool_]:
    """For each row, whether one number is 1 and all others are 0."""
    each = ((actions == 0) | (actions == 1)).all(axis=1) & (actions.sum(axis=1) == 1)
    return np.asarray(each, np.bool_)


def _pictures(episode: list[ChunkRows], picks: Index) -> Iterator[Picture]:
    """See `kit.open_recordings.Pictures`."""
    base = 0
    for stretch in episode:
        stop = base + stretch.stop - stretch.start
        mine = picks[(picks >= base) & (picks < stop)]
        if len(mine):
            with opened_npz(stretch.chunk.path) as archive:
                yield from read_rows(archive, "image.npy", mine - base + stretch.start)
        base = stop
