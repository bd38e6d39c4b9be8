"""A session whose video is in several files and whose log is one: which files, and when each starts.

play_001.mp4  play_002.mp4          play.csv      numbered by a recorder that splits by size or time
GX010042.MP4  GX020042.MP4          GX010042.csv  chapters of an action camera
2026-03-01 20-11-07.mp4  ...        actions.csv   named by the time at which each began
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from wham_data.pipelines.readers.kit.gaps import seconds_text
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput

MOST_FILES: Final = 1000
FITS_NS: Final = SECOND_NS
"""A log may end this much after files that were joined end to end, and no more."""
NAMES_TELL_NS: Final = 2 * SECOND_NS
"""Names that tell the second of two starts tell the time between them give or take this."""
FROM_ZERO_NS: Final = SECOND_NS // 2
"""Clocks that start within this of one another are taken for clocks that start anew in each file."""

_NUMBERED: Final = re.compile(r"(.+?)[-_ .]*(?:part)?[-_ .]*?(\d{1,6})", re.IGNORECASE | re.ASCII)
_CHAPTER: Final = re.compile(r"(G[A-Z])(\d\d)(\d{4})", re.ASCII)
_CLOCK: Final = re.compile(
    r"(.*?)[-_ .]*(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)[-_ .T]+(\d\d)[-_.h]?(\d\d)[-_.m]?(\d\d)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a file in a series, by its name.

    whole    what the names have in common
    number   its number; of a file that is named by its time, seconds since the year 1
    by_time  it is named by the time at which it began
    """

    whole: str
    number: int
    by_time: bool = False


def place_of(stem: str) -> Place | None:
    """The place that a name without its ending tells; None where it tells none."""
    if chapter := _CHAPTER.fullmatch(stem):
        kind, number, film = chapter.groups()
        return Place(f"{kind}*{film}", int(number))
    if clock := _CLOCK.fullmatch(stem):
        try:
            began = datetime(*(int(digits) for digits in clock.groups()[1:]))  # type: ignore[arg-type]
        except ValueError:
            return None
        since = began - datetime.min
        return Place(clock[1], round(since.total_seconds()), by_time=True)
    numbered = _NUMBERED.fullmatch(stem)
    return Place(numbered[1], int(numbered[2])) if numbered else None


def series_start(stem: str) -> tuple[str, ...]:
    """With what the names of the files of its session start, and that of their log; () for no series."""
    place = place_of(stem)
    if place is None or not place.whole:
        return ()
    return (place.whole.partition("*")[0],)


@dataclass(frozen=True, slots=True)
class Session:
    """The files of one session, in their order, and its log."""

    videos: tuple[Path, ...]
    log: Path


def sessions_in(
    videos: Iterable[Path], logs: Mapping[Path, Path], shared: Mapping[Path, Path]
) -> list[Session]:
    """The sessions in several files, by their names alone.

    A file that has a log of its own is a recording of its own, except the first chapter of a camera; a
    log that has a video of its own is not that of a session.

    Args:
        videos: all videos.
        logs: log by its path without ending.
        shared: the log that is for all of a folder, by folder.
    """
    by_folder: dict[Path, list[Path]] = {}
    for video in videos:
        by_folder.setdefault(video.parent, []).append(video)
    sessions = []
    for folder, every in by_folder.items():
        series: dict[tuple[str, bool], list[tuple[int, Path]]] = {}
        stems = {video.stem for video in every}
        for video in every:
            if (place := place_of(video.stem)) is not None:
                series.setdefault((place.whole, place.by_time), []).append((place.number, video))
        for (whole, _), members in series.items():
            files = [video for _, video in sorted(members)]
            own = [video for video in files if video.with_suffix("") in logs]
            log = logs.get(folder / whole) if whole and whole not in stems else None
            if "*" in whole:
                log = logs.get(files[0].with_suffix("")) if own == files[:1] else None
                own = []
            if len(files) == len(every) > 1:
                log = log or shared.get(folder)
            if log is not None and not own and _is_series(members):
                sessions.append(Session(tuple(files), log))
    return sessions


def _is_series(members: Collection[tuple[int, Path]]) -> bool:
    """Whether there are several files, and each has another place."""
    return 1 < len({number for number, _ in members}) == len(members) <= MOST_FILES


@dataclass(frozen=True, slots=True)
class Extent:
    """The time of one file on its own clock: first and last frame, and when the last leaves the screen."""

    first_ns: int
    last_ns: int
    end_ns: int


