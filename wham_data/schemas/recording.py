"""Recordings as found, and what a reader makes of one: frames and actions on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.mask import Mask
from wham_data.schemas.paths import told

Frames = NDArray[np.uint8]
Fit = Literal["stretch", "letterbox", "crop"]
AxisRule = Literal["mean", "last", "extreme"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who played what, and under which licence it may be used. None: not known."""

    game: str | None = None
    map: str | None = None
    match: str | None = None
    player: str | None = None
    subject: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """One play session as found on disk, recognised by a reader but not opened yet.

    path      the main file, which names the recording (absolute); see `store_path` if it is in a store
    files     every file that belongs to it, the main one first; their bytes are its identity
    format    name of the reader that recognised it
    companions  files that only accompany it: nothing is read from them, and they are not part of
              its identity
    part      which stretch of the files it is, where several recordings share them (an episode, a
              player); part of its identity. "": the whole of them
    root      the folder in which it was given; None: it was given as a file
    """

    path: Path
    files: tuple[Path, ...]
    format: str
    provenance: Provenance = field(default_factory=Provenance)
    companions: tuple[Path, ...] = ()
    part: str = ""
    root: Path | None = None

    @property
    def source(self) -> str:
        """What it is called in the manifest and in messages: its path, and `#part` if it is one."""
        return f"{told(self.path)}#{self.part}" if self.part else told(self.path)


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that surely of a reader's format that it cannot take."""

    path: Path
    why: RefusedInput


@dataclass(frozen=True, slots=True)
class ActionTrack:
    """What the player did, as logged.

    times_ns  int64   [N]     strictly increasing, on the recording's clock
    values    float64 [N, A]  in the order of `space`; a row with a NaN is a missing sample
    end_ns    the log says nothing from here on (a sampled log: its last row's time)
    max_hold_ns  a row holds until the next one, unless the log is silent for longer than this: the
                 row before such a hole holds for one typical interval only. None: until the next
                 row however late it comes (an event log, which is silent while nothing changes)
    clamped   values that were out of the space's range and were brought to its edge
    sampled   the log has a row at regular times: a silence longer than the longest gap is a hole,
              and `max_hold_ns` is set to that gap when the recording is opened
    """

    space: ActionSpace
    times_ns: Nanos
    values: NDArray[np.float64]
    end_ns: int
    max_hold_ns: int | None = None
    clamped: int = 0
    sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameData:
    """What a source knows of its frames besides the pictures, one row per frame. None: nothing.

    actions  what the player did; has times of its own
    states   float32 [N, S]  other numbers, as of the frame
    rewards  float32 [N]     earned between frame i and frame i + 1
    texts    N captions or instructions, as of the frame; None for a frame without one
    """

    actions: ActionTrack | None = None
    states: NDArray[np.float32] | None = None
    rewards: NDArray[np.float32] | None = None
    texts: Sequence[str | None] | None = None


@dataclass(frozen=True, slots=True)
class ClockAudit:
    """What a recording's clocks look like; stored with each of its episodes.

    variable_rate        the frame intervals differ by more than the container's tick
    gaps                 cuts made because no new frame came for longer than the allowed gap
    duplicates           frames that shared a presentation time with another and were dropped
    longest_interval_ns  longest time between two shown frames
    offset_ns, drift_ppm error of the log's clock by its metadata (corrected for)
    frames_expected      number of frames that the container announces
    frames_found         number of frames that could be read
    """

    variable_rate: bool = False
    gaps: int = 0
    duplicates: int = 0
    longest_interval_ns: int = 0
    offset_ns: int = 0
    drift_ppm: float = 0.0
    frames_expected: int = 0
    frames_found: int = 0


class OpenRecording(Protocol):
    """A recording with its clocks read and no picture decoded yet.

    Attributes:
        frame_times_ns: presentation time of every distinct shown frame, int64 [N], strictly
            increasing, rounded up to whole nanoseconds so that `time <= t` is exact.
        frame_end_ns: the video covers [frame_times_ns[0], frame_end_ns).
        data: what the source knows of the frames besides the pictures.
        actions: those of `data`.
        states: those of `data`.
        rewards: those of `data`.
        texts: those of `data`.
        clock: what the clocks look like.
        min_coverage: least share of the video's time that the actions must cover; None: any.
        pictureless: the source has times and actions but no pictures: a "frame" is then only an
            instant, and `frames` is never called.
        cuts: positions in `frame_times_ns` with which an episode begins in any case, int64 [C]:
            the picture changes its size there, or another file begins.
        masks: what `frames` blackens in every picture.
        notes: what a person should know of this recording, one short phrase each.
    """

    frame_times_ns: Nanos
    frame_end_ns: int
    data: FrameData
    clock: ClockAudit
    min_coverage: float | None
    cuts: Index
    masks: tuple[Mask, ...]
    notes: tuple[str, ...]
    pictureless: bool

    @property
    def actions(self) -> ActionTrack | None: ...  # noqa: D102

    @property
    def states(self) -> NDArray[np.float32] | None: ...  # noqa: D102

    @property
    def rewards(self) -> NDArray[np.float32] | None: ...  # noqa: D102

    @property
    def texts(self) -> Sequence[str | None] | None: ...  # noqa: D102

    def frames(
        self, picks: Index, size: tuple[int, int], *, fit: Fit, batch: int, threads: int
    ) -> Iterator[Frames]:
        """The picked frames in order, in batches.

        Args:
            picks: positions in `frame_times_ns`, int64 [K], non-decreasing.
            size: (width, height) in pixels.
            fit: how a picture of another shape is brought to `size`.
            batch: most frames to yield at once.
            threads: decoding threads.

        Yields:
            uint8 [B, height, width, 3] RGB.

        Raises:
            RefusedInput: the stream is damaged beyond the stated share.
        """
        ...

    def lost_frames(self) -> Index:
        """Positions in `frame_times_ns` that did not decode; known once `frames` is exhausted."""
        ...
