"""What an ingest would do, and what that would take, told from a sample of its recordings.

list     every recording, with the size of its files                     plan.py
draw     a sample of them, in an order of which any beginning is fair    estimate/sampling.py
open     as many as the time allows; place their steps
measure  a stretch of as many as the time allows                         estimate/measure.py
tell     totals over all, each with its range                            estimate/forecast.py
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Conflict, SplitPlan
from wham_data.pipelines.ingest.corpus_settings import (
    columns_held,
    columns_there,
    corpus_info,
    picture_bytes,
    tokenizer_found,
)
from wham_data.pipelines.ingest.estimate.forecast import (
    Forecast,
    Opened,
    Population,
    Rates,
    forecast,
)
from wham_data.pipelines.ingest.estimate.machine import Cluster
from wham_data.pipelines.ingest.estimate.measure import (
    CpuWatch,
    Meter,
    hash_s_per_byte,
    shard_costs,
)
from wham_data.pipelines.ingest.estimate.sampling import drawn, strata_of
from wham_data.pipelines.ingest.intake.inputs import Copies, Found
from wham_data.pipelines.ingest.none_read import NoneRead
from wham_data.pipelines.ingest.plan import IngestPlan, planned
from wham_data.pipelines.ingest.report import DryRun
from wham_data.pipelines.ingest.run_splits import empty_splits, planned_splits
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.ingest.stages import open_found, place_recording
from wham_data.schemas.clock import Index
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import Reason, RefusedInput

ALL: Final = IngestChoices()
MOST_HASHED: Final = 4 << 30
LEAST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoroughness:
    """How much a dry run looks at.

    sample   open at most so many recordings; None: all, however long it takes
    seed     another seed draws others
    seconds  open no more recordings after so long, but go on for 10 s after they are listed
    measure  seconds to decode stretches for, after that; 0: nothing is decoded, so hours of CPUs
             stay unknown
    cluster  where the work would be done; None: here
    workers  recordings at once, here; None: one per core
    device   device of the tokenizer: "auto", "cpu" or "cuda"
    price_per_cpu_hour, price_per_gpu_hour  in any currency; None: as `cluster` says
    """

    sample: int | None = 200
    seed: int = 0
    seconds: float = 35.0
    measure: float = 10.0
    cluster: Cluster | None = None
    workers: int | None = None
    device: str = "auto"
    price_per_cpu_hour: float | None = None
    price_per_gpu_hour: float | None = None


USUAL: Final = Thoroughness()


def dry_run(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: IngestSettings,
    choices: IngestChoices = ALL,
    thoroughness: Thoroughness = USUAL,
) -> DryRun:
    """Predict what an ingest would do. Writes nothing to the corpus.

    Raises:
        NoInputsError: no recording was found.
    """
    started = time.monotonic()
    most_hashed = None if thoroughness.sample is None else MOST_HASHED
    held = columns_there(out, choices.player_key)
    corpus = None if held is None else Corpus.open(out)
    plan = planned(sources, settings, choices, corpus, most_hashed)
    columns = held or columns_held((found.recording for found in plan.to_do), settings)
    info = corpus_info(columns, settings, choices.reader, choices.player_key)
    if info is None:
        none_read = NoneRead.of(columns, plan)
        none_read.check()
        looking = _Looking(plan, {each.path: str(each.why) for each in none_read.refused})
        return looking.result(Forecast(), None, started)
    if corpus is not None:
        Corpus.open_or_create(out, info)  # says which settings differ
    splits = planned_splits(plan, corpus, settings, choices.tie_to)
    looking = _Looking(plan, {refusal.path: str(refusal.why) for refusal in plan.refused})
    if note := tokenizer_found(settings):
        looking.notes["tokenizer"] = (note,)
    if not plan.to_do:
        return looking.result(Forecast(), info, started)
    population, order = to_open(plan.to_do, thoroughness)
    until = max(started + thoroughness.seconds, time.monotonic() + LEAST_SECONDS)
    looking.open(order, info, settings, splits, None if most_hashed is None else until)
    rates = Rates(hash_s_per_byte())
    if thoroughness.measure:
        meter = Meter(settings, thoroughness.device, thoroughness.measure)
        looking.measure(order, info, settings, meter)
        rates = replace(rates, tokens_s=meter.tokens_s, on_gpu=meter.on_gpu)
    cluster = thoroughness.cluster or Cluster.here(thoroughness.workers, int(rates.on_gpu))
    told = forecast(
        population,
        order[: len(looking.opened)],
        looking.opened,
        shard_costs(info, picture_bytes(info)),
        rates,
        cluster.priced(thoroughness.price_per_cpu_hour, thoroughness.price_per_gpu_hour),
        has_tokenizer=settings.tokenizer is not None,
        by_pieces=plan.by_pieces,
    )
    if told.recordings.estimate and (empty := empty_splits(splits, settings)) is not None:
        looking.notes["splits"] = (empty,)
    return looking.result(told, info, started)


def to_open(to_do: Sequence[Found], thoroughness: Thoroughness) -> tuple[Population, Index]:
    """All recordings as a population, and the numbers of those to open, in order."""
    sizes = np.array([found.bytes for found in to_do], np.float64)
    sample = len(to_do) if thoroughness.sample is None else min(thoroughness.sample, len(to_do))
    strata = strata_of([found.recording.format for found in to_do], sizes, sample)
    if thoroughness.sample is None:  # recordings that share files one after the other
        return Population(sizes, strata), np.arange(len(to_do))
    return Population(sizes, strata), drawn(strata, sizes, sample, thoroughness.seed)


@dataclass(slots=True)
class _Looking:
    """What is seen while recordings are opened, one after the other.

    refused  path -> reason
    notes    path -> notes
    opened   what was found in each, in the order in which they were opened
    copies   of recordings of the plan
    """

    plan: IngestPlan
    refused: dict[str, str]
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    opened: list[Opened] = field(default_factory=list)
    copies: Copies = field(init=False)

    def __post_init__(self) -> None:
        self.copies = self.plan.copies

    def open(
        self,
        order: Iterable[int],
        info: CorpusInfo,
        settings: IngestSettings,
        splits: SplitPlan,
        until: float | None,
    ) -> None:
        """Open recordings in this order. What is begun before `until` is brought to its end."""
        places = splits.splits()
        for number in order:
            if self.opened and until is not None and time.monotonic() > until:
                return
            found = self.plan.to_do[number]
            reader, watch = found.recording.format, CpuWatch()
            try:
                source = open_found(found, settings)
                placed = place_recording(source, info.action_space, settings)
            except RefusedInput as why:
                splits.refuse(found.key)
                self._refuse(found, str(why))
                self.opened.append(Opened(reader, open_s=watch.seconds(), refused=str(why.reason)))
                continue
            open_s = watch.seconds()
            if isinstance(place := places[found.key], Conflict):
                self._refuse(found, str(place))
                refused = str(Reason.SPLIT_CONFLICT)
                self.opened.append(Opened(reader, open_s=open_s, refused=refused))
                continue
            if source.notes:
                self.notes[found.recording.source] = source.notes
            steps = sum(len(plan.picks) for plan in placed.plans)
            play_ns = sum(int(plan.edges_ns[-1] - plan.edges_ns[0]) for plan in placed.plans)
            self.opened.append(Opened(reader, steps, play_ns, open_s))

    def measure(
        self, order: Iterable[int], info: CorpusInfo, settings: IngestSettings, meter: Meter
    ) -> None:
        """Measure those that are taken, in the same order, until the meter's time is spent."""
        rng = np.random.default_rng(0)
        for k, number in enumerate(order):
            if k >= len(self.opened) or meter.is_spent:
                return
            if self.opened[k].refused is None:
                with suppress(RefusedInput), meter.timed():
                    source = open_found(self.plan.to_do[number], settings)
                    placed = place_recording(source, info.action_space, settings)
                    costs = meter.measure(source, placed, rng)
                    self.opened[k] = replace(self.opened[k], costs=costs)

    def _refuse(self, found: Found, why: str) -> None:
        self.refused[found.recording.source] = why
        self.refused |= {copy.source: why for copy in self.copies.get(found.key, ())}

    def result(self, told: Forecast, info: CorpusInfo | None, started: float) -> DryRun:
        """The report."""
        plan = self.plan
        return DryRun(
            found=plan.counts.found,
            recordings=round(told.recordings.estimate),
            readers={name: round(count) for name, count in told.readers.items()},
            hours=told.hours.estimate,
            steps=round(told.steps.estimate),
            estimated_bytes=round(told.bytes.estimate),
            already_there=plan.counts.already,
            duplicates=sum(copy.source not in self.refused for copy in plan.duplicates),
            in_quarantine=len(plan.in_quarantine),
            forgotten=len(plan.forgotten),
            refused=dict(sorted(self.refused.items())),
            refused_unopened=len(plan.refused),
            notes=self.notes,
            ignored_files=sum(plan.endings.values()),
            settings_hash=None if info is None else info.settings_hash,
            forecast=told,
            seconds=time.monotonic() - started,
        )
