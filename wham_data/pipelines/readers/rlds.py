"""`rlds`: episodes of steps as TensorFlow Datasets stores them, a record of a TFRecord file each.

    <name>/<version>/features.json                         what a step is made of
    <name>/<version>/<name>-<split>.tfrecord-<i>-of-<n>    steps/action, steps/observation/..., ...

`action` of a step was taken on its `observation`; in the step of which `is_last` is true, action and
reward mean nothing. Records lie in the order of a hash, not in that of recording. Read without
TensorFlow. Nothing in the files tells the time: frames are taken as steady, at the rate of the option
`frame_rate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import MOST_PICTURE_BYTES, open_regular
from wham_data.files.json_lines import read_json
from wham_data.files.links import is_plain_file
from wham_data.files.tfrecord import (
    Column,
    check_record,
    columns_in,
    mapped,
    records_in,
)
from wham_data.files.wire_format import Buffer
from wham_data.pipelines.readers.kit.declared_actions import (
    ActionPart,
    chosen_picture,
    space_of,
    values_of,
)
from wham_data.pipelines.readers.kit.fixed_rate import open_fixed_rate
from wham_data.pipelines.readers.kit.open_recordings import Picture, picture_in
from wham_data.pipelines.readers.kit.options import count_option, picture_option, rate_option
from wham_data.pipelines.readers.kit.pictures_seen import first_picture, not_taken
from wham_data.pipelines.readers.kit.tfds_features import Leaf, leaves_of_step
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import MOST_DIMENSIONS
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, OpenRecording, Provenance, Recording, RefusedFile

FEATURES: Final = "features.json"
STEPS: Final = "steps/"
ACTION: Final = "action"
MOST_LISTED: Final = 12
MOST_STATE: Final = 4096
MOST_TEXT_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rlds:
    """Reader of RLDS data sets."""

    name: ClassVar[str] = "rlds"
    about: ClassVar[str] = "RLDS data sets of TensorFlow Datasets, TFRecord files of episodes"
    order: ClassVar[int] = 70
    frame_rate: Fraction = rate_option("10", about="frames per second; the files do not say")
    picture: str = picture_option(of="a step", example="observation/wrist_image")
    choices: int = count_option(
        18,
        about="how many actions there are, where an action is one whole number without names",
        most=MOST_DIMENSIONS,
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every record of the TFRecord files whose first record holds steps."""
        for path in files:
            if ".tfrecord" not in path.name:
                continue
            try:
                count = episodes_in(path)
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            beside = path.with_name(FEATURES)
            there = is_plain_file(beside)
            for number in range(count):
                yield Recording(
                    path=path,
                    files=(path, beside) if there else (path,),
                    format=self.name,
                    provenance=Provenance(game=path.name.partition("-")[0]),
                    part=f"record_{number}",
                )

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read everything but the pictures."""
        path = recording.path
        leaves = _leaves(recording)
        images = [leaf for leaf in leaves if leaf.kind == "image"]
        picture = chosen_picture(images, self.picture, "a step")
        if not self.picture:
            picture = first_picture(images, lambda leaf: leaf.is_colour, lambda leaf: leaf.dtype)
        action_leaves = [leaf for leaf in leaves if leaf.path.split("/")[0] == ACTION]
        if not action_leaves:
            there = ", ".join(leaf.path for leaf in leaves[:MOST_LISTED])
            raise RefusedInput(
                Reason.METADATA, f"{FEATURES} declares no {ACTION}; a step has: {there[:400]}"
            )
        parts = {leaf.path: self._action_part(leaf) for leaf in action_leaves}
        records = records_in(path)
        number = int(recording.part.removeprefix("record_"))
        if number >= len(records):
            raise RefusedInput(Reason.CHANGED_WHILE_READ, f"no {recording.part} any more")
        with mapped(path) as data:
            check_record(data, records[number])
            episode = _Episode.of(columns_in(data, records[number]), action_leaves)
            if episode.is_empty:
                raise RefusedInput(Reason.LOG_EMPTY, f"{recording.part} has no steps")
            actions = {parts[leaf.path].path: episode.numbers(leaf) for leaf in action_leaves}
            values = values_of(list(parts.values()), actions)
            instruction = next((leaf for leaf in leaves if _is_instruction(leaf)), None)
            texts = None if instruction is None else episode.texts(instruction, data)
        rewards = episode.flags("reward")
        last = episode.flags("is_last")
        if last is not None:
            values[last > 0] = np.nan
            rewards = None if rewards is None else np.where(last > 0, np.float32(0), rewards)
        places = np.zeros((0, 2), np.int64) if picture is None else episode.runs(picture)

        def pictures(picks: Index) -> Iterator[Picture | None]:
            yield from _pictures(path, places[picks])

        return open_fixed_rate(
            episode.count,
            self.frame_rate,
            limits,
            FrameData(states=_states(episode, leaves), rewards=rewards, texts=texts),
            space=space_of(list(parts.values()), path.name.partition("-")[0]),
            values=values,
            pictures=None if picture is None else pictures,
            size=(1, 1) if picture is None else picture.size,
            notes=not_taken(
                [leaf.path for leaf in leaves if leaf.kind == "image" and leaf is not picture]
            ),
        )

    def _action_part(self, leaf: Leaf) -> ActionPart:
        """An entry of an action.

        Raises:
            RefusedInput: METADATA, it is a text or the like.
        """
        path = leaf.path.removeprefix(ACTION).removeprefix("/")
        if 1 <= leaf.width <= MOST_DIMENSIONS:
            if leaf.kind == "class":
                return ActionPart.choice(path, [leaf.classes])
            if leaf.kind == "int" and leaf.width == 1:
                return ActionPart.choice(path, [self.choices])
            if leaf.kind == "bool":
                return ActionPart.switches(path, leaf.width)
            if leaf.kind in ("float", "int"):
                return ActionPart.numbers(path, -np.inf, np.inf, leaf.width)
        raise RefusedInput(
            Reason.METADATA, f"{leaf.path} of {leaf.width} values ({leaf.kind}) is not understood"
        )


def episodes_in(path: Path) -> int:
    """How many episodes a TFRecord file holds; 0 for one that holds something else.

    Raises:
        RefusedInput: the file is damaged.
    """
    try:
        records = records_in(path)
        if not records:
            return 0
        with mapped(path) as data:
            # An episode without steps may stand first.
            every = (columns_in(data, record) for record in records)
            with_steps = any(name.startswith(STEPS) for names in every for name in names)
    except RefusedInput as why:
        if why.reason in (Reason.NOT_A_VIDEO, Reason.LOG_SYNTAX):
            return 0
        raise
    return len(records) if with_steps else 0


@dataclass(frozen=True, slots=True)
class _Episode:
    """The lists of a record, of which each has values for `count` steps."""

    columns: Mapping[str, Column]
    count: int

    @classmethod
    def of(cls, columns: Mapping[str, Column], action_leaves: list[Leaf]) -> _Episode:
        """The episode in a record, as long as its actions.

        Raises:
            RefusedInput: as `column`.
        """
        first = columns.get(STEPS + action_leaves[0].path)
        return cls(columns, len(first) // action_leaves[0].width if first is not None else 0)

    @property
    def is_empty(self) -> bool:
        """Whether none of its lists holds anything."""
        steps = (self.columns[name] for name in self.columns if name.startswith(STEPS))
        return not any(map(len, steps))

    def column(self, path: str, width: int) -> Column:
        """A list of `width` values for each step.

        Raises:
            RefusedInput: LOG_COLUMN, there is none; LOG_COVERAGE, it has another length.
        """
        column = self.columns.get(STEPS + path)
        if column is None:
            raise RefusedInput(Reason.LOG_COLUMN, f"no {STEPS}{path} in the record")
        if len(column) != self.count * width:
            raise RefusedInput(
                Reason.LOG_COVERAGE,
                f"{len(column)} values of {path}, expected {width} for each of {self.count} steps",
            )
        return column

    def numbers(self, leaf: Leaf) -> NDArray[Any]:
        """Numbers of an entry, float32 or int64 [count, width]."""
        numbers = self.column(leaf.path, leaf.width).numbers
        if len(numbers) != self.count * leaf.width:
            raise RefusedInput(Reason.LOG_TYPE, f"{leaf.path} are bytes, expected numbers")
        return numbers.reshape(self.count, leaf.width)

    def flags(self, path: str) -> NDArray[np.float32] | None:
        """One number for each step; None where the record has none."""
        if STEPS + path not in self.columns:
            return None
        return self.numbers(Leaf(path, "float"))[:, 0].astype(np.float32)

    def runs(self, leaf: Leaf) -> Index:
        """Where the bytes of each step lie in the file, int64 [count, 2]."""
        places = self.column(leaf.path, 1).places
        if len(places) != self.count:
            raise RefusedInput(Reason.LOG_TYPE, f"{leaf.path} are numbers, expected bytes")
        return places

    def texts(self, leaf: Leaf, data: Buffer) -> list[str | None]:
        """The text of each step."""
        places = self.runs(leaf)
        if (places[:, 1] - places[:, 0] > MOST_TEXT_BYTES).any():
            raise RefusedInput(
                Reason.TOO_LARGE, f"{leaf.path} of over {MOST_TEXT_BYTES} bytes a step"
            )
        return [
            bytes(data[start:stop]).decode("utf-8", "replace") or None
            for start, stop in places.tolist()
        ]


def _leaves(recording: Recording) -> list[Leaf]:
    """The entries of a step.

    Raises:
        RefusedInput: METADATA, nothing says what they are.
    """
    beside = recording.path.with_name(FEATURES)
    if beside not in recording.files:
        raise RefusedInput(Reason.METADATA, f"no {FEATURES} beside it, which says what a step is")
    return leaves_of_step(read_json(beside))


def _is_instruction(leaf: Leaf) -> bool:
    return leaf.kind == "text" and leaf.path.endswith("instruction")


def _states(episode: _Episode, leaves: list[Leaf]) -> NDArray[np.float32] | None:
    """Everything in the observations that is a number, float32 [count, S]; None if nothing is.

    Raises:
        RefusedInput: TOO_LARGE, over `MOST_STATE` numbers.
    """
    observed = [
        leaf
        for leaf in leaves
        if leaf.path.split("/")[0] == "observation"
        and leaf.kind in ("float", "int", "bool", "class")
    ]
    width = sum(leaf.width for leaf in observed)
    if width > MOST_STATE:
        raise RefusedInput(Reason.TOO_LARGE, f"observations of {width} numbers, limit {MOST_STATE}")
    if not observed:
        return None
    return np.concatenate([episode.numbers(leaf).astype(np.float32) for leaf in observed], axis=1)


def _pictures(path: Path, places: Index) -> Iterator[Picture | None]:
    """The pictures whose bytes lie at some places, int64 [K, 2]; None for one that is damaged."""
    with open_regular(path) as file:
        for start, stop in places.tolist():
            if stop - start > MOST_PICTURE_BYTES:
                raise RefusedInput(Reason.TOO_LARGE, f"a picture of {stop - start} bytes")
            file.seek(start)
            yield picture_in(file.read(stop - start))
