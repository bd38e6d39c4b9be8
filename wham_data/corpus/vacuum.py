"""Remove files that no version of a corpus needs. Only the end of a first run calls it by itself, see
`compact.merge_small_shards`.

    temporary   files with private names, left by writers that were killed
    orphan      files that no version names, written by runs that were killed
    forgotten   files that only versions before the last `forget` name; these versions can no
                longer be opened afterwards

Temporary files and orphans may belong to a run that is still active, so they are removed only if
they are older than a grace period. A writer that finds its shard there renews the file's time.
Forgotten files are removed at once. A vacuum may be interrupted at any point: it first marks
versions as gone, then removes their shards, then the manifest files that list these shards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from wham_data.corpus.captions.answers import FOLDER as ANSWERS
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.delta.actions import LOG
from wham_data.corpus.delta.table import DATA_NAME, ManifestTable
from wham_data.corpus.runs import check_runs
from wham_data.corpus.storage.contract import HINTS, TEMPORARY, Entry
from wham_data.corpus.tombstones import FOLDER, FORGET, Forgotten, mark_versions_gone
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import UsageError
from wham_data.schemas.manifest import EPISODES_SCHEMA, QUARANTINE_SCHEMA, SHARD_NAME

Why = Literal["temporary", "orphan", "forgotten"]
GRACE_SECONDS: Final = 24 * 3600
TABLES: Final = {"episodes": EPISODES_SCHEMA, "quarantine": QUARANTINE_SCHEMA}
SHARDS: Final = "shards"
FOLDERS: Final = (
    "",
    SHARDS,
    "runs",
    HINTS,
    FOLDER,
    ANSWERS,
    "card",  # pictures of README.md
    *TABLES,
    *(f"{table}/{LOG}" for table in TABLES),
)


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A file that no kept version needs.

    folder  folder in the corpus
    entry   the file in this folder
    why     the reason to remove it
    """

    folder: str
    entry: Entry
    why: Why

    @property
    def name(self) -> str:
        """Its path in the corpus."""
        return f"{self.folder}/{self.entry.name}".lstrip("/")


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """What a vacuum removed, or would remove.

    oldest_version  the first version that can still be opened
    files           reason -> names of the removed files
    n_bytes         their total size
    young           count of files that stay because they are younger than the grace period
    dry_run         nothing was removed
    """

    location: str
    oldest_version: int
    files: dict[Why, list[str]]
    n_bytes: int
    young: int
    dry_run: bool


def vacuum(
    corpus: Corpus,
    *,
    older_than_seconds: float = GRACE_SECONDS,
    drop_before: int = 0,
    dry_run: bool = False,
) -> VacuumReport:
    """Remove the files that no kept version needs.

    All versions since the last `forget` are kept. A process that reads an older version will find
    its shards missing. Runs that write are not disturbed if the grace period is longer than the time
    to write a shard and commit it.

    Args:
        corpus: the corpus, opened at any version.
        older_than_seconds: grace period for temporary files and orphans.
        drop_before: do not keep versions before this one.
        dry_run: remove nothing; only report what would be removed.

    Raises:
        UsageError: there is no version `drop_before`.
        IntegrityError: the manifest is damaged or lacks a commit, so the needed files are unknown.
    """
    corpus.refresh()
    check_runs(corpus.storage)
    if drop_before > corpus.version:
        raise UsageError(
            f"{corpus.location}: there is no version {drop_before}, the newest is {corpus.version}"
        )
    at_least = max(drop_before, Forgotten.read(corpus.storage).oldest_version)
    kept = {
        name: _Kept.of(
            ManifestTable(corpus.storage, name, schema), at_least if name == "episodes" else 0
        )
        for name, schema in TABLES.items()
    }
    limit_ns = time.time_ns() - int(older_than_seconds * SECOND_NS)
    found = [
        *_leftovers(corpus),
        *_shards(corpus, kept["episodes"]),
        *_manifest_files(corpus, kept),
    ]
    going = [
        each for each in found if each.why == "forgotten" or each.entry.modified_ns <= limit_ns
    ]
    oldest = kept["episodes"].oldest
    if not dry_run:
        if oldest > at_least or drop_before:
            mark_versions_gone(corpus.storage, oldest)
        going = [each for each in going if corpus.storage.discard(each.folder, each.entry)]
        corpus.storage.settle(SHARDS, *TABLES)
    files: dict[Why, list[str]] = {}
    for each in going:
        files.setdefault(each.why, []).append(each.name)
    return VacuumReport(
        location=corpus.location,
        oldest_version=oldest,
        files=files,
        n_bytes=sum(each.entry.n_bytes for each in going),
        young=len(found) - len(going),
        dry_run=dry_run,
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """Which data files of a table its kept versions name, and which only earlier ones do.

    oldest     the first kept version
    since_ns   when it was committed
    """

    table: ManifestTable
    oldest: int
    since_ns: int
    files: frozenset[str]
    dropped: frozenset[str]

    @classmethod
    def of(cls, table: ManifestTable, at_least: int) -> _Kept:
        """Kept are the versions from the last `forget` on, and none before `at_least`."""
        oldest = at_least
        added: list[tuple[int, str]] = []
        for number, actions in table.entries(-1):
            for action in actions:
                about, add = action.get("commitInfo"), action.get("add")
                if isinstance(about, dict) and about.get("operation") == FORGET:
                    oldest = max(oldest, number)
                if isinstance(add, dict):
                    added.append((number, str(add.get("path"))))
        files = {path for number, path in added if number > oldest}
        files |= table.snapshot(oldest).files.keys()
        times = {
            entry.name: entry.modified_ns
            for entry in table.storage.entries(f"{table.folder}/{LOG}")
        }
        return cls(
            table=table,
            oldest=oldest,
            since_ns=times.get(f"{oldest:020d}.json", 0),
            files=frozenset(files),
            dropped=frozenset(path for _, path in added) - files,
        )

    def shards(self, names: frozenset[str]) -> set[str]:
        """The shards that some of its data files name."""
        return set(self.table.read(sorted(names), ("shard",)).column("shard").to_pylist())


def _leftovers(corpus: Corpus) -> Iterator[Unneeded]:
    for folder in FOLDERS:
        for entry in corpus.storage.entries(folder):
            if entry.name.startswith(TEMPORARY):
                yield Unneeded(folder, entry, "temporary")


def _shards(corpus: Corpus, kept: _Kept) -> Iterator[Unneeded]:
    there = {entry.name for entry in corpus.storage.entries(kept.table.folder)}
    needed, dropped = kept.shards(kept.files), kept.shards(kept.dropped & there)
    for entry in corpus.storage.entries(SHARDS):
        if not SHARD_NAME.fullmatch(entry.name) or entry.name in needed:
            continue
        # One that is younger than the forgetting is being ingested anew, as somebody has allowed.
        forgotten = entry.name in dropped and entry.modified_ns <= kept.since_ns
        yield Unneeded(SHARDS, entry, "forgotten" if forgotten else "orphan")


def _manifest_files(corpus: Corpus, kept: dict[str, _Kept]) -> Iterator[Unneeded]:
    for folder, state in kept.items():
        for entry in corpus.storage.entries(folder):
            if DATA_NAME.fullmatch(entry.name) and entry.name not in state.files:
                forgotten = entry.name in state.dropped
                yield Unneeded(folder, entry, "forgotten" if forgotten else "orphan")
