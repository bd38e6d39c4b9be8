"""`webdataset`: tar files as `wham-data export --to webdataset` writes them.

    <part>.tar    __wham_data__/shard.json            episodes, action space, rate
                  <episode>/<step>.png or .jpg        and so on for every step:
                  <episode>/<step>.actions.npy        float32 (A,)
                  <episode>/<step>.state.npy          float32 (S,)
                  <episode>/<step>.step.json          time_ns, reward, text

A row of NaN is an action that is not known. Tokens are not read: they are made anew.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import open_regular
from wham_data.files.json_lines import json_value
from wham_data.files.npz import array_header
from wham_data.files.tar_file import Places, bytes_at, first_file, tar_places
from wham_data.pipelines.align import typical_interval
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PicturelessRecording,
    PictureRecording,
    audit_clock,
    check_length,
)
from wham_data.pipelines.video import VideoLimits, decode_image
from wham_data.schemas.actions import UNKNOWN_RANGE, ActionSpace, clamp
from wham_data.schemas.clock import Grid, Index, Nanos
from wham_data.schemas.declarations import is_number, is_text, known_keys
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import (
    ActionTrack,
    FrameData,
    OpenRecording,
    Provenance,
    Recording,
    RefusedFile,
)

SHARD: Final = "__wham_data__/shard.json"
VERSION: Final = 1
MOST_STEPS: Final = 1_000_000
MOST_STATE: Final = 1 << 14
MOST_NAME: Final = 300
MOST_HEAD_BYTES: Final = 16 << 20
MOST_NUMBERS_BYTES: Final = 1 << 16
MOST_STEP_FACTS_BYTES: Final = 1 << 20
MOST_PICTURE_BYTES: Final = 64 << 20
PICTURES: Final = ("png", "jpg")
FLOAT: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class ShardEpisode:
    """An episode in a tar."""

    name: str
    steps: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a tar says of all its samples.

    rate        steps per second, of most if they are not even; None: it differs
    state_size  numbers of a state; 0: there is none
    """

    space: ActionSpace
    rate: Fraction | None
    state_size: int
    episodes: tuple[ShardEpisode, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "version": VERSION,
            "action_space": self.space.to_dict(),
            "rate": None if self.rate is None else str(self.rate),
            "state_size": self.state_size,
            "episodes": [
                {"episode": each.name, "steps": each.steps, **asdict(each.provenance)}
                for each in self.episodes
            ],
        }

    @classmethod
    def from_dict(cls, content: object) -> ShardInfo:
        """What `to_dict` wrote; nothing about it is trusted.

        Raises:
            RefusedInput: METADATA.
        """
        try:
            table = known_keys(
                content, ("version", "action_space", "rate", "state_size", "episodes"), "a shard"
            )
            rate, state_size, episodes = table["rate"], table["state_size"], table["episodes"]
            sound = (
                table["version"] == VERSION
                and (rate is None or (is_text(rate, 40) and 0 < Fraction(rate) <= 1000))
                and isinstance(state_size, int)
                and 0 <= state_size <= MOST_STATE
                and isinstance(episodes, list)
            )
            if not sound:
                raise ValueError
            return cls(
                ActionSpace.from_dict(table["action_space"]),
                None if rate is None else Fraction(rate),
                state_size,
                tuple(map(_episode_from, episodes)),
            )
        except (UsageError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            why = f": {error}" if isinstance(error, UsageError) else ""
            raise RefusedInput(
                Reason.METADATA, f"{SHARD} is not of version {VERSION}, or makes no sense{why}"
            ) from None

    @classmethod
    def read(cls, path: Path) -> ShardInfo | None:
        """What the first file of a tar says; None if it is another tar, or none.

        Raises:
            RefusedInput: TOO_LARGE, LOG_SYNTAX or METADATA.
        """
        match first_file(path):
            case (name, start, stop) if name == SHARD:
                with open_regular(path) as file:
                    data = bytes_at(file, {SHARD: (start, stop)}, SHARD, MOST_HEAD_BYTES)
                return cls.from_dict(json_value(data, SHARD))
        return None


@dataclass(frozen=True, slots=True)
class Webdataset:
    """Reader of tar files of our own."""

    name: ClassVar[str] = "webdataset"
    about: ClassVar[str] = "tar files that `wham-data export --to webdataset` wrote"
    order: ClassVar[int] = 90

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every episode of the tars that begin with a description of ours."""
        for path in files:
            if path.suffix != ".tar":
                continue
            try:
                info = ShardInfo.read(path)
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            for episode in info.episodes if info else ():
                yield Recording(path, (path,), self.name, episode.provenance, part=episode.name)

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read everything but the pictures."""
        path = recording.path
        info, places = ShardInfo.read(path), tar_places(path)
        episodes = {each.name: each.steps for each in info.episodes} if info else {}
        if info is None or recording.part not in episodes:
            raise RefusedInput(Reason.CHANGED_WHILE_READ, f"{path.name} changed while read")
        stems = [f"{recording.part}/{step:06d}" for step in range(episodes[recording.part])]
        with open_regular(path) as file:
            steps_read = [_step_facts(file, places, stem) for stem in stems]
            values = _matrix(file, places, stems, "actions", info.space.size)
            states = None
            if f"{stems[0]}.state.npy" in places:
                states = _matrix(file, places, stems, "state", info.state_size)
        times_ns = np.array([each.time_ns for each in steps_read], np.int64)
        if (np.diff(times_ns) <= 0).any():
            raise RefusedInput(Reason.LOG_CLOCK, f"time_ns of {recording.part} does not increase")
        end_ns = _end_of(times_ns, info.rate)
        check_length(len(times_ns), end_ns - int(times_ns[0]), limits)
        rewards, texts = [each.reward for each in steps_read], [each.text for each in steps_read]
        facts: dict[str, Any] = {
            "frame_times_ns": times_ns,
            "frame_end_ns": end_ns,
            "clock": audit_clock(times_ns),
            "data": FrameData(
                actions=_track(info.space, times_ns, values, end_ns),
                states=states,
                rewards=None if None in rewards else np.array(rewards, np.float32),
                texts=texts if any(texts) else None,
            ),
        }
        coding = next((each for each in PICTURES if f"{stems[0]}.{each}" in places), None)
        if coding is None:
            return PicturelessRecording(**facts)

        def pictures(picks: Index) -> Iterator[Picture | None]:
            with open_regular(path) as file:
                for pick in picks.tolist():
                    name = f"{stems[pick]}.{coding}"
                    try:
                        yield decode_image(bytes_at(file, places, name, MOST_PICTURE_BYTES))
                    except RefusedInput:
                        yield None

        return PictureRecording(**facts, pictures=pictures, limits=limits)


@dataclass(frozen=True, slots=True)
class _StepFacts:
    """What the JSON of a step says."""

    time_ns: int
    reward: float | None
    text: str | None


def _step_facts(file: BinaryIO, places: Places, stem: str) -> _StepFacts:
    """Raises RefusedInput: LOG_COLUMN, LOG_SYNTAX or LOG_TYPE."""
    name = f"{stem}.step.json"
    content = json_value(bytes_at(file, places, name, MOST_STEP_FACTS_BYTES), name)
    match content:
        case {"time_ns": int(time_ns), "reward": reward, "text": str() | None as text} if abs(
            time_ns
        ) < 1 << 62 and (reward is None or is_number(reward)):
            return _StepFacts(time_ns, reward, text)
    raise RefusedInput(Reason.LOG_TYPE, f"{name} does not say time_ns, reward and text")


def _matrix(
    file: BinaryIO, places: Places, stems: list[str], what: str, width: int
) -> NDArray[np.float32]:
    """A row of so many float32 for each step.

    Raises:
        RefusedInput: LOG_COLUMN, one is missing; LOG_TYPE, it is something else.
    """
    rows: list[NDArray[np.float32]] = []
    for stem in stems:
        name = f"{stem}.{what}.npy"
        stream = io.BytesIO(bytes_at(file, places, name, MOST_NUMBERS_BYTES))
        shape, dtype, _ = array_header(stream, name)
        data = stream.read()
        if dtype != FLOAT or shape != (width,) or len(data) != width * FLOAT.itemsize:
            raise RefusedInput(
                Reason.LOG_TYPE, f"{name} is {dtype} {shape}, expected float32 ({width},)"
            )
        rows.append(np.frombuffer(data, FLOAT))
    return np.stack(rows)


def _track(
    space: ActionSpace, times_ns: Nanos, values: NDArray[np.float32], end_ns: int
) -> ActionTrack:
    """Actions that act after their frame; motion is that of a whole step, so it has no bounds."""
    summed = tuple(
        replace(each, low=-UNKNOWN_RANGE, high=UNKNOWN_RANGE) if each.kind == "delta" else each
        for each in space.dimensions
    )
    rows, clamped = clamp(replace(space, dimensions=summed), values.astype(np.float64))
    return ActionTrack(space, times_ns, rows, end_ns, None, clamped)


def _end_of(times_ns: Nanos, rate: Fraction | None) -> int:
    """When the last step ends: as the steps of that rate do, or after a typical interval."""
    if rate is not None:
        edges_ns = Grid(int(times_ns[0]), len(times_ns), rate).edges_ns()
        if np.array_equal(edges_ns[:-1], times_ns):
            return int(edges_ns[-1])
    return int(times_ns[-1]) + max(1, typical_interval(times_ns))


def _episode_from(content: object) -> ShardEpisode:
    """Raises ValueError, KeyError or UsageError."""
    who = [each.name for each in fields(Provenance)]
    table = known_keys(content, ("episode", "steps", *who), "an episode")
    name, steps = table["episode"], table["steps"]
    if not (is_text(name, MOST_NAME) and name.isprintable() and isinstance(steps, int)):
        raise ValueError
    steps_read = {key: table.get(key) for key in who}
    if not 1 <= steps <= MOST_STEPS or not all(
        value is None or is_text(value, MOST_NAME) for value in steps_read.values()
    ):
        raise ValueError
    return ShardEpisode(name, steps, Provenance(**steps_read))