def starts_of(
    names: Sequence[str], extents: Sequence[Extent], declared_ns: Sequence[int] | None
) -> tuple[list[int], bool, str]:
    """When the first frame of each file comes on the session's clock, which is that of the first file.

    Args:
        names: the files' names without endings, in order.
        extents: their times.
        declared_ns: the starts by the metadata; None: not said.

    Returns:
        the starts in ns, whether they were guessed, and what a person should know.

    Raises:
        RefusedInput: METADATA, the declared starts do not fit; LOG_CLOCK, the starts cannot be known.
    """
    firsts = [extent.first_ns for extent in extents]
    files = f"{len(names)} files"
    if declared_ns is not None:
        _check_declared(declared_ns, extents)
        return list(declared_ns), False, f"{files} placed by starts_ms"
    if all(before.last_ns < after.first_ns for before, after in pairwise(extents)):
        return (
            firsts,
            False,
            f"{files} read in the order of their clock, which runs on from file to file",
        )
    way_out = "; say when each starts: starts_ms = [0, ...] beside the log"
    if max(firsts) - min(firsts) > FROM_ZERO_NS:
        clocks = ", ".join(seconds_text(first) for first in firsts[:8])
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"the clocks of the {files} start at {clocks} s, neither alike nor one after the other{way_out}",
        )
    before = _check_names(names, extents, way_out)
    starts = [firsts[0]]
    for extent in extents[:-1]:
        starts.append(starts[-1] + extent.end_ns - extent.first_ns)
    at = ", ".join(seconds_text(start) for start in starts[:4]) + (
        ", ..." if len(starts) > 4 else ""
    )
    return (
        starts,
        True,
        f"{files} taken to follow one another without a gap, from {at} s (starts_ms){before}",
    )


def _check_declared(declared_ns: Sequence[int], extents: Sequence[Extent]) -> None:
    if len(declared_ns) != len(extents):
        raise RefusedInput(
            Reason.METADATA,
            f"starts_ms has {len(declared_ns)} numbers, and the session has {len(extents)} files",
        )
    for number, (extent, (start, after)) in enumerate(
        zip(extents, pairwise(declared_ns), strict=False)
    ):
        if start + extent.last_ns - extent.first_ns >= after:
            raise RefusedInput(
                Reason.METADATA,
                f"starts_ms: file {number + 2} starts at {seconds_text(after)} s, before the one before it ends",
            )


def _check_names(names: Sequence[str], extents: Sequence[Extent], way_out: str) -> str:
    """Refuse files of which one is missing, or between which time passed, by their names.

    Returns:
        what is to be said of a series that begins above 1, as a camera's counter does; else "".
    """
    places = [place for place in map(place_of, names) if place is not None]
    if len(places) < len(names):
        return ""
    if not places[0].by_time:
        first = places[0].number
        missing = sorted(set(range(first, places[-1].number)) - {place.number for place in places})
        if missing:
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"of the session's files number {', '.join(map(str, missing[:8]))} is missing, and how long it "
                f"lasted is not known{way_out}",
            )
        return f"; they begin with number {first}: any before it are taken not to belong" * (
            first > 1
        )
    for extent, (before, after) in zip(extents, pairwise(places), strict=False):
        apart_ns = (after.number - before.number) * SECOND_NS
        length_ns = extent.end_ns - extent.first_ns
        if abs(apart_ns - length_ns) > NAMES_TELL_NS:
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"by their names two of the session's files begin {seconds_text(apart_ns)} s apart, and the first "
                f"lasts {seconds_text(length_ns)} s: the time between them is not known{way_out}",
            )
    return ""


def check_fit(span: tuple[int, int], starts: Sequence[int], end_ns: int, *, guessed: bool) -> None:
    """Refuse a log that is not surely that of all the files.

    Args:
        span: the log's first time, and its end.
        starts: when each file starts, over one.
        end_ns: when the last ends.
        guessed: the files are joined end to end because nothing tells the time between them.

    Raises:
        RefusedInput: LOG_COVERAGE, it ends before the last file starts, or begins after the first ends;
            LOG_CLOCK, it lasts longer than the files joined end to end.
    """
    if span[1] <= starts[-1] or span[0] >= starts[1]:
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"the log runs from {seconds_text(span[0])} to {seconds_text(span[1])} s, and the last of "
            f"{len(starts)} files starts at {seconds_text(starts[-1])} s: if it is the log of one of them "
            "alone, put the two into a folder of their own, under one name",
        )
    if guessed and span[1] - end_ns > FITS_NS:
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"the log ends at {seconds_text(span[1])} s and the {len(starts)} files, joined end to end, at "
            f"{seconds_text(end_ns)} s: is time missing between them? Say when each starts: starts_ms = [0, ...] "
            "beside the log",
        )
