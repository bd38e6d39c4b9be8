"""`demonstrator`: the folders of WHAM Demonstrator, pictures with an `actions.json`.

    image0.png, image1.png, ...   in the order of their numbers, ten a second
    actions.json                  {"image0.png": [16 numbers], ...}

An action acts after its picture. Its 16 numbers are 12 buttons, 0 or 1, then the values of four stick
axes in -1..1 (not their bins). A picture without an action, or with null, has an unknown one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import (
    MOST_PICTURE_BYTES,
    PICTURE_ENDINGS,
    open_regular,
    read_whole,
)
from wham_data.files.json_lines import read_json
from wham_data.pipelines.readers.kit.frame_actions import even_times, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PictureRecording,
    audit_clock,
    check_length,
    check_pixels,
)
from wham_data.pipelines.readers.kit.options import rate_option
from wham_data.pipelines.video import VideoLimits, decode_image
from wham_data.pipelines.video.bitstream import image_size
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import TEN_HZ, Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Recording, RefusedFile
from wham_data.schemas.wham_tokens import ACTION_SIZE, ACTION_SPACE, BUTTONS, FARTHEST_STICK

ACTIONS_FILE: Final = "actions.json"
MOST_ACTIONS_BYTES: Final = 16 << 20
HEADER_BYTES: Final = 1 << 16
NAME: Final = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})\.\w+", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Demonstrator:
    """Reader of WHAM Demonstrator's folders."""

    name: ClassVar[str] = "demonstrator"
    about: ClassVar[str] = "folders of numbered pictures and actions.json, as of WHAM Demonstrator"
    order: ClassVar[int] = 20
    frame_rate: Fraction = rate_option("10", about="pictures per second; the files do not say")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every `actions.json` whose keys are names of pictures, with the pictures beside it."""
        folders: dict[Path, list[Path]] = {}
        for path in files:
            if path.suffix.lower() in PICTURE_ENDINGS:
                folders.setdefault(path.parent, []).append(path)
        for path in files:
            if path.name != ACTIONS_FILE or path.parent not in folders:
                continue
            try:
                rows = read_json(path, MOST_ACTIONS_BYTES)
                if not _names_pictures(rows):
                    continue
                pictures = pictures_of(rows, folders[path.parent])
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            yield Recording(path=path, files=(path, *pictures), format=self.name)

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read the actions and the headers of the pictures."""
        return open_demonstrator(recording, limits, self.frame_rate)


def open_demonstrator(
    recording: Recording, limits: VideoLimits, rate: Fraction = TEN_HZ
) -> PictureRecording:
    """Read the actions and the headers of the pictures of a recording that `Demonstrator` found.

    Raises:
        RefusedInput: the file is damaged, or an action or picture is not as it must be.
    """
    path, *pictures = recording.files
    times_ns, end_ns = even_times(len(pictures), rate)
    check_length(len(pictures), end_ns, limits)
    sizes = {_size_of(picture, limits): None for picture in pictures}
    values = action_rows(read_json(path, MOST_ACTIONS_BYTES), [each.name for each in pictures])
    unknown = int(np.isnan(values).any(axis=1).sum())
    notes = [f"{unknown} pictures have no action"] if unknown else []
    if len(sizes) > 1:
        several = ", ".join(f"{width}x{height}" for width, height in list(sizes)[:4])
        notes.append(f"pictures of several sizes: {several}")

    def read(picks: Index) -> Iterator[Picture | None]:
        for pick in picks.tolist():
            try:
                yield decode_image(read_whole(pictures[pick], MOST_PICTURE_BYTES))
            except RefusedInput:
                yield None

    return PictureRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=audit_clock(times_ns),
        data=FrameData(actions=per_frame_track(load_space(ACTION_SPACE), times_ns, end_ns, values)),
        notes=tuple(notes),
        pictures=read,
        limits=limits,
    )


