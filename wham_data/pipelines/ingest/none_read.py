"""A first run of which nothing could be read: it leaves a list and a quarantine, and no corpus.

What a corpus agrees on is its action space among others, and here no recording tells one. So only the
folder `quarantine/` is made; the next run begins the corpus in the same place, with whatever settings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wham_data.corpus.quarantine import Quarantine
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.corpus_settings import Columns
from wham_data.pipelines.ingest.intake.inputs import Refusal, refusal_of
from wham_data.pipelines.ingest.plan import IngestPlan
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.readers.kit.looked_at import looked_at
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.schemas.errors import NoInputsError
from wham_data.schemas.manifest import UNSETTLED


@dataclass(frozen=True, slots=True)
class NoneRead:
    """Why a corpus cannot be begun: no recording gives it an action space.

    refused      every input that was refused
    without_log  recordings that open, and have no log
    notes        of the first of those
    """

    refused: tuple[Refusal, ...]
    without_log: int
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Say what is missing if recordings open, so that the action space is what is missing.

        Raises:
            NoInputsError: some do.
        """
        if self.without_log:
            others = f" ({len(self.refused)} other inputs are refused)" if self.refused else ""
            notes = f" Notes on the first: {'; '.join(self.notes)}." if self.notes else ""
            raise NoInputsError(
                f"{self.without_log} recordings were opened and none has a log of actions{others}, so "
                f"there is no action space to take.{notes} --actions none makes steps without actions; "
                "--actions NAME makes a corpus with that space, in which theirs are unknown"
            )

    @classmethod
    def of(cls, columns: Columns, plan: IngestPlan) -> NoneRead:
        """What was found when the columns were looked for, and by the plan of all inputs."""
        by_source = {found.recording.source: found for found in plan.to_do}
        opened = [
            refusal_of(by_source[recording.source], "ingest", why)
            for recording, why in columns.refused
            if recording.source in by_source
        ]
        every = (each for one in opened for each in one.with_copies(plan.copies))
        return cls((*plan.refused, *every), columns.opened, columns.notes)


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
    duplicates = [copy for copy in plan.duplicates if copy.key not in keys]
    for copy in duplicates:
        watch.message(copy.line, warning=True)
    if plan.endings:
        watch.message(f"other files: {looked_at(plan.endings)}", warning=True)
    quarantine.note([naming.refused(each, UNSETTLED) for each in none_read.refused], ())
    reasons = Counter(str(refusal.why.reason) for refusal in none_read.refused)
    quarantined = len(none_read.refused)
    return IngestReport(
        corpus=storage.location,
        version=None,
        found=plan.counts.found,
        ingested=0,
        duplicates=len(duplicates),
        quarantined=quarantined,
        already_there=0,
        not_reached=plan.counts.found - quarantined - len(duplicates),
        forgotten=0,
        hashed=plan.counts.hashed,
        known=plan.counts.known,
        ignored_files=sum(plan.endings.values()),
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
