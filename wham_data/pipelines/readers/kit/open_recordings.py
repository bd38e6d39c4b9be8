"""The results of readers: open recordings with pictures in a video, in arrays, or without pictures.

    VideoRecording        all frames of a video file, or a range of them
    PictureRecording      pictures, as arrays or coded, from a function
    PicturelessRecording  actions without pictures

All three are `wham_data.schemas.recording.OpenRecording`s. docs/add-a-reader.md shows their use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.marks import refuse_synthetic
from wham_data.pipelines.readers.kit.placement import Placement
from wham_data.pipelines.readers.kit.resize import resize
from wham_data.pipelines.video import (
    DecodeAudit,
    VideoIndex,
    VideoLimits,
    decode_frames,
    decode_image,
    index_video,
)
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.mask import Mask
from wham_data.schemas.recording import ActionTrack, ClockAudit, Fit, FrameData, Frames

NO_DATA: Final = FrameData()
VARIABLE_NS, VARIABLE_SHARE = 2_100_000, 0.1
INDEXES_KEPT: Final = 2

Picture = NDArray[np.uint8]
Pictures = Callable[[Index], Iterator[Picture | None]]
"""The pictures at some positions (int64, strictly increasing), one uint8 [H, W, 3] RGB for each, in
order; None for one that cannot be decoded."""


Retouch = Callable[[Frames, Index, Placement], None]
"""Paints on frames in place. Arguments: the frames, uint8 [B, H, W, 3]; their positions in the
recording; the placement of the source picture."""


@dataclass(slots=True, kw_only=True)
class OpenedRecording:
    """The parts that all open recordings share: see `wham_data.schemas.recording.OpenRecording`.

    masks  rectangles that are black in every picture
    """

    frame_times_ns: Nanos
    frame_end_ns: int
    clock: ClockAudit
    data: FrameData = NO_DATA
    min_coverage: float | None = None
    cuts: Index = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: tuple[str, ...] = ()
    masks: tuple[Mask, ...] = ()
    pictureless: bool = field(default=False, init=False)
    _lost: Index = field(default_factory=lambda: np.zeros(0, np.int64), init=False, repr=False)

    @property
    def actions(self) -> ActionTrack | None:
        """See `FrameData`."""
        return self.data.actions

    @property
    def states(self) -> NDArray[np.float32] | None:
        """See `FrameData`."""
        return self.data.states

    @property
    def rewards(self) -> NDArray[np.float32] | None:
        """See `FrameData`."""
        return self.data.rewards

    @property
    def texts(self) -> Sequence[str | None] | None:
        """See `FrameData`."""
        return self.data.texts

    def lost_frames(self) -> Index:
        """Positions in `frame_times_ns` of the frames that the last `frames` could not decode."""
        return self._lost


@dataclass(frozen=True, slots=True)
class VideoClip:
    """Frames [first, first + N) of a video.

    times_ns  int64 [N]  the time at which each frame begins, on the recording's clock
    end_ns    the clip covers [times_ns[0], end_ns)
    """

    index: VideoIndex
    first: int
    times_ns: Nanos
    end_ns: int

    @classmethod
    def whole(cls, index: VideoIndex) -> VideoClip:
        """All frames, on the video's own clock."""
        return cls(index, 0, index.times_ns, index.end_ns)

    @classmethod
    def between(
        cls, index: VideoIndex, start_ns: int, stop_ns: int, *, slack_ns: int = 0
    ) -> VideoClip:
        """The frames that begin in [start_ns, stop_ns), on the video's own clock.

        Args:
            index: the index of the video.
            start_ns, stop_ns: a range of its time.
            slack_ns: a frame that begins up to this much before `start_ns` or `stop_ns` counts as
                beginning after it, because the times may have been rounded.

        Raises:
            RefusedInput: NO_FRAMES, no frame begins in this range.
        """
        ends = np.array([start_ns, stop_ns], np.int64) - slack_ns
        first, stop = np.searchsorted(index.times_ns, ends).tolist()
        return cls.numbered(index, first, stop)

    @classmethod
    def numbered(cls, index: VideoIndex, first: int, stop: int) -> VideoClip:
        """Frames [first, stop) in the order of display, counted from 0, on the video's own clock.

        Raises:
            RefusedInput: NO_FRAMES, the video has no such frames.
        """
        count = len(index.times_ns)
        if not 0 <= first < min(stop, count):
            raise RefusedInput(
                Reason.NO_FRAMES, f"no frames {first} to {stop} in a video of {count} frames"
            )
        stop = min(stop, count)
        end_ns = int(index.times_ns[stop]) if stop < count else index.end_ns
        return cls(index, first, index.times_ns[first:stop], end_ns)

    def opened(
        self,
        data: FrameData = NO_DATA,
        *,
        notes: tuple[str, ...] = (),
        offset_ns: int = 0,
        drift_ppm: float = 0.0,
    ) -> VideoRecording:
        """The clip as an open recording; see `open_clips`."""
        return open_clips((self,), data, notes=notes, offset_ns=offset_ns, drift_ppm=drift_ppm)

    def of_one_format(self) -> list[VideoClip]:
        """The clip, cut where the pictures change their size."""
        stop = self.first + len(self.times_ns)
        firsts = [at for at, _ in self.index.changes if self.first < at < stop]
        pieces = []
        for start, end in pairwise([self.first, *firsts, stop]):
            times_ns = self.times_ns[start - self.first : end - self.first]
            end_ns = int(self.times_ns[end - self.first]) if end < stop else self.end_ns
            pieces.append(VideoClip(self.index.of_format_at(start), start, times_ns, end_ns))
        return pieces

    def shifted(self, by_ns: int) -> VideoClip:
        """The same frames, `by_ns` later."""
        return VideoClip(self.index, self.first, self.times_ns + by_ns, self.end_ns + by_ns)


