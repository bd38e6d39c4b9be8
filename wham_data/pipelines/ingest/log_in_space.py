"""Convert a recording's log to the action space of the corpus, and to one action for each step.

Most dimensions are converted sample by sample: whether a button is held, how far a stick is tilted.
A dimension that is computed from a speed, such as a stick from mouse motion, is converted step by
step instead: the distance that the mouse moved in the step, divided by the step's duration. The
rows of a log cannot be used for that, because many logs write motion in bursts, so the time between
two rows says little about speed. A row that covers the edge between two steps belongs to both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.align import StepActions, resample_actions
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.schemas.actions import NO_ACTIONS, ActionSpace, Dimension
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

    track   the converted log; dimensions that are computed from a speed are at rest in it
    moving  the log that those dimensions are computed from, in the source space of `speeds`; None:
            there is no such dimension
    speeds  the conversion for those dimensions
    cut     dimension -> count of rows in which the conversion clipped it
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
            axis_rule: how the values of a stick within a step are combined into one.
        """
        steps = resample_actions(self.track, edges_ns, axis_rule)
        if self.moving is None or self.speeds is None:
            return steps
        made = self.speeds.apply(moved(self.moving, edges_ns), np.diff(edges_ns) / SECOND_NS)
        values, axes = steps.values.copy(), self.speeds.speeds
        values[:, axes] = np.where(steps.known[:, None], made[:, axes], np.nan)
        return replace(steps, values=values)


def moved(track: ActionTrack, edges_ns: Nanos) -> NDArray[np.float64]:
    """The motion in each step: the sum of each dimension of kind "delta" over the step.

    The motion of a row is spread evenly over the time until the next row, but over one step at most.

    Args:
        track: the log; a missing value counts as no motion.
        edges_ns: int64 [T + 1], step k covers [edges_ns[k], edges_ns[k + 1]).

    Returns:
        float64 [T, A]; dimensions of other kinds are 0.
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
    """Convert a log to the action space of the corpus.

    Args:
        track: the log from the reader; None: the recording has none.
        space: action space of the corpus.
        settings: name the action space and the mapping that the user chose, if any.

    Returns:
        The converted log; None if `track` is None or no actions are asked for.

    Raises:
        RefusedInput: SPACE_MISMATCH, the log has another action space, and the user did not choose
            one or there is no conversion.
    """
    if track is None or settings.actions == NO_ACTIONS:
        return None
    if track.space == space:
        return ProjectedLog(track)
    if settings.space is None:
        raise RefusedInput(Reason.SPACE_MISMATCH, _difference(track.space, space))
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


def _difference(found: ActionSpace, wanted: ActionSpace) -> str:
    """What is wrong with a log of another space, and what to do."""
    said = f"its log has the action space {found.name}, but the corpus has {wanted.name}"
    if wanted.name in converts_to(found.name):
        return f"{said}; convert it with --actions {wanted.name}"
    if by_mapping := mapping_hint(found.name, wanted.name):
        return f"{said}; convert it with {by_mapping}"
    pairs = zip_longest(found.dimensions, wanted.dimensions)
    first = next(((a, b) for a, b in pairs if a != b), None)
    if found.name == wanted.name and first is not None:
        ends = ["none" if each is None else _described(each) for each in first]
        said += f" (of other dimensions: {ends[0]}, not {ends[1]})"
    return (
        f"{said}, and no conversion is known: put it in a corpus of its own, or write a --mapping"
    )


def _described(dimension: Dimension) -> str:
    return f"{dimension.kind} {dimension.name} of {dimension.low:g} to {dimension.high:g}"


def _leads_to(space: ActionSpace, other: ActionSpace) -> bool:
    return space == other or other.name in converts_to(space.name)


def _converted(track: ActionTrack, conversion: Conversion) -> ActionTrack:
    return replace(track, space=conversion.target, values=conversion.apply(track.values))
