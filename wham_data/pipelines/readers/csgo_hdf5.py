"""`csgo-hdf5`: Pearce and Zhu's recordings of Counter-Strike deathmatch, nominally 1000 frames each.

    hdf5_<set>_<n>.hdf5    frame_<i>_x uint8 (150, 280, 3) BGR   frame_<i>_y float64 (51,)
                           frame_<i>_xaux float64 (54,)   frame_<i>_helperarr float64 (2,) kill, death

`frame_<i>_y` acts after `frame_<i>_x`. Frames come 16 times a second; a number that is missing is a
frame that was lost, and the others keep their times. What was read from the game's memory for a frame (`xaux`,
then `helperarr`) is its state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.hdf5 import (
    dataset_at,
    is_hdf5,
    names_in,
    opened_hdf5,
    read_array,
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
from wham_data.schemas.recording import FrameData, Provenance, Recording, RefusedFile

ACTIONS: Final = 51
GAME_MEMORY: Final = {"xaux": 54, "helperarr": 2}
MOST_FRAMES: Final = 100_000
MOST_NUMBERS_BYTES: Final = 4096
MAPS: Final = ("dust2", "inferno", "mirage", "nuke", "vertigo")
LICENSE: Final = "non-commercial (personal use and open research)"

_NAME: Final = re.compile(r"frame_(0|[1-9]\d{0,8})_(x|y|xaux|helperarr)", re.ASCII)


@dataclass(frozen=True, slots=True)
class CsgoHdf5:
    """Reader of Pearce and Zhu's Counter-Strike recordings."""

    name: ClassVar[str] = "csgo-hdf5"
    about: ClassVar[str] = "Counter-Strike recordings of Pearce and Zhu, an .hdf5 file each"
    order: ClassVar[int] = 50
    frame_rate: Fraction = rate_option("16", about="frames per second; the files do not say")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every HDF5 file of numbered frames."""
        for path in files:
            if not is_hdf5(path):
                continue
            try:
                with opened_hdf5(path) as file:
                    ours = len(numbers_of("x", names_in(file))) > 0
            except RefusedInput as why:
                if path.name.startswith("hdf5_"):
                    yield RefusedFile(path, why)
                continue
            if ours:
                yield Recording(
                    path=path,
                    files=(path,),
                    format=self.name,
                    provenance=provenance_of(path.stem),
                )

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read everything but the pictures."""
        path = recording.path
        with opened_hdf5(path) as file:
            names = names_in(file)
            shown = numbers_of("x", names)
            with_action = numbers_of("y", names)
            count = int(max(shown.max(initial=0), with_action.max(initial=0))) + 1
            if count > MOST_FRAMES:
                raise RefusedInput(
                    Reason.TOO_LARGE, f"frame {count - 1}, limit {MOST_FRAMES} frames"
                )
            if not len(shown):
                raise RefusedInput(Reason.NO_FRAMES, "no frame_<i>_x in it")
            ticks_ns, end_ns = even_times(count, self.frame_rate)
            check_length(len(shown), end_ns, limits)
            shape = dataset_at(file, f"frame_{shown[0]}_x").shape
            if len(shape) != 3 or shape[2] != 3:
                raise RefusedInput(
                    Reason.NOT_A_VIDEO, f"frame_{shown[0]}_x is {shape}, expected (H, W, 3)"
                )
            check_pixels(shape[1], shape[0], limits)

            values = np.full((count, ACTIONS), np.nan)
            for number in with_action.tolist():
                values[number] = _numbers(file, f"frame_{number}_y", ACTIONS)
            states = None
            if all(np.isin(shown, numbers_of(kind, names)).all() for kind in GAME_MEMORY):
                states = np.empty((len(shown), sum(GAME_MEMORY.values())), np.float32)
                for row, number in enumerate(shown.tolist()):
                    parts = [
                        _numbers(file, f"frame_{number}_{k}", n) for k, n in GAME_MEMORY.items()
                    ]
                    states[row] = np.concatenate(parts)
        lost = count - len(shown)
        times_ns = ticks_ns[shown]
        return PictureRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=audit_clock(times_ns, frames_expected=count),
            data=FrameData(
                actions=per_frame_track(load_space("csgo51"), ticks_ns, end_ns, values),
                states=states,
            ),
            notes=(f"{lost} of {count} frames are not in the file",) if lost else (),
            pictures=lambda picks: _pictures(path, shape, shown[picks]),
            limits=limits,
        )


def numbers_of(kind: str, names: Iterable[str]) -> Index:
    """The frames of which a file holds `frame_<i>_<kind>`, int64, increasing."""
    found = (match for name in names if (match := _NAME.fullmatch(name)) and match[2] == kind)
    return np.array(sorted(int(match[1]) for match in found), np.int64)


def provenance_of(stem: str) -> Provenance:
    """What the name of a recording's `.hdf5` file says; "" for a name that is not known.

    The file is the match, whatever it was made into. The map is that of the sets that name one.
    """
    return Provenance(
        game="Counter-Strike: Global Offensive",
        map=next((name for name in MAPS if name in stem), None),
        match=stem or None,
        license=LICENSE,
    )


def _numbers(file: object, name: str, size: int) -> NDArray[np.float64]:
    """A row of `size` numbers.

    Raises:
        RefusedInput: LOG_COLUMN, there are more or fewer; and as `read_array`.
    """
    row = read_array(file, name, most_bytes=MOST_NUMBERS_BYTES)
    if row.shape != (size,):
        raise RefusedInput(
            Reason.LOG_COLUMN, f"{name} has the shape {row.shape}, expected ({size},)"
        )
    return row.astype(np.float64)


def _pictures(path: Path, shape: tuple[int, ...], numbers: Index) -> Iterator[Picture | None]:
    """See `kit.open_recordings.Pictures`; a frame that cannot be unpacked is None."""
    with opened_hdf5(path) as file:
        for number in numbers.tolist():
            name = f"frame_{number}_x"
            data = dataset_at(file, name)
            if data.shape != shape or data.dtype != np.uint8:
                raise RefusedInput(
                    Reason.RESOLUTION_CHANGE,
                    f"{name} is {data.dtype} {data.shape}, expected uint8 {shape}",
                )
            try:
                picture: Picture = data[()]
            except OSError:
                yield None
            else:
                yield np.ascontiguousarray(picture[:, :, ::-1])
