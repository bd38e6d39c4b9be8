"""Find out what a video file contains, in one pass over its packets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from wham_data.files.marks import model_in_tags
from wham_data.pipelines.video.bitstream import Picture
from wham_data.pipelines.video.hardware import DecoderUsed, Video, decoder_for, on_gpu
from wham_data.pipelines.video.joined import Pieces
from wham_data.pipelines.video.notes import change_notes, picture_notes, readable_time, time_notes
from wham_data.pipelines.video.packets import MISSING, NOT_SHOWN, PacketTable, Presentation, present
from wham_data.pipelines.video.scale import PictureFormat
from wham_data.pipelines.video.scan import Scan, first_whole_picture
from wham_data.pipelines.video.source import (
    REORDERING,
    Source,
    VideoLimits,
    read_head,
    refuse_by_content,
    too_many_pixels,
)
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.errors import Reason, RefusedInput


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The content of a video file.

    path, stream        the file and the number of its video stream
    container, codec    FFmpeg's names
    picture             size, orientation, pixel format and colour of the pictures, first of all
    changes             where the pictures change their size: position in times_ns of the first frame
                        of another size, and the format from there on; increasing
    pieces              what is read instead of `path`; (): nothing
    average_rate        frames per second, averaged over the whole stream
    times_ns            int64 [N], strictly increasing: when each shown frame comes on screen, rounded
                        up, so that `times_ns <= t` is exact for every whole t
    last_interval_ns    assumed time of the last frame on screen: the median interval
    promised_frames     number of frames by the container's index or header; None if it has neither
    found_frames        number of pictures in the file, duplicates included
    duplicates          pictures dropped because another picture has the same time
    notes               remarks for a person
    dreamt_by           world model that its tags name as its maker; None if they name none
    limits              the limits that the file was checked against
    packets             the packets of the stream
    presentation        when each packet's picture is shown
    decoder             what decodes the pictures; the frames do not depend on it
    """

    path: Path
    stream: int
    container: str
    codec: str
    picture: PictureFormat
    average_rate: Fraction
    times_ns: Nanos
    last_interval_ns: int
    promised_frames: int | None
    found_frames: int
    duplicates: int
    notes: tuple[str, ...]
    dreamt_by: str | None
    limits: VideoLimits
    packets: PacketTable = field(repr=False)
    presentation: Presentation = field(repr=False)
    changes: tuple[tuple[int, PictureFormat], ...] = ()
    pieces: Pieces = ()
    decoder: DecoderUsed = "cpu"

    def of_format_at(self, position: int) -> VideoIndex:
        """The index with the format that the frame at this position has, for frames of its size."""
        formats = [self.picture, *(format for at, format in self.changes if at <= position)]
        return replace(self, picture=formats[-1]) if len(formats) > 1 else self

    @property
    def end_ns(self) -> int:
        """The time at which the last frame leaves the screen."""
        return int(self.times_ns[-1]) + self.last_interval_ns


