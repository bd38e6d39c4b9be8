"""`minari`: data sets of Farama's Minari, of which each episode is a recording.

    <name>-v<N>/data/main_data.hdf5    episode_<i>/{observations, actions, rewards, ...}
    <name>-v<N>/data/metadata.json     what observations and actions are

`actions[k]` was taken on `observations[k]`; there is one observation more than there are actions. What
an observation holds is declared: one entry of it is the picture, its numbers are the state. Pictures
are arrays, or JPEGs. Nothing in the files tells the time: frames are taken as steady, at the rate of
the option `frame_rate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.files.hdf5 import (
    dataset_at,
    has,
    is_hdf5,
    names_in,
    opened_hdf5,
    read_array,
    read_blobs,
    read_rows,
)
from wham_data.files.json_lines import read_json
from wham_data.files.links import is_plain_file
from wham_data.pipelines.readers.kit.declared_actions import chosen_picture, space_of, values_of
from wham_data.pipelines.readers.kit.fixed_rate import open_fixed_rate
from wham_data.pipelines.readers.kit.gymnasium_spaces import (
    Entry,
    action_part,
    entries_of,
    space_in,
)
from wham_data.pipelines.readers.kit.open_recordings import Picture, picture_in
from wham_data.pipelines.readers.kit.options import option, rate_option
from wham_data.pipelines.readers.kit.pictures_seen import first_picture, not_taken
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, OpenRecording, Provenance, Recording, RefusedFile

METADATA: Final = "metadata.json"
MOST_BYTES: Final = 256 << 20
MOST_STATE: Final = 4096
JPEG: Final = b"\xff\xd8\xff"

Form = Literal["array", "jpegs", "jpegs of one length"]

_EPISODE: Final = re.compile(r"episode_(0|[1-9]\d{0,8})", re.ASCII)
_ARROW: Final = re.compile(r"part-\d{1,9}\.(arrow|parquet)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Minari:
    """Reader of Minari's data sets."""

    name: ClassVar[str] = "minari"
    about: ClassVar[str] = "data sets of Minari, in its HDF5 form"
    order: ClassVar[int] = 60
    frame_rate: Fraction = rate_option("10", about="frames per second; the files do not say")
    picture: str = option(
        "",
        about="which entry of an observation is the picture; by default the first in colour",
        expects="names joined with /, such as camera/front",
        parse=str,
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every episode of the HDF5 files that hold numbered ones."""
        for path in files:
            if _ARROW.fullmatch(path.name) and path.parent.parent / METADATA in files:
                yield RefusedFile(path, _arrow_form())
            if not is_hdf5(path):
                continue
            try:
                numbers = episodes_in(path)
            except RefusedInput as why:
                if path.name == "main_data.hdf5":
                    yield RefusedFile(path, why)
                continue
            beside = path.with_name(METADATA)
            there = is_plain_file(beside)
            game = _game(beside) if numbers and there else None
            for number in numbers:
                yield Recording(
                    path=path,
                    files=(path, beside) if there else (path,),
                    format=self.name,
                    provenance=Provenance(game=game),
                    part=f"episode_{number}",
                )

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read everything but the pictures."""
        path, episode = recording.path, recording.part
        declared = _metadata(recording)
        action_parts = [
            action_part(each) for each in entries_of(space_in(declared, "action_space"))
        ]
        observations = entries_of(space_in(declared, "observation_space"))
        pictured = [entry for entry in observations if entry.channels is not None]
        picture = chosen_picture(pictured, self.picture, "an observation")
        if not self.picture:
            picture = first_picture(pictured, lambda entry: entry.is_colour, lambda _: "uint8")
        shown = "" if picture is None else _at(f"{episode}/observations", picture.path)
        with opened_hdf5(path) as file:
            arrays = {
                part.path: read_array(
                    file, _at(f"{episode}/actions", part.path), most_bytes=MOST_BYTES
                )
                for part in action_parts
            }
            if any(not len(array) for array in arrays.values()):
                raise RefusedInput(Reason.LOG_EMPTY, f"{episode} has no steps")
            values = values_of(action_parts, arrays)
            if picture is not None:
                form, frames = _form_of(file, shown)
                if frames != len(values) + 1:
                    raise RefusedInput(
                        Reason.LOG_COVERAGE, f"{len(values)} actions for {frames} observations"
                    )
            numbers = [entry for entry in observations if entry.is_numbers and not entry.is_map]
            states = _states(file, f"{episode}/observations", numbers, len(values) + 1)
            rewards = None
            if has(file, f"{episode}/rewards"):
                read = read_array(file, f"{episode}/rewards", most_bytes=MOST_BYTES)
                rewards = np.append(read.astype(np.float32), np.float32(0))

        def pictures(picks: Index) -> Iterator[Picture | None]:
            assert picture is not None
            yield from _pictures(path, shown, picture, form, picks)

        return open_fixed_rate(
            len(values) + 1,
            self.frame_rate,
            limits,
            FrameData(states=states, rewards=rewards),
            space=space_of(action_parts, str(declared.get("dataset_id") or self.name)),
            values=values,
            pictures=None if picture is None else pictures,
            size=(1, 1) if picture is None else picture.size,
            notes=not_taken(
                [entry.path for entry in observations if entry.is_map and entry is not picture]
            ),
        )


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


def _arrow_form() -> RefusedInput:
    return RefusedInput(
        Reason.FORMAT_NOT_ALLOWED,
        "Minari's Arrow or Parquet form; have Minari write it again with data_format='hdf5'",
    )


def _metadata(recording: Recording) -> dict[str, object]:
    """The declarations of a data set.

    Raises:
        RefusedInput: METADATA, there are none; or they are no sound JSON.
    """
    beside = recording.path.with_name(METADATA)
    declared = read_json(beside) if beside in recording.files else None
    if not isinstance(declared, dict):
        raise RefusedInput(
            Reason.METADATA, f"no {METADATA} beside it, which says what its actions are"
        )
    return declared


def _game(metadata: Path) -> str | None:
    """The environment that a data set was made in."""
    try:
        declared = read_json(metadata)
        made_in = space_in(declared, "env_spec") if isinstance(declared, dict) else {}
    except RefusedInput:
        return None
    game = made_in.get("id") or declared.get("dataset_id")
    return game if isinstance(game, str) else None


def _at(where: str, path: str) -> str:
    return f"{where}/{path}" if path else where


def _states(
    file: object, where: str, numbers: list[Entry], count: int
) -> NDArray[np.float32] | None:
    """Everything in the observations that is a number, float32 [count, S]; None if nothing is.

    Raises:
        RefusedInput: TOO_LARGE, over `MOST_STATE` numbers; LOG_COVERAGE, not one for each frame.
    """
    columns: list[NDArray[np.float32]] = []
    for entry in numbers:
        array = read_array(file, _at(where, entry.path), most_bytes=MOST_BYTES)
        if len(array) != count:
            raise RefusedInput(
                Reason.LOG_COVERAGE, f"{len(array)} of {entry.path} for {count} observations"
            )
        columns.append(array.reshape(count, -1).astype(np.float32))
    width = sum(column.shape[1] for column in columns)
    if width > MOST_STATE:
        raise RefusedInput(Reason.TOO_LARGE, f"observations of {width} numbers, limit {MOST_STATE}")
    return np.concatenate(columns, axis=1) if columns else None


def _form_of(file: object, name: str) -> tuple[Form, int]:
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


def _pictures(
    path: Path, name: str, entry: Entry, form: Form, picks: Index
) -> Iterator[Picture | None]:
    """See `kit.open_recordings.Pictures`; a JPEG that cannot be decoded is None."""
    with opened_hdf5(path) as file:
        if form == "array":
            for row in read_rows(file, name, picks):
                yield entry.rgb(row)
            return
        coded = (
            read_blobs(file, name, picks)
            if form == "jpegs"
            else (row.tobytes() for row in read_rows(file, name, picks))
        )
        yield from map(picture_in, coded)
