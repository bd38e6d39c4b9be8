"""What an ingest would do, told before anything is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Conflict
from wham_data.pipelines.ingest.corpus_settings import (
    bytes_per_step,
    columns_held,
    columns_there,
    corpus_info,
    tokenizer_found,
)
from wham_data.pipelines.ingest.intake.inputs import Copies, Found
from wham_data.pipelines.ingest.none_read import NoneRead
from wham_data.pipelines.ingest.plan import IngestPlan, planned
from wham_data.pipelines.ingest.report import DryRun
from wham_data.pipelines.ingest.run_splits import empty_splits, planned_splits
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.ingest.stages import open_found, place_recording
from wham_data.schemas.errors import RefusedInput

NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
ALL: Final = IngestChoices()


def dry_run(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: IngestSettings,
    choices: IngestChoices = ALL,
) -> DryRun:
    """Predict what an ingest would do. Reads clocks and logs; decodes and writes nothing.

    Raises:
        NoInputsError: no recording was found.
    """
    held = columns_there(out, choices.player_key)
    corpus = None if held is None else Corpus.open(out)
    plan = planned(sources, settings, choices, corpus)
    columns = held or columns_held((found.recording for found in plan.to_do), settings)
    info = corpus_info(columns, settings, choices.reader, choices.player_key)
    if info is None:
        none_read = NoneRead.of(columns, plan)
        none_read.check()
        return _dry_run_of(plan, {each.path: str(each.why) for each in none_read.refused})
    if corpus is not None:
        Corpus.open_or_create(out, info)  # says which settings differ
    splits = planned_splits(plan, corpus, settings, choices.tie_to)
    places = splits.splits()
    refused = {refusal.path: str(refusal.why) for refusal in plan.refused}
    readers: Counter[str] = Counter()
    note = tokenizer_found(settings)
    notes: dict[str, tuple[str, ...]] = {"tokenizer": (note,)} if note else {}
    steps, source_ns, copies = 0, 0, plan.copies
    for found in plan.to_do:
        try:
            source = open_found(found, settings)
            placed = place_recording(source, info.action_space, settings)
        except RefusedInput as refusal:
            for name in (found.recording.source, *_sources(copies, found)):
                refused[name] = str(refusal)
            splits.refuse(found.key)
            continue
        if isinstance(place := places[found.key], Conflict):
            for name in (found.recording.source, *_sources(copies, found)):
                refused[name] = str(place)
            continue
        readers[found.recording.format] += 1
        steps += sum(len(episode.picks) for episode in placed.plans)
        source_ns += source.frame_end_ns - int(source.frame_times_ns[0])
        if source.notes:
            notes[found.recording.source] = source.notes
    if readers and (empty := empty_splits(splits, settings)) is not None:
        notes["splits"] = (empty,)
    return _dry_run_of(plan, refused, readers, source_ns, steps, bytes_per_step(info), notes)


def _sources(copies: Copies, found: Found) -> list[str]:
    return [copy.source for copy in copies.get(found.key, ())]


def _dry_run_of(
    plan: IngestPlan,
    refused: dict[str, str],
    readers: Mapping[str, int] = NOTHING,
    source_ns: int = 0,
    steps: int = 0,
    bytes_each: float = 0.0,
    notes: dict[str, tuple[str, ...]] | None = None,
) -> DryRun:
    return DryRun(
        found=plan.counts.found,
        recordings=sum(readers.values()),
        readers=dict(sorted(readers.items())),
        hours=source_ns / 3.6e12,
        steps=steps,
        estimated_bytes=round(steps * bytes_each),
        already_there=plan.counts.already,
        duplicates=sum(copy.source not in refused for copy in plan.duplicates),
        in_quarantine=len(plan.in_quarantine),
        forgotten=len(plan.forgotten),
        refused=refused,
        notes=notes or {},
        ignored_files=sum(plan.endings.values()),
    )
