"""The decisions of a commit: which episodes it takes, from what the corpus holds. No file access."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from wham_data.corpus.shards import ShardFile
from wham_data.corpus.splits import (
    TIES,
    Conflict,
    Placed,
    SplitBy,
    SplitIndex,
    Ties,
    tie_name,
    tied_by,
)
from wham_data.corpus.tombstones import Forgotten
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import Reason, UsageError
from wham_data.schemas.manifest import UNSETTLED, EpisodeRow, QuarantineRow

LEDGER_COLUMNS: Final = ("recording", "settings", "match", "player", "split")


@dataclass(slots=True)
class Ledger:
    """What a commit needs to know about the corpus: its recordings, and the splits of players.

    recordings  settings hash -> hashes of the recordings with these settings
    splits      the splits of each match and each player
    files       data files of the manifest that are included so far
    """

    recordings: dict[str, set[str]] = field(default_factory=dict)
    splits: SplitIndex = field(default_factory=SplitIndex)
    files: set[str] = field(default_factory=set)

    def holds(self, row: EpisodeRow) -> bool:
        """Whether the corpus has the recording of an episode, with the same settings."""
        return row.recording in self.recordings.get(row.settings, ())

    def add(self, rows: pa.Table) -> None:
        """Include rows of the manifest. The table needs the columns LEDGER_COLUMNS."""
        recordings, settings = (rows.column(name).to_pylist() for name in ("recording", "settings"))
        for recording, hash_ in zip(recordings, settings, strict=True):
            self.recordings.setdefault(hash_, set()).add(recording)
        # A player has many episodes, but few pairs of player and split.
        for kind in TIES:
            pairs = rows.group_by([kind, "split"]).aggregate([])
            names, splits = (pairs.column(column).to_pylist() for column in (kind, "split"))
            for name, split in zip(names, splits, strict=True):
                if name:
                    self.splits.add_name(tie_name(kind, name), split)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which rows to commit, and why the other recordings are left out.

    rows           to commit, with their final splits
    moved          recordings whose split was changed
    conflicts      recordings that would tie two splits together
    already_there  recordings that the corpus has already
    forgotten      recordings that were forgotten
    """

    rows: tuple[EpisodeRow, ...] = ()
    moved: frozenset[str] = frozenset()
    conflicts: Mapping[str, Conflict] = field(default_factory=dict)
    already_there: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitReport:
    """The result of a commit for each recording (hashes, sorted).

    committed        now in the corpus
    already_there    left out: the corpus has the recording with the same settings
    moved            committed, but to the split that its player or match got in the meantime
    split_conflicts  left out and put into quarantine: the recording would tie two splits together
    forgotten        left out: the recording, its player or its match was forgotten
    version          version of the corpus after the commit
    """

    committed: tuple[str, ...]
    already_there: tuple[str, ...]
    moved: tuple[str, ...]
    split_conflicts: tuple[str, ...]
    forgotten: tuple[str, ...]
    version: int


def check_rows(rows: Sequence[EpisodeRow], info: CorpusInfo, where: str) -> None:
    """Check that rows can be committed to a corpus.

    Args:
        rows: to commit.
        info: of the corpus.
        where: location of the corpus, for the message.

    Raises:
        UsageError: an episode comes twice, or has other settings or another tokenizer.
    """
    if len({row.episode for row in rows}) != len(rows):
        raise UsageError(f"{where}: an episode is in one commit twice")
    fingerprint = info.tokenizer.fingerprint if info.tokenizer else None
    for row in rows:
        if (row.settings, row.tokenizer) != (info.settings_hash, fingerprint):
            raise UsageError(
                f"episode {row.episode}: settings {row.settings}, tokenizer {row.tokenizer}, "
                f"but the corpus has {info.settings_hash} and {fingerprint}"
            )