def index_video(path: Path, limits: VideoLimits | None = None, pieces: Pieces = ()) -> VideoIndex:
    """Read all packet headers of a video, decode its first picture, and describe the content.

    Memory and time never depend on a number in a header or on a time stamp.

    Args:
        path: any file; its name and extension are ignored.
        limits: limits of the video. Default: `VideoLimits()`.
        pieces: what is read instead of `path`; (): nothing.

    Raises:
        RefusedInput: the file is not a video of an accepted type, or it is truncated, damaged, too
            large, too short, too long, or has time stamps that are not valid.
    """
    limits = limits or VideoLimits()
    head = read_head(path, pieces)
    refuse_by_content(head)
    with Source(path, limits, stream=None, head=head, pieces=pieces) as source:
        scan = Scan(source, path, limits, pieces)
        codec, container = source.codec, source.container.format.name
        time_base = source.stream.time_base
        assert time_base is not None
        if not len(scan.table.pts):
            message = f"no frames: container says {source.stream.frames}"
            raise RefusedInput(Reason.NO_FRAMES, message, frames_expected=source.stream.frames)
        whole = None
        if codec in ("h264", "hevc") and not scan.table.has(Picture.RESTART)[0]:
            whole, picture = first_whole_picture(path, limits, source.stream.index, pieces)
            if picture is not None and not scan.pictures:
                scan.pictures.append((0, picture))
        shown = present(
            scan.table,
            time_base,
            reorders=codec in REORDERING,
            decoding_times_only=container == "avi",
            whole=whole,
        )
        found = len(shown.times_ns) + shown.duplicates
        promised = _promised_frames(source, scan, shown, head)
        _check_extent(shown, limits, scan, found, promised)
        picture = scan.pictures[0][1] if scan.pictures else None
        if picture is None:
            message = f"no decodable frame: {scan.first_error} (container has {found} frames)"
            raise RefusedInput(Reason.NO_FRAMES, message, frames_expected=found, frames_decoded=0)
        aspect = source.stream.sample_aspect_ratio or Fraction(1)
        picture_format, changes = _formats(scan.pictures, shown, aspect, limits)
        video = Video(
            codec,
            picture_format,
            int(shown.times_ns[-1] - shown.times_ns[0]) / SECOND_NS,
            _defect(scan, shown, picture, changed=bool(changes)),
        )

        def opened() -> tuple[Source, Source]:
            gpu = on_gpu(path, limits, source.stream.index, pieces)
            return Source(path, limits, source.stream.index, pieces=pieces), gpu

        decoder, decoder_note = decoder_for(limits.decoder, video, opened)
        intervals = np.diff(shown.times_ns)
        return VideoIndex(
            path=path.absolute(),
            stream=source.stream.index,
            container=container,
            codec=codec,
            picture=picture_format,
            average_rate=Fraction(
                len(intervals) * SECOND_NS, int(shown.times_ns[-1] - shown.times_ns[0])
            ).limit_denominator(100_000),
            times_ns=shown.times_ns,
            last_interval_ns=_typical_interval(intervals),
            promised_frames=promised,
            found_frames=found,
            duplicates=shown.duplicates,
            notes=tuple(
                source.notes
                + time_notes(shown, time_base, limits)
                + picture_notes(picture, picture_format)
                + change_notes(picture_format, changes, shown.times_ns)
                + ([decoder_note] if decoder_note else [])
            ),
            dreamt_by=model_in_tags(source.tags()),
            limits=limits,
            packets=scan.table,
            presentation=shown,
            changes=changes,
            pieces=pieces,
            decoder=decoder,
        )


def _defect(scan: Scan, shown: Presentation, picture: VideoFrame, *, changed: bool) -> str | None:
    """Why only the CPU's decoder is sure to give this stream's pictures; None: nothing is known."""
    if scan.table.corrupt.any() or scan.demux_error or scan.after_holes:
        return "parts of it are damaged or missing, which a GPU does not tell"
    if shown.whole or shown.lost_ns or shown.by_order:
        return "it starts between key frames or has no time stamps"
    if changed or picture.interlaced_frame:
        return "its pictures change their size or are interlaced"
    return None


def _typical_interval(intervals: Nanos) -> int:
    """The median interval in ns; if all intervals differ by at most 1 ns, the largest.

    So the last frame of a video of, for example, 30 frames per second covers a complete step of 30 Hz.
    """
    if int(intervals.max()) - int(intervals.min()) <= 1:
        return int(intervals.max())
    return int(np.median(intervals))


def _formats(
    pictures: list[tuple[int, VideoFrame]],
    shown: Presentation,
    aspect: Fraction,
    limits: VideoLimits,
) -> tuple[PictureFormat, tuple[tuple[int, PictureFormat], ...]]:
    """The format of the first picture, and those from where the size changes: `VideoIndex.changes`.

    Raises:
        RefusedInput: TOO_MANY_PIXELS.
    """
    formats: list[tuple[int, PictureFormat]] = []
    for packet, picture in pictures:
        if picture.width * picture.height > limits.max_pixels:
            raise too_many_pixels(picture.width, picture.height, limits)
        ranks = shown.rank[packet:]
        ranks = ranks[ranks != NOT_SHOWN]
        at = int(ranks.min()) if len(ranks) else len(shown.times_ns)
        formats.append((at, PictureFormat.of(picture, aspect)))
    (_, first), *later = formats
    begun = [format for at, format in later if at == 0]
    return (begun or [first])[-1], tuple(
        (at, format) for at, format in later if 0 < at < len(shown.times_ns)
    )


