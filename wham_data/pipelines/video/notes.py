"""Notes for a person on what is unusual about a video."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc

from wham_data.pipelines.video.packets import Presentation
from wham_data.pipelines.video.scale import PictureFormat
from wham_data.pipelines.video.source import VideoLimits
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.errors import plain_number

MOST_MENTIONED: Final = 3
"""Changes of the picture size that get a note each; the others are only counted."""


def readable_time(ns: int) -> str:
    """A length of time as text in a readable unit."""
    seconds = ns / SECOND_NS
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{plain_number(seconds / length)} {unit}"
    return f"{plain_number(seconds)} s"


def time_notes(shown: Presentation, time_base: Fraction, limits: VideoLimits) -> list[str]:
    """What is unusual about the times."""
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
        notes.append(
            f"variable rate: {plain_number(low / 1e6)}..{plain_number(high / 1e6)} ms between frames"
        )
    if median * limits.max_fps < SECOND_NS * 0.99:
        notes.append(f"high rate: {SECOND_NS / median:.0f} frames per second")
    return notes


def change_notes(
    first: PictureFormat, changes: tuple[tuple[int, PictureFormat], ...], times_ns: Nanos
) -> list[str]:
    """Where the pictures change their size; see `VideoIndex.changes`."""
    notes = []
    formats = [first, *(format for _, format in changes)]
    for old, (at, new) in zip(formats, changes[:MOST_MENTIONED], strict=False):
        sizes = f"from {old.width}x{old.height} to {new.width}x{new.height}"
        notes.append(f"picture size changes {sizes} at {times_ns[at] / SECOND_NS:.2f} s: cut there")
    if len(changes) > MOST_MENTIONED:
        notes.append(f"{len(changes) - MOST_MENTIONED} more changes of the picture size")
    return notes


def picture_notes(picture: VideoFrame, picture_format: PictureFormat) -> list[str]:
    """What is unusual about the first picture and its format."""
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
