"""What an ingest would do, told before anything is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Conflict
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.corpus_settings import (
    NoneRead,
    bytes_per_step,
    corpus_info,
    tokenizer_found,
)
from wham_data.pipelines.ingest.plan import IngestPlan, planned
from wham_data.pipelines.ingest.pseudonyms import Naming
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
    plan = planned(sources, settings, choices)
    info = corpus_info(plan, settings, Path(out), choices.reader, choices.player_key)
    if isinstance(info, NoneRead):
        info.check()
        return _dry_run_of(plan, {each.path: str(each.why) for each in info.refused})
    corpus, naming = None, Naming(choices.player_key)
    if open_storage(out).exists("corpus.json"):
        corpus = Corpus.open_or_create(out, info)
        recordings = () if choices.allow_forgotten else plan.recordings
        barred = naming.barred(recordings, corpus)
        plan = plan.against(corpus, retry_quarantined=choices.retry_quarantined, barred=barred)
    splits = planned_splits(plan, corpus, settings, naming, choices.tie_to)
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
            for each in (found, *copies.get(found.key, ())):
                refused[each.recording.source] = str(refusal)
            splits.refuse(found.key)
            continue
        if isinstance(place := places[found.key], Conflict):
            for each in (found, *copies.get(found.key, ())):
                refused[each.recording.source] = str(place)
            continue
        readers[found.recording.format] += 1
        steps += sum(len(episode.picks) for episode in placed.plans)
        source_ns += source.frame_end_ns - int(source.frame_times_ns[0])
        if source.notes:
            notes[found.recording.source] = source.notes
    if readers and (empty := empty_splits(splits, settings)) is not None:
        notes["splits"] = (empty,)
    return _dry_run_of(plan, refused, readers, source_ns, steps, bytes_per_step(info), notes)


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
        found=plan.found,
        recordings=sum(readers.values()),
        readers=dict(sorted(readers.items())),
        hours=source_ns / 3.6e12,
        steps=steps,
        estimated_bytes=round(steps * bytes_each),
        already_there=len(plan.already),
        duplicates=sum(copy.recording.source not in refused for copy, _ in plan.duplicates),
        in_quarantine=len(plan.in_quarantine),
        forgotten=len(plan.forgotten),
        refused=refused,
        notes=notes or {},
        ignored_files=len(plan.ignored),
    )