def open_clips(
    clips: tuple[VideoClip, ...],
    data: FrameData = NO_DATA,
    *,
    notes: tuple[str, ...] = (),
    offset_ns: int = 0,
    drift_ppm: float = 0.0,
    retouch: Retouch | None = None,
) -> VideoRecording:
    """Clips that follow one another on one clock, as one open recording.

    Args:
        clips: in order of time; they must not overlap.
        data: the data of the source for the frames of all clips together.
        notes: notes for the user, one short phrase each.
        offset_ns, drift_ppm: the error of the log's clock that was corrected, for the audit.
        retouch: paints on the frames, for example over parts that must not be visible.
    """
    # What is painted over a picture is placed by its size, so with a painter there is only one.
    pieces = [clip.of_one_format() if retouch is None else [clip] for clip in clips]
    starts = np.cumsum([0, *(len(piece.times_ns) for clip in pieces for piece in clip)])
    begins_clip = np.cumsum([0, *map(len, pieces)])
    times_ns = np.concatenate([clip.times_ns for clip in clips])
    end_ns = clips[-1].end_ns
    whole = [clip for clip in clips if len(clip.times_ns) == len(clip.index.times_ns)]
    duplicates = sum(clip.index.duplicates for clip in whole)
    found = len(times_ns) + duplicates
    promised = sum((c.index.promised_frames or c.index.found_frames) for c in whole)
    clock = audit_clock(
        times_ns,
        duplicates=duplicates,
        frames_expected=promised if len(whole) == len(clips) else found,
        frames_found=found,
        offset_ns=offset_ns,
        drift_ppm=drift_ppm,
    )
    of_videos = dict.fromkeys(note for clip in clips for note in clip.index.notes)
    dreamt_by = {clip.index.dreamt_by: None for clip in clips if clip.index.dreamt_by}
    of_videos |= dict.fromkeys(f"synthetic: dreamt by {model[:80]}" for model in dreamt_by if model)
    return VideoRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=clock,
        data=data,
        cuts=np.delete(starts, begins_clip),
        notes=(*of_videos, *notes),
        clips=tuple(piece for clip in pieces for piece in clip),
        retouch=retouch,
    )


