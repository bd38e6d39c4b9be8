"""Check a whole corpus, and list each problem in one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus.readable import ReadableCorpus
from wham_data.corpus.shard_view import ShardView, matrix_of
from wham_data.corpus.shards import RowRange
from wham_data.corpus.splits import SPLIT_BY, Tie, split_by_of
from wham_data.corpus.storage.contract import hash_file
from wham_data.schemas.clock import Index, Nanos, steps_ns
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import WhamDataError, counted
from wham_data.schemas.left_out import LeftOut, keep_after
from wham_data.schemas.manifest import EPISODES_SCHEMA, SHARD_NAME, SPLITS
from wham_data.schemas.steps import FLOAT, TOKEN

PICTURE_STARTS: Final = {"jpeg": b"\xff\xd8", "png": b"\x89PNG"}

ManifestRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a check.

    shards, episodes, steps  counts of what was checked
    n_bytes   total size of the shards
    problems  one line each, with the place and both values; empty: the corpus is not damaged
    notes     one line each, about things that are unusual but no damage
    """

    shards: int
    episodes: int
    steps: int
    n_bytes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_bytes: int = 0


def verify(
    corpus: ReadableCorpus, *, hashes: bool = True, threads: int | None = None
) -> VerifyReport:
    """Check the manifest, every shard it names, and every step in them.

    Args:
        corpus: the version at which it is open is checked.
        hashes: read every byte and compare the SHA-256 of each shard. If False, page checksums find
            a changed bit in a page, but not in a footer.
        threads: count of shards to read at once; None: one per processor.
    """
    found = _Findings(problems=corpus.manifest_problems())
    try:
        # Without polars, which does not work in a forked process.
        manifest = corpus.manifest_columns(EPISODES_SCHEMA.names).sort_by("episode")
        rows: Sequence[ManifestRow] = manifest.to_pylist()
    except WhamDataError as error:
        problems = found.problems or [str(error)]
        return VerifyReport(0, 0, 0, 0, tuple(problems), ())
    found.problems += _manifest_problems(rows, corpus.info)
    found.notes += _notes_on_splits(rows, SPLIT_BY[split_by_of(corpus.info)])
    by_shard: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], []).append(row)
    found.notes += _notes_on_orphans(set(corpus.storage.list("shards")) - by_shard.keys())
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        named = sorted(by_shard.items())
        for each in pool.map(lambda item: _check_shard(corpus, *item, hashes=hashes), named):
            found.problems += each.problems
            found.notes += each.notes
            found.n_bytes += each.n_bytes
    return VerifyReport(
        shards=len(by_shard),
        episodes=len(rows),
        steps=sum(row["n_steps"] for row in rows),
        n_bytes=found.n_bytes,
        problems=tuple(found.problems),
        notes=tuple(found.notes),
    )


def _manifest_problems(rows: Sequence[ManifestRow], info: CorpusInfo) -> Iterator[str]:
    """Problems that are visible in the manifest alone."""
    for episode, count in Counter(row["episode"] for row in rows).items():
        if count > 1:
            yield f"manifest: episode {episode} appears {count} times (duplicate)"
    fingerprint = info.tokenizer.fingerprint if info.tokenizer else None
    for row in rows:
        where = f"manifest: episode {row['episode']}"
        if row["settings"] != info.settings_hash:
            yield f"{where}: settings {row['settings']}, but corpus.json has {info.settings_hash}"
        if row["tokenizer"] != fingerprint:
            yield f"{where}: tokenizer {row['tokenizer']}, but corpus.json has {fingerprint}"
        if row["split"] not in SPLITS:
            yield f"{where}: split {row['split']!r} is none of {', '.join(SPLITS)}"
        if row["n_steps"] < 1 or row["row_start"] < 0:
            yield f"{where}: {row['n_steps']} steps from row {row['row_start']}"
        last = 0
        for each in row["keep"]:
            if not last <= each["start"] < each["end"] <= row["n_steps"]:
                keep = f"[{each['start']}, {each['end']})"
                yield f"{where}: keep range {keep} of {row['n_steps']} steps is out of order"
            last = each["end"]
        for each in row["captions"] or ():
            if not all(
                0 <= part["start"] < part["end"] <= row["n_steps"] for part in each["steps"]
            ):
                yield f"{where}: captions of steps beyond its {row['n_steps']} steps"
        if row["left_out"] and not _keep_fits(row):
            yield f"{where}: keep is not what its column left_out leaves of it"


