"""Statistics of a corpus: its size, and the use of actions, tokens and clocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.hold_times import Held, count_holds
from wham_data.corpus.scan import pieces
from wham_data.schemas.actions import UNKNOWN_RANGE, Dimension
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.corpus_info import Rate
from wham_data.schemas.left_out import FILTER, LeftOut, steps_by_reason
from wham_data.schemas.manifest import kind_of_note

BINS: Final = 21
"""Bins in the histogram of an axis, all equally wide. The count is odd, so rest is in the middle."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Episodes, steps and hours of one split, game or player.

    name  of the split, game or player; "" if it is not known
    """

    name: str
    episodes: int
    steps: int
    hours: float


@dataclass(frozen=True, slots=True)
class ButtonUse:
    """How one button was used in the steps whose action is known.

    share        share of the steps in which it was down, 0 to 1
    presses      how often it went down; being down at the first step of an episode counts as one
    mean_hold_s  mean duration of a hold in seconds; None without a press or a fixed rate
    shortest_hold_s, longest_hold_s  seconds, of the holds whose start and end are both in the
                 data; None if there is none, or no fixed rate
    """

    name: str
    share: float
    presses: int
    mean_hold_s: float | None
    shortest_hold_s: float | None
    longest_hold_s: float | None


@dataclass(frozen=True, slots=True)
class DirectionUse:
    """How one stick, trigger or motion was moved in one direction.

    share  share of the steps in which it was moved, 0 to 1: a motion by any amount, a stick or
           trigger by a tenth of its range
    holds  count of the holds whose start and end are both in the data
    shortest_hold_s, longest_hold_s  their durations in seconds; None if there is none, or no fixed
           rate
    """

    share: float
    holds: int
    shortest_hold_s: float | None
    longest_hold_s: float | None


@dataclass(frozen=True, slots=True)
class AxisUse:
    """How one stick, trigger or motion was used in the steps whose action is known.

    low, high  range of the dimension; for one without limits, what its values reach from 0
    counts     steps per bin; BINS equal bins over [low, high]; values outside count in the
               outermost bins
    down, up   its use below and above rest; None if its range has no such side
    """

    name: str
    low: float
    high: float
    mean: float
    counts: tuple[int, ...]
    down: DirectionUse | None
    up: DirectionUse | None


@dataclass(frozen=True, slots=True)
class TokenUse:
    """How much of the codebook the corpus uses.

    total         count of tokens
    distinct      count of codes that occur
    share         share of the codebook that occurs, 0 to 1
    entropy_bits  entropy of the distribution of the codes
    perplexity    2 ** entropy_bits
    """

    total: int
    distinct: int
    vocab_size: int
    share: float
    entropy_bits: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class ClockUse:
    """Properties of the recordings' clocks, summed over the episodes.

    variable_rate  share of episodes from variable-rate video, 0 to 1
    lost           frames that the containers declare and that could not be decoded
    """

    variable_rate: float
    gaps: int
    duplicates: int
    longest_interval_ms: float
    lost: int


@dataclass(frozen=True, slots=True)
class PlayUse:
    """How much of the corpus is play, as far as its filters have judged it. Hours.

    kept         in `keep`
    left_out     reason -> what `wham-data filter` left out, most first
    before       what was not in `keep` before them, for reasons of the recordings' formats
    unjudged     kind -> episodes of which it is not known whether they have such steps, most first
    never        episodes that `wham-data filter` has not looked at
    """

    kept: float
    left_out: Mapping[str, float]
    before: float
    unjudged: Mapping[str, float]
    never: float


@dataclass(frozen=True, slots=True)
class CorpusStats:
    """All statistics of a corpus.

    known_steps  steps whose action is known
    by           amounts by "split", "game" and "player"
    notes        counts of episodes by kind of note, the most common first
    play         what of it is play
    """

    episodes: int
    recordings: int
    steps: int
    hours: float
    play: PlayUse
    known_steps: int
    clamped: int
    by: Mapping[str, tuple[Amount, ...]]
    buttons: tuple[ButtonUse, ...]
    axes: tuple[AxisUse, ...]
    tokens: TokenUse | None
    clock: ClockUse
    notes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """Statistics from the manifest alone.

    by           amounts by "split", "game" and "license"
    quarantined  count of refused inputs
    reasons      their counts by reason code
    noted        count of episodes with a note
    notes        counts of episodes by kind of note, the most common first
    captions     for each model that wrote texts: a phrase with the steps and the date
    """

    episodes: int
    recordings: int
    steps: int
    hours: float
    shards: int
    n_bytes: int
    by: Mapping[str, tuple[Amount, ...]]
    quarantined: int
    reasons: Mapping[str, int]
    noted: int
    notes: Mapping[str, int]
    captions: tuple[str, ...]


def summarize(corpus: Corpus) -> CorpusSummary:
    """Make the summary from the manifest and the sizes of the shards; reads no shard."""
    manifest = with_hours(corpus)
    shards = set(manifest["shard"])
    refused = corpus.quarantine["reason"]
    counts = refused.value_counts(sort=True).sort(["count", "reason"], descending=[True, False])
    return CorpusSummary(
        episodes=len(manifest),
        recordings=manifest["recording"].n_unique(),
        steps=int(manifest["n_steps"].sum()),
        hours=float(manifest["hours"].sum()),
        shards=len(shards),
        n_bytes=sum(
            each.n_bytes for each in corpus.storage.entries("shards") if each.name in shards
        ),
        by={kind: amounts(manifest, kind) for kind in ("split", "game", "license")},
        quarantined=len(refused),
        reasons=dict(counts.iter_rows()),
        noted=int((manifest["notes"].list.len() > 0).sum()),
        notes=notes_by_kind(manifest),
        captions=tuple(_captions(manifest)),
    )


def _captions(manifest: pl.DataFrame) -> Iterator[str]:
    """A phrase for each model and prompt: how many steps have its texts, and when the newest came."""
    steps: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], datetime] = {}
    for row in manifest["captions"].drop_nulls().to_list():
        for each in row:
            kind = each["model"], each["settings"]
            steps[kind] += sum(part["end"] - part["start"] for part in each["steps"])
            newest[kind] = max(newest.get(kind, each["made"]), each["made"])
    for kind, count in steps.most_common():
        yield f"{count:,} steps by {kind[0]} ({newest[kind]:%Y-%m-%d})"


def corpus_stats(corpus: Corpus) -> CorpusStats:
    """Compute all statistics. Reads every action and token once, one row group at a time."""
    manifest = with_hours(corpus)
    n_steps = int(manifest["n_steps"].sum())
    dimensions = _reached(corpus.scan(), corpus.info.action_space.dimensions)
    buttons = [(i, d) for i, d in enumerate(dimensions) if d.kind == "button"]
    axes = [(i, d) for i, d in enumerate(dimensions) if d.kind != "button"]
    found = _action_use(corpus.scan(), buttons, axes)
    known = int(found["known"] or 0)
    rate = corpus.info.rate
    held = {
        (each.way.index, each.way.sign): each
        for each in count_holds(actions_by_episode(corpus, corpus.episodes), dimensions)
    }
    return CorpusStats(
        episodes=len(manifest),
        recordings=manifest["recording"].n_unique(),
        steps=n_steps,
        hours=float(manifest["hours"].sum()),
        play=play_use(manifest),
        known_steps=known,
        clamped=int(manifest["clamped"].sum()),
        by={kind: amounts(manifest, kind) for kind in ("split", "game", "player")},
        buttons=tuple(_button(found, i, d, known, held[i, 1], rate) for i, d in buttons),
        axes=tuple(
            _axis(found, i, d, *(_direction(held.get((i, sign)), known, rate) for sign in (-1, 1)))
            for i, d in axes
        ),
        tokens=_token_use(corpus),
        clock=_clock_use(manifest),
        notes=notes_by_kind(manifest),
    )


def _reached(steps: pl.LazyFrame, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The dimensions; one without limits gets the range from 0 that its values reach."""
    without = [i for i, d in enumerate(dimensions) if max(-d.low, d.high) >= UNKNOWN_RANGE]
    if not without:
        return dimensions
    values = {i: pl.col("actions").list.get(i) for i in without}
    ends = [values[i].min().alias(f"low {i}") for i in without]
    ends += [values[i].max().alias(f"high {i}") for i in without]
    found = steps.select("actions").select(ends).collect(engine="streaming").row(0, named=True)
    made = list(dimensions)
    for i in without:
        each = dimensions[i]
        low = max(each.low, min(0.0, found[f"low {i}"] or 0.0))
        high = min(each.high, max(0.0, found[f"high {i}"] or 0.0))
        made[i] = replace(each, low=low, high=high if high > low else low + 1)
    return tuple(made)