def pictures_of(rows: Mapping[str, object], beside: list[Path]) -> list[Path]:
    """The pictures of a folder in the order of their numbers, also those without an action.

    Args:
        rows: the content of `actions.json`, whose keys are names of pictures.
        beside: the pictures in its folder. Those named otherwise than the pictures with actions
            (`preview.png`) are no steps.

    Raises:
        RefusedInput: UNSAFE_PATH, a name leads out of the folder; LOG_SYNTAX, the names are not
            numbered; LOG_COVERAGE, a picture is missing.
    """
    for name in rows:
        if name != PurePosixPath(name).name or "\\" in name or "\0" in name:
            raise RefusedInput(Reason.UNSAFE_PATH, f"{name[:80]!r} leads out of the folder")
    stems = {found["stem"] if (found := NAME.fullmatch(name)) else None for name in rows}
    if None in stems or len(stems) != 1:
        raise RefusedInput(
            Reason.LOG_SYNTAX,
            f"{ACTIONS_FILE}: the pictures it names are not one numbered series (image0.png, "
            "image1.png, ...)",
        )
    there = {path.name: path for path in beside}
    if missing := [name for name in rows if name not in there]:
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{ACTIONS_FILE} names {missing[0][:80]!r}, which is not there (missing: {len(missing)})",
        )
    numbered: dict[int, Path] = {}
    for name, path in there.items():
        found = NAME.fullmatch(name)
        if found is None or found["stem"] not in stems:
            continue
        number = int(found["number"])
        if number in numbered:
            raise RefusedInput(
                Reason.LOG_COVERAGE,
                f"two pictures have the number {number}: {numbered[number].name}, {name}",
            )
        numbered[number] = path
    first, last = min(numbered), max(numbered)
    if last - first + 1 != len(numbered):
        absent = next(n for n in range(first, last) if n not in numbered)
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"picture {absent} is missing between {first} and {last}: later steps would be early",
        )
    return [numbered[number] for number in sorted(numbered)]


def action_rows(rows: Mapping[str, object], names: list[str]) -> NDArray[np.float64]:
    """The actions of pictures, float64 [N, 16] in `wham16`; NaN for an unknown one.

    Args:
        rows: the content of `actions.json`.
        names: of N pictures, in order.

    Raises:
        RefusedInput: LOG_TYPE, an action is not 16 numbers; LOG_RANGE, a button is neither 0 nor 1,
            or a stick is outside -1..1.
    """
    values = np.full((len(names), ACTION_SIZE), np.nan)
    for k, name in enumerate(names):
        row = rows.get(name)
        if row is None:
            continue
        if (
            not isinstance(row, list)
            or len(row) != ACTION_SIZE
            or not all(type(number) in (int, float) for number in row)
        ):
            raise RefusedInput(
                Reason.LOG_TYPE, f"{ACTIONS_FILE}: {name} is not a list of {ACTION_SIZE} numbers"
            )
        values[k] = row
        buttons, sticks = values[k, :BUTTONS], values[k, BUTTONS:]
        if not np.isin(buttons, (0, 1)).all() or not (abs(sticks) <= FARTHEST_STICK).all():
            raise RefusedInput(
                Reason.LOG_RANGE,
                f"{ACTIONS_FILE}: {name} is out of range: expected 12 buttons of 0 or 1, then 4 "
                "sticks as values from -1 to 1 (not as bins)",
            )
    return values


def _names_pictures(rows: object) -> bool:
    """Whether this is an object whose keys are all names of pictures."""
    return (
        isinstance(rows, dict)
        and bool(rows)
        and all(PurePosixPath(name).suffix.lower() in PICTURE_ENDINGS for name in rows)
    )


def _size_of(path: Path, limits: VideoLimits) -> tuple[int, int]:
    """Width and height of a picture, from its header."""
    with open_regular(path) as file:
        size = image_size(file.read(HEADER_BYTES))
    if size is None:
        raise RefusedInput(Reason.CORRUPT, f"{path.name}: not a PNG or JPEG picture")
    check_pixels(*size, limits)
    return size
