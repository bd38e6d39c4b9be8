"""Count how a corpus is spread: controls, pairs and combinations of them, holds, games, players.

A step counts if it is in a `keep` range of its episode and its action is known: these are the steps
that training sees. A control is a direction of a dimension (see `hold_times`): `a` for a button, and
`left_x-` and `left_x+` for the two directions of a stick.

Shards are read once, an episode at a time. What stays in memory is a number for each control and
episode, the combinations of recordings that are not complete yet, and at most MOST_COMBINATIONS
combinations of the corpus: when there are twice as many, the rarest are dropped, and `uncounted` says
how many steps had them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.hold_times import Flags, Way, complete_holds, ways
from wham_data.corpus.stats import Amount, actions_by_episode, amounts, with_hours
from wham_data.schemas.corpus_info import Rate
from wham_data.schemas.errors import NoInputsError, UsageError
from wham_data.schemas.manifest import SPLITS

Counts = NDArray[np.int64]

GROUPS: Final = ("game", "map", "player")
MOST_PAIRED: Final = 256
"""Pairs are counted among the first controls alone if there are more than this many."""
MOST_COMBINATIONS: Final = 65_536
LONGEST_HOLD: Final = 1_024
"""Holds of more steps than this are counted as this long."""
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ControlShare:
    """How one control was used in the counted steps.

    share        share of the steps in which it was held, 0 to 1
    alone        share of the steps in which it was held and nothing else was
    holds        count of holds that begin and end inside an episode, between counted steps
    hold_counts  holds by length in steps: 1, 2, 3 to 4, 5 to 8, 9 to 16, ...; to the last that occurs
    median_hold_s  their median in seconds; None without a hold or a fixed rate
    """

    name: str
    share: float
    alone: float
    holds: int
    hold_counts: tuple[int, ...]
    median_hold_s: float | None


@dataclass(frozen=True, slots=True)
class PairShare:
    """Two controls that were held at once.

    share  share of the steps, 0 to 1
    lift   how many times more often than if they were independent
    """

    first: str
    second: str
    share: float
    lift: float


@dataclass(frozen=True, slots=True)
class Combination:
    """Everything that was held at once; no control at all is `()`.

    share  share of the steps, 0 to 1
    """

    controls: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of several recordings: how many, the lowest, the middle one, and the highest."""

    count: int
    lowest: float
    median: float
    highest: float


