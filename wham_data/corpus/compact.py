"""Merge many small shards into few large ones. Steps and older versions do not change."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from wham_data.corpus.commit_rules import relocated
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.runs import a_run_has_ended
from wham_data.corpus.shard_view import steps_from
from wham_data.corpus.shards import ShardFile
from wham_data.corpus.storage.contract import hash_file
from wham_data.corpus.tombstones import copy_marks
from wham_data.corpus.vacuum import vacuum
from wham_data.schemas.corpus_info import Layout, content_hash
from wham_data.schemas.errors import IntegrityError, MismatchError
from wham_data.schemas.manifest import EpisodeRow, QuarantineRow
from wham_data.schemas.steps import EpisodeSteps

TARGET_BYTES: Final = 256_000_000
FEW_SHARDS: Final = 64
"""A run that writes one shard per recording leaves up to this many small shards as they are."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """The result of a compaction.

    location       of the corpus that holds the result
    shards_before, shards_after  count of shards that the manifest names
    bytes_before, bytes_after    total size of these shards
    episodes       count of episodes that were written to a new shard
    version        version of the corpus that holds the result
    """

    location: str
    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int
    episodes: int
    version: int


def compact(corpus: Corpus, target_bytes: int = TARGET_BYTES) -> CompactReport:
    """Merge the shards that are smaller than half of `target_bytes`, in one transaction.

    The old shards stay on disk, because older versions need them. Other runs may write to the corpus
    at the same time. A second call has nothing left to do.

    Args:
        corpus: the corpus; afterwards it is at the new version.
        target_bytes: most bytes of old shards for one new shard.

    Raises:
        IntegrityError: a shard is damaged; damage is never copied.
    """
    corpus.refresh()
    before = _sizes(corpus)
    small = _small(before, target_bytes)
    moves: dict[tuple[str, str], tuple[ShardFile, int]] = {}
    for bundle in _bundles(small, target_bytes):
        if len(bundle) > 1:
            rows = _rows_in(corpus, bundle)
            shard = write_merged(corpus, corpus, rows)
            starts = {each.episode: each.start for each in shard.episodes}
            moves |= {(r["episode"], r["shard"]): (shard, starts[r["episode"]]) for r in rows}
    moved = relocate(corpus, moves) if moves else 0
    return _report(corpus, before, moved)


@dataclass(frozen=True, slots=True)
class MergedShards:
    """The small shards that the end of a run has merged.

    report  of the compaction
    kept    whether the small shards stay, for older versions
    """

    report: CompactReport
    kept: bool

    @property
    def line(self) -> str:
        """The same for a person."""
        kept = (
            f"; the small ones stay for older versions until: wham-data vacuum {self.report.location} "
            f"--drop-before {self.report.version}"
        )
        text = f"merged {self.report.shards_before:,} shards into {self.report.shards_after:,}"
        return text + kept if self.kept else text


def merge_small_shards(corpus: Corpus, few: int = FEW_SHARDS) -> MergedShards | None:
    """Compact a corpus at the end of a run that wrote one shard per recording.

    Which shards are merged depends only on what the corpus holds, so a run that was killed and
    started again ends with the same shards as one that was not. If no run into this corpus has ended
    before, the versions so far are steps of one job, on which nobody depends: then they are given up
    and the small shards deleted. Otherwise the small shards stay, for the older versions.

    Args:
        corpus: the corpus; afterwards it is at the new version.
        few: nothing is done if there are no more small shards than this.

    Returns:
        What was done; None: nothing, because there are at most `few` small shards.

    Raises:
        IntegrityError: a shard is damaged; damage is never copied.
    """
    corpus.refresh()
    if len(_small(_sizes(corpus), TARGET_BYTES)) <= few:
        return None
    version = corpus.version
    try:
        report = compact(corpus)
    except IntegrityError:  # another run may have merged and deleted these shards meanwhile
        corpus.refresh()
        if corpus.version == version:
            raise
        report = compact(corpus)
    kept = a_run_has_ended(corpus.storage)
    if report.episodes and not kept:
        vacuum(corpus, drop_before=report.version)
    return MergedShards(report, kept)


def compact_to(
    corpus: Corpus,
    out: str | os.PathLike[str],
    layout: Layout,
    target_bytes: int = TARGET_BYTES,
) -> CompactReport:
    """Write the episodes of this version to another corpus, in large shards.

    Args:
        corpus: any version of a corpus, in either layout.
        out: location of the other corpus. If an interrupted compaction left it there, it is
            completed.
        layout: "cold": zstd, about half the size, for storage; "mapped": as `ingest` writes.
        target_bytes: most bytes of old shards for one new shard.

    Raises:
        IntegrityError: a shard is damaged; damage is never copied.
        MismatchError: the corpus at `out` has other settings or another layout.
    """
    target = Corpus.open_or_create(out, replace(corpus.info, layout=layout))
    if target.info.layout != layout:
        raise MismatchError(
            f"{target.location}: holds a {target.info.layout} corpus, not a {layout} one"
        )
    copy_marks(corpus.storage, target.storage)
    before = _sizes(corpus)
    known = target.known_recordings()
    adopted: list[EpisodeRow] = []
    for bundle in _bundles(before, target_bytes):
        rows = [row for row in _rows_in(corpus, bundle) if row["recording"] not in known]
        if not rows:
            continue
        shard = write_merged(corpus, target, rows)
        starts = {each.episode: each.start for each in shard.episodes}
        for row in rows:
            place = {"shard": shard.name, "shard_sha256": shard.sha256}
            adopted.append(
                EpisodeRow.from_record({**row, **place, "row_start": starts[row["episode"]]})
            )
    refused = corpus.quarantine.drop("created").rows(named=True)
    target.adopt(adopted, [QuarantineRow.from_record(row) for row in refused])
    return _report(target, before, len(adopted))


def relocate(corpus: Corpus, moves: Mapping[tuple[str, str], tuple[ShardFile, int]]) -> int:
    """Change the shards of episodes in the manifest, in one transaction.

    Args:
        corpus: the corpus whose manifest changes.
        moves: (episode, its shard now) -> (new shard with the same steps, row of step 0 there). An
            episode that another process has moved in the meantime stays there.

    Returns:
        How many episodes moved.
    """
    moved = 0

    def amended(tables: list[pa.Table]) -> list[pa.Table]:
        nonlocal moved
        after = [relocated(rows, moves) for rows in tables]
        moved = sum(count for _, count in after)
        return [new if count else old for old, (new, count) in zip(tables, after, strict=True)]

    corpus.amend("COMPACT", amended)
    return moved


def _small(sizes: dict[str, int], target_bytes: int) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size < target_bytes // 2}


def _sizes(corpus: Corpus) -> dict[str, int]:
    """The size in bytes of each shard that the manifest names."""
    there = {entry.name: entry.n_bytes for entry in corpus.storage.entries("shards")}
    names = sorted(corpus.manifest_columns(["shard"]).column("shard").unique().to_pylist())
    for name in names:
        if name not in there:
            raise IntegrityError(f"{corpus.storage.where(f'shards/{name}')}: the shard is missing")
    return {name: there[name] for name in names}


def _bundles(sizes: dict[str, int], target_bytes: int) -> Iterator[list[str]]:
    """Groups of shards to merge, by the order of their names, so that every machine does the same."""
    bundle: list[str] = []
    filled = 0
    for name, size in sorted(sizes.items()):
        if bundle and filled + size > target_bytes:
            yield bundle
            bundle, filled = [], 0
        bundle.append(name)
        filled += size
    if bundle:
        yield bundle


def _rows_in(corpus: Corpus, shards: Sequence[str]) -> list[dict[str, Any]]:
    """The manifest rows of the episodes in these shards, in the order of their steps."""
    rows = corpus.episodes.filter(corpus.episodes["shard"].is_in(list(shards)))
    return rows.sort("shard", "row_start").drop("created").rows(named=True)


def write_merged(source: Corpus, target: Corpus, rows: Sequence[dict[str, Any]]) -> ShardFile:
    """Write the steps of some rows of `source` to one new shard of `target`, piece by piece.

    Args:
        source: the corpus of the rows.
        target: the corpus of the new shard; it may be the same.
        rows: manifest records, in the order in which their steps are written.

    Raises:
        IntegrityError: a shard is damaged; damage is never copied.
    """
    check_shards(source, {row["shard"]: row["shard_sha256"] for row in rows})
    parts = [[row["shard_sha256"], row["episode"]] for row in rows]
    shard_id = content_hash(["compact", target.info.settings_hash, parts])
    captioned = any(source.open_shard(name).has_text for name in {row["shard"] for row in rows})
    return target.write_shard(pieces_of(source, rows), shard_id, captioned=captioned)


def check_shards(corpus: Corpus, hashes: Mapping[str, str]) -> None:
    """Compare the bytes of some shards with their hashes in the manifest.

    Args:
        corpus: the corpus that holds them.
        hashes: name of a shard -> its SHA-256.

    Raises:
        IntegrityError: a shard is damaged.
    """
    for name, sha256 in sorted(hashes.items()):
        file = corpus.shard_file(name)
        found = hash_file(file.path)
        if found != sha256:
            raise IntegrityError(
                f"shards/{name}: corrupt: sha256 is {found}, but the manifest has {sha256}"
            )


def pieces_of(source: Corpus, rows: Sequence[dict[str, Any]]) -> Iterator[EpisodeSteps]:
    """The steps of some rows of the manifest, in order, at most a row group at a time."""
    for row in rows:
        view = source.open_shard(row["shard"])
        start = row["row_start"]
        for _, table in view.read_rows(start, start + row["n_steps"]):
            yield steps_from(row["episode"], table)


def _report(corpus: Corpus, before: dict[str, int], episodes: int) -> CompactReport:
    after = _sizes(corpus)
    return CompactReport(
        location=corpus.location,
        shards_before=len(before),
        shards_after=len(after),
        bytes_before=sum(before.values()),
        bytes_after=sum(after.values()),
        episodes=episodes,
        version=corpus.version,
    )
