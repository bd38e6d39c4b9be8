"""Find out what a video file contains, in one pass over its packets."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av.error
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream

from wham_data.files.marks import model_in_tags
from wham_data.pipelines.video.bitstream import inspector
from wham_data.pipelines.video.matroska import hides_frames
from wham_data.pipelines.video.packets import MISSING, PacketTable, Presentation, present
from wham_data.pipelines.video.scale import PictureFormat
from wham_data.pipelines.video.source import (
    REORDERING,
    Source,
    VideoLimits,
    check_image_header,
    plain,
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
    picture             size, orientation, pixel format and colour of the pictures
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

    @property
    def end_ns(self) -> int:
        """The time at which the last frame leaves the screen."""
        return int(self.times_ns[-1]) + self.last_interval_ns


def index_video(path: Path, limits: VideoLimits | None = None) -> VideoIndex:
    """Read all packet headers of a video, decode its first picture, and describe the content.

    Memory and time never depend on a number in a header or on a time stamp.

    Args:
        path: any file; its name and extension are ignored.
        limits: limits of the video. Default: `VideoLimits()`.

    Raises:
        RefusedInput: the file is not a video of an accepted type, or it is truncated, damaged, too
            large, too short, too long, or has time stamps that are not valid.
    """
    limits = limits or VideoLimits()
    head = read_head(path)
    refuse_by_content(head)
    with Source(path, limits, stream=None, head=head) as source:
        scan = _Scan(source, path, limits)
        codec, container = source.codec, source.container.format.name
        time_base = source.stream.time_base
        assert time_base is not None
        if not len(scan.table.pts):
            message = f"no frames: container says {source.stream.frames}"
            raise RefusedInput(Reason.NO_FRAMES, message, frames_expected=source.stream.frames)
        shown = present(
            scan.table,
            time_base,
            reorders=codec in REORDERING,
            decoding_times_only=container == "avi",
        )
        found = len(shown.times_ns) + shown.duplicates
        promised = _promised_frames(source, scan, shown, head)
        _check_extent(shown, limits, scan, found, promised)
        picture = scan.first_picture
        if picture is None:
            message = f"no decodable frame: {scan.first_error} (container has {found} frames)"
            raise RefusedInput(Reason.NO_FRAMES, message, frames_expected=found, frames_decoded=0)
        if picture.width * picture.height > limits.max_pixels:
            raise too_many_pixels(picture.width, picture.height, limits)
        aspect = source.stream.sample_aspect_ratio or Fraction(1)
        picture_format = PictureFormat.of(picture, aspect)
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
                + _time_notes(shown, time_base, limits)
                + _picture_notes(picture, picture_format)
            ),
            dreamt_by=model_in_tags(source.tags()),
            limits=limits,
            packets=scan.table,
            presentation=shown,
        )


KEY, DISCARD, CORRUPT = 1, 2, 4


def _typical_interval(intervals: Nanos) -> int:
    """The median interval in ns; if all intervals differ by at most 1 ns, the largest.

    So the last frame of a video of, for example, 30 frames per second covers a complete step of 30 Hz.
    """
    if int(intervals.max()) - int(intervals.min()) <= 1:
        return int(intervals.max())
    return int(np.median(intervals))


class _Scan:
    """One pass over the packets: their table, and the first picture that can be decoded."""

    MAX_TRIES = 8
    """Key frames that are decoded in search of the first picture."""

    def __init__(self, source: Source, path: Path, limits: VideoLimits) -> None:
        self.first_picture: VideoFrame | None = None
        self.first_error = "the decoder gives no picture"
        self.demux_error: str | None = None
        max_frames = int(limits.max_hours * 3600 * limits.max_fps)
        stamps = [array("q") for _ in range(4)]
        pts, dts, duration, size = stamps
        picture, flags = array("i"), array("B")
        inspect = inspector(source.codec, source.context.extradata or b"")
        tries = 0
        try:
            for packet in source.packets_of_all():
                picture_flags = inspect(memoryview(packet))
                pts.append(MISSING if packet.pts is None else packet.pts)
                dts.append(MISSING if packet.dts is None else packet.dts)
                duration.append(packet.duration or 0)
                size.append(packet.size)
                picture.append(picture_flags)
                flags.append(
                    packet.is_keyframe * KEY
                    | packet.is_discard * DISCARD
                    | packet.is_corrupt * CORRUPT
                )
                if self.first_picture is None and packet.is_keyframe and tries < self.MAX_TRIES:
                    tries += 1
                    self._decode_first_picture(source.context, packet, limits)
                if len(pts) > max_frames:
                    message = f"too long: more than {max_frames} frames ({limits.max_hours:g} h)"
                    raise RefusedInput(Reason.TOO_LONG, message)
        except av.error.FFmpegError as error:
            self.demux_error = plain(error)
        bits = np.array(flags, np.uint8)
        self.after_holes = _after_holes(source, path) if source.is_matroska else []
        bits[[at for at in self.after_holes if at < len(bits)]] |= CORRUPT
        self.table = PacketTable(
            pts=np.array(pts, np.int64),
            dts=np.array(dts, np.int64),
            duration=np.array(duration, np.int64),
            size=np.array(size, np.int64),
            picture=np.array(picture, np.int32),
            key=(bits & KEY) != 0,
            discard=(bits & DISCARD) != 0,
            corrupt=(bits & CORRUPT) != 0,
        )

    def _decode_first_picture(
        self, context: VideoCodecContext, packet: Packet[VideoStream], limits: VideoLimits
    ) -> None:
        data = bytes(packet)
        check_image_header(data, limits)
        try:
            # A copy is decoded, because an edit list may have marked the packet itself as hidden.
            frames = [*context.decode(Packet(data)), *context.decode(None)]
            self.first_picture = frames[0] if frames else None
        except av.error.FFmpegError as error:
            self.first_error = plain(error)
        finally:
            context.flush_buffers()


def _after_holes(source: Source, path: Path) -> list[int]:
    """Numbers of the packets before which frames are missing, judged by the bytes between packets."""
    with path.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        return [at for start, stop, at in source.holes if hides_frames(read, start, stop)]


def _promised_frames(source: Source, scan: _Scan, shown: Presentation, head: bytes) -> int | None:
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
    source: Source, scan: _Scan, shown: Presentation, head: bytes
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
    shown: Presentation, limits: VideoLimits, scan: _Scan, found: int, promised: int | None
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
        message = f"gap of {_readable_time(int(gaps[widest]))} at {start_s:.1f} s, limit {limits.max_gap_s:g} s"
        raise RefusedInput(Reason.GAP_TOO_LONG, message)
    span = int(times[-1] - times[0])
    if span > limits.max_hours * 3600 * SECOND_NS:
        message = f"too long: {_readable_time(span)}, limit {limits.max_hours:g} h"
        raise RefusedInput(Reason.TOO_LONG, message)


def _readable_time(ns: int) -> str:
    """A length of time as text in a readable unit."""
    seconds = ns / SECOND_NS
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def _time_notes(shown: Presentation, time_base: Fraction, limits: VideoLimits) -> list[str]:
    notes = []
    start, gaps = int(shown.times_ns[0]), np.diff(shown.times_ns)
    if start < 0:
        notes.append(f"negative start: first timestamp {start / SECOND_NS:.3f} s")
    elif start > SECOND_NS // 2:
        notes.append(f"starts at {start / SECOND_NS:.1f} s")
    if shown.lost_ns:
        notes.append(
            f"starts between key frames: the first {shown.lost_ns / SECOND_NS:.2f} s are lost"
        )
    if shown.by_order:
        notes.append("no presentation timestamps in the container: frames timed by their order")
    elif shown.filled:
        notes.append(f"{shown.filled} missing timestamps taken from decoding times")
    if shown.duplicates:
        notes.append(f"{shown.duplicates} frames with duplicate timestamps dropped")
    low, median, high = int(gaps.min()), float(np.median(gaps)), int(gaps.max())
    tick_ns = float(time_base) * SECOND_NS
    if high - low > max(2 * tick_ns + 1, 0.1 * median):
        notes.append(f"variable rate: {low / 1e6:.3g}..{high / 1e6:.3g} ms between frames")
    if median * limits.max_fps < SECOND_NS * 0.99:
        notes.append(f"high rate: {SECOND_NS / median:.0f} frames per second")
    return notes


def _picture_notes(picture: VideoFrame, picture_format: PictureFormat) -> list[str]:
    notes = []
    if picture_format.bit_depth > 8:
        notes.append(f"{picture_format.bit_depth}-bit")
    if picture_format.has_alpha:
        notes.append("alpha channel, shown over black")
    if picture_format.is_grey:
        notes.append(f"greyscale pixels ({picture_format.pixel_format})")
    if picture_format.rotation:
        notes.append(f"rotated by {picture_format.rotation} degrees")
    if picture_format.mirrored:
        notes.append("mirrored")
    if picture_format.sample_aspect != 1:
        notes.append(f"pixels are not square ({picture_format.sample_aspect})")
    if picture.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        notes.append("high dynamic range, not tone-mapped")
    if picture.interlaced_frame:
        notes.append("interlaced")
    return notes