@dataclass(frozen=True, slots=True)
class CorpusBalance:
    """How a corpus is spread.

    steps, hours   what counts: kept, and with a known action
    left_out       steps that do not count
    controls       one for each direction of each dimension
    pairs          the most frequent ones, at most 20
    combinations   the most frequent ones, at most 20
    uncounted      steps whose combination was too rare to keep
    entropy_bits   of the combinations in a recording: 0 if it never changes; None without a step
    monotonous     the recordings with the lowest entropy, the lowest first: name and bits
    by             hours by "split", "game", "map" and "player"
    """

    steps: int
    hours: float
    left_out: int
    controls: tuple[ControlShare, ...]
    pairs: tuple[PairShare, ...]
    combinations: tuple[Combination, ...]
    uncounted: int
    entropy_bits: Spread | None
    monotonous: tuple[tuple[str, float], ...]
    by: Mapping[str, tuple[Amount, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted, for `balance_of` and for weights.

    episodes  a row per episode: `episode`, `recording`, `split`, `game`, `map`, `player`, `n_steps`
              (those that count) and `hours`
    active    int64 [E, W]  counted steps in which each control was held
    names     of the W controls
    entropy   recording -> bits
    """

    episodes: pl.DataFrame
    active: Counts
    names: tuple[str, ...]
    entropy: Mapping[str, float]
    tally: Tally
    rate: Rate
    all_steps: int


@dataclass(slots=True)
class Tally:
    """Sums over steps, filled episode by episode.

    pairs         int64 [W, W]  steps in which both controls were held
    holds         int64 [W, LONGEST_HOLD + 1]  complete holds by length
    combinations  packed bits of the controls held -> steps
    uncounted     steps of combinations that were dropped
    """

    pairs: Counts
    holds: Counts
    combinations: Counter[bytes] = field(default_factory=Counter)
    uncounted: int = 0

    @classmethod
    def empty(cls, n_controls: int) -> Tally:
        """Nothing counted yet."""
        paired = min(n_controls, MOST_PAIRED)
        holds = np.zeros((n_controls, LONGEST_HOLD + 1), np.int64)
        return cls(np.zeros((paired, paired), np.int64), holds)

    def add(self, held: Flags, known: Flags) -> Counter[bytes]:
        """Count an episode.

        Args:
            held: bool [T, W], False where a step does not count.
            known: bool [T], whether a step counts.

        Returns:
            The steps of each combination in it.
        """
        way, lengths = complete_holds(held, known)
        np.add.at(self.holds, (way, np.minimum(lengths, LONGEST_HOLD)), 1)
        counted = held[known]
        paired = counted[:, : len(self.pairs)].astype(np.float32)
        self.pairs += (paired.T @ paired).round().astype(np.int64)
        found = combinations_in(counted)
        self.combinations.update(found)
        if len(self.combinations) > 2 * MOST_COMBINATIONS:
            kept = dict(self.combinations.most_common(MOST_COMBINATIONS))
            self.uncounted += self.combinations.total() - sum(kept.values())
            self.combinations = Counter(kept)
        return found


def combinations_in(held: Flags) -> Counter[bytes]:
    """How many of the steps have each combination of controls.

    Args:
        held: bool [T, W].

    Returns:
        The packed bits of a row -> count.
    """
    rows, counts = np.unique(np.packbits(held, axis=1), axis=0, return_counts=True)
    return Counter(dict(zip(map(bytes, rows), counts.tolist(), strict=True)))


def entropy_bits(counts: Sequence[int]) -> float:
    """Entropy of a distribution given by counts, in bits; 0 for no counts."""
    shares = np.array(counts, np.float64) / max(1, sum(counts))
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def count_balance(corpus: Corpus, split: str | None = None) -> Counted:
    """Count the steps of a corpus, or of one split of it. Reads every action once.

    Raises:
        UsageError: there is no such split.
        NoInputsError: the corpus or the split has no episode.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"split {split!r} is none of {', '.join(SPLITS)}")
    manifest = with_hours(corpus).sort("shard", "row_start")
    manifest = manifest if split is None else manifest.filter(pl.col("split") == split)
    if not len(manifest):
        raise NoInputsError(
            f"{corpus.location}: no episode{f' in the split {split}' if split else ''}"
        )
    all_ways = ways(corpus.info.action_space.dimensions)
    tally = Tally.empty(len(all_ways))
    active = np.zeros((len(manifest), len(all_ways)), np.int64)
    n_steps = np.zeros(len(manifest), np.int64)
    entropy: dict[str, float] = {}
    open_recordings: dict[str, Counter[bytes]] = {}
    left = Counter(manifest["recording"].to_list())
    rows = manifest.select("recording", "keep").iter_rows()
    for number, ((recording, keep), actions) in enumerate(
        zip(rows, actions_by_episode(corpus, manifest), strict=True)
    ):
        known = counting(actions, [(each["start"], each["end"]) for each in keep])
        held = held_in(actions, all_ways) & known[:, None]
        active[number], n_steps[number] = held.sum(axis=0), known.sum()
        open_recordings.setdefault(recording, Counter()).update(tally.add(held, known))
        left[recording] -= 1
        if not left[recording] and (found := open_recordings.pop(recording)):
            entropy[recording] = entropy_bits([*found.values()])
    per_step = pl.col("hours") / pl.col("n_steps")
    episodes = manifest.select(
        *("episode", "recording", "split", *GROUPS),
        pl.Series("n_steps", n_steps),
        hours=per_step * pl.Series(n_steps),
    )
    return Counted(
        episodes,
        active,
        control_names(corpus, all_ways),
        entropy,
        tally,
        corpus.info.rate,
        int(manifest["n_steps"].sum()),
    )


def counting(actions: NDArray[np.float32], keep: Sequence[tuple[int, int]]) -> Flags:
    """Which steps of an episode count: in a `keep` range, and with a known action; bool [T].

    Args:
        actions: float32 [T, A]; a row of NaN is not known.
        keep: ranges [start, end) of steps.
    """
    kept = np.zeros(len(actions), np.bool_)
    for start, end in keep:
        kept[start:end] = True
    return np.asarray(kept & ~np.isnan(actions).any(axis=1), np.bool_)


def held_in(actions: NDArray[np.float32], all_ways: Sequence[Way]) -> Flags:
    """Which controls are held in each step, bool [T, W]; False where the action is not known."""
    index = np.array([way.index for way in all_ways], np.int64)
    sign = np.array([way.sign for way in all_ways], np.float32)
    threshold = np.array([way.threshold for way in all_ways], np.float32)
    return np.asarray(sign * actions[:, index] > threshold, np.bool_)


def control_names(corpus: Corpus, all_ways: Sequence[Way]) -> tuple[str, ...]:
    """The name of each control: of the button, or of the dimension with `-` or `+`."""
    dimensions = corpus.info.action_space.dimensions
    sides = {-1: "-", 1: "+"}
    return tuple(
        dimensions[way.index].name
        + ("" if dimensions[way.index].kind == "button" else sides[way.sign])
        for way in all_ways
    )


def balance_of(counted: Counted) -> CorpusBalance:
    """The figures for people, from what was counted."""
    steps = int(counted.episodes["n_steps"].sum())
    bits = np.array(sorted(counted.entropy.values()))
    lowest = sorted(counted.entropy.items(), key=lambda each: (each[1], each[0]))[:SHOWN]
    return CorpusBalance(
        steps=steps,
        hours=float(counted.episodes["hours"].sum()),
        left_out=counted.all_steps - steps,
        controls=tuple(_controls(counted, steps)),
        pairs=_pairs(counted, steps),
        combinations=tuple(
            Combination(_names_in(packed, counted.names), count / steps)
            for packed, count in counted.tally.combinations.most_common(SHOWN)
        ),
        uncounted=counted.tally.uncounted,
        entropy_bits=(
            Spread(len(bits), float(bits[0]), float(np.median(bits)), float(bits[-1]))
            if len(bits)
            else None
        ),
        monotonous=tuple(lowest),
        by={kind: amounts(counted.episodes, kind) for kind in ("split", *GROUPS)},
    )


def _controls(counted: Counted, steps: int) -> list[ControlShare]:
    made = []
    alone = {
        _names_in(packed, counted.names): count
        for packed, count in counted.tally.combinations.items()
        if int.from_bytes(packed).bit_count() == 1
    }
    for name, active, holds in zip(
        counted.names, counted.active.sum(axis=0), counted.tally.holds, strict=True
    ):
        total, reached = int(holds.sum()), np.cumsum(holds)
        median = int(np.searchsorted(reached, (total + 1) // 2)) if total else 0
        fixed = counted.rate != "native" and total
        made.append(
            ControlShare(
                name=name,
                share=float(active / steps) if steps else 0.0,
                alone=alone.get((name,), 0) / steps if steps else 0.0,
                holds=total,
                hold_counts=hold_bins(holds),
                median_hold_s=float(median / counted.rate) if fixed else None,  # type: ignore[operator]
            )
        )
    return made


def hold_bins(holds: Counts) -> tuple[int, ...]:
    """Holds by length in doubling bins: 1, 2, 3 to 4, 5 to 8, ...

    Args:
        holds: holds by length in steps, int64 [L + 1]; length 0 does not occur.

    Returns:
        Counts, to the last bin that is not empty.
    """
    lengths = np.arange(1, len(holds))
    bins = np.ceil(np.log2(lengths)).astype(np.int64)
    counts = np.bincount(bins, weights=holds[1:]).astype(np.int64)
    return tuple(np.trim_zeros(counts, "b").tolist())


def _pairs(counted: Counted, steps: int) -> tuple[PairShare, ...]:
    first, second = np.triu_indices(len(counted.tally.pairs), 1)
    both = counted.tally.pairs[first, second]
    most = np.argsort(-both, kind="stable")[:SHOWN]
    each = np.diagonal(counted.tally.pairs)
    return tuple(
        PairShare(
            counted.names[a],
            counted.names[b],
            float(both[n] / steps),
            float(both[n] * steps / (each[a] * each[b])),
        )
        for n, a, b in zip(most.tolist(), first[most].tolist(), second[most].tolist(), strict=True)
        if both[n]
    )


def _names_in(packed: bytes, names: Sequence[str]) -> tuple[str, ...]:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=len(names))
    return tuple(names[index] for index in np.flatnonzero(bits).tolist())
