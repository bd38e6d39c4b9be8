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

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import VIDEO_ENDINGS, sniff
from wham_data.files.npz import member, opened_npz, read_numbers, read_rows
from wham_data.pipelines.readers.kit.frame_actions import even_times
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PictureRecording,
    audit_clock,
    check_length,
    check_pixels,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import SECOND_NS, TEN_HZ, Index
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import ActionTrack, FrameData, Provenance, Recording
from wham_data.schemas.wham_tokens import ACTION_SIZE, measured_from_bins

STEP_NS: Final = SECOND_NS // 10
IMAGE_SHAPE: Final = (3, 180, 300)
MAX_MISSING_SHARE: Final = 0.01

LICENSE: Final = "Microsoft Research License"
"""Of files that are named like Microsoft's sample."""
NAME: Final = re.compile(
    r"(?P<match>FB[0-9A-Fa-f]{40})_(?P<player>\d+)Movie\.pb_step-\d+_tick-\d+_data\.npz"
)


@dataclass(frozen=True, slots=True)
class WhamNpz:
    """Reader of WHAM's own .npz files."""

    name: ClassVar[str] = "wham-npz"
    about: ClassVar[str] = "a .npz of images (T, 3, 180, 300) and actions (T, 16), as WHAM's own"
    order: ClassVar[int] = 10

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every zip file with members images.npy and actions.npy, whatever its name."""
        present = set(files)
        for path in files:
            if path.suffix.lower() in VIDEO_ENDINGS or sniff(path) != "zip":
                continue
            try:
                with opened_npz(path) as archive:
                    names = set(archive.namelist())
            except RefusedInput:
                continue
            if not {"images.npy", "actions.npy"} <= names:
                continue
            known = NAME.fullmatch(path.name)
            provenance = Provenance()
            if known is not None:
                player = f"{known['match']}_{known['player']}"
                provenance = Provenance(match=known["match"], player=player, license=LICENSE)
            video = path.with_name(path.stem.removesuffix("_data") + "_video.mp4")
            yield Recording(
                path=path,
                files=(path,),
                format=self.name,
                provenance=provenance,
                companions=(video,) if video in present else (),
            )

    def open(self, recording: Recording, limits: VideoLimits) -> WhamNpzRecording:
        """Read everything but the pictures."""
        return open_wham_npz(recording.path, limits, IMAGE_SHAPE)


def open_wham_npz(
    path: Path, limits: VideoLimits, image_shape: tuple[int, int, int] | None = None
) -> WhamNpzRecording:
    """Read everything but the pictures.

    Args:
        path: an .npz file.
        limits: what it may hold.
        image_shape: (3, height, width) that the pictures must have; None: any.

    Raises:
        RefusedInput: it is damaged, or no file of this layout.
    """
    with opened_npz(path) as archive:
        if missing := {"images.npy", "actions.npy"} - set(archive.namelist()):
            raise RefusedInput(
                Reason.FORMAT_NOT_ALLOWED, f"no {' and no '.join(sorted(missing))} in it"
            )
        with member(archive, "images.npy") as (_, shape, dtype):
            _check_images(shape, dtype, limits, image_shape)
        n_frames = shape[0]
        actions = read_numbers(archive, "actions.npy", n_frames, ACTION_SIZE)
        states = None
        if "states.npy" in archive.namelist():
            states = read_numbers(archive, "states.npy", n_frames, None)
        if actions.shape[1] != ACTION_SIZE:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"actions have {actions.shape[1]} columns, expected {ACTION_SIZE}",
            )
        checksums = [archive.getinfo(f"{name}.npy").CRC for name in ("images", "actions")]
    times_ns, end_ns = even_times(n_frames, TEN_HZ)

    def pictures(picks: Index) -> Iterator[Picture]:
        with opened_npz(path) as archive:
            for image in read_rows(archive, "images.npy", picks):
                yield image.transpose(1, 2, 0)

    return WhamNpzRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=audit_clock(times_ns),
        data=FrameData(
            actions=ActionTrack(load_space("wham16"), times_ns, measured_actions(actions), end_ns),
            states=states,
        ),
        pictures=pictures,
        limits=limits,
        identity="-".join(f"{checksum:08x}" for checksum in checksums),
    )


def _check_images(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    limits: VideoLimits,
    image_shape: tuple[int, int, int] | None,
) -> None:
    wanted = image_shape or (3, "H", "W")
    fits = len(shape) == 4 and shape[1] == 3 and min(shape[2:]) > 0
    if dtype != np.uint8 or not fits or (image_shape is not None and shape[1:] != image_shape):
        expected = f"uint8 (T, {', '.join(map(str, wanted))})"
        raise RefusedInput(Reason.NOT_A_VIDEO, f"images are {dtype} {shape}, expected {expected}")
    check_pixels(shape[3], shape[2], limits)
    check_length(shape[0], shape[0] * STEP_NS, limits)


@dataclass(slots=True, kw_only=True)
class WhamNpzRecording(PictureRecording):
    """An open file. `identity` changes with any picture or action: the checksums of both."""

    identity: str


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
