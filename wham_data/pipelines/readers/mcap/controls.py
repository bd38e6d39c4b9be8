"""Messages of controls as a log: a column for each axis, button or component, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import DEFAULT_MAX_GAP_NS
from wham_data.pipelines.readers.kit.declared_actions import ActionPart, space_of
from wham_data.pipelines.readers.mcap.messages import TWIST
from wham_data.pipelines.readers.video_log.controller_log import ControllerLog, understood_log
from wham_data.pipelines.readers.video_log.log_format import LogFormat
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.pipelines.readers.video_log.log_table import LogTable, WantedColumns, distinct
from wham_data.pipelines.readers.video_log.scales import Scale
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack

TIME: Final = "time_ns"
RESTING: Final = 0.3
"""Share of the time that an axis is at one end, if that is where it rests."""


@dataclass(frozen=True, slots=True)
class ControlRows:
    """Controls as a `LogFile`.

    times_ns  int64   [N]
    names     of the C columns
    values    float64 [N, C]
    """

    times_ns: Nanos
    names: tuple[str, ...]
    values: NDArray[np.float64]

    @property
    def columns(self) -> tuple[str, ...]:
        """The time, and the names."""
        return (TIME, *self.names)

    @property
    def format(self) -> LogFormat:
        """Of which nothing is guessed."""
        return LogFormat(encoding="", time_column=TIME, rows=len(self.times_ns))

    def read(self, wanted: WantedColumns) -> LogTable:
        """The wanted columns."""
        places = [self.names.index(name) for name in wanted.numbers]
        return LogTable(self.times_ns, self.values[:, places], format=self.format)

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """A column as names."""
        return distinct(self.values[:, self.names.index(column)].tolist())


def numbered_space(names: tuple[str, ...]) -> ActionSpace:
    """The space of controls that nobody has named: every one, as it is called in the message.

    The axes of a Joy are in -1..1, and its buttons are buttons. Components of a Twist have no limits.
    """
    joy = names != TWIST
    most = 1.0 if joy else np.inf
    parts = [
        ActionPart.switches(name, 1)
        if name.startswith("buttons_")
        else ActionPart.numbers(name, -most, most, 1)
        for name in names
    ]
    axes = sum(name.startswith("axes_") for name in names)
    return space_of(parts, f"joy_{axes}_{len(names) - axes}" if joy else "twist")


def unlike_at_start(rows: ControlRows) -> tuple[str, ...]:
    """A note for each axis that is 0 until it first moves and never again, but rests at an end.

    So drivers give triggers of which they know nothing until they are touched.
    """
    values = rows.values[np.argsort(rows.times_ns, kind="stable")]
    notes: list[str] = []
    for name, column in zip(rows.names, values.T, strict=True):
        moved = np.flatnonzero(column)
        if not name.startswith("axes_") or not len(moved) or not moved[0]:
            continue
        later = column[moved[0] :]
        ends, counts = np.unique(later[np.abs(later) == 1], return_counts=True)
        if later.all() and counts.max(initial=0) >= RESTING * len(later):
            rest, since_s = ends[counts.argmax()], rows.times_ns[moved[0]] / SECOND_NS
            notes.append(
                f"suspicious: {name} is 0 until {since_s:.1f} s and never again, and rests at {rest:g}: a "
                "trigger of which the driver knew nothing before?"
            )
    return tuple(notes)


def controls_log(
    rows: ControlRows,
    metadata: LogMetadata,
    space: ActionSpace | None,
    frame_times_ns: Nanos,
    frame_end_ns: int,
) -> ControllerLog:
    """What the hands did, as the metadata say, or in a space of numbered controls.

    Where rows are written on change only, the last one holds to the end of the pictures: the recorder
    was there, and recorded no other.

    Args:
        rows: on the clock of the frames.
        metadata: may say what the columns mean.
        space: that the metadata name; None: they name none.
        frame_times_ns, frame_end_ns: of the pictures.

    Raises:
        RefusedInput: LOG_CLOCK, no row is of the time of the pictures; as `read_controller_log`.
    """
    notes: tuple[str, ...] = ()
    if space is None and not metadata.columns:
        space = numbered_space(rows.names)
        # What has no name has no habit either: nothing is recognised, values stay as they are.
        metadata = replace(metadata, scales=dict.fromkeys(rows.names, Scale()))
        if rows.names != TWIST:
            notes = ("axes and buttons have no names: [columns] in NAME.toml says what they mean",)
    log = understood_log(rows, metadata, space, frame_times_ns, frame_end_ns)
    track = log.track
    silent_ns = frame_end_ns - track.end_ns
    if not log.sampled:
        track = replace(track, end_ns=max(track.end_ns, frame_end_ns))
    elif metadata.hold is None and silent_ns > DEFAULT_MAX_GAP_NS:
        notes += (
            f"nothing of the controls in the last {silent_ns / SECOND_NS:.1f} s: not known (hold = true in "
            "NAME.toml says that they are told on change only)",
        )
    _check_overlap(track, int(frame_times_ns[0]), frame_end_ns)
    return replace(log, track=replace(track, sampled=log.sampled), notes=(*notes, *log.notes))


def _check_overlap(track: ActionTrack, start_ns: int, end_ns: int) -> None:
    first_ns = int(track.times_ns[0])
    if first_ns < end_ns and track.end_ns > start_ns:
        return
    late_s, last_s = ((each - start_ns) / SECOND_NS for each in (first_ns, track.end_ns))
    raise RefusedInput(
        Reason.LOG_CLOCK,
        f"no overlap: the pictures last {(end_ns - start_ns) / SECOND_NS:.1f} s, and the controls run "
        f"from {late_s:.1f} to {last_s:.1f} s after the first: do they belong together?",
    )
