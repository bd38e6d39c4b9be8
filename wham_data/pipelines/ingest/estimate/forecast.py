"""What an ingest will make and take, from the recordings of a sample that were opened and measured.

Totals over all recordings come from `sampling.totals`. The cost of a step is measured on fewer
recordings than are opened, so it is a second estimate: for each reader the ratio c = sum(w s c) /
sum(w s) over its measured recordings, where s are their steps and w how many recordings each stands
for. Its variance, m / (m - 1) sum((w s (c_i - c))^2) / (sum(w s))^2 for m recordings (Cochran 1977,
section 2.11), is added to that of the total of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from wham_data.pipelines.ingest.estimate.machine import HOUR_S, Cluster, Needs, Work, needs
from wham_data.pipelines.ingest.estimate.sampling import (
    Estimated,
    Values,
    also_refused,
    effective_size,
    joined,
    product,
    share_range,
    t_quantile,
    totals,
    weights,
)
from wham_data.schemas.clock import Index

HOUR_NS: Final = 3.6e12
FEWEST_MEASURED: Final = 3
NONE: Final = Estimated.exactly(0.0)


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What a step of one recording costs, as measured on a stretch of it.

    read_s         CPU seconds for decoding, for its action, and for coding its picture
    picture_bytes  bytes of its stored picture
    """

    read_s: float
    picture_bytes: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A recording of the sample.

    reader    name of its reader
    steps     steps that it gives; 0 if it is refused
    play_ns   time on the grid of steps
    open_s    CPU seconds to open it
    refused   reason code; None: it is taken
    costs     of a step; None: not measured
    """

    reader: str
    steps: int = 0
    play_ns: int = 0
    open_s: float = 0.0
    refused: str | None = None
    costs: StepCosts | None = None


@dataclass(frozen=True, slots=True)
class Population:
    """All recordings that would be tried.

    sizes   float64 [N]  bytes of the files of each
    strata  int64   [N]  see `sampling.strata_of`
    """

    sizes: Values
    strata: Index


@dataclass(frozen=True, slots=True)
class ShardCosts:
    """Bytes of shards, and CPU seconds to write them, without pictures and their coding.

    bytes, s            of a shard besides its steps
    step_bytes, step_s  of a step
    picture_bytes       of a picture, used only where none was coded to see
    """

    bytes: float
    step_bytes: float
    picture_bytes: float = 0.0
    s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an ingest will make and take.

    sampled     recordings that were opened
    of          recordings that would be tried
    exact       all were opened and compared byte for byte, so all but the costs is known
    by_pieces   they were not compared byte for byte, for there is too much to read
    measured    recordings of which a stretch was decoded
    recordings  recordings that would be taken
    hours       hours of play on the grid of steps
    steps       steps
    bytes       bytes of the shards, before small ones are merged
    readers     recordings taken, by reader
    refused     recordings that would be refused when they are opened
    reasons     the same by reason code, as far as they were seen
    needs       hours of CPUs and GPUs, and money
    """

    sampled: int = 0
    of: int = 0
    exact: bool = True
    by_pieces: bool = False
    measured: int = 0
    recordings: Estimated = NONE
    hours: Estimated = NONE
    steps: Estimated = NONE
    bytes: Estimated = NONE
    readers: Mapping[str, float] = field(default_factory=dict)
    refused: Estimated = NONE
    reasons: Mapping[str, Estimated] = field(default_factory=dict)
    needs: Needs | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured once for all recordings.

    hash_s    CPU seconds to hash a byte of the inputs
    tokens_s  seconds for the tokens of a step, one or more figures; none: not measured
    on_gpu    they are seconds of a GPU
    """

    hash_s: float = 0.0
    tokens_s: Sequence[float] = ()
    on_gpu: bool = False


def forecast(
    population: Population,
    numbers: Index,
    opened: Sequence[Opened],
    shard: ShardCosts,
    rates: Rates,
    cluster: Cluster,
    *,
    has_tokenizer: bool,
    by_pieces: bool = False,
) -> Forecast:
    """Extrapolate from the recordings that were opened to all.

    Args:
        population: all recordings.
        numbers: int64 [n], which of them were opened, n > 0.
        opened: what was found in those.
        shard: what shards cost.
        rates: of hashing and of the tokenizer.
        cluster: for what machines `needs` is.
        has_tokenizer: whether tokens are made.
        by_pieces: the recordings were not compared byte for byte.
    """
    n, of = len(opened), len(population.sizes)
    strata = joined(population.strata, numbers)
    weight = weights(strata, numbers)
    size_n = effective_size(weight)
    costs, errors = _costs_of_each(opened, weight, shard.picture_bytes)
    steps = np.array([each.steps for each in opened], np.float64)
    taken = np.array([float(each.refused is None) for each in opened])
    readers = {name: _is(opened, name) for name in sorted({each.reader for each in opened})}
    columns = {
        "steps": steps,
        "hours": np.array([each.play_ns / HOUR_NS for each in opened]),
        "bytes": taken * shard.bytes + steps * (shard.step_bytes + costs[:, PICTURE]),
        "read_s": np.array([each.open_s for each in opened])
        + taken * shard.s
        + steps * (shard.step_s + costs[:, READ]),
        **{f"steps {name}": steps * mine for name, mine in readers.items()},
    }
    sums = totals(strata, population.sizes, numbers, np.stack([*columns.values()], axis=1))
    at = {name: k for k, name in enumerate(columns)}
    refused = _refusals(opened, weight, size_n, of, None)

    def total(name: str, cost: int | None = None) -> Estimated:
        """Of a column; `cost` is that among the costs of a step on which it rests."""
        least = float(columns[name].sum()) if cost is None else 0.0
        further = 0.0
        if cost is not None:
            errors_of = ((sums.estimate[at[f"steps {name}"]], errors[name]) for name in readers)
            parts = [float(count) * float(error[cost]) for count, error in errors_of if count > 0]
            further = math.hypot(*parts) / sums.t
        return also_refused(sums.at(at[name], least, further), refused, size_n, of, least)

    measured = sum(each.costs is not None for each in opened)
    hashing = Estimated.exactly(float(population.sizes.sum()) * rates.hash_s)
    all_steps = total("steps")
    tokens = product(all_steps, rates.tokens_s).times(1 / HOUR_S) if rates.tokens_s else None
    work = Work(
        steps=all_steps,
        recordings=of - refused.estimate,
        read_cpu_hours=total("read_s", READ).plus(hashing).times(1 / HOUR_S) if measured else None,
        tokens_cpu_hours=None if rates.on_gpu else tokens,
        tokens_gpu_hours=tokens if rates.on_gpu else None,
        has_tokenizer=has_tokenizer,
    )
    return Forecast(
        sampled=n,
        of=of,
        exact=n == of and not by_pieces,
        by_pieces=by_pieces,
        measured=measured,
        recordings=refused.taken_from(of),
        hours=total("hours"),
        steps=all_steps,
        bytes=total("bytes", PICTURE),
        readers={
            name: float((weight * taken * mine).sum())
            for name, mine in readers.items()
            if (taken * mine).any()
        },
        refused=refused,
        reasons={
            reason: _refusals(opened, weight, size_n, of, reason)
            for reason in sorted({each.refused for each in opened if each.refused is not None})
        },
        needs=needs(work, cluster),
    )


READ, PICTURE = range(2)
"""Columns of costs per step."""


def _is(opened: Sequence[Opened], reader: str) -> Values:
    return np.array([float(each.reader == reader) for each in opened])


def _refusals(
    opened: Sequence[Opened], weight: Values, n: float, of: int, reason: str | None
) -> Estimated:
    """How many of all recordings are refused, for this reason or for any."""
    hit = np.array([each.refused is not None and reason in (None, each.refused) for each in opened])
    count, seen = float((weight * hit).sum()), int(hit.sum())
    found = share_range(count, n, of)
    low, high = max(found.low or 0.0, seen), min(found.high or 0.0, of - len(opened) + seen)
    return Estimated(count, min(low, count), max(high, count))


def _costs_of_each(
    opened: Sequence[Opened], weight: Values, picture_bytes: float
) -> tuple[Values, dict[str, Values]]:
    """The mean costs of a step of each recording's reader, and their errors.

    Of a reader of which fewer than `FEWEST_MEASURED` were measured, those of all readers.

    Returns:
        float64 [n, 2]; by reader, float64 [2], half the range of 95 % of its means.
    """
    of_all = _mean_costs(opened, weight, picture_bytes)
    found: dict[str, tuple[Values, Values]] = {}
    for reader in {each.reader for each in opened}:
        mine = [k for k, each in enumerate(opened) if each.reader == reader]
        few = sum(opened[k].costs is not None for k in mine) < FEWEST_MEASURED
        found[reader] = (
            of_all if few else _mean_costs([opened[k] for k in mine], weight[mine], picture_bytes)
        )
    means = np.stack([found[each.reader][0] for each in opened])
    return means, {reader: error for reader, (_, error) in found.items()}


def _mean_costs(
    opened: Sequence[Opened], weight: Values, picture_bytes: float
) -> tuple[Values, Values]:
    """The mean costs of a step, float64 [2], and half the range of 95 % of each."""
    rows = [(k, each.costs) for k, each in enumerate(opened) if each.costs is not None]
    if not rows:
        return np.array([0.0, picture_bytes]), np.zeros(2)
    values = np.array([[costs.read_s, costs.picture_bytes] for _, costs in rows])
    share = np.array([weight[k] * opened[k].steps for k, _ in rows])
    share /= share.sum()
    mean: Values = share @ values
    m = len(rows)
    if m < FEWEST_MEASURED:
        return mean, np.where(mean > 0, np.inf, 0.0)
    squares = ((share[:, None] * (values - mean)) ** 2).sum(axis=0)
    return mean, t_quantile(m - 1) * np.sqrt(m / (m - 1) * squares)