@dataclass(slots=True, kw_only=True)
class VideoRecording(OpenedRecording):
    """Frames of video files. The times of the clips, joined in order, are `frame_times_ns`."""

    clips: tuple[VideoClip, ...]
    retouch: Retouch | None = None

    def frames(
        self, picks: Index, size: tuple[int, int], *, fit: Fit, batch: int, threads: int
    ) -> Iterator[Frames]:
        """The picked frames in order; see `OpenRecording.frames`."""
        sizes = {clip.index.picture.display_size for clip in self.clips}
        if len(sizes) > 1 and not all(mask.shares for mask in self.masks):
            raise RefusedInput(
                Reason.RESOLUTION_CHANGE,
                "the picture changes its size, and a mask is in pixels: give it in shares of the size",
            )
        lost: list[Index] = []
        base = 0
        for clip in self.clips:
            stop = base + len(clip.times_ns)
            mine = picks[slice(*np.searchsorted(picks, [base, stop]).tolist())]
            if len(mine):
                audit = DecodeAudit()
                decoded = decode_frames(
                    clip.index,
                    mine - base + clip.first,
                    size,
                    fit=fit,
                    batch=batch,
                    threads=threads,
                    audit=audit,
                )
                yield from self._retouched(decoded, mine, clip, size, fit)
                lost.append(mine[np.array(audit.lost, np.int64)])
            base = stop
        if lost:
            self._lost = np.unique(np.concatenate(lost))

    def _retouched(
        self,
        decoded: Iterator[Frames],
        picks: Index,
        clip: VideoClip,
        size: tuple[int, int],
        fit: Fit,
    ) -> Iterator[Frames]:
        shown = clip.index.picture.display_size
        placement = Placement.of(shown, size, fit)
        boxes = [mask.box(shown) for mask in self.masks]
        done = 0
        for frames in decoded:
            if self.retouch is not None:
                self.retouch(frames, picks[done : done + len(frames)], placement)
            for box in boxes:
                placement.black_out(frames, box)
            done += len(frames)
            yield frames


@dataclass(slots=True, kw_only=True)
class PictureRecording(OpenedRecording):
    """Pictures that a function gives one by one, so that only one batch is in memory.

    limits  the largest size of a picture, and the least share of pictures that must decode
    """

    pictures: Pictures
    limits: VideoLimits = field(default_factory=VideoLimits)

    def frames(
        self, picks: Index, size: tuple[int, int], *, fit: Fit, batch: int, threads: int
    ) -> Iterator[Frames]:
        """The picked frames in order; see `OpenRecording.frames`."""
        del threads
        width, height = size
        distinct, repeats = np.unique(picks, return_counts=True)
        lost: list[int] = []
        waiting: list[Picture] = []
        every = zip(distinct.tolist(), repeats.tolist(), self.pictures(distinct), strict=True)
        for pick, times, picture in every:
            if picture is None:
                lost.append(pick)
                self._check_loss(len(lost), len(distinct))
                frame = np.zeros((height, width, 3), np.uint8)
            else:
                check_pixels(picture.shape[1], picture.shape[0], self.limits)
                frame = resize(blackened(picture, self.masks)[None], size, fit)[0]
            for _ in range(times):
                waiting.append(frame)
                if len(waiting) == batch:
                    yield np.stack(waiting)
                    waiting = []
        if waiting:
            yield np.stack(waiting)
        self._lost = np.array(lost, np.int64)

    def _check_loss(self, lost: int, picked: int) -> None:
        if lost > (1 - self.limits.min_decoded) * picked:
            raise RefusedInput(
                Reason.CORRUPT,
                f"{lost} or more of {picked} pictures cannot be decoded, "
                f"expected at least {self.limits.min_decoded:.1%}",
                frames_expected=len(self.frame_times_ns),
            )


@dataclass(slots=True, kw_only=True)
class PicturelessRecording(OpenedRecording):
    """Actions without pictures: `frame_times_ns` holds the times of the actions."""

    def __post_init__(self) -> None:
        self.pictureless = True

    def frames(
        self, picks: Index, size: tuple[int, int], *, fit: Fit, batch: int, threads: int
    ) -> Iterator[Frames]:
        """There are none."""
        del picks, size, fit, batch, threads
        raise RefusedInput(Reason.NO_FRAMES, "the source has no pictures")