def _promised_frames(source: Source, scan: Scan, shown: Presentation, head: bytes) -> int | None:
    """The number of shown frames by the container's index or header; None if it has neither."""
    found = len(shown.times_ns) + shown.duplicates
    name = source.container.format.name
    if name.startswith("mov") and source.stream.frames:
        # The edit list is applied to the demuxer's index, but not to the sample table of `frames`.
        missing = len(source.stream.index_entries) - len(scan.table.pts)
        return found + max(0, missing)
    if name == "avi" and source.stream.frames:
        return max(found, source.stream.frames - source.empty_packets)
    if source.is_matroska:
        return _promised_by_matroska(source, scan, shown, head)
    return None


def _promised_by_matroska(
    source: Source, scan: Scan, shown: Presentation, head: bytes
) -> int | None:
    """Frames in the file, and missing ones by the duration and by bytes that belong to no packet."""
    found = len(shown.times_ns) + shown.duplicates
    time_base = source.stream.time_base or Fraction(1, 1000)
    interval_ns = int(np.median(np.diff(shown.times_ns))) if len(shown.times_ns) > 1 else SECOND_NS
    pts = scan.table.pts
    missing = 0
    for at in scan.after_holes:
        if 0 < at < len(pts) and MISSING not in pts[at - 1 : at + 1]:
            gap_ns = int(pts[at] - pts[at - 1]) * time_base * SECOND_NS
            missing += max(0, round(gap_ns / interval_ns) - 1)
    # Only a duration in the file counts; if there is none, FFmpeg guesses it from the bit rate.
    if b"\x44\x89\x84" in head or b"\x44\x89\x88" in head:
        ends = (pts + np.maximum(scan.table.duration, 0))[pts != MISSING]
        end_ns = int(int(ends.max(initial=0)) * time_base * SECOND_NS)
        # The duration counts from the start of a stream that starts below zero, otherwise from zero.
        end_ns = max(end_ns, end_ns - int(shown.times_ns[0]), source.other_streams_end_ns)
        short = max(0, (source.container.duration or 0) * 1000 - end_ns) // interval_ns
        # Programs round the duration, and only some include the time of the last frame.
        missing += short if short > 2 else 0
    elif not missing:
        return None
    return found + missing


def _check_extent(
    shown: Presentation, limits: VideoLimits, scan: Scan, found: int, promised: int | None
) -> None:
    """Raise RefusedInput for a video that is truncated, too short, too long, or has long gaps."""
    times = shown.times_ns
    expected = promised if promised is not None else found
    if promised is not None and found < limits.min_decoded * promised:
        message = f"truncated: {found} of {promised} frames by the container's duration or index"
        raise RefusedInput(
            Reason.TRUNCATED, message, frames_expected=promised, frames_decoded=found
        )
    if scan.demux_error and promised is None:
        message = f"corrupt: {scan.demux_error} after {found} frames"
        raise RefusedInput(Reason.CORRUPT, message, frames_decoded=found)
    if len(times) < 2:
        message = f"too short: {len(times)} frame"
        raise RefusedInput(
            Reason.TOO_SHORT, message, frames_expected=expected, frames_decoded=found
        )
    gaps = np.diff(times)
    widest = int(np.argmax(gaps))
    start_s = (int(times[widest]) - int(times[0])) / SECOND_NS
    if gaps[widest] > limits.max_gap_s * SECOND_NS:
        message = f"gap of {readable_time(int(gaps[widest]))} at {start_s:.1f} s, limit {limits.max_gap_s:g} s"
        raise RefusedInput(Reason.GAP_TOO_LONG, message)
    span = int(times[-1] - times[0])
    if span > limits.max_hours * 3600 * SECOND_NS:
        message = f"too long: {readable_time(span)}, limit {limits.max_hours:g} h"
        raise RefusedInput(Reason.TOO_LONG, message)
