"""Select the windows of one or more corpora and their weights, from columns of the manifests."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.balance.weights import read_weights
from wham_data.corpus.shard_view import ShardView, matrix_of
from wham_data.feed.balance import action_weights
from wham_data.feed.mapped_shards import NAME_BYTES, Shards
from wham_data.feed.order import Draws
from wham_data.feed.windows import (
    Numbers,
    Shape,
    Starts,
    Windows,
    starts_within,
    windows_at,
    without_rows,
)
from wham_data.schemas.errors import IntegrityError, MismatchError, NoInputsError, UsageError

UnknownActions = Literal["drop", "keep"]
Balance = Literal["action"] | os.PathLike[str]

PIECE: Final = 64
"""Most windows in a run, which share one weight, when actions are balanced."""
_COLUMNS: Final = ("shard", "row_start", "n_steps", "split", "keep", "missing_actions")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which windows to select.

    split            only windows of episodes in this split; None: of all splits
    unknown_actions  "drop": leave out windows with an unknown action; "keep": include them
    weights          episode -> how often each of its windows comes per epoch. Default: 1
    balance          "action": windows with rare actions come more often; a `Path`: the weights in this
                     file, which `stats --balance --out` writes; None: neither
    check_shards     compare the SHA-256 of each shard when it is opened
    skip_bad         leave out shards that are missing or damaged instead of raising an error

    Raises:
        UsageError: `unknown_actions` or `balance` has another value, or a weight is negative or not
            finite.
    """

    split: str | None = "train"
    unknown_actions: UnknownActions = "drop"
    weights: Mapping[str, float] | None = None
    balance: Balance | None = None
    check_shards: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.unknown_actions not in ("drop", "keep"):
            raise UsageError(f"unknown_actions {self.unknown_actions!r}: expected 'drop' or 'keep'")
        if self.balance not in (None, "action") and not isinstance(self.balance, os.PathLike):
            raise UsageError(
                f"balance {self.balance!r}: expected None, 'action', or the Path of a file of weights"
            )
        for episode, weight in (self.weights or {}).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"episode {episode}: weight {weight}, expected 0 or more")


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected windows.

    shards   the shards that contain them
    windows  all windows, by number
    draws    how often each window is drawn per epoch
    """

    shards: Shards
    windows: Windows
    draws: Draws

    def fingerprint(self) -> str:
        """A hash of everything that decides which window draw k of an epoch is; 24 hex digits."""
        digest = hashlib.blake2b(digest_size=12)
        for names in self.shards.names:
            digest.update(np.ascontiguousarray(names).data)
        reached = self.draws.reached
        for array in (self.windows.shard, self.windows.first, self.windows.ends, reached):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).data)
        digest.update(str(self.windows.stride).encode())
        return digest.hexdigest()


def select(corpora: Mapping[Corpus, float], shape: Shape, choice: Choice) -> Selection:
    """Find the windows that `choice` describes.

    Args:
        corpora: corpus -> its share of the draws; ignored if there is only one corpus.
        shape: length and stride of the windows.
        choice: which windows to select.

    Raises:
        NoInputsError: a corpus has no such window.
        UsageError: a share is not above 0, all weights are 0, or a weight names an unknown episode.
        MismatchError: the corpora differ in tokenizer, action space or rate.
        IntegrityError: a manifest or shard is damaged.
    """
    _check_alike(list(corpora))
    if isinstance(choice.balance, os.PathLike):
        choice = _with_file(list(corpora), choice, Path(choice.balance))
    if choice.weights:
        _check_episodes(list(corpora), choice.weights)
    parts = [_part_of(corpus, shape, choice) for corpus in corpora]
    shards = Shards(
        tuple(corpora),
        tuple(part.shards.names[0] for part in parts),
        tuple(part.shards.hashes[0] for part in parts),
        choice.skip_bad,
    )
    windows = _join_windows(parts)
    weights = _weights(parts, list(corpora.values()))
    draws = Draws(windows) if weights is None else Draws.weighted(windows, weights)
    return Selection(shards, windows, draws)


@dataclass(frozen=True, slots=True)
class _Part:
    """The windows of one corpus.

    shards   its shards, sorted by name
    windows  its windows in R runs, sorted by shard and row
    weights  weight of each run, float64 [R]; None: 1 for all
    """

    shards: Shards
    windows: Windows
    weights: NDArray[np.float64] | None


def _part_of(corpus: Corpus, shape: Shape, choice: Choice) -> _Part:
    optional = {"episode": choice.weights, "shard_sha256": choice.check_shards}
    table = corpus.manifest_columns(
        [*_COLUMNS, *(name for name, needed in optional.items() if needed)]
    )
    if choice.split is not None:
        table = table.filter(pc.equal(table.column("split"), choice.split))
    shards, shard, table = _by_place(corpus, table)
    shards = replace(shards, skip_bad=choice.skip_bad)
    first, n_steps = _numbers(table, "row_start"), _numbers(table, "n_steps")
    overlap = (shard[1:] == shard[:-1]) & (first[1:] < first[:-1] + n_steps[:-1])
    if overlap.any() or (n_steps < 1).any() or (first < 0).any():
        raise IntegrityError(f"{corpus.location}: rows of the manifest overlap or are not valid")
    low, high, episode = _keep_ranges(corpus, table, n_steps)
    starts = starts_within(
        shard[episode], first[episode] + low, first[episode] + high, episode, shape
    )
    if choice.unknown_actions == "drop":
        missing = np.unique(shard[_numbers(table, "missing_actions") > 0])
        starts = _known_only(shards, starts, missing, shape)
    windows, interval = windows_at(starts, shape.stride, PIECE if choice.balance else None)
    if not len(windows):
        raise NoInputsError(_no_windows_message(corpus, shape, choice))
    weights: NDArray[np.float64] | None = None
    if choice.weights:
        weights = _episode_weights(choice.weights, table)[starts.episode[interval]]
    if choice.balance:
        balanced = action_weights(shards, windows, shape)
        weights = balanced if weights is None else balanced * weights
    return _Part(shards, windows, weights)


def _by_place(corpus: Corpus, table: pa.Table) -> tuple[Shards, Numbers, pa.Table]:
    """Sort the episodes of a manifest by shard and row.

    Returns:
        the shards, sorted by name; the shard number of each episode, int64 [E]; the sorted table.
    """
    try:
        names = table.column("shard").combine_chunks().cast(pa.binary()).cast(pa.binary(NAME_BYTES))
    except pa.ArrowInvalid as error:
        raise IntegrityError(
            f"{corpus.location}: the manifest has a name that is not the name of a shard"
        ) from error
    # Names are compared as integers, because sorting a million strings takes seconds.
    name_numbers = matrix_of(names, np.dtype(">u8"))
    order = np.lexsort((_numbers(table, "row_start"), *name_numbers.T[::-1]))
    name_numbers = name_numbers[order]
    is_new_shard = np.ones(len(name_numbers), np.bool_)
    is_new_shard[1:] = (name_numbers[1:] != name_numbers[:-1]).any(axis=1)
    sorted_table = table.drop_columns(["shard", "split"]).take(order)
    hashes = None
    if "shard_sha256" in sorted_table.column_names:
        hashes = sorted_table.column("shard_sha256").combine_chunks().filter(pa.array(is_new_shard))
    shards = Shards(
        (corpus,), (name_numbers[is_new_shard].view(f"S{NAME_BYTES}")[:, 0],), (hashes,)
    )
    return shards, np.cumsum(is_new_shard) - 1, sorted_table


def _keep_ranges(
    corpus: Corpus, table: pa.Table, n_steps: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """All `keep` ranges [low, high) in steps of their episode, and the table row of each; int64 [K]."""
    keep = table.column("keep").combine_chunks()
    ranges = pc.list_flatten(keep)
    episode = pc.list_parent_indices(keep).to_numpy().astype(np.int64)
    low = pc.struct_field(ranges, "start").to_numpy()
    high = pc.struct_field(ranges, "end").to_numpy()
    previous_end = np.zeros_like(high)
    previous_end[1:] = np.where(episode[1:] == episode[:-1], high[:-1], 0)
    if (low < previous_end).any() or (low >= high).any() or (high > n_steps[episode]).any():
        raise IntegrityError(f"{corpus.location}: the manifest has a keep range out of order")
    return low, high, episode


def _known_only(shards: Shards, starts: Starts, missing: Numbers, shape: Shape) -> Starts:
    """The starts of windows whose actions are all known.

    Args:
        shards: the shards that `starts` refers to.
        starts: all starts, sorted by shard and row.
        missing: numbers of the shards with unknown actions, sorted; only these are opened.
        shape: length of the windows.
    """
    parts, copied = [], 0
    for shard in missing.tolist():
        low, high = np.searchsorted(starts.shard, [shard, shard + 1]).tolist()
        if low == high:
            continue
        parts.append(starts.take(slice(copied, low)))
        copied = high
        if (view := shards.readable(shard)) is not None:
            rows = _unknown_rows(view)
            parts.append(without_rows(starts.take(slice(low, high)), rows, shape.length))
    return Starts.joined([*parts, starts.take(slice(copied, None))])


def _unknown_rows(view: ShardView) -> Numbers:
    """The rows of a shard whose action is unknown, sorted, int64."""
    pieces = [np.empty(0, np.int64)]
    for first, table in view.read_rows(0, view.rows, ["action_known"]):
        known = table.column("action_known").combine_chunks().to_numpy(zero_copy_only=False)
        pieces.append(first + np.flatnonzero(~known))
    return np.concatenate(pieces)


def _episode_weights(weights: Mapping[str, float], table: pa.Table) -> NDArray[np.float64]:
    """The weight of each episode of the table, float64 [E]; 1 for an episode not in `weights`."""
    index = pc.index_in(table.column("episode"), value_set=pa.array(list(weights), pa.string()))
    values = np.append(np.fromiter(weights.values(), np.float64), 1.0)
    of_episode: NDArray[np.float64] = values[index.fill_null(len(weights)).to_numpy()]
    return of_episode


def _join_windows(parts: Sequence[_Part]) -> Windows:
    if len(parts) == 1:
        return parts[0].windows
    shards = np.cumsum([0, *(len(part.shards) for part in parts)])
    windows = np.cumsum([0, *(len(part.windows) for part in parts)])
    joined = [
        (part.windows.shard + np.int32(shard), part.windows.first, part.windows.ends + previous_end)
        for part, shard, previous_end in zip(parts, shards[:-1], windows[:-1], strict=True)
    ]
    shard, first, ends = (np.concatenate(arrays) for arrays in zip(*joined, strict=True))
    return Windows(shard, first, ends, parts[0].windows.stride)


def _weights(parts: Sequence[_Part], shares: Sequence[float]) -> NDArray[np.float64] | None:
    """The weight of each run of windows, float64 [R]; None: 1 for all.

    With several corpora the weights are scaled so that each corpus gets its share of the draws. The
    total number of draws stays the same.
    """
    if len(parts) == 1 and parts[0].weights is None:
        return None
    weights = [
        np.ones(len(part.windows.first)) if part.weights is None else part.weights for part in parts
    ]
    draws = [
        float((part.windows.counts() * of_run).sum())
        for part, of_run in zip(parts, weights, strict=True)
    ]
    if min(draws) <= 0:
        raise UsageError("the weights of all windows are 0, which leaves no window to draw")
    if len(parts) == 1:
        return weights[0]
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise UsageError(f"shares {', '.join(map(str, shares))}: expected numbers above 0")
    draws_per_share = sum(draws) / sum(shares)
    return np.concatenate(
        [
            of_run * (share * draws_per_share / n)
            for of_run, share, n in zip(weights, shares, draws, strict=True)
        ]
    )


def _with_file(corpora: Sequence[Corpus], choice: Choice, path: Path) -> Choice:
    """The choice with the weights of a file, times those that it has."""
    weights = read_weights(path)
    for corpus in corpora:
        table = corpus.manifest_columns(["episode", "split"])
        if choice.split is not None:
            table = table.filter(pc.equal(table.column("split"), choice.split))
        lacking = [name for name in table.column("episode").to_pylist() if name not in weights]
        if lacking:
            raise UsageError(
                f"{path}: no weight for {len(lacking)} episodes of {corpus.location}, such as "
                f"{lacking[0][:80]!r}: make the file again, with `wham-data stats --balance`"
            )
    given = choice.weights or {}
    both = {name: weight * given.get(name, 1.0) for name, weight in weights.items()}
    return replace(choice, balance=None, weights={**given, **both})


def _check_alike(corpora: Sequence[Corpus]) -> None:
    """Check that all corpora have the same tokenizer, action space and rate."""
    first = corpora[0]
    for other in corpora[1:]:
        differences = [
            line
            for line in first.info.diff(other.info)
            if line.startswith(("tokenizer", "action_space", "rate"))
        ]
        if differences:
            raise MismatchError(
                f"{first.location} and {other.location} cannot be mixed: {'; '.join(differences)}"
            )


def _check_episodes(corpora: Sequence[Corpus], weights: Mapping[str, float]) -> None:
    episodes = [corpus.manifest_columns(["episode"]).column("episode") for corpus in corpora]
    known = pa.chunked_array([chunk for column in episodes for chunk in column.chunks], pa.string())
    is_unknown = pc.invert(pc.is_in(pa.array(list(weights), pa.string()), value_set=known))
    if pc.any(is_unknown).as_py():
        name = list(weights)[pc.index(is_unknown, True).as_py()]
        raise UsageError(f"weights: episode {name[:120]!r} is in none of the corpora")


def _no_windows_message(corpus: Corpus, shape: Shape, choice: Choice) -> str:
    splits = corpus.manifest_columns(["split"]).column("split").unique().to_pylist()
    where = "any split" if choice.split is None else f"split {choice.split!r}"
    known = " with known actions" if choice.unknown_actions == "drop" else ""
    return (
        f"{corpus.location}: no window of {shape.observations} steps{known} in {where}; "
        f"its splits are {', '.join(sorted(splits)) or 'none'}"
    )


def _numbers(table: pa.Table, name: str) -> Numbers:
    values: Numbers = table.column(name).to_numpy()
    return values
