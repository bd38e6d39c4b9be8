"""Finds the gaps of a recording that a reader opened.

A reader says what its source holds. The person who ingests sets how long the source may be silent
before the silence is a gap. This setting is needed only here, after the reader is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from wham_data.pipelines.align import cut_at_gaps, held_until
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack, OpenRecording

MENTIONED_NS: Final = SECOND_NS // 10
"""If the log misses less time than this, there is no note about it, in nanoseconds."""
UNKNOWN: Final = re.compile(r"\b(?:not known|unknown before)\b")
"""Notes of readers that say why actions are not known."""
MENTIONED_GAPS: Final = 3
"""This many gaps of a log get a note each; the others are only counted."""


def apply_max_gap(opened: OpenRecording, max_gap_ns: int) -> None:
    """Count the gaps of the video, limit how long a row of a sampled log lasts, check coverage.

    Changes `clock.gaps`, `data.actions.max_hold_ns` and `notes` of the recording in place.

    Args:
        opened: a recording that a reader opened.
        max_gap_ns: a time without a new frame, or without a row of a sampled log, is a gap if it is
            longer than this.

    Raises:
        RefusedInput: LOG_COVERAGE, the log covers less of the video than `min_coverage`.
    """
    times_ns, end_ns = opened.frame_times_ns, opened.frame_end_ns
    gaps = max(0, len(cut_at_gaps(times_ns, end_ns, max_gap_ns)) - 1)
    opened.clock = replace(opened.clock, gaps=gaps)
    track = opened.actions
    if track is None:
        return
    if track.sampled:
        track = replace(track, max_hold_ns=max_gap_ns)
        opened.data = replace(opened.data, actions=track)
    if opened.min_coverage is not None:
        causes = [note for note in opened.notes if UNKNOWN.search(note)]
        opened.notes += check_coverage(
            track, times_ns, end_ns, max_gap_ns, opened.min_coverage, causes
        )


def check_coverage(
    track: ActionTrack,
    frame_times_ns: Nanos,
    end_ns: int,
    max_gap_ns: int,
    min_coverage: float,
    causes: Sequence[str] = (),
) -> tuple[str, ...]:
    """Refuse a log that covers too little of the video; return notes about smaller gaps.

    Args:
        track: the log.
        frame_times_ns: int64 [N], N > 0.
        end_ns: the video covers [frame_times_ns[0], end_ns).
        max_gap_ns: a longer time without a new frame is a gap, for which no log is needed.
        min_coverage: least share of the video, without its gaps, that the log must cover.
        causes: why something is not known, as far as readers have said it.

    Returns:
        Notes on the parts that the log does not cover.

    Raises:
        RefusedInput: LOG_COVERAGE, the log covers less.
    """
    start_ns, steps_ns = int(frame_times_ns[0]), np.diff(frame_times_ns)
    unseen_ns = int(steps_ns[steps_ns > max_gap_ns].sum())
    until = held_until(track)
    inside = np.minimum(until, end_ns) - np.maximum(track.times_ns, start_ns)
    inside = np.where(np.isfinite(track.values).all(axis=1), inside, 0)
    covered_ns, video_ns = int(np.maximum(inside, 0).sum()), end_ns - start_ns - unseen_ns
    covers = f"log covers {seconds_text(covered_ns)} of {seconds_text(video_ns)} s"
    if covered_ns < min_coverage * video_ns:
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{covers} of the video, less than {min_coverage:.0%}: too short"
            f"{'; '.join(('', *causes, *_what_to_do(track, causes)))}",
        )
    notes = []
    first_ns, last_ns = int(track.times_ns[0]), track.end_ns
    late_ns, early_ns = first_ns - start_ns, end_ns - last_ns
    if max(late_ns, early_ns) > MENTIONED_NS:
        where = [f"starts {seconds_text(late_ns)} s late"] if late_ns > MENTIONED_NS else []
        where += [f"ends {seconds_text(early_ns)} s early"] if early_ns > MENTIONED_NS else []
        notes.append(f"{covers}: it {' and '.join(where)}")
    if min(late_ns, early_ns) < -MENTIONED_NS:
        beyond_ns = max(-late_ns, 0) + max(-early_ns, 0)
        notes.append(f"log runs {seconds_text(beyond_ns)} s beyond the video")
    silent = np.flatnonzero(until < np.append(track.times_ns[1:], until[-1]))
    for row in silent[:MENTIONED_GAPS]:
        length_ns = int(track.times_ns[row + 1] - track.times_ns[row])
        at = seconds_text(int(track.times_ns[row]))
        notes.append(f"gap of {seconds_text(length_ns)} s in the log at {at} s")
    if len(silent) > MENTIONED_GAPS:
        notes.append(f"{len(silent) - MENTIONED_GAPS} more gaps in the log")
    return tuple(notes)


def _what_to_do(track: ActionTrack, causes: Sequence[str]) -> Iterator[str]:
    """What to try where a log is silent for long, or values are missing."""
    known = np.isfinite(track.values).all(axis=1)
    if (held_until(track)[:-1] < track.times_ns[1:]).any():
        yield "if a row is written only when something changes, set hold = true beside the log"
    elif track.sampled and not known.all():
        yield "a row needs a value for each control, also where it is 0"
    elif not track.sampled and known.any() and not causes:
        first, last = (seconds_text(ns) for ns in (int(track.times_ns[known][0]), track.end_ns))
        yield (
            f"a log of events is known from its first row ({first} s) to its last ({last} s): write a row "
            "when the recording starts, and one when it stops"
        )


def seconds_text(ns: int) -> str:
    """A time in seconds for messages: one decimal, or two digits if that would give 0.0."""
    return f"{ns / SECOND_NS:.1f}" if abs(ns) >= MENTIONED_NS or not ns else f"{ns / SECOND_NS:.2g}"
