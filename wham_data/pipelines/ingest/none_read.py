"""A first run of which nothing could be read: it leaves a list and a quarantine, and no corpus.

What a corpus agrees on is its action space among others, and here no recording tells one. So only the
folder `quarantine/` is made; the next run begins the corpus in the same place, with whatever settings.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from wham_data.corpus.quarantine import Quarantine
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.corpus_settings import NoneRead
from wham_data.pipelines.ingest.plan import IngestPlan
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.readers.kit.looked_at import looked_at
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.schemas.manifest import UNSETTLED


def keep_refusals(
    none_read: NoneRead,
    plan: IngestPlan,
    out: str | Path,
    naming: Naming,
    watch: ProgressListener,
    seconds: float,
) -> IngestReport:
    """Show why each input was refused, and keep it in a quarantine at `out`."""
    storage = open_storage(out)
    quarantine = Quarantine(storage)
    quarantine.begin()
    for refusal in none_read.refused:
        watch.message(refusal.line, warning=True, event=refusal.event)
    keys = {refusal.key for refusal in none_read.refused}
    duplicates = [each for each in plan.duplicates if each[1].key not in keys]
    for copy, original in duplicates:
        line = f"{copy.recording.source}: duplicate of {original.recording.source}"
        watch.message(line, warning=True)
    if plan.ignored:
        watch.message(f"other files: {looked_at(plan.ignored)}", warning=True)
    quarantine.note([naming.refused(each, UNSETTLED) for each in none_read.refused], ())
    reasons = Counter(str(refusal.why.reason) for refusal in none_read.refused)
    quarantined = len(none_read.refused)
    return IngestReport(
        corpus=storage.location,
        version=None,
        found=plan.found,
        ingested=0,
        duplicates=len(duplicates),
        quarantined=quarantined,
        already_there=0,
        not_reached=plan.found - quarantined - len(duplicates),
        forgotten=0,
        ignored_files=len(plan.ignored),
        episodes=0,
        steps=0,
        missing_actions=0,
        hours=0.0,
        frames_in=0,
        frames_used=0,
        frames_dropped={},
        reasons=dict(sorted(reasons.items())),
        seconds=seconds,
    )