def with_hours(corpus: Corpus) -> pl.DataFrame:
    """The manifest with a column `hours`; at rate "native" it is computed from `source_fps`."""
    rate = corpus.info.rate
    per_second = pl.col("source_fps") if rate == "native" else pl.lit(float(rate))
    hours = pl.when(per_second > 0).then(pl.col("n_steps") / per_second / 3600).otherwise(0.0)
    return corpus.episodes.with_columns(hours.alias("hours"))


def play_use(manifest: pl.DataFrame) -> PlayUse:
    """What of a corpus is play, from its manifest with the column `hours`."""
    kept = before = never = 0.0
    left_out: dict[str, float] = {}
    unjudged: dict[str, float] = {}
    columns = ("n_steps", "hours", "keep", "left_out")
    for row in manifest.select(columns).iter_rows(named=True):
        entries = tuple(map(LeftOut.from_record, row["left_out"] or ()))
        step = row["hours"] / row["n_steps"]
        ours = steps_by_reason(entries, row["n_steps"])
        in_keep = sum(each["end"] - each["start"] for each in row["keep"])
        kept += in_keep * step
        before += (row["n_steps"] - in_keep - sum(ours.values())) * step
        for reason, steps in ours.items():
            left_out[reason] = left_out.get(reason, 0.0) + steps * step
        looked = [each for each in entries if each.by == FILTER]
        never += 0.0 if looked else row["hours"]
        for kind in (kind for each in looked for kind in each.unjudged):
            unjudged[kind] = unjudged.get(kind, 0.0) + row["hours"]
    return PlayUse(kept, _most_first(left_out), before, _most_first(unjudged), never)


