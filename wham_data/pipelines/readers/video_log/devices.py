"""Logs that hold several devices: told apart by a column, never mixed.

Rows of two pads in turn are two logs, and one recording is made of each. A device that replaces
another, as a pad that comes back under a new number does, goes on in the same recording.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import open_regular
from wham_data.pipelines.readers.kit.column_guesses import text
from wham_data.pipelines.readers.video_log.log_clock import take_turns
from wham_data.pipelines.readers.video_log.log_format import LogFormat
from wham_data.pipelines.readers.video_log.log_table import LogFile, LogTable, WantedColumns
from wham_data.pipelines.readers.video_log.log_words import (
    KEY_COLUMNS,
    VERB_COLUMNS,
    listed,
    named_like,
)
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput, printable

DEVICE_NAME: Final = re.compile(
    r"(?:.*[._ ])?(?:(?:game|joy)?pad|joystick|joy|controller|device|player|user|agent|person|"
    r"seat|port|slot|instance|source|src|which|who|hid)s?"
    r"(?:[._ ]?(?:id|idx|index|no|nr|num|number|name|guid|uuid|instance|slot))*",
    re.ASCII | re.IGNORECASE,
)
OTHER_KINDS: Final = re.compile(r".*(?:keyboard|kbd|mouse|keys).*", re.IGNORECASE)
HEAD_BYTES: Final = 1 << 16
SELDOM: Final = 0.05
OFTEN: Final = 0.4
MOST_DEVICES: Final = 16
MOST_STREAMS: Final = 4
MOST_OTHERS: Final = 16


@dataclass(frozen=True, slots=True)
class Streams:
    """A column that splits the rows of a log into devices.

    column  its name
    names   the devices, in order of appearance
    codes   int64 [N]  positions in `names`
    mixed   rows of several devices lie over one another: they are separate logs
    replaced  each device follows the one before it for good
    """

    column: str
    names: tuple[str, ...]
    codes: Index
    mixed: bool
    replaced: bool

    def part(self, name: str) -> str:
        """What a recording of that device alone is called."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.column}_{name}")[:80]


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """A log of which only the rows of one device count, or whose device changes.

    file    the whole log
    keep    bool [N]   rows that count; None: all of them
    codes   int64 [N]  the device of each row; None: there is one
    hidden  columns that are used up
    notes   what a person should know
    """

    file: LogFile
    keep: NDArray[np.bool_] | None = None
    codes: Index | None = None
    hidden: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, but for those that are used up."""
        return tuple(name for name in self.file.columns if name not in self.hidden)

    @property
    def format(self) -> LogFormat:
        """See `LogFile.format`."""
        return self.file.format

    def labels(self, column: str) -> tuple[tuple[str, ...], Index]:
        """See `LogFile.labels`."""
        return self.file.labels(column)

    def read(self, wanted: WantedColumns) -> LogTable:
        """Read the wanted columns of the rows that count."""
        table = self.file.read(wanted)
        table = replace(table, notes=(*table.notes, *self.notes))
        rows = len(table.times_ns)
        if self.codes is not None:
            table = replace(table, devices=self.codes[:rows])
        if self.keep is None or not self.keep[:rows].any():
            return table
        kept = self.keep[:rows]
        return replace(
            table,
            times_ns=table.times_ns[kept],
            numbers=table.numbers[kept],
            controls=table.controls[kept] if len(table.controls) else table.controls,
            words=table.words[kept] if len(table.words) else table.words,
            devices=table.devices[kept] if len(table.devices) else table.devices,
            span_ns=(int(table.times_ns.min()), int(table.times_ns.max())),
        )


def may_name_devices(log: Path) -> bool:
    """Whether the first lines of a text log have a word that names devices; True for other forms.

    A look that costs little, for whoever lists many recordings.

    Raises:
        OSError, RefusedInput: it cannot be read.
    """
    if log.name.lower().endswith(".parquet"):
        return True
    with open_regular(log) as file:
        if log.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                try:
                    head = unpacked.read(HEAD_BYTES)
                except (EOFError, zlib.error):
                    return False
        else:
            head = file.read(HEAD_BYTES)
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    words = re.split(r"[^\w. ]+", head.decode("utf-16" if wide else "utf-8", "ignore"))
    return any(DEVICE_NAME.fullmatch(word.strip()) for word in words)


def device_streams(
    file: LogFile, columns: Mapping[str, str], ignored: Sequence[str]
) -> Streams | None:
    """The column that tells devices apart; None where there is only one device.

    Args:
        file: the log.
        columns: the metadata's pairs; a column that means something there is no device.
        ignored: columns that the metadata says to leave out.
    """
    taken = {*columns, *columns.values(), *ignored}
    streams: list[Streams] = []
    for name in file.columns:
        if name in taken or not DEVICE_NAME.fullmatch(name.strip()):
            continue
        names, codes = file.labels(name)
        if len(np.unique(codes)) > 1:
            once = np.count_nonzero(np.diff(codes)) < len(np.unique(codes))
            replaced = bool(once) and not any(map(OTHER_KINDS.fullmatch, names))
            mixed = not once and _mixed(file, columns, codes)
            streams.append(Streams(name, names, codes, mixed, replaced))
    return next((s for s in streams if s.mixed), streams[0] if streams else None)


def _mixed(file: LogFile, columns: Mapping[str, str], codes: Index) -> bool:
    """Whether devices that take turns move the same controls."""
    pairs = {**{right: left for left, right in columns.items()}, **columns}
    control = next((n for n in file.columns if "control" in (n, pairs.get(n))), None)
    if control is None and named_like(file.columns, VERB_COLUMNS):
        control = named_like(file.columns, KEY_COLUMNS)
    if control is None:
        return int(np.count_nonzero(np.diff(codes))) > SELDOM * len(codes)
    names, controls = file.labels(control)
    rows = min(len(codes), len(controls))
    seen = np.zeros((int(codes.max()) + 1, len(names)), np.bool_)
    seen[codes[:rows], controls[:rows]] = True
    return bool((seen.sum(axis=0) > 1).any())


def one_device(
    file: LogFile,
    columns: Mapping[str, str],
    ignored: Sequence[str],
    only: Mapping[str, str],
    part: str = "",
) -> DeviceLog:
    """The log of one device.

    Args:
        file: the whole log.
        columns, ignored: as for `device_streams`.
        only: column -> value; rows with another value do not count.
        part: of the recording: which device it is of; "": there is one.

    Raises:
        RefusedInput: LOG_COLUMN, several devices lie over one another and none is chosen, or the
            chosen one is not there.
    """
    hidden = (*ignored, *only)
    keep: NDArray[np.bool_] | None = None
    for column, value in only.items():
        if column not in file.columns:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"only: no column {listed([column])}; the log has {listed(file.columns)}",
            )
        names, codes = file.labels(column)
        mine = np.array([_same(name, value) for name in names], np.bool_)[codes]
        if not mine.any():
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"only: column {listed([column])} is never {listed([value])}; it holds "
                f"{listed(names)}",
            )
        keep = mine if keep is None else keep & mine
    streams = device_streams(file, columns, hidden) if keep is None else None
    if streams is None:
        return DeviceLog(file, keep, None, hidden)
    column = streams.column
    hidden = (*hidden, column)
    if not streams.mixed:
        if not streams.replaced:
            return DeviceLog(file, None, None, hidden)
        said = (
            f"column {listed([column])} says that the device is replaced: what the old one held is not "
            f"known until the new one's first row (ignore = [{text(column)}] if it means nothing)"
        )
        return DeviceLog(file, None, streams.codes, hidden, (printable(said),))
    chosen = [i for i, name in enumerate(streams.names) if part and streams.part(name) == part]
    if not chosen:
        raise _several(column, streams.names)
    note = f"column {column} holds {len(streams.names)} devices: this is {streams.names[chosen[0]]}"
    return DeviceLog(file, streams.codes == chosen[0], None, hidden, (printable(note),))


def check_other_columns(file: LogFile, ignored: Sequence[str], values: NDArray[np.float64]) -> None:
    """Refuse a log in which a column without a device's name splits the rows into streams.

    Args:
        file: the log.
        ignored: columns that mean nothing.
        values: float64 [N, A], what the hands did, in the order of the file.

    Raises:
        RefusedInput: LOG_COLUMN, naming the column and its values.
    """
    streams = [count for count in range(2, MOST_STREAMS + 1) if take_turns(values, count)]
    for column in ignored[:MOST_OTHERS] if streams else ():
        names, codes = file.labels(column)
        if len(names) in streams and np.count_nonzero(np.diff(codes)) > OFTEN * len(codes):
            raise _several(column, names)


def _several(column: str, names: tuple[str, ...]) -> RefusedInput:
    return RefusedInput(
        Reason.LOG_COLUMN,
        f"column {listed([column])} holds several devices ({listed(names)}) whose rows lie over one "
        f'another: choose one beside the log with only = {{ {listed([column])} = "'
        f'{listed(names[:1])}" }}, or say ignore = ["{listed([column])}"] if it means nothing',
    )


def _same(name: str, value: str) -> bool:
    """Whether a cell and a chosen value are one, as texts or as numbers."""
    try:
        return name.strip() == value.strip() or float(name) == float(value)
    except ValueError:
        return False
