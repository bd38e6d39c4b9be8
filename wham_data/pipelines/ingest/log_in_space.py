"""A recording's log in the action space of the corpus, and its actions step by step.

Most of a conversion is made of samples: a button held, a stick tilted. An axis that is made of a
speed, such as a stick of mouse motion, is made of steps instead: how far the mouse went in a step, by
how long the step is. The times between a log's rows say little of speed where it tells of motion in
bursts, and a row that lasts over the edge of a step belongs to both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import StepActions, resample_actions
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.conversion import (
    Conversion,
    converts_to,
    find_conversion,
    mapping_hint,
)
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import ActionTrack, AxisRule

MOSTLY: Final = 0.5


@dataclass(frozen=True, slots=True)
class ProjectedLog:
    """A log in the action space of the corpus.

    track   in that space; axes made of speeds are at rest in it
    moving  the log that those axes are made of, in the space that `speeds` starts from; None: no
            axis is made of a speed
    speeds  how they are made
    cut     dimension -> number of rows in which the conversion cut it off
    """

    track: ActionTrack
    moving: ActionTrack | None = None
    speeds: Conversion | None = None
    cut: Mapping[str, int] = field(default_factory=dict)

    def cut_notes(self, edges_ns: Sequence[Nanos]) -> list[str]:
        """What the conversion cut off, counted: a note for each dimension.

        Args:
            edges_ns: of each episode, int64 [T + 1]: for axes made of speeds steps are counted.
        """
        total = len(self.track.times_ns)
        notes = [_cut_note(name, count, total, "rows") for name, count in self.cut.items()]
        if self.moving is None or self.speeds is None:
            return notes
        made = [self.speeds.target.names[at] for at in self.speeds.speeds]
        cut: Counter[str] = Counter()
        for edges in edges_ns:
            seconds = np.diff(edges) / SECOND_NS
            cut.update(self.speeds.cut_off(moved(self.moving, edges), seconds))
        steps = sum(len(edges) - 1 for edges in edges_ns)
        return [*notes, *(_cut_note(name, cut[name], steps, "steps") for name in made if cut[name])]

    def over_steps(self, edges_ns: Nanos, axis_rule: AxisRule) -> StepActions:
        """One action for each step.

        Args:
            edges_ns: int64 [T + 1], step k covers [edges_ns[k], edges_ns[k + 1]).
            axis_rule: how the values of a stick within a step become one.
        """
        steps = resample_actions(self.track, edges_ns, axis_rule)
        if self.moving is None or self.speeds is None:
            return steps
        made = self.speeds.apply(moved(self.moving, edges_ns), np.diff(edges_ns) / SECOND_NS)
        values, axes = steps.values.copy(), self.speeds.speeds
        values[:, axes] = np.where(steps.known[:, None], made[:, axes], np.nan)
        return replace(steps, values=values)


def moved(track: ActionTrack, edges_ns: Nanos) -> NDArray[np.float64]:
    """How far the deltas of a log went in each step; everything else is at rest, float64 [T, A].

    The motion of a row is spread evenly until the next row, but over one step at most.

    Args:
        track: the log; what is missing in it did not move.
        edges_ns: int64 [T + 1], step k covers [edges_ns[k], edges_ns[k + 1]).
    """
    longest_ns = int(np.diff(edges_ns).max())
    start_ns = track.times_ns
    until_ns = np.append(start_ns[1:], max(track.end_ns, int(start_ns[-1]) + 1))
    until_ns = np.minimum(until_ns, start_ns + longest_ns)
    knots_ns = np.stack([start_ns, until_ns], axis=1).ravel() - edges_ns[0]
    far = np.zeros((len(edges_ns) - 1, track.space.size))
    for column in track.space.of_kind("delta"):
        so_far = np.append(0.0, np.cumsum(np.nan_to_num(track.values[:, column])))
        heights = np.stack([so_far[:-1], so_far[1:]], axis=1).ravel()
        far[:, column] = np.diff(np.interp(edges_ns - edges_ns[0], knots_ns, heights))
    return far


def project(
    track: ActionTrack | None, space: ActionSpace, settings: IngestSettings
) -> ProjectedLog | None:
    """The log in the corpus' action space; None stays None.

    Args:
        track: as the reader gave it.
        space: of the corpus.
        settings: say whether somebody asked for that space, and by which mapping.

    Raises:
        RefusedInput: SPACE_MISMATCH, it is in another space and nobody asked for a conversion, or
            there is none.
    """
    if track is None or track.space == space:
        return None if track is None else ProjectedLog(track)
    if settings.space is None:
        by_mapping = mapping_hint(track.space.name, space.name)
        converts = space.name in converts_to(track.space.name) or not by_mapping
        how = f"--actions {space.name}" if converts else by_mapping
        raise RefusedInput(
            Reason.SPACE_MISMATCH,
            f"its log is in the action space {track.space.name}, the corpus in {space.name}; "
            f"ask for a conversion with {how}",
        )
    try:
        mapping = settings.mapping
        if mapping is None or not _leads_to(track.space, mapping.source):
            conversion = find_conversion(track.space, space)
            return ProjectedLog(_converted(track, conversion), cut=conversion.cut_off(track.values))
        start = _converted(track, find_conversion(track.space, mapping.source))
    except UsageError as error:
        by_mapping = mapping_hint(track.space.name, space.name) if settings.mapping is None else ""
        said = f"its log is in the action space {track.space.name}, take it with {by_mapping}"
        raise RefusedInput(Reason.SPACE_MISMATCH, said if by_mapping else str(error)) from None
    mapped = _converted(start, mapping.without_speeds)
    cut = mapping.without_speeds.cut_off(start.values)
    if not len(mapping.speeds):
        return ProjectedLog(mapped, cut=cut)
    return ProjectedLog(mapped, start, mapping, cut)


def _cut_note(name: str, count: int, total: int, what: str) -> str:
    note = f"the mapping cut {name} off in {count} of {total} {what}"
    if what == "steps" and count >= MOSTLY * total:
        return f"suspicious: {note}: is full_at too low, or is the motion no motion?"
    return note


def _leads_to(space: ActionSpace, other: ActionSpace) -> bool:
    return space == other or other.name in converts_to(space.name)


def _converted(track: ActionTrack, conversion: Conversion) -> ActionTrack:
    return replace(track, space=conversion.target, values=conversion.apply(track.values))