def _keep_fits(row: ManifestRow) -> bool:
    entries = tuple(map(LeftOut.from_record, row["left_out"]))
    before = entries[0].before
    if not all(0 <= start < stop <= row["n_steps"] for start, stop in before):
        return False
    kept = tuple((each["start"], each["end"]) for each in row["keep"])
    return kept == keep_after(before, entries)


def _notes_on_splits(rows: Sequence[ManifestRow], ties: Sequence[Tie]) -> Iterator[str]:
    """Players and matches with episodes in several splits, by choice or because rows changed."""
    for kind in reversed(ties):
        splits: dict[str, set[str]] = {}
        for row in rows:
            if row[kind] is not None:
                splits.setdefault(row[kind], set()).add(row["split"])
        for name, found in sorted(splits.items()):
            if len(found) > 1:
                yield f"manifest: {kind} {name} is in {' and '.join(sorted(found))}"


def _notes_on_orphans(names: Collection[str]) -> Iterator[str]:
    """Shards of stopped runs, or shards that a compaction replaced; older versions may need them."""
    if names:
        first = ", ".join(sorted(names)[:3])
        more = ", ..." if len(names) > 3 else ""
        some = f"{counted(len(names), 'file')} {'is' if len(names) == 1 else 'are'}"
        yield (
            f"shards: {some} not part of this version (of unfinished or replaced "
            f"writes): {first}{more}"
        )


def _check_shard(
    corpus: ReadableCorpus, name: str, rows: Sequence[ManifestRow], *, hashes: bool
) -> _Findings:
    """Check one shard: its bytes, its footer, its rows in the manifest, and its steps."""
    found = _Findings()
    if not SHARD_NAME.fullmatch(name):
        found.problems.append(
            f"manifest: unsafe path {name[:120]!r} named as a shard, expected 24 hex digits and "
            ".parquet"
        )
        return found
    where = f"shards/{name}"
    try:
        with corpus.storage.fresh(where) as path:
            if hashes and path.is_file():
                found.problems += _hash_problems(where, hash_file(path), rows)
            view = ShardView(path, corpus.info, corpus.storage.where(where))
            found.n_bytes = path.stat().st_size
            found.problems += _range_problems(where, view, rows)
            if not view.has_text and any(row["captions"] for row in rows):
                found.problems.append(f"{where}: has no texts, but the manifest names captions")
            unnamed = {each.episode for each in view.episodes} - {row["episode"] for row in rows}
            if unnamed:
                found.notes.append(
                    f"{where}: {len(unnamed)} of its episodes are not in the manifest"
                )
            found.problems += _StepCheck(where, view, corpus.info, rows).problems()
    except WhamDataError as error:
        found.problems.append(str(error))
    return found


def _hash_problems(where: str, sha256: str, rows: Sequence[ManifestRow]) -> Iterator[str]:
    for expected in sorted({row["shard_sha256"] for row in rows}):
        if sha256 != expected:
            yield f"{where}: corrupt: sha256 is {sha256}, but the manifest has {expected}"


def _range_problems(where: str, view: ShardView, rows: Sequence[ManifestRow]) -> Iterator[str]:
    held = {each.episode: each for each in view.episodes}
    for row in rows:
        expected = RowRange(row["episode"], row["row_start"], row["n_steps"])
        found = held.get(expected.episode)
        if found is None:
            yield f"{where}: episode {expected.episode} is missing, but the manifest names it"
        elif found != expected:
            yield (
                f"{where}: episode {expected.episode}: {expected.n_steps} rows from "
                f"{expected.start} in the "
                f"manifest, {found.n_steps} from {found.start} in the shard (mismatch)"
            )


