"""Rows of the manifest's two tables: the episodes of a corpus, and the refused inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from wham_data.schemas.errors import Reason, RefusedInput, UsageError, printable
from wham_data.schemas.left_out import LeftOut, range_records
from wham_data.schemas.recording import ClockAudit

MOST_NOTES: Final = 32
MOST_NOTE_CHARACTERS: Final = 300
_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?\d[\d,.]*(?<=\d)(?![\w])")
_FILE_NAME: Final = re.compile(
    r"\S+\.(?:csv|jsonl?|toml|parquet|txt|tsv|gz|npz|mp4|mkv|webm|mov|avi|flv)\b", re.IGNORECASE
)
SPLITS: Final = ("train", "val", "test")
SHARD_NAME: Final = re.compile(r"[0-9a-f]{24}\.parquet")
UNSETTLED: Final = ""
"""`settings` of an input that was refused before there was a corpus, so under none."""
CREATED: Final = pa.field("created", pa.timestamp("us", tz="UTC"), nullable=False)


@dataclass(frozen=True, slots=True)
class Captions:
    """Texts of an episode that `wham-data caption` got from a model.

    model     name of the model, as it was asked for
    prompt    the instruction that was sent with each clip
    settings  hash of the model, the prompt and all else that shapes the texts
    made      when the newest of them was received, UTC
    steps     ranges [start, end) of the steps that have these texts, in order
    """

    model: str
    prompt: str
    settings: str
    made: datetime
    steps: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Captions:
        """The captions in a manifest record."""
        steps = tuple((each["start"], each["end"]) for each in record["steps"])
        return cls(**{**record, "steps": steps})

    def to_record(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {**asdict(self), "steps": range_records(self.steps)}


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """One episode and the place of its steps. The commit adds the column `created`.

    episode          name of the episode, unique in the corpus
    recording        hash over the bytes of the recording's files; a recording has one or more
                     episodes
    source           path or URI of the recording, as the user gave it
    format           name of the reader
    shard            file name under `shards/`
    shard_sha256     over the bytes of the shard
    row_start        row of the shard that holds step 0
    n_steps          count of steps, at least 1
    split            train, val or test
    subject          who or what was recorded, if that is not the player
    start_ns         time of step 0 on the recording's clock
    source_fps       typical frame rate of the video, Hz; 0 without a video
    clock            measurements of the recording's clock
    clamped          count of action values that were clamped to their range
    missing_actions  count of steps whose action is not known
    keep             step ranges [start, end) to train on, in order; None: the whole episode
    settings         `CorpusInfo.settings_hash`
    tokenizer        fingerprint of the tokenizer; None: no tokens
    notes            what was chosen, guessed or left out when it was read, a phrase each; see
                     `bounded_notes`
    captions         the texts that models wrote; a step is in at most one of them
    left_out         what commands took out of `keep`, and why; at most one by each

    Raises:
        UsageError: a name is missing, or rows or ranges make no sense.
    """

    episode: str
    recording: str
    source: str
    format: str
    shard: str
    shard_sha256: str
    row_start: int
    n_steps: int
    split: str
    settings: str
    game: str | None = None
    map: str | None = None
    match: str | None = None
    player: str | None = None
    subject: str | None = None
    license: str | None = None
    start_ns: int = 0
    source_fps: float = 0.0
    clock: ClockAudit = field(default_factory=ClockAudit)
    clamped: int = 0
    missing_actions: int = 0
    keep: tuple[tuple[int, int], ...] | None = None
    tokenizer: str | None = None
    notes: tuple[str, ...] = ()
    captions: tuple[Captions, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", bounded_notes(self.notes))
        if not self.episode or not self.recording or not self.split:
            raise UsageError(
                f"episode {self.episode!r}: episode, recording and split must be named"
            )
        if not SHARD_NAME.fullmatch(self.shard):
            raise UsageError(f"episode {self.episode}: {self.shard!r} is not the name of a shard")
        if self.row_start < 0 or self.n_steps < 1:
            raise UsageError(
                f"episode {self.episode}: {self.n_steps} steps from row {self.row_start}"
            )
        last = 0
        for start, end in self.keep or ():
            if not last <= start < end <= self.n_steps:
                raise UsageError(
                    f"episode {self.episode}: keep range [{start}, {end}) is out of order"
                )
            last = end

    @property
    def named_source(self) -> str:
        """`source` as the manifest stores it: bytes that are not UTF-8 become \\xNN."""
        return str(printable_unicode(self.source))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> EpisodeRow:
        """The row of a manifest record, without `created`."""
        keep = tuple((each["start"], each["end"]) for each in record["keep"])
        clock, notes = ClockAudit(**record["clock"]), tuple(record.get("notes") or ())
        captions = tuple(map(Captions.from_record, record.get("captions") or ()))
        left_out = tuple(map(LeftOut.from_record, record.get("left_out") or ()))
        read = {"clock": clock, "keep": keep, "notes": notes}
        read |= {"captions": captions, "left_out": left_out}
        return cls(**{**record, **read})


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One refused input. The commit adds the column `created`.

    path      path or URI of the input
    sha256    over the bytes of its files, as `EpisodeRow.recording`; "" if it cannot be read
    stage     where it was refused: find, open, decode, align, tokenize, write, split
    reason    the stable code
    message   one line with the details
    settings  `CorpusInfo.settings_hash`: under other settings the input may be good; UNSETTLED
              before there is a corpus
    frames_expected, frames_decoded  frame counts, if a video is cut off or damaged
    notes     what was noted of it before it was refused; see `bounded_notes`
    """

    path: str
    sha256: str
    stage: str
    reason: Reason | str
    message: str
    settings: str
    frames_expected: int | None = None
    frames_decoded: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", bounded_notes(self.notes))

    @classmethod
    def of(
        cls,
        refusal: RefusedInput,
        *,
        path: Path | str,
        sha256: str,
        stage: str,
        settings: str,
        message: str | None = None,
    ) -> QuarantineRow:
        """The row for an input that raised `refusal`.

        Args:
            refusal: the error.
            path, sha256, stage, settings: fields of the row.
            message: stored instead of the message of `refusal`; None: that one.
        """
        return cls(
            path=str(path),
            sha256=sha256,
            stage=stage,
            reason=refusal.reason,
            message=refusal.message if message is None else message,
            settings=settings,
            frames_expected=refusal.frames_expected,
            frames_decoded=refusal.frames_decoded,
            notes=refusal.notes,
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> QuarantineRow:
        """The row of a manifest record, without `created`."""
        notes = tuple(record.get("notes") or ())
        return cls(**{**record, "reason": reason_of(record["reason"]), "notes": notes})

    @property
    def key(self) -> tuple[str, str, str]:
        """(path, SHA-256, settings): at most one row has this key. Equal files have a row each."""
        return self.path, self.sha256, self.settings

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """(SHA-256, settings) and (path, settings): if one of them is in the corpus, the input is."""
        return frozenset((name, self.settings) for name in (self.sha256, self.path) if name)


def reason_of(code: str) -> Reason | str:
    """The reason with this code; a code of a newer release stays a text."""
    return Reason(code) if code in set(Reason) else code


def bounded_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes as they are stored: each once, on one line, cut after 300 characters, and at most 32.

    Of more than 32 the last says how many were left out. They may quote a file, so control characters
    are escaped.
    """
    each = dict.fromkeys(printable(note)[:MOST_NOTE_CHARACTERS] for note in notes)
    kept = tuple(note for note in each if note)
    if len(kept) > MOST_NOTES:
        return (*kept[: MOST_NOTES - 1], f"and {len(kept) - MOST_NOTES + 1} more notes")
    return kept


def kind_of_note(note: str) -> str:
    """What a note says without its numbers and file names, so that notes of one kind can be counted."""
    return _NUMBER.sub("N", _FILE_NAME.sub("FILE", note))


def _text(name: str, *, optional: bool = False) -> pa.Field:
    return pa.field(name, pa.string(), nullable=optional)


def _count(name: str, *, optional: bool = False) -> pa.Field:
    return pa.field(name, pa.int64(), nullable=optional)


CLOCK_TYPE: Final = pa.struct(
    [
        pa.field("variable_rate", pa.bool_(), nullable=False),
        _count("gaps"),
        _count("duplicates"),
        _count("longest_interval_ns"),
        _count("offset_ns"),
        pa.field("drift_ppm", pa.float64(), nullable=False),
        _count("frames_expected"),
        _count("frames_found"),
    ]
)


# Delta Lake calls the item of a list "element".
def _list_of(*fields: pa.Field) -> pa.ListType:
    """A list of records."""
    return pa.list_(pa.field("element", pa.struct(list(fields)), nullable=False))


RANGES_TYPE: Final = _list_of(_count("start"), _count("end"))
PARTS_TYPE: Final = _list_of(_count("start"), _count("end"), _text("reason"))

NOTES: Final = pa.field(
    "notes", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=True
)
MADE: Final = pa.field("made", pa.timestamp("us", tz="UTC"), nullable=False)
CAPTIONS: Final = pa.field(
    "captions",
    _list_of(
        *map(_text, ("model", "prompt", "settings")),
        MADE,
        pa.field("steps", RANGES_TYPE, nullable=False),
    ),
    nullable=True,
)
LEFT_OUT: Final = pa.field(
    "left_out",
    _list_of(
        *map(_text, ("by", "rules")),
        MADE,
        pa.field("before", RANGES_TYPE, nullable=False),
        pa.field("parts", PARTS_TYPE, nullable=False),
        pa.field("unjudged", pa.list_(_text("element")), nullable=False),
    ),
    nullable=True,
)
LATE_COLUMNS: Final = (NOTES.name, CAPTIONS.name, LEFT_OUT.name)
"""Columns that data files of an earlier release lack. They are read as null there."""

EPISODES_SCHEMA: Final = pa.schema(
    [
        *(_text(name) for name in ("episode", "recording", "source", "format")),
        *(_text(name) for name in ("shard", "shard_sha256")),
        *(_count(name) for name in ("row_start", "n_steps")),
        _text("split"),
        *(_text(name, optional=True) for name in ("game", "map", "match", "player", "subject")),
        _text("license", optional=True),
        _count("start_ns"),
        pa.field("source_fps", pa.float64(), nullable=False),
        pa.field("clock", CLOCK_TYPE, nullable=False),
        *(_count(name) for name in ("clamped", "missing_actions")),
        pa.field("keep", RANGES_TYPE, nullable=False),
        _text("settings"),
        _text("tokenizer", optional=True),
        NOTES,
        CAPTIONS,
        LEFT_OUT,
        CREATED,
    ]
)

QUARANTINE_SCHEMA: Final = pa.schema(
    [
        *(_text(name) for name in ("path", "sha256", "stage", "reason", "message")),
        *(_count(name, optional=True) for name in ("frames_expected", "frames_decoded")),
        _text("settings"),
        NOTES,
        CREATED,
    ]
)


def episodes_table(rows: Sequence[EpisodeRow], created: datetime) -> pa.Table:
    """The rows as a table of EPISODES_SCHEMA, with `created` in every row."""
    return _table([_episode_record(row) for row in rows], EPISODES_SCHEMA, created)


def quarantine_table(rows: Sequence[QuarantineRow], created: datetime) -> pa.Table:
    """The rows as a table of QUARANTINE_SCHEMA, with `created` in every row."""
    records = [{**_fields(row), "reason": str(row.reason)} for row in rows]
    return _table(records, QUARANTINE_SCHEMA, created)


def _episode_record(row: EpisodeRow) -> dict[str, Any]:
    keep = ((0, row.n_steps),) if row.keep is None else row.keep
    return {
        **_fields(row),
        "clock": asdict(row.clock),
        "keep": range_records(keep),
        "captions": [each.to_record() for each in row.captions],
        "left_out": [each.to_record() for each in row.left_out],
    }


def episode_record_of(
    keep: Iterable[tuple[int, int]], left_out: Iterable[LeftOut]
) -> dict[str, list[dict[str, Any]]]:
    """The two columns of a manifest record that tell what is kept, and what is not and why."""
    return {"keep": range_records(keep), "left_out": [each.to_record() for each in left_out]}


def _fields(row: EpisodeRow | QuarantineRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _table(records: Sequence[Mapping[str, Any]], schema: pa.Schema, created: datetime) -> pa.Table:
    columns = [
        pa.array([printable_unicode(record[name]) for record in records], schema.field(name).type)
        for name in schema.names
        if name != CREATED.name
    ]
    columns.append(pa.array([created] * len(records), CREATED.type))
    return pa.table(columns, schema=schema)


def with_late_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of `schema`: those that its release did not know yet are null."""
    for name in LATE_COLUMNS:
        if name in schema.names and name not in table.schema.names:
            column = schema.field(name)
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(schema.names)


def printable_unicode(value: Any) -> Any:
    """A text that can be stored as UTF-8: bytes of a file name that are not UTF-8 become \\xNN.

    A value that is not a text is returned unchanged.
    """
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
