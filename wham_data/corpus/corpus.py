"""A corpus: shards with steps, and a manifest that lists the episodes in them.

    corpus.json     the settings that all shards share; written once, as the last file of a new corpus
    episodes/       the manifest
    quarantine/     refused inputs, with their reasons
    shards/         files that never change; the name is a hash of recordings and settings
    runs/           a report of each run, for people
    forgotten/      marks of players, matches and recordings that must not enter again
    hints/          what only saves time; may be deleted

Rows of a shard belong to the corpus only if the manifest names them. So a process may die, or two may
do the same work, without harm: only a log entry of `episodes/`, written whole or not at all, changes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from wham_data.after_fork import check_polars
from wham_data.corpus.commit_rules import (
    LEDGER_COLUMNS,
    CommitReport,
    Decision,
    Ledger,
    check_rows,
    conflict_rows,
    decide,
)
from wham_data.corpus.delta.table import Change, ManifestTable, Snapshot
from wham_data.corpus.quarantine import Quarantine, refused_so_far
from wham_data.corpus.runs import problems_of_runs, record_run
from wham_data.corpus.shard_view import ShardView
from wham_data.corpus.shards import RowRange, ShardFile, write_shard_to
from wham_data.corpus.splits import split_by_of
from wham_data.corpus.storage.contract import Leased, Storage, all_there, publish_again
from wham_data.corpus.storage.locations import open_storage
from wham_data.corpus.tombstones import Forgotten
from wham_data.corpus.verify import VerifyReport, verify
from wham_data.files.found import SNIFFED_BYTES, stand_in_of
from wham_data.schemas.corpus_info import MOST_BYTES, CorpusInfo
from wham_data.schemas.errors import IntegrityError, MismatchError, UsageError
from wham_data.schemas.manifest import (
    EPISODES_SCHEMA,
    SHARD_NAME,
    EpisodeRow,
    QuarantineRow,
    episodes_table,
)
from wham_data.schemas.steps import EpisodeSteps

if TYPE_CHECKING:
    import polars as pl

INFO: Final = "corpus.json"


class Corpus:
    """A corpus at one version. `commit` and `refresh` move this object to a newer version.

    Attributes:
        location: an absolute path or a URL.
        storage: access to the files of the corpus.
        info: the settings that all shards share.
        refused: the quarantine of the corpus.
    """

    def __init__(
        self, storage: Storage, info: CorpusInfo, snapshot: Snapshot, *, pinned: bool = False
    ) -> None:
        """For internal use; call `create`, `open` or `open_or_create` instead."""
        self.location = storage.location
        self.info = info
        self.storage = storage
        self._pinned = pinned
        self._episodes = ManifestTable(storage, "episodes", EPISODES_SCHEMA)
        self.refused = Quarantine(storage)
        self._snapshot = snapshot
        self._ledger = Ledger()
        self._hashes: dict[str, str] | None = None
        self._frame: pl.DataFrame | None = None
        self._places: pa.Table | None = None

    @classmethod
    def create(cls, location: str | os.PathLike[str], info: CorpusInfo) -> Corpus:
        """Create an empty corpus at a path or a URL.

        Raises:
            UsageError: there is a corpus at this location.
        """
        corpus, made = cls._make(location, info)
        if not made:
            raise UsageError(
                f"{corpus.location}: there is a corpus already; open it, or choose another place"
            )
        return corpus

    @classmethod
    def open(cls, location: str | os.PathLike[str], version: int | None = None) -> Corpus:
        """Open a corpus at its newest version, or at `version` for reading only.

        Raises:
            UsageError: there is no corpus, or no such version.
            IntegrityError: corpus.json or the manifest is damaged, or of a newer format.
        """
        storage = open_storage(location)
        if (info := _read_info(storage)) is None:
            missing = f"{storage.location}: no corpus here ({INFO} is missing)"
            raise UsageError(f"{missing}{refused_so_far(storage)}")
        if version is not None and version < (oldest := Forgotten.read(storage).oldest_version):
            raise UsageError(
                f"{storage.location}: version {version} is gone: a vacuum removed its files, because "
                "episodes in it were forgotten since, or old versions were dropped; versions from "
                f"{oldest} on can be read"
            )
        snapshot = ManifestTable(storage, "episodes", EPISODES_SCHEMA).snapshot(version)
        return cls(storage, info, snapshot, pinned=version is not None)

    @classmethod
    def open_or_create(cls, location: str | os.PathLike[str], info: CorpusInfo) -> Corpus:
        """Open the corpus at `location`, or create it. Several processes may do so at once.

        Raises:
            MismatchError: there is a corpus with other settings; the message lists the differences.
        """
        corpus, _ = cls._make(location, info)
        differences = corpus.info.diff(info)
        if differences:
            raise MismatchError(
                f"{corpus.location} was made with other settings ({'; '.join(differences)}). "
                "Use the same settings, or another corpus"
            )
        return corpus

    @classmethod
    def _make(cls, location: str | os.PathLike[str], info: CorpusInfo) -> tuple[Corpus, bool]:
        storage = open_storage(location)
        made = False
        if not storage.exists(INFO):
            storage.probe()
            # corpus.json comes last: a corpus that has this file also has its tables.
            Quarantine(storage).table.create()
            ManifestTable(storage, "episodes", EPISODES_SCHEMA).create()
            made = storage.put_if_absent(INFO, info.to_json().encode())
        storage.settle("shards", "episodes", "episodes/_delta_log", "quarantine/_delta_log", "")
        return cls.open(location), made

    def __getstate__(self) -> dict[str, Any]:
        """The state without its caches, so that the copy for a worker process is small."""
        caches = dict.fromkeys(("_frame", "_hashes", "_places"))
        return {**self.__dict__, "_ledger": Ledger(), **caches}

    def __repr__(self) -> str:
        return f"Corpus({self.location!r}, version {self.version}, {self._snapshot.rows} episodes)"

    @property
    def version(self) -> int:
        """The version of the manifest that this object shows; every transaction adds 1."""
        return self._snapshot.version

    @property
    def n_episodes(self) -> int:
        """The count of episodes in the manifest."""
        return self._snapshot.rows

    def refresh(self) -> None:
        """Move to the newest version, unless the corpus was opened at a version."""
        if not self._pinned:
            self._see(self._episodes.advance(self._snapshot))

    def shard_path(self, name: str) -> Path:
        """The path of a shard on this machine, for readers that memory-map it.

        For a corpus on an object store this is a copy, which the cache removes when it needs room.

        Raises:
            IntegrityError: `name` is not the name of a shard, or the shard cannot be copied because
                it is missing or damaged.
        """
        return self.shard_file(name).path

    def shard_paths(self, version: int | None = None) -> list[Path]:
        """The paths on this machine of all shards of a version, sorted, for other tools.

        The folder `shards/` may also have shards of other versions. A shard may have episodes that
        are not in the manifest; `scan` leaves them out.

        Args:
            version: of the manifest; None: the version that this object shows.

        Raises:
            UsageError: there is no such version.
            IntegrityError: a shard is missing or damaged, or the cache cannot hold all of them.
        """
        corpus = self if version in (None, self.version) else Corpus.open(self.location, version)
        names = corpus.manifest_columns(("shard",)).column("shard").unique().to_pylist()
        return all_there([corpus.shard_path(name) for name in sorted(names)])

    def shard_file(self, name: str, part: range | None = None) -> Leased:
        """As `shard_path`, but the file stays here as long as the result lives; see `Storage.file`."""
        if not SHARD_NAME.fullmatch(name):
            raise IntegrityError(
                f"{self.location}: the manifest names the unsafe path {name[:120]!r} as a shard, "
                "expected 24 hex digits and .parquet"
            )
        return self.storage.file(f"shards/{name}", lambda: self._hash_of(name), part)

    def _hash_of(self, shard: str) -> str:
        """The SHA-256 that the manifest has for a shard, hex digits."""
        if self._hashes is None:
            table = self._episodes.read(list(self._snapshot.files), ("shard", "shard_sha256"))
            first = table.group_by("shard", use_threads=False).aggregate(
                [("shard_sha256", "first")]
            )
            self._hashes = dict(zip(*(column.to_pylist() for column in first.columns), strict=True))
        if shard not in self._hashes:
            raise IntegrityError(f"{self.location}: the manifest names no shard {shard}")
        return self._hashes[shard]

    def write_shard(
        self, episodes: Iterable[EpisodeSteps], shard_id: str, *, captioned: bool = False
    ) -> ShardFile:
        """Write a shard; it is durable on return. `commit` adds its episodes to the corpus.

        Args:
            episodes: whole episodes, or their pieces in order; read one at a time.
            shard_id, captioned: see `shards.shard_id` and `write_shard_to`.

        Raises:
            UsageError: the steps do not match the settings of the corpus, or there are no steps.
            IntegrityError: there is a shard with this name and other bytes.
        """
        name = f"{shard_id}.parquet"
        with self.storage.staged(f"shards/{name}") as temporary:
            shard = write_shard_to(temporary, episodes, self.info, name, captioned=captioned)
            publish_again(self.storage, temporary, f"shards/{name}", shard.sha256)
        return shard

    def commit(
        self,
        rows: Sequence[EpisodeRow],
        quarantined: Sequence[QuarantineRow] = (),
        *,
        tie_to: str | None = None,
        allow_forgotten: bool = False,
    ) -> CommitReport:
        """Add episodes to the corpus in one transaction, each recording at most once.

        All rows of a recording must come in one commit. Even if other processes commit at the same
        time, a recording is added once for its settings, and no player or match gets into two
        splits. A second transaction stores the refused inputs.

        Args:
            rows: episodes whose shards are written.
            quarantined: refused inputs.
            tie_to: the split of recordings that would tie two splits together; None: refuse them.
            allow_forgotten: also add what was forgotten; otherwise it is left out.

        Raises:
            UsageError: wrong rows, a shard is not written, or the corpus was opened at a version.
            WhamDataError: the manifest cannot be written, or others are first in every attempt.
        """
        self._check_rows(rows)
        refused = list(quarantined)
        decided = Decision()
        if rows:
            decided = self._commit_episodes(rows, tie_to, allow_forgotten=allow_forgotten)
            refused += conflict_rows(rows, decided.conflicts)
        committed = {row.recording for row in decided.rows}
        names = {name for row in decided.rows for name in (row.recording, row.named_source)}
        self.refused.note(refused, {(name, self.info.settings_hash) for name in names})
        return CommitReport(
            committed=tuple(sorted(committed)),
            already_there=decided.already_there,
            moved=tuple(sorted(decided.moved)),
            split_conflicts=tuple(sorted(decided.conflicts)),
            forgotten=decided.forgotten,
            version=self.version,
        )

    def adopt(self, rows: Sequence[EpisodeRow], refused: Sequence[QuarantineRow] = ()) -> None:
        """Commit rows of a corpus with the same `settings_hash`, without changing their splits."""
        self._check_rows(rows)
        self._commit_episodes(rows, None, keep_splits=True, allow_forgotten=True)
        self.refused.note(refused, ())

    def amend(self, operation: str, amended: Callable[[list[pa.Table]], list[pa.Table]]) -> None:
        """Replace rows of the manifest in one transaction.

        Args:
            operation: name of the transaction in the manifest's history.
            amended: takes the rows of each data file, and returns for each the same object or a changed
                table. Called again if another process commits first. New shards must be written.

        Raises:
            UsageError: a shard is not written, or the corpus was opened at a version.
            WhamDataError: as `commit`.
        """
        self._check_writable()
        self._ledger = Ledger()  # it only ever grows

        def plan(snapshot: Snapshot) -> Change | None:
            before = [self._episodes.read([name]) for name in snapshot.files]
            triples = zip(snapshot.files, before, amended(before), strict=True)
            changed = {name: new for name, old, new in triples if new is not old}
            if not changed:
                return None
            rows = pa.concat_tables(changed.values())
            named = {shard for table in before for shard in table.column("shard").to_pylist()}
            self._check_written({*rows.column("shard").to_pylist()} - named)
            return Change(rows, operation, remove=tuple(changed))

        self._see(self._episodes.transact(self._snapshot, plan))

    @property
    def episodes(self) -> pl.DataFrame:
        """The manifest: one row per episode, sorted by `episode`. After a fork: `UsageError`."""
        from wham_data.corpus.scan import sorted_frame

        check_polars("Corpus.episodes")
        if self._frame is None:
            self._frame = sorted_frame(self._episodes.read(list(self._snapshot.files)), "episode")
        return self._frame

    def manifest_columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of the manifest: one row for each episode, not sorted.

        Use it for large manifests, because `episodes` reads and sorts all of them.
        """
        return self._episodes.read(list(self._snapshot.files), names)

    @property
    def quarantine(self) -> pl.DataFrame:
        """The refused inputs, sorted by `path`; always the newest state, whichever version is open."""
        from wham_data.corpus.scan import sorted_frame

        check_polars("Corpus.quarantine")
        return sorted_frame(self.refused.read(), "path")

    def known_recordings(self, settings_hash: str | None = None) -> set[str]:
        """Hashes of the recordings that the corpus holds.

        Args:
            settings_hash: only recordings with these settings; None: the settings of the corpus.
        """
        rows = self._episodes.read(list(self._snapshot.files), ("recording", "settings"))
        under_settings = pc.field("settings") == (settings_hash or self.info.settings_hash)
        return set(rows.filter(under_settings).column("recording").unique().to_pylist())

    def scan(self) -> pl.LazyFrame:
        """The steps of all episodes, shard by shard, with ordinary list columns.

        Columns: `episode`, `split`, `step`, `time_ns`, `tokens` list<u16>, `actions` list<f32> (null
        if not known), and `frame`, `state`, `reward`, `text` if the corpus has them. A query reads
        only the columns and shards that it needs, one row group at a time.
        """
        from wham_data.corpus.scan import scan_steps

        return scan_steps(self)

    def to_ray(self, split: str | None = None) -> Any:
        """The steps as a Ray Data dataset; one task reads one shard.

        Columns: `episode`, `split`, `step`, `time_ns`, `tokens` and `actions` as tensors (NaN if the
        action is not known), `action_known`, and `frame` if the corpus has frames.

        Args:
            split: read only the episodes of this split; None: all of them.

        Raises:
            MissingPartError: Ray Data needs a package that is not installed.
        """
        from wham_data.corpus.ray_data import steps_dataset

        return steps_dataset(self, split)

    def at(self, match: str, time_ns: int) -> pl.DataFrame:
        """The steps of all players and subjects of a match at one time, one row for each.

        All players of a match share one clock. A player without a step at this time has no row.

        Args:
            match: name of the match in the manifest.
            time_ns: on the clock of the match. A step covers the time from its own time to the time
                of the next step.

        Returns:
            The columns of `scan()`, and `player` and `subject`, sorted by these two.

        Raises:
            UsageError: no episode belongs to this match.
        """
        from wham_data.corpus.scan import steps_at

        return steps_at(self, match, time_ns)

    def read_episode(self, episode: str) -> EpisodeSteps:
        """All steps of one episode.

        Raises:
            UsageError: the corpus has no such episode.
            IntegrityError: its shard is damaged or contradicts the manifest.
        """
        if self._places is None:
            self._places = self.manifest_columns(("episode", "shard", "row_start", "n_steps"))
        row = pc.index(self._places.column("episode"), pa.scalar(episode, pa.string())).as_py()
        if row < 0:
            raise UsageError(f"{self.location}: no episode {episode!r}")
        name, shard, start, n_steps = (column[row].as_py() for column in self._places.columns)
        return self.open_shard(shard).read_episode(RowRange(name, start, n_steps))

    def open_shard(self, name: str) -> ShardView:
        """Open a shard and check its footer against the settings of the corpus.

        Raises:
            IntegrityError: the shard is missing, damaged, or of another corpus.
        """
        file = self.shard_file(name)
        return ShardView(file.path, self.info, self.storage.where(f"shards/{name}"), file)

    def verify(self, *, hashes: bool = True) -> VerifyReport:
        """Check the whole corpus; see `verify.verify`."""
        return verify(self, hashes=hashes)

    def manifest_problems(self) -> list[str]:
        """The problems in the files of the manifest, the quarantine and the runs, one line each."""
        of_tables = *self._episodes.problems(self._snapshot), *self.refused.table.problems()
        return [*of_tables, *problems_of_runs(self.storage)]

    def record_run(self, run: Mapping[str, Any]) -> str:
        """Write the report of a run to `runs/`, for people; returns the name of the file there."""
        return record_run(self.storage, run)

    def _see(self, snapshot: Snapshot) -> None:
        if snapshot != self._snapshot:
            self._snapshot, self._frame, self._hashes, self._places = snapshot, None, None, None

    def _check_writable(self) -> None:
        if self._pinned:
            raise UsageError(
                f"{self.location}: opened at version {self.version}, which nothing can change"
            )

    def _check_rows(self, rows: Sequence[EpisodeRow]) -> None:
        self._check_writable()
        check_rows(rows, self.info, self.location)
        self._check_written({row.shard for row in rows})

    def _check_written(self, shards: Iterable[str]) -> None:
        for shard in shards:
            if not self.storage.exists(f"shards/{shard}"):
                raise UsageError(f"{self.location}: shard {shard} has not been written")

    def _known(self) -> Ledger:
        """What the corpus holds at this version; only new data files of the manifest are read."""
        new = [name for name in self._snapshot.files if name not in self._ledger.files]
        if new:
            self._ledger.add(self._episodes.read(new, LEDGER_COLUMNS))
            self._ledger.files.update(new)
        return self._ledger

    def _commit_episodes(
        self,
        rows: Sequence[EpisodeRow],
        tie_to: str | None,
        *,
        keep_splits: bool = False,
        allow_forgotten: bool,
    ) -> Decision:
        decided = Decision()

        def plan(snapshot: Snapshot) -> Change | None:
            nonlocal decided
            self._see(snapshot)
            # Read again in each attempt, so that a player forgotten meanwhile does not get in.
            forgotten = Forgotten() if allow_forgotten else Forgotten.read(self.storage)
            known, by = self._known(), split_by_of(self.info)
            decided = decide(rows, known, tie_to, forgotten, by, keep_splits=keep_splits)
            if not decided.rows:
                return None
            return Change(episodes_table(decided.rows, datetime.now(UTC)))

        self._see(self._episodes.transact(self._snapshot, plan))
        return decided


def _read_info(storage: Storage) -> CorpusInfo | None:
    try:
        text = storage.read(INFO, MOST_BYTES)
    except FileNotFoundError:
        return None
    if (why := stand_in_of(text[:SNIFFED_BYTES])) is not None:
        raise IntegrityError(f"{storage.where(INFO)}: {why}")
    return CorpusInfo.from_json(text, storage.where(INFO))
