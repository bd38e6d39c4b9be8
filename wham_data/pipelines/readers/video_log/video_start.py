"""The row of an event log that says when the video started: control `video_start`, any value."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from wham_data.pipelines.readers.video_log.log_clock import unwrapped
from wham_data.pipelines.readers.video_log.log_table import LogTable
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput

MARK: Final = "videostart"
"""The control's name: its letters and digits, in either case."""


def from_video_start(table: LogTable, first_frame_ns: int) -> LogTable:
    """An event log whose clock has its zero at the video's first frame, without the row that marks it.

    The marker may stand anywhere in the file, as its time is not that of an action. A log without one
    stays as it is, but for a counter that wraps, which is counted on.

    Args:
        table: of an event log, as read.
        first_frame_ns: time of the first frame, on the video's own clock.

    Raises:
        RefusedInput: LOG_CLOCK, several rows mark a start, at different times.
    """
    times_ns, notes = unwrapped(table.times_ns)
    names = ["".join(filter(str.isalnum, name.lower())) for name in table.control_names]
    marks = np.array([name == MARK for name in names], np.bool_)[table.controls]
    if not marks.any() or marks.all():
        return replace(table, times_ns=times_ns, notes=(*table.notes, *notes))
    starts_ns = np.unique(times_ns[marks])
    if len(starts_ns) > 1:
        some = ", ".join(f"{start / SECOND_NS:.3f}" for start in starts_ns[:3])
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"{len(starts_ns)} rows video_start, at {some} s: a log is of one video. Delete the "
            "others, or cut the log",
        )
    zero_ns = int(starts_ns[0]) - first_frame_ns
    keep = ~marks
    kept, controls = np.unique(table.controls[keep], return_inverse=True)
    return replace(
        table,
        times_ns=times_ns[keep] - zero_ns,
        numbers=table.numbers[keep],
        control_names=tuple(table.control_names[code] for code in kept.tolist()),
        controls=controls,
        words=table.words[keep] if len(table.words) else table.words,
        devices=table.devices[keep] if len(table.devices) else table.devices,
        span_ns=table.span_ns and (table.span_ns[0] - zero_ns, table.span_ns[1] - zero_ns),
        notes=(
            *table.notes,
            *notes,
            f"the video starts at the log's row video_start, {starts_ns[0] / SECOND_NS:.3f} s",
        ),
    )
