"""`wham-npz`: the layout of Microsoft's Bleeding Edge sample for WHAM (Muse).

    images   uint8   (T, 3, 180, 300)  RGB, channels first
    actions  float32 (T, 16)           12 buttons 0 or 1, then four stick axes as bins 0..10
    states   float32 (T, S)            optional; game state, meaning not published

There are no times: row k is k / 10 s after the first, and action k acts after image k. The sticks
are read as the middles of their bins, from which the bins come back exactly. The arrays are read
as a stream out of the zip file, and nothing in it is ever unpickled.

A file called FB<40 hex>_<n>Movie.pb_step-<s>_tick-<t>_data.npz tells its match (FB<40 hex>) and
player (FB<40 hex>_<n>); the `_video.mp4` of the same name accompanies it and is not read.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.files import VIDEO_ENDINGS, open_regular, sniff
from wham_data.pipelines.readers.resize import resize
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import SECOND_NS, Index
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import (
    ActionTrack,
    ClockAudit,
    Fit,
    Frames,
    Provenance,
    Recording,
)
from wham_data.schemas.wham_tokens import ACTION_SIZE, measured_from_bins

STEP_NS: Final = SECOND_NS // 10
IMAGE_SHAPE: Final = (3, 180, 300)
FRAME_BYTES: Final = 3 * 180 * 300
MOST_MEMBERS: Final = 64
MOST_DIRECTORY_BYTES: Final = 1 << 16
MOST_STATES: Final = 4096
MAX_HEADER: Final = 10_000
MAX_MISSING_SHARE: Final = 0.01

_HEADER: Final = re.compile(
    r"\{'descr': '(?P<dtype>[<>|=]?(?:f[248]|[iu][1248]|b1|[SU]\d{1,6}))', "
    r"'fortran_order': (?P<column_major>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), \}\s*",
    re.ASCII,
)
_NAME: Final = re.compile(
    r"(?P<match>FB[0-9A-Fa-f]{40})_(?P<player>\d+)Movie\.pb_step-\d+_tick-\d+_data\.npz"
)


@dataclass(frozen=True, slots=True)
class WhamNpz:
    """Reader of WHAM's own .npz files."""

    name: ClassVar[str] = "wham-npz"
    about: ClassVar[str] = "a .npz of images (T, 3, 180, 300) and actions (T, 16), as WHAM's own"

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every zip file with members images.npy and actions.npy, whatever its name."""
        present = set(files)
        for path in files:
            if path.suffix.lower() in VIDEO_ENDINGS or sniff(path) != "zip":
                continue
            try:
                with _opened(path) as archive:
                    names = set(archive.namelist())
            except RefusedInput:
                continue
            if not {"images.npy", "actions.npy"} <= names:
                continue
            known = _NAME.fullmatch(path.name)
            provenance = Provenance()
            if known is not None:
                provenance = Provenance(
                    match=known["match"], player=f"{known['match']}_{known['player']}"
                )
            video = path.with_name(path.stem.removesuffix("_data") + "_video.mp4")
            yield Recording(
                path=path,
                files=(path,),
                format=self.name,
                provenance=provenance,
                companions=(video,) if video in present else (),
            )

    def open(self, recording: Recording, limits: VideoLimits, max_gap_ns: int) -> WhamNpzRecording:
        """Read everything but the pictures.

        Nothing is missing in a file of this layout, so `max_gap_ns` has nothing to decide.
        """
        del max_gap_ns
        with _opened(recording.path) as archive:
            with _member(archive, "images.npy") as (_, shape, dtype):
                if dtype != np.uint8 or len(shape) != 4 or shape[1:] != IMAGE_SHAPE:
                    raise RefusedInput(
                        Reason.NOT_A_VIDEO,
                        f"images are {dtype} {shape}, expected uint8 (T, 3, 180, 300)",
                    )
            n_frames = shape[0]
            if not n_frames:
                raise RefusedInput(Reason.NO_FRAMES, "images has no frames")
            if n_frames * STEP_NS > limits.max_hours * 3600 * SECOND_NS:
                raise RefusedInput(
                    Reason.TOO_LONG, f"{n_frames} frames at 10 Hz, limit {limits.max_hours:g} h"
                )
            actions = _numbers(archive, "actions.npy", n_frames, ACTION_SIZE)
            states = None
            if "states.npy" in archive.namelist():
                states = _numbers(archive, "states.npy", n_frames, None)
            if actions.shape[1] != ACTION_SIZE:
                raise RefusedInput(
                    Reason.LOG_COLUMN,
                    f"actions have {actions.shape[1]} columns, expected {ACTION_SIZE}",
                )
        times_ns = np.arange(n_frames, dtype=np.int64) * STEP_NS
        track = ActionTrack(
            load_space("wham16"), times_ns, measured_actions(actions), n_frames * STEP_NS
        )
        return WhamNpzRecording(recording.path, track, states)


class WhamNpzRecording:
    """An open recording: see `wham_data.schemas.recording.OpenRecording`."""

    def __init__(
        self, path: Path, actions: ActionTrack, states: NDArray[np.float32] | None
    ) -> None:
        self._path = path
        self.actions: ActionTrack | None = actions
        self.states: NDArray[np.float32] | None = states
        self.frame_times_ns = actions.times_ns
        self.frame_end_ns = actions.end_ns
        self.clock = ClockAudit(
            longest_interval_ns=STEP_NS if len(actions.times_ns) > 1 else 0,
            frames_expected=len(actions.times_ns),
            frames_found=len(actions.times_ns),
        )
        self.notes: tuple[str, ...] = ()

    def frames(
        self, picks: Index, size: tuple[int, int], *, fit: Fit, batch: int, threads: int
    ) -> Iterator[Frames]:
        """The picked frames in order; see `OpenRecording.frames`. One pass over the file."""
        del threads
        waiting: list[Frames] = []
        with _opened(self._path) as archive, _member(archive, "images.npy") as (stream, _, _):
            read, frame = 0, np.zeros(IMAGE_SHAPE, np.uint8)
            for pick in picks.tolist():
                while read <= pick:
                    frame = np.frombuffer(_exactly(stream, FRAME_BYTES), np.uint8)
                    read += 1
                waiting.append(frame.reshape(IMAGE_SHAPE).transpose(1, 2, 0))
                if len(waiting) == batch:
                    yield resize(np.stack(waiting), size, fit)
                    waiting = []
            while stream.read(1 << 20):  # the checksum is compared at the end
                pass
        if waiting:
            yield resize(np.stack(waiting), size, fit)

    def lost_frames(self) -> Index:
        """None: a picture is in the file whole, or the file is refused."""
        return np.zeros(0, np.int64)


def measured_actions(actions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Actions with bins as measured ones; rows that are not finite stay unknown (NaN).

    Raises:
        RefusedInput: LOG_NOT_FINITE for too many such rows, LOG_RANGE for what is no bin.
    """
    sound = np.isfinite(actions).all(axis=1)
    lost = int(len(actions) - sound.sum())
    if lost >= 2 and lost > MAX_MISSING_SHARE * len(actions):
        raise RefusedInput(
            Reason.LOG_NOT_FINITE,
            f"{lost} of {len(actions)} actions are not finite; the first is "
            f"row {int(np.flatnonzero(~sound)[0])}",
        )
    values = np.full(actions.shape, np.nan)
    try:
        values[sound] = measured_from_bins(actions[sound])
    except UsageError as error:
        raise RefusedInput(
            Reason.LOG_RANGE, f"actions out of range: {error}; expected sticks as bins 0 to 10"
        ) from None
    return values


