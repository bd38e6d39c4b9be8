"""How a controller log was understood, line by line, also one that is refused; and metadata to write.

Nothing is decided here: it is told what `log_metadata` and the forms of logs make of a file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from wham_data.files.found import open_regular
from wham_data.pipelines.align import typical_interval
from wham_data.pipelines.readers.kit.column_guesses import columns_block, key, nearest_space, text
from wham_data.pipelines.readers.video_log.column_roles import (
    ColumnRoles,
    assign_columns,
    match_controls,
)
from wham_data.pipelines.readers.video_log.log_format import UNIT_NAMES, LogFormat
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata
from wham_data.pipelines.readers.video_log.log_rows import (
    in_nanoseconds,
    open_log,
    ticking,
    with_vector,
)
from wham_data.pipelines.readers.video_log.log_table import LogFile, WantedColumns
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.pipelines.readers.video_log.time_column import found_unit, unit_in_row
from wham_data.schemas.actions import ActionSpace, load_space, space_names
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.errors import Reason, RefusedInput, printable
from wham_data.schemas.recording import ActionTrack

HEAD_BYTES: Final = 1 << 16
FIRST_LINES: Final = 4
FEW_ROWS: Final = 3
LINE_WIDTH: Final = 160
MOST_COLUMNS: Final = 64


@dataclass(slots=True)
class LogExplained:
    """A log as it was understood, as far as that went.

    lines    for a person
    space    the action space, found or the nearest; None: nothing is known
    pairs    dimension (or unit of time) -> column or control
    unknown  dimensions of the space that nothing stands for
    clock    the column that tells the time and its unit, where only the content told it
    sure     the space and the pairs are what would be read; False: they are guesses
    ticking  the log counts tics, which is only used without metadata
    """

    lines: list[str] = field(default_factory=list)
    space: ActionSpace | None = None
    pairs: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    clock: tuple[str, str] | None = None
    sure: bool = False
    ticking: bool = False


def explained_log(
    path: Path,
    metadata: LogMetadata,
    space: ActionSpace | None,
    video_ns: int | None,
    target: ActionSpace | None = None,
) -> LogExplained:
    """What is made of a log: its first lines, columns, clock and controls.

    Args:
        path: of the log.
        metadata: of it.
        space: the action space that somebody asked for; None: by the columns.
        video_ns: how long the video is, which may tell the unit of the clock; None: not known.
        target: the space that is taken where the log fits several; None: not known.
    """
    found = LogExplained()
    found.lines += [f"line {n}: {line}" for n, line in enumerate(head_lines(path), 1)]
    try:
        file = open_log(path, metadata)
        found.lines.append(file.format.summary)
        found.lines.append(f"columns: {_all_listed(file.columns)}")
        whole, space = with_vector(file, metadata.columns, space)
        if whole is not file:
            vector = next(name for name in file.columns if name not in whole.columns)
            found.lines.append(f"column {listed([vector])} holds all numbers of an action")
        _explain_columns(found, whole, metadata, space, video_ns, target)
    except RefusedInput as why:
        found.lines.append(f"stops here [{why.reason}]: {why.message[:LINE_WIDTH]}")
    except OSError as error:
        found.lines.append(f"stops here: cannot be read: {error.strerror}")
    return found


def _explain_columns(
    found: LogExplained,
    file: LogFile,
    metadata: LogMetadata,
    asked: ActionSpace | None,
    video_ns: int | None,
    target: ActionSpace | None,
) -> None:
    mapping = metadata.columns
    if metadata.tick_rate is not None:
        mapping = ticking(file.columns, mapping)
    spaces = [load_space(name) for name in space_names()] if asked is None else [asked]
    try:
        roles, space = assign_columns(
            file.columns, mapping, asked, file.format.time_column, metadata.at_rest, target
        )
    except RefusedInput:
        found.space, found.pairs = nearest_space(file.columns, spaces)
        found.unknown = tuple(n for n in found.space.names if n not in found.pairs)
        raise
    found.ticking = roles.tick is not None
    how = "declared" if metadata.declares(roles.time) else "by its name"
    if not roles.unit_known and not roles.numbered and metadata.tick_rate is None:
        said = unit_in_row(dict(file.format.units), roles.time)
        how = "by the row of units" if said else "by the length of the video"
        if said is None and video_ns is None:
            what = "what it counts in only the length of a video can tell"
            raise RefusedInput(Reason.LOG_CLOCK, f"column {listed([roles.time])}: {what}")
        unit = said or found_unit(file, roles.time, video_ns or 0)
        roles = replace(roles, unit=unit)
        found.clock = roles.time, unit
    events = roles.control is not None and roles.value is not None
    numbers = (str(roles.value),) if events else ()
    wanted = WantedColumns(roles.time, roles.unit, numbers, roles.control, roles.keys)
    table = in_nanoseconds(file.read(wanted), metadata.tick_rate)
    if table.format.time_kind.startswith("dates"):
        found.clock = None
    found.lines.append(_clock_line(roles, table.format, metadata.tick_rate, how))
    found.lines.append(_rows_line(table.times_ns, counts=roles.numbered))
    if events:
        found.lines.append(f"a log of events: {roles.control} names what {roles.value} is of")
        _explain_controls(
            found, table.control_names, roles, mapping, asked, spaces, metadata.ignore, target
        )
    elif space is not None:
        found.pairs, found.space = dict(roles.dimensions), space
    found.sure = True
    found.lines += meanings(found.pairs, metadata)
    if roles.at_rest:
        found.lines.append(
            f"without a column, declared to be at rest: {_all_listed(roles.at_rest)}"
        )
    if roles.ignored:
        found.lines.append(f"without a meaning: {_all_listed(roles.ignored)}")


def _explain_controls(
    found: LogExplained,
    names: tuple[str, ...],
    roles: ColumnRoles,
    mapping: Mapping[str, str],
    asked: ActionSpace | None,
    spaces: Sequence[ActionSpace],
    ignore: Sequence[str],
    target: ActionSpace | None,
) -> None:
    found.space, found.pairs = nearest_space(names, spaces)
    found.lines.append(f"controls: {_all_listed(names)}")
    column = roles.control if roles.keys else None
    meant = match_controls(names, mapping, asked, column, ignore, target)
    found.space = meant.space
    pairs = zip(names, meant.places, strict=True)
    found.pairs = {found.space.names[place]: name for name, place in pairs if place >= 0}


def _clock_line(roles: ColumnRoles, found: LogFormat, tick_rate: int | None, how: str) -> str:
    column = f"clock: column {listed([roles.time])}"
    if roles.numbered:
        return f"{column} numbers the frames of the video ({how})"
    if tick_rate is not None:
        return f"{column} counts {tick_rate} ticks a second (declared)"
    if found.time_kind.startswith("dates"):
        return f"{column} holds {found.time_kind}"
    return f"{column} counts {UNIT_NAMES[roles.unit]} ({how})"


def _rows_line(times_ns: Nanos, *, counts: bool) -> str:
    first, last = int(times_ns[0]), int(times_ns[-1])
    if counts:
        return f"rows: {len(times_ns)}, of the frames {first} to {last}"
    typical = typical_interval(np.sort(times_ns)) if len(times_ns) > 1 else 0
    rate = f", typically {SECOND_NS / typical:.1f} a second" if typical else ""
    return f"rows: {len(times_ns)}, from {first / 1e9:.6f} to {last / 1e9:.6f} s{rate}"


def meanings(pairs: Mapping[str, str], metadata: LogMetadata) -> Iterator[str]:
    """Which column or control is which dimension, and who says so."""
    own = [name for name, column in pairs.items() if column == name]
    if own:
        yield f"by their own names: {_all_listed(own)}"
    for name, column in pairs.items():
        if column == name:
            continue
        how = "declared" if metadata.declares(column) else "by its name"
        yield f"{printable(column[:60])} is {name} ({how})"
    scaled = [name for name, column in pairs.items() if {name, column} & metadata.scales.keys()]
    if scaled:
        yield f"on a declared scale: {_all_listed(scaled)}"


def _all_listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name[:60]) for name in names[:MOST_COLUMNS])
    return shown + (f" and {len(names) - MOST_COLUMNS} more" if len(names) > MOST_COLUMNS else "")


def head_lines(path: Path) -> list[str]:
    """The first lines of a text log as they stand, unpacked, cut and harmless; none of other forms."""
    if path.name.lower().endswith(".parquet"):
        return []
    try:
        with open_regular(path) as file:
            if path.name.lower().endswith(".gz"):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    head = unpacked.read(HEAD_BYTES)
            else:
                head = file.read(HEAD_BYTES)
    except (RefusedInput, OSError, EOFError, zlib.error):
        return []
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    lines = head.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines()[:FIRST_LINES]
    return [printable(line[:LINE_WIDTH]) + ("..." if line[LINE_WIDTH:] else "") for line in lines]


def rows_on_video_clock(track: ActionTrack) -> list[str]:
    """The first and the last rows of a track: when, and what is not at rest."""
    total = len(track.times_ns)
    rows = sorted({*range(min(FEW_ROWS, total)), *range(max(0, total - FEW_ROWS), total)})
    lines = []
    for before, row in zip([-1, *rows], rows, strict=False):
        if row != before + 1:
            lines.append("...")
        values = track.values[row]
        moved = [
            f"{name} {value:g}"
            for name, value in zip(track.space.names, values.tolist(), strict=True)
            if value
        ]
        known = ", ".join(moved[:12]) if np.isfinite(values).all() else "not known"
        lines.append(f"{track.times_ns[row] / 1e9:.6f} s: {known or 'all at rest'}")
    return lines


def metadata_text(log: LogExplained, offset_ns: int, notes: Sequence[str]) -> str:
    """A metadata file that says what was understood; what is only guessed stands there as a guess.

    Args:
        log: as it was understood.
        offset_ns: of the log's clock, where it was found out.
        notes: of the recording, which become comments.
    """
    head = ["# By `wham-data ingest --explain`; docs/formats/video-log.md explains each line."]
    head += [f"# {printable(note)}" for note in notes]
    if log.space is not None and len(log.pairs) > 1:
        guess = "" if log.sure else "   # a guess by the names: correct it"
        head.append(f"actions = {text(log.space.name)}{guess}")
    if offset_ns:
        head.append(f"offset_ms = {offset_ns / 1_000_000:.6f}".rstrip("0").rstrip("."))
    else:
        head.append("# offset_ms = 0   # what the log's clock shows at the video's zero")
    if log.pairs and log.unknown:
        head.append(
            "# at_rest = true   # if the dimensions without a column below were never touched"
        )
    block = columns_block(log.pairs, log.unknown if log.pairs else ())
    if log.clock is not None:
        block.insert(1, f"{key(log.clock[0])} = {text(log.clock[1])}")
    return "\n".join([*head, "", *(block if len(block) > 1 else [f"# {block[0]}"])]) + "\n"