def blackened(picture: Picture, masks: Sequence[Mask]) -> Picture:
    """A picture, uint8 [H, W, 3], in which every pixel that a mask touches is black.

    Raises:
        RefusedInput: MASK_OUTSIDE, a mask extends beyond the picture.
    """
    if not masks:
        return picture
    painted = picture.copy()
    for mask in masks:
        left, top, right, bottom = mask.box((picture.shape[1], picture.shape[0]))
        painted[int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = 0
    return painted


def picture_in(value: object) -> NDArray[np.uint8] | None:
    """The picture in a value of a table, uint8 [H, W, 3] RGB.

    The value is a coded picture as bytes, or `{bytes, path}`. None for a picture that cannot be
    decoded, or is stored in another file.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    try:
        return decode_image(data) if isinstance(data, bytes) else None
    except RefusedInput:
        return None


def read_video(path: Path, limits: VideoLimits, pieces: tuple[Path, ...] = ()) -> VideoIndex:
    """`index_video` with a cache, because the episodes of one file are opened one after another.

    Raises:
        RefusedInput: SYNTHETIC, its tags say that a world model made it; as `index_video`.
    """
    try:
        found = [file.stat() for file in pieces or (path,)]
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"{path.name}: {error.strerror}") from None
    states = tuple((file.st_size, file.st_mtime_ns) for file in found)
    index = _indexed(path, limits, pieces, states)
    if not limits.allow_synthetic:
        refuse_synthetic(index.dreamt_by, path.name)
    return index


@lru_cache(maxsize=INDEXES_KEPT)
def _indexed(
    path: Path,
    limits: VideoLimits,
    pieces: tuple[Path, ...],
    states: tuple[tuple[int, int], ...],
) -> VideoIndex:
    del states  # another file under the same name is another video
    return index_video(path, limits, pieces)


def audit_clock(
    times_ns: Nanos,
    *,
    duplicates: int = 0,
    frames_expected: int | None = None,
    frames_found: int | None = None,
    offset_ns: int = 0,
    drift_ppm: float = 0.0,
) -> ClockAudit:
    """The audit of the frames' times. Gaps are counted later: see `kit/gaps.py`.

    Args:
        times_ns: int64 [N], strictly increasing.
        duplicates, offset_ns, drift_ppm: as in `ClockAudit`.
        frames_expected, frames_found: as in `ClockAudit`; None means N.
    """
    found = len(times_ns) if frames_found is None else frames_found
    return ClockAudit(
        variable_rate=is_variable(times_ns),
        duplicates=duplicates,
        longest_interval_ns=int(np.diff(times_ns).max(initial=0)),
        offset_ns=offset_ns,
        drift_ppm=drift_ppm,
        frames_expected=frames_expected or found,
        frames_found=found,
    )


def is_variable(times_ns: Nanos) -> bool:
    """Whether frame intervals differ by more than the rounding to a container's tick."""
    intervals = np.diff(times_ns)
    if not len(intervals):
        return False
    spread = int(intervals.max() - intervals.min())
    return spread > max(VARIABLE_NS, VARIABLE_SHARE * float(np.median(intervals)))


def check_pixels(width: int, height: int, limits: VideoLimits) -> None:
    """Refuse pictures that are too large or have no pixels.

    Raises:
        RefusedInput: TOO_MANY_PIXELS or NOT_A_VIDEO.
    """
    if width * height > limits.max_pixels:
        raise RefusedInput(
            Reason.TOO_MANY_PIXELS,
            f"pictures of {width}x{height}, limit {limits.max_pixels} pixels",
        )
    if width < 1 or height < 1:
        raise RefusedInput(Reason.NOT_A_VIDEO, f"pictures of {width}x{height} pixels")


def check_length(count: int, end_ns: int, limits: VideoLimits) -> None:
    """Refuse recordings without frames, and recordings that are longer than allowed.

    Args:
        count: number of frames.
        end_ns: length of the recording.
        limits: the largest length.

    Raises:
        RefusedInput: NO_FRAMES or TOO_LONG.
    """
    if count < 1:
        raise RefusedInput(Reason.NO_FRAMES, "no frames in it")
    if end_ns > limits.max_hours * 3600e9:
        raise RefusedInput(
            Reason.TOO_LONG,
            f"{count} frames over {end_ns / 3600e9:.1f} h, limit {limits.max_hours:g} h",
        )