class _StepCheck:
    """Compares all steps of a shard with its footer, corpus.json and the manifest."""

    def __init__(
        self, where: str, view: ShardView, info: CorpusInfo, rows: Sequence[ManifestRow]
    ) -> None:
        self.where, self.view, self.info = where, view, info
        self.names = [each.episode for each in view.episodes]
        self.starts: Index = np.array([each.start for each in view.episodes], np.int64)
        self.first_times: Nanos = np.zeros(len(self.names), np.int64)
        self.missing: Index = np.zeros(len(self.names), np.int64)
        self.manifest = {row["episode"]: row for row in rows}
        self.last: tuple[int, int] | None = None

    def problems(self) -> Iterator[str]:
        first = 0
        for group in range(self.view.n_groups):
            table = self.view.read_group(group)
            rows = np.arange(first, first + len(table))
            owner = np.searchsorted(self.starts, rows, side="right") - 1
            yield from self._order(table, rows, owner)
            yield from self._clock(table, rows, owner)
            yield from self._values(table, rows, owner)
            first += len(table)
        for index, name in enumerate(self.names):
            row = self.manifest.get(name)
            if row is not None and row["start_ns"] != self.first_times[index]:
                yield (
                    f"{self.where}: episode {name} starts at {self.first_times[index]} ns, but the "
                    f"manifest has {row['start_ns']}"
                )
            if row is not None and row["missing_actions"] != self.missing[index]:
                yield (
                    f"{self.where}: episode {name} has {self.missing[index]} steps without an "
                    f"action, but the manifest has {row['missing_actions']}"
                )

    def _order(self, table: pa.Table, rows: Index, owner: Index) -> Iterator[str]:
        names = table.column("episode").combine_chunks()
        place = {name: index for index, name in enumerate(self.names)}
        owners = np.array([place.get(name, -1) for name in names.dictionary.to_pylist()], np.int64)
        for row in self._first(owners[names.indices.to_numpy()] != owner):
            found = names[row].as_py()
            yield self._at(rows[row], f"episode {found}, expected {self.names[owner[row]]}")
        step = table.column("step").to_numpy()
        expected = rows - self.starts[owner]
        for row in self._first(step != expected):
            yield self._at(
                rows[row],
                f"step {step[row]}, expected {expected[row]}: a gap, or steps out of order",
            )

    def _clock(self, table: pa.Table, rows: Index, owner: Index) -> Iterator[str]:
        time_ns = table.column("time_ns").to_numpy()
        step = rows - self.starts[owner]
        self.first_times[owner[step == 0]] = time_ns[step == 0]
        if isinstance(self.info.rate, Fraction):
            expected = self.first_times[owner] + steps_ns(step, self.info.rate)
            for row in self._first(time_ns != expected):
                yield self._at(
                    rows[row],
                    f"time {time_ns[row]} ns is off the grid of {self.info.rate} Hz, expected "
                    f"{expected[row]}",
                )
        before = self.last or (-1, 0)
        same = np.concatenate([[owner[0] == before[0]], owner[1:] == owner[:-1]])
        rises = np.concatenate([[time_ns[0] > before[1]], np.diff(time_ns) > 0])
        for row in self._first(same & ~rises):
            yield self._at(
                rows[row], f"time {time_ns[row]} ns does not come after the step before it"
            )
        self.last = (int(owner[-1]), int(time_ns[-1]))

    def _values(self, table: pa.Table, rows: Index, owner: Index) -> Iterator[str]:
        if self.info.tokenizer is not None:
            largest = matrix_of(table.column("tokens").combine_chunks(), TOKEN).max(axis=1)
            for row in self._first(largest >= self.info.tokenizer.vocab_size):
                yield self._at(
                    rows[row],
                    f"token {largest[row]} is out of range, the vocabulary has "
                    f"{self.info.tokenizer.vocab_size}",
                )
        actions = matrix_of(table.column("actions").combine_chunks(), FLOAT)
        known = table.column("action_known").to_numpy()
        self.missing += np.bincount(owner[~known], minlength=len(self.names))
        agrees = np.where(known, np.isfinite(actions).all(axis=1), np.isnan(actions).all(axis=1))
        for row in self._first(~agrees):
            mark = "known" if known[row] else "not known"
            yield self._at(
                rows[row], f"the action is marked as {mark}, but is {actions[row].tolist()}"
            )
        starts_with = PICTURE_STARTS.get(self.info.frames)
        if starts_with is not None:
            frames = table.column("frame").to_pylist()
            bad = np.array([not frame.startswith(starts_with) for frame in frames])
            for row in self._first(bad):
                yield self._at(rows[row], f"the frame is not {self.info.frames}")

    def _first(self, wrong: NDArray[np.bool_]) -> Index:
        """The first wrong row, if any. Later rows mostly have the same problem."""
        return np.flatnonzero(wrong)[:1]

    def _at(self, row: int, what: str) -> str:
        return f"{self.where}: row {row}: {what}"