def _most_first(hours: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(hours.items(), key=lambda each: (-each[1], each[0])))


def amounts(manifest: pl.DataFrame, kind: str) -> tuple[Amount, ...]:
    """Episodes, steps and hours for each value of a manifest column, most steps first."""
    table = (
        manifest.group_by(pl.col(kind).fill_null(""))
        .agg(pl.len(), pl.col("n_steps").sum(), pl.col("hours").sum())
        .sort(["n_steps", kind], descending=[True, False])
    )
    return tuple(Amount(*row) for row in table.iter_rows())


def notes_by_kind(manifest: pl.DataFrame) -> dict[str, int]:
    """In how many episodes there is a note of each kind, the most common first."""
    kinds: Counter[str] = Counter()
    for notes, episodes in Counter(map(tuple, manifest["notes"].drop_nulls().to_list())).items():
        kinds.update(dict.fromkeys(map(kind_of_note, notes), episodes))
    return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


def _action_use(
    steps: pl.LazyFrame,
    buttons: Sequence[tuple[int, Dimension]],
    axes: Sequence[tuple[int, Dimension]],
) -> dict[str, Any]:
    """Compute every figure that is a sum over steps, in one pass over the actions."""
    actions = pl.col("actions")
    expressions = [actions.is_not_null().sum().alias("known")]
    for i, _ in buttons:
        down = (actions.list.get(i) > 0.5).fill_null(value=False)
        was_down = down.shift(1, fill_value=False) & (pl.col("step") > 0)
        expressions += [
            down.sum().alias(f"down {i}"),
            (down & ~was_down).sum().alias(f"presses {i}"),
        ]
    for i, axis in axes:
        value = actions.list.get(i)
        place = ((value - axis.low) / (axis.high - axis.low) * BINS).floor().clip(0, BINS - 1)
        expressions.append(value.mean().alias(f"mean {i}"))
        expressions += [(place == bin_).sum().alias(f"bin {i} {bin_}") for bin_ in range(BINS)]
    return (
        steps.select("step", "actions")
        .select(expressions)
        .collect(engine="streaming")
        .row(0, named=True)
    )