def decide(
    rows: Sequence[EpisodeRow],
    known: Ledger,
    tie_to: str | None,
    forgotten: Forgotten,
    split_by: SplitBy = "player",
    *,
    keep_splits: bool = False,
) -> Decision:
    """Decide which of `rows` to commit.

    Args:
        rows: episodes; all episodes of a recording are committed or left out together.
        known: what the corpus holds now.
        tie_to: see `Corpus.commit`.
        forgotten: the players, matches and recordings that must stay out.
        split_by: what ties recordings in this corpus.
        keep_splits: never change the split of a row, even if it ties two splits together.
    """
    splits = SplitIndex(base=known.splits)
    accepted: list[EpisodeRow] = []
    placed: dict[str, str | Conflict] = {}
    moved: set[str] = set()
    already = {row.recording for row in rows if known.holds(row)}
    left_out: set[str] = set()
    for row in rows:
        if row.recording in already:
            continue
        if forgotten.blocks(Ties(row.recording, row.match, row.player)):
            left_out.add(row.recording)
            continue
        ties = tied_by(split_by, row.recording, row.match, row.player)
        if keep_splits or not ties.names:
            placed[row.recording] = row.split
        elif row.recording not in placed:
            placed[row.recording] = splits.place(ties, row.split, tie_to)
        split = placed[row.recording]
        if isinstance(split, Conflict):
            continue
        if split != row.split:
            moved.add(row.recording)
        splits.add(Placed(ties, split))
        accepted.append(row if split == row.split else replace(row, split=split))
    conflicts = {name: where for name, where in placed.items() if isinstance(where, Conflict)}
    return Decision(
        tuple(accepted),
        frozenset(moved),
        conflicts,
        tuple(sorted(already)),
        tuple(sorted(left_out)),
    )


def quarantine_after(
    old: pa.Table, refused: Sequence[QuarantineRow], resolved: Collection[tuple[str, str]]
) -> tuple[pa.Table, list[QuarantineRow]]:
    """Update a quarantine with the results of a run.

    Args:
        old: the quarantine before, a table of QUARANTINE_SCHEMA.
        refused: inputs that the run refused.
        resolved: (hash or path, settings) of inputs that are in the corpus now. The path counts
            too, because a repaired file has another hash.

    Returns:
        The old rows that stay, and the rows to add: inputs that are new or have a new message or
        other bytes. A row of a time without settings goes as soon as its input is refused or taken
        under some.
    """
    latest = {row.key: row for row in refused if row.names.isdisjoint(resolved)}
    paths = {(row.path, row.settings) for row in latest.values()}
    settled = {name for name, _ in resolved} | {row.path for row in refused if row.settings}
    stays: list[bool] = []
    for record in old.drop_columns(["created"]).to_pylist():
        row = QuarantineRow.from_record(record)
        gone = not row.names.isdisjoint(resolved)
        gone |= row.settings == UNSETTLED and not settled.isdisjoint((row.sha256, row.path))
        again = (row.path, row.settings) in paths
        stays.append(not gone and latest.get(row.key, None if again else row) == row)
        if stays[-1]:
            latest.pop(row.key, None)
    return old.filter(pa.array(stays, pa.bool_())), list(latest.values())


def conflict_rows(
    rows: Sequence[EpisodeRow], conflicts: Mapping[str, Conflict]
) -> list[QuarantineRow]:
    """The quarantine's rows for the recordings that would tie two splits together."""
    return [
        QuarantineRow(
            path=row.source,
            sha256=row.recording,
            stage="split",
            reason=Reason.SPLIT_CONFLICT,
            message=str(conflicts[row.recording]),
            settings=row.settings,
        )
        for row in {row.recording: row for row in rows}.values()
        if row.recording in conflicts
    ]


def relocated(
    rows: pa.Table, moves: Mapping[tuple[str, str], tuple[ShardFile, int]]
) -> tuple[pa.Table, int]:
    """Change the place of some episodes in manifest rows.

    Args:
        rows: a table of EPISODES_SCHEMA.
        moves: (episode, its shard now) -> (new shard, row of step 0 there).

    Returns:
        The changed table, and how many episodes moved.
    """
    keys = zip(rows.column("episode").to_pylist(), rows.column("shard").to_pylist(), strict=True)
    places = [moves.get(key) for key in keys]
    changes = {
        "shard": [place and place[0].name for place in places],
        "shard_sha256": [place and place[0].sha256 for place in places],
        "row_start": [place and place[1] for place in places],
    }
    moved = pa.array([place is not None for place in places], pa.bool_())
    for name, values in changes.items():
        field = rows.schema.field(name)
        column = pc.if_else(moved, pa.array(values, field.type), rows.column(name))
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows, moved.true_count
