"""What a commit decides, seeing what the corpus holds by now. Nothing in here touches a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from wham_data.corpus.shards import ShardFile
from wham_data.corpus.splits import TIES, Conflict, Placed, SplitIndex, Ties, tie_name
from wham_data.corpus.tombstones import Forgotten
from wham_data.schemas.errors import Reason
from wham_data.schemas.manifest import EpisodeRow, QuarantineRow

LEDGER_COLUMNS: Final = ("recording", "settings", "match", "player", "split")


@dataclass(slots=True)
class Ledger:
    """What a commit has to know of the corpus: who is in, and on which side of the split.

    recordings  settings hash -> hashes of the recordings that are in under them
    splits      where matches and players are
    files       data files of the manifest that have been read
    """

    recordings: dict[str, set[str]] = field(default_factory=dict)
    splits: SplitIndex = field(default_factory=SplitIndex)
    files: set[str] = field(default_factory=set)

    def holds(self, row: EpisodeRow) -> bool:
        """Whether the recording of an episode is in under its settings."""
        return row.recording in self.recordings.get(row.settings, ())

    def add(self, rows: pa.Table) -> None:
        """Take note of rows of the manifest that have the columns LEDGER_COLUMNS."""
        recordings, settings = (rows.column(name).to_pylist() for name in ("recording", "settings"))
        for recording, hash_ in zip(recordings, settings, strict=True):
            self.recordings.setdefault(hash_, set()).add(recording)
        # A player has many episodes: look at each pair of player and split once.
        for kind in TIES:
            pairs = rows.group_by([kind, "split"]).aggregate([])
            names, splits = (pairs.column(column).to_pylist() for column in (kind, "split"))
            for name, split in zip(names, splits, strict=True):
                if name:
                    self.splits.add_name(tie_name(kind, name), split)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which rows to commit, and what becomes of the other recordings."""

    rows: tuple[EpisodeRow, ...] = ()
    moved: frozenset[str] = frozenset()
    conflicts: Mapping[str, Conflict] = field(default_factory=dict)
    already_there: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What became of the rows handed to a commit, by recording (hashes, sorted).

    committed        now in the corpus
    already_there    left out: the recording is in the corpus under these settings
    moved            committed, but to the split its player or match had got in the meantime
    split_conflicts  left out and put into quarantine: would tie two splits together
    forgotten        left out: its player, its match or itself was forgotten
    version          of the corpus afterwards
    """

    committed: tuple[str, ...]
    already_there: tuple[str, ...]
    moved: tuple[str, ...]
    split_conflicts: tuple[str, ...]
    forgotten: tuple[str, ...]
    version: int


def decide(
    rows: Sequence[EpisodeRow],
    known: Ledger,
    tie_to: str | None,
    forgotten: Forgotten,
    *,
    keep_splits: bool = False,
) -> Decision:
    """What to commit of `rows`, seeing what is in the corpus by now.

    Args:
        rows: episodes; those of one recording are taken or left together.
        known: what is in the corpus.
        tie_to: see `Corpus.commit`.
        forgotten: what must stay out.
        keep_splits: take the rows' splits as they are, whom ever they tie.
    """
    splits = SplitIndex(beneath=known.splits)
    accepted: list[EpisodeRow] = []
    placed: dict[str, str | Conflict] = {}
    moved: set[str] = set()
    already = {row.recording for row in rows if known.holds(row)}
    left_out: set[str] = set()
    for row in rows:
        if row.recording in already:
            continue
        ties = Ties(row.recording, row.match, row.player)
        if forgotten.bars(ties):
            left_out.add(row.recording)
            continue
        if row.recording not in placed:
            placed[row.recording] = (
                row.split if keep_splits else splits.place(ties, row.split, tie_to)
            )
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
    old: pa.Table, refused: Sequence[QuarantineRow], cured: Collection[tuple[str, str]]
) -> tuple[pa.Table, list[QuarantineRow]]:
    """The rows of a quarantine that stay, and those that are new or say something else now.

    Args:
        old: the quarantine.
        refused: inputs that have been refused since.
        cured: (hash or path, settings) of what is in the corpus by now; by its path, too, for a
            file that was mended is other bytes.
    """
    latest = {row.key: row for row in refused if row.key not in cured}
    stays: list[bool] = []
    for record in old.drop_columns(["created"]).to_pylist():
        found = QuarantineRow.from_record(record)
        is_in = found.key in cured or (found.path, found.settings) in cured
        stays.append(not is_in and latest.get(found.key, found) == found)
        if stays[-1]:
            latest.pop(found.key, None)
    return old.filter(pa.array(stays, pa.bool_())), list(latest.values())


def conflict_row(row: EpisodeRow, conflict: Conflict) -> QuarantineRow:
    """The quarantine's row for a recording that cannot be placed."""
    return QuarantineRow(
        path=row.source,
        sha256=row.recording,
        stage="split",
        reason=Reason.SPLIT_CONFLICT,
        message=str(conflict),
        settings=row.settings,
    )


def relocated(
    rows: pa.Table, moves: Mapping[tuple[str, str], tuple[ShardFile, int]]
) -> tuple[pa.Table, int]:
    """Manifest rows with the moved episodes in their new place, and how many moved."""
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