def refuse_npz(path: Path) -> None:
    """Refuse an .npz that is damaged or holds pickled objects, which are never loaded.

    Raises:
        RefusedInput: PICKLED_OBJECTS, or what else is wrong with the file.
    """
    with _opened(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with _member(archive, name):
                    pass


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file of few, plainly stored or deflated members; its errors are refusals."""
    with open_regular(path) as file:
        _check_directory(file)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_members(archive)
                yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise RefusedInput(
                Reason.ARCHIVE_CORRUPT, f"damaged zip file: {str(error)[:200]}"
            ) from None


def _check_directory(file: BinaryIO) -> None:
    """Refuse a zip file of many members before a parser makes an object of each.

    Its end record says how many members and how many bytes the directory has; a file of over 2 GB
    has a second, longer one right before that.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if not size:
        raise RefusedInput(Reason.EMPTY_FILE, "empty file (0 bytes)")
    if end < 0 or len(tail) < end + 22:
        raise RefusedInput(Reason.TRUNCATED, "no whole zip file: its directory is missing")
    members, directory = struct.unpack_from("<HI", tail, end + 10)
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07") and end >= 76:
        members, directory = struct.unpack_from("<QQ", tail, end - 76 + 32)
    if members > MOST_MEMBERS or directory > MOST_DIRECTORY_BYTES:
        raise RefusedInput(
            Reason.ARCHIVE_UNSAFE, f"{members} members in the zip file, limit {MOST_MEMBERS}"
        )


def _check_members(archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS or len({info.filename for info in infos}) < len(infos):
        raise RefusedInput(Reason.ARCHIVE_UNSAFE, "members of the zip file share a name")
    for info in infos:
        if info.flag_bits & 1:
            raise RefusedInput(Reason.ARCHIVE_ENCRYPTED, "the zip file is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED,
                f"{ascii(info.filename)[:60]} is neither stored nor deflated",
            )


@contextmanager
def _member(
    archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """A member's stream behind its header, its shape and dtype, in C order.

    Raises:
        RefusedInput: it is no array, holds pickled objects, or has another size than it claims.
    """
    with archive.open(name) as stream:
        shape, dtype, column_major = _array_header(stream, name)
        if column_major and len(shape) > 1:
            raise RefusedInput(Reason.FORMAT_NOT_ALLOWED, f"{name} is column-major (Fortran order)")
        count = math.prod(shape) * dtype.itemsize
        there = archive.getinfo(name).file_size - stream.tell()
        if count != there:
            raise RefusedInput(
                Reason.TRUNCATED, f"{name} claims {count} bytes {shape}, the file holds {there}"
            )
        yield stream, shape, dtype


def _array_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, dtype and whether it is column-major; reads what numpy writes, and no other Python.

    Raises:
        RefusedInput: PICKLED_OBJECTS, or ARCHIVE_CORRUPT for whatever else is no plain array.
    """
    start = stream.read(8)
    width = {1: 2, 2: 4, 3: 4}.get(start[6]) if start[:6] == b"\x93NUMPY" and start[6:] else None
    length = int.from_bytes(stream.read(width), "little") if width is not None else MAX_HEADER + 1
    header = stream.read(length).decode("latin-1") if length <= MAX_HEADER else ""
    found = _HEADER.fullmatch(header)
    if "|O" in header:
        raise RefusedInput(
            Reason.PICKLED_OBJECTS, f"{name} holds pickled objects, which are never loaded"
        )
    if found is None:
        raise RefusedInput(Reason.ARCHIVE_CORRUPT, f"{name} is no plain array")
    shape = tuple(int(number) for number in found["shape"].split(",") if number.strip())
    return shape, np.dtype(found["dtype"]), found["column_major"] == "True"


def _numbers(
    archive: zipfile.ZipFile, name: str, rows: int, columns: int | None
) -> NDArray[np.float32]:
    """A float32 table with one row per frame."""
    with _member(archive, name) as (stream, shape, dtype):
        width = shape[1] if len(shape) == 2 else -1
        if dtype.kind not in "fiub" or shape[:1] != (rows,) or not 0 <= width <= MOST_STATES:
            raise RefusedInput(
                Reason.LOG_TYPE,
                f"{name} is {dtype} {shape}, expected numbers ({rows}, {columns or 'S'})",
            )
        data = _exactly(stream, rows * width * dtype.itemsize)
        table: NDArray[np.float32] = np.frombuffer(data, dtype).reshape(rows, width)
        return table.astype(np.float32)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise RefusedInput(Reason.TRUNCATED, "an array ends before its last number")
    return data
