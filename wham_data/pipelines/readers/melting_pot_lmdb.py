"""`melting-pot-lmdb`: matches of several players in an LMDB with Self-Forcing's keys.

    <shard>/data.mdb    <array>_shape        the array's shape as text, the number of rows first
                        <array>_<i>_data     row i of it as bytes; the type is not stored

A row is a match: frames that all players share, and an action of each player for each frame. A TOML
file (`--option mapping=FILE`) says which array holds which data; without it, the names are those of
`LmdbMapping`. The type of an array follows from its number of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import open_regular
from wham_data.files.lmdb_file import LmdbFile, is_lmdb
from wham_data.pipelines.readers.kit.fixed_rate import open_fixed_rate
from wham_data.pipelines.readers.kit.frame_actions import one_hot
from wham_data.pipelines.readers.kit.open_recordings import Picture, check_length, check_pixels
from wham_data.pipelines.readers.kit.options import choice, file_option, rate_option
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import SECOND_NS, Index
from wham_data.schemas.declarations import is_text, known_keys, read_toml
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import FrameData, OpenRecording, Provenance, Recording, RefusedFile

MOST_SHAPE_BYTES: Final = 256
MOST_TEXT_BYTES: Final = 10_000
MOST_NUMBERS_BYTES: Final = 64 << 20
MOST_ROWS: Final = 1_000_000
MOST_PLAYERS: Final = 64
MOST_NAME: Final = 128
FLOATS: Final = {2: "<f2", 4: "<f4", 8: "<f8"}
INTEGERS: Final = {1: "u1", 2: "<i2", 4: "<i4", 8: "<i8"}


@dataclass(frozen=True, slots=True)
class LmdbMapping:
    """The name of the array for each kind of data; "" if there is none.

    frames   (rows, T, H, W, 3) or (rows, T, 3, H, W) uint8 RGB
    actions  (rows, T or T - 1, players) whole numbers, or without the last axis
    states   (rows, T, players, ...) floats
    alive    (rows, T or T - 1, players) 0 where a player is gone: its actions are not known
    prompts  (rows,) text
    game     (rows,) text
    """

    frames: str = "rgb"
    actions: str = "actions"
    states: str = "coords"
    alive: str = "alive"
    prompts: str = "prompts"
    game: str = "game"

    @classmethod
    def read(cls, path: Path | None) -> LmdbMapping:
        """The mapping in a TOML file. A name that the file leaves out keeps its default.

        Raises:
            UsageError: the file is not TOML, or has other content.
        """
        if path is None:
            return cls()
        table = known_keys(read_toml(path), [each.name for each in fields(cls)], str(path))
        for name, value in table.items():
            if not is_text(value, MOST_NAME):
                raise UsageError(f"{path}: {name} must be the name of an array, or empty")
        return cls(**table)


@dataclass(frozen=True, slots=True)
class MeltingPotLmdb:
    """Reader of ActionParty's LMDB shards."""

    name: ClassVar[str] = "melting-pot-lmdb"
    about: ClassVar[str] = "matches of several players in LMDB shards with Self-Forcing's keys"
    order: ClassVar[int] = 80
    mapping: Path | None = file_option(about="TOML that says which array holds what")
    timing: str = choice("after", "leads", about="an action acts after its frame, or led to it")
    frame_rate: Fraction = rate_option("10", about="frames per second; the files do not say")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """A recording for each player of each row of the LMDB files that hold actions or frames."""
        names = LmdbMapping.read(self.mapping)
        for path in files:
            if not is_lmdb(path):
                continue
            try:
                shard = LmdbFile.open(path)
                frames, actions = shape_of(shard, names.frames), shape_of(shard, names.actions)
                if not frames and not actions:
                    continue
                rows = (actions or frames)[0]
                players = actions[2] if len(actions) == 3 else 0
                if rows > MOST_ROWS or players > MOST_PLAYERS:
                    raise RefusedInput(Reason.TOO_LARGE, f"{rows} rows of {players} players")
                games = [_text(shard, names.game, row) for row in range(rows)]
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            for row, game in enumerate(games):
                match = f"{path.parent.name}/row_{row}"
                for player in range(players):
                    yield Recording(
                        path=path,
                        files=(path,),
                        format=self.name,
                        provenance=Provenance(game=game, match=match, subject=str(player)),
                        part=f"row_{row}_player_{player}",
                    )
                if not players:
                    yield Recording(
                        path=path,
                        files=(path,),
                        format=self.name,
                        provenance=Provenance(game=game),
                        part=f"row_{row}",
                    )

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read everything but the pictures."""
        names = LmdbMapping.read(self.mapping)
        shard = LmdbFile.open(recording.path)
        _, row_name, *others = recording.part.split("_")
        row, player = int(row_name), int(others[1]) if others else None
        shown = _checked_frames(shape_of(shard, names.frames), limits)
        actions = _numbers(shard, names.actions, row, INTEGERS)
        count = shown[0] if shown else len(actions) if actions is not None else 0
        check_length(count, math.ceil(count * SECOND_NS / self.frame_rate), limits)
        codes = np.full(count, -1, np.int64)
        if actions is not None:
            mine = _of_player(actions, player)
            if mine.ndim != 1 or not count - 1 <= len(mine) <= count:
                raise RefusedInput(
                    Reason.LOG_COVERAGE, f"actions of the shape {actions.shape} for {count} frames"
                )
            if (mine < 0).any():
                raise RefusedInput(Reason.LOG_RANGE, f"action {mine.min()}, expected 0 or more")
            led = 1 if self.timing == "leads" and len(mine) == count else 0
            codes[: len(mine) - led] = mine[led:]
        gone = _gone(shard, names.alive, row, player, count)
        codes[gone] = -1
        space = load_space("meltingpot9")
        stored = _numbers(shard, names.states, row, FLOATS)
        states = None
        if stored is not None and len(stored) == count:
            states = _of_player(stored, player).reshape(count, -1).astype(np.float32)
        prompt = _text(shard, names.prompts, row)
        start = 0
        if shown:
            start = _place(shard, names.frames, row, math.prod(shown))

        def pictures(picks: Index) -> Iterator[Picture]:
            yield from _pictures(recording.path, start, shown, picks)

        height, width = (shown[1:3] if shown[3] == 3 else shown[2:]) if shown else (1, 1)
        return open_fixed_rate(
            count,
            self.frame_rate,
            limits,
            FrameData(states=states, texts=None if prompt is None else [prompt] * count),
            space=space,
            values=one_hot(codes, space.size),
            pictures=pictures if shown else None,
            size=(width, height),
            notes=(f"gone in {gone.sum()} frames: actions not known",) if gone.any() else (),
        )


def _gone(
    shard: LmdbFile, name: str, row: int, player: int | None, count: int
) -> NDArray[np.bool_]:
    """In which of a match's frames a player is gone, bool [count]; all False where nothing tells.

    Raises:
        RefusedInput: LOG_COVERAGE, not one value for each frame.
    """
    gone = np.zeros(count, bool)
    alive = _numbers(shard, name, row, INTEGERS)
    if alive is None or (player is None and alive.ndim != 1):
        return gone
    mine = _of_player(alive, player)
    if mine.ndim != 1 or not count - 1 <= len(mine) <= count:
        raise RefusedInput(
            Reason.LOG_COVERAGE, f"{name} of the shape {alive.shape} for {count} frames"
        )
    gone[: len(mine)] = mine == 0
    return gone


def shape_of(shard: LmdbFile, name: str) -> tuple[int, ...]:
    """The shape of an array; () if the array does not exist.

    Raises:
        RefusedInput: METADATA, the stored text is not a shape.
    """
    stored = shard.value(f"{name}_shape", MOST_SHAPE_BYTES) if name else None
    words = (stored or b"").split()
    if not all(word.isdigit() and len(word) < 10 for word in words) or len(words) > 8:
        raise RefusedInput(Reason.METADATA, f"{name}_shape is {ascii(stored)[:60]}")
    return tuple(int(word) for word in words)


def _checked_frames(shape: tuple[int, ...], limits: VideoLimits) -> tuple[int, ...]:
    """The shape of one row of frames, (T, H, W, 3) or (T, 3, H, W); () if there are no frames.

    Raises:
        RefusedInput: NOT_A_VIDEO or TOO_MANY_PIXELS.
    """
    if not shape:
        return ()
    match shape[1:]:
        case (_, height, width, 3) | (_, 3, height, width):
            check_pixels(width, height, limits)
            return shape[1:]
    raise RefusedInput(
        Reason.NOT_A_VIDEO, f"frames of the shape {shape}, expected (rows, T, H, W, 3)"
    )


def _place(shard: LmdbFile, name: str, row: int, size: int) -> int:
    """The position at which the bytes of a row start.

    Raises:
        RefusedInput: LOG_COLUMN, there is no such row; CORRUPT, the row has another size.
    """
    place = shard.places.get(f"{name}_{row}_data".encode())
    if place is None:
        raise RefusedInput(Reason.LOG_COLUMN, f"no {name}_{row}_data in the file")
    if place[1] - place[0] != size:
        raise RefusedInput(
            Reason.CORRUPT, f"{name}_{row}_data has {place[1] - place[0]} bytes, expected {size}"
        )
    return place[0]


def _numbers(shard: LmdbFile, name: str, row: int, types: dict[int, str]) -> NDArray[Any] | None:
    """A row of an array of numbers; None if the array does not exist.

    Raises:
        RefusedInput: LOG_COLUMN, LOG_TYPE or TOO_LARGE.
    """
    shape = shape_of(shard, name)[1:]
    if not shape:
        return None
    data = shard.value(f"{name}_{row}_data", MOST_NUMBERS_BYTES)
    if data is None:
        raise RefusedInput(Reason.LOG_COLUMN, f"no {name}_{row}_data in the file")
    each, rest = divmod(len(data), max(1, math.prod(shape)))
    if rest or each not in types:
        raise RefusedInput(Reason.LOG_TYPE, f"{name}_{row}_data has {len(data)} bytes for {shape}")
    return np.frombuffer(data, types[each]).reshape(shape)


def _of_player(values: NDArray[Any], player: int | None) -> NDArray[Any]:
    """The values of one player in [T, players, ...]; all values if `player` is None."""
    if player is None:
        return values
    if values.ndim < 2 or player >= values.shape[1]:
        raise RefusedInput(
            Reason.LOG_COVERAGE, f"values of the shape {values.shape} for player {player}"
        )
    return values[:, player]


def _text(shard: LmdbFile, name: str, row: int) -> str | None:
    """A row of texts."""
    data = shard.value(f"{name}_{row}_data", MOST_TEXT_BYTES) if name else None
    return data.decode("utf-8", "replace") if data else None


def _pictures(path: Path, start: int, shape: tuple[int, ...], picks: Index) -> Iterator[Picture]:
    """See `kit.open_recordings.Pictures`. Frames of shape (T, H, W, 3) or (T, 3, H, W), from `start`."""
    size = math.prod(shape[1:])
    with open_regular(path) as file:
        for pick in picks.tolist():
            file.seek(start + pick * size)
            data = file.read(size)
            if len(data) != size:
                raise RefusedInput(Reason.CHANGED_WHILE_READ, f"frame {pick} is not there any more")
            frame: Picture = np.frombuffer(data, np.uint8).reshape(shape[1:])
            yield frame if shape[3] == 3 else frame.transpose(1, 2, 0)