def actions_by_episode(corpus: Corpus, manifest: pl.DataFrame) -> Iterator[NDArray[np.float32]]:
    """The actions of each episode, float32 [T, A]; a row of NaN where the action is not known.

    Args:
        corpus: the corpus to read.
        manifest: the rows of its manifest for these episodes. They come sorted by shard and row.
    """
    size = corpus.info.action_space.size
    manifest = manifest.select("episode", "shard", "row_start", "n_steps", "split")
    begun: list[NDArray[np.float32]] = []
    for piece in pieces(corpus, manifest, ["step", "actions"]):
        known = piece["actions"].is_not_null().to_numpy()
        actions = np.full((len(piece), size), np.nan, np.float32)
        actions[known] = piece["actions"].drop_nulls().explode().to_numpy().reshape(-1, size)
        before, *begins = np.split(actions, np.flatnonzero(piece["step"].to_numpy() == 0))
        begun.append(before)
        for episode in begins:
            if any(map(len, begun)):
                yield np.concatenate(begun)
            begun = [episode]
    if begun:
        yield np.concatenate(begun)


def _button(
    found: Mapping[str, Any], index: int, button: Dimension, known: int, held: Held, rate: Rate
) -> ButtonUse:
    down, presses = int(found[f"down {index}"]), int(found[f"presses {index}"])
    return ButtonUse(
        name=button.name,
        share=down / known if known else 0.0,
        presses=presses,
        mean_hold_s=float(down / presses / rate) if presses and rate != "native" else None,
        shortest_hold_s=_seconds(held.shortest, rate),
        longest_hold_s=_seconds(held.longest, rate),
    )


def _axis(
    found: Mapping[str, Any],
    index: int,
    axis: Dimension,
    down: DirectionUse | None,
    up: DirectionUse | None,
) -> AxisUse:
    counts = tuple(int(found[f"bin {index} {bin_}"]) for bin_ in range(BINS))
    mean = float(found[f"mean {index}"] or 0.0)
    return AxisUse(axis.name, axis.low, axis.high, mean, counts, down, up)


def _direction(held: Held | None, known: int, rate: Rate) -> DirectionUse | None:
    if held is None:
        return None
    share = held.steps / known if known else 0.0
    shortest, longest = _seconds(held.shortest, rate), _seconds(held.longest, rate)
    return DirectionUse(share, held.complete, shortest, longest)


def _seconds(steps: int, rate: Rate) -> float | None:
    """Duration of some steps in seconds; None for no steps, or if there is no fixed rate."""
    return float(steps / rate) if steps and rate != "native" else None


def _token_use(corpus: Corpus) -> TokenUse | None:
    tokenizer = corpus.info.tokenizer
    if tokenizer is None:
        return None
    codes = corpus.scan().select(pl.col("tokens").explode().alias("code"))
    counts = codes.group_by("code").len().collect(engine="streaming")["len"].to_list()
    total = sum(counts)
    entropy = -sum(n / total * math.log2(n / total) for n in counts) if total else 0.0
    return TokenUse(
        total=total,
        distinct=len(counts),
        vocab_size=tokenizer.vocab_size,
        share=len(counts) / tokenizer.vocab_size,
        entropy_bits=entropy,
        perplexity=2**entropy,
    )


def _clock_use(manifest: pl.DataFrame) -> ClockUse:
    clock = manifest["clock"].struct
    lost = clock.field("frames_expected") - clock.field("frames_found")
    longest = clock.field("longest_interval_ns").max() if len(manifest) else 0
    assert isinstance(longest, int)
    return ClockUse(
        variable_rate=float(clock.field("variable_rate").cast(pl.Float64).sum())
        / max(len(manifest), 1),
        gaps=int(clock.field("gaps").sum()),
        duplicates=int(clock.field("duplicates").sum()),
        longest_interval_ms=longest / (SECOND_NS / 1000),
        lost=int(lost.clip(0).sum()),
    )
