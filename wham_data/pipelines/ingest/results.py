"""Results of a run: committed as they come, and counted. Of what is committed only counts are kept."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Conflict, Ties
from wham_data.corpus.storage.sources.folders import exists
from wham_data.pipelines.ingest.intake.inputs import (
    Copy,
    Found,
    LeftOut,
    Refusal,
    SetAside,
    Sorted,
    refusal_of,
)
from wham_data.pipelines.ingest.intake.intake import Intake
from wham_data.pipelines.ingest.plan import refused_in
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.report import IngestProgress, IngestReport
from wham_data.pipelines.ingest.run_splits import RunSplits, empty_splits
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.ingest.stages import Ingested
from wham_data.pipelines.run.progress import Event, ProgressListener, commit_event
from wham_data.pipelines.run.runner import Outcome
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.manifest import EpisodeRow, QuarantineRow, printable_unicode
from wham_data.schemas.paths import source_path

COMMIT_EVERY_SECONDS = 2.0
COMMIT_EVERY_RECORDINGS = 64


@dataclass(slots=True)
class Tally:
    """What recordings gave, as `IngestReport` has it."""

    ingested: int = 0
    episodes: int = 0
    steps: int = 0
    missing_actions: int = 0
    hours: float = 0.0
    bytes: int = 0
    frames_in: int = 0
    frames_used: int = 0
    frames_dropped: Counter[str] = field(default_factory=Counter)

    def add(self, result: Ingested) -> None:
        """Count one recording."""
        self.ingested += 1
        self.episodes += len(result.episodes)
        self.steps += result.steps
        self.missing_actions += sum(row.missing_actions for row in result.episodes)
        self.hours += result.hours
        self.bytes += result.bytes_written
        self.frames_in += result.frames_in
        self.frames_used += result.frames_used
        self.frames_dropped.update(result.frames_dropped)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A recording that is ingested and not committed yet."""

    result: Ingested
    rows: list[EpisodeRow]
    ties: Ties
    conflict: Refusal


class Results:
    """The state of one run in the driver: results waiting to be committed, and the counts.

    The runner may ask for the next recording in a thread of its own, so calls wait for one another.
    """

    def __init__(
        self,
        corpus: Corpus,
        intake: Intake,
        settings: IngestSettings,
        choices: IngestChoices,
        naming: Naming,
        watch: ProgressListener,
    ) -> None:
        """Begin a run."""
        self._corpus = corpus
        self._intake = intake
        self._settings = settings
        self._choices = choices
        self._naming = naming
        self._watch = watch
        self._lock = threading.RLock()
        self._splits = RunSplits(corpus, settings, choices.tie_to)
        self._settled = False
        self._said_empty: str | None = None
        self._tally = Tally()
        self._taken: dict[str, _Taken] = {}
        self._new = 0
        self._refused: list[Refusal] = []
        self._refused_here: dict[str, Refusal] = {}
        self._copies: defaultdict[str, list[Copy]] = defaultdict(list)
        self._aside: list[SetAside] = []
        self._came_first = self._refused_copies = self._left_out = 0
        self._last_commit = time.monotonic()
        self._progress = IngestProgress(
            intake=intake.counts,
            rate=float(settings.rate or 0),
            tokens_per_frame=corpus.info.n_tokens,
        )
        intake.heed = self.heed
        watch.progressed(self._progress)

    def advance(self, frames: int) -> None:
        """Count finished frames."""
        with self._lock:
            self._progress.frames += frames
            self.heed()

    def heed(self) -> None:
        """Take note of the inputs that were found since the last call."""
        with self._lock:
            for each in self._intake.events():
                self._note(each)
            if self._intake.ended and not self._settled:
                self._settle()
            self._progress.total_known = self._settled
            self._watch.progressed(self._progress)

    def take(self, outcome: Outcome[Found, Ingested]) -> None:
        """Record the outcome of one recording, and commit if it is time."""
        with self._lock:
            self._take(outcome.item, outcome.result)
            self.heed()
            waited = time.monotonic() - self._last_commit
            if waited > COMMIT_EVERY_SECONDS or self._new >= COMMIT_EVERY_RECORDINGS:
                self.commit()

    def _take(self, found: Found, result: Ingested | RefusedInput) -> None:
        self._progress.done += 1
        self._progress.bytes_done += found.bytes
        if isinstance(result, RefusedInput):
            self._splits.refuse(found.key)
            self._refuse_all(refusal_of(found, "ingest", result))
            return
        ties = self._naming.tied_by(self._settings.split_by, found)
        conflict = refusal_of(found, "split", RefusedInput(Reason.SPLIT_CONFLICT, ""))
        rows = [self._naming.row(row) for row in result.episodes]
        self._taken[found.key] = _Taken(result, rows, ties, conflict)
        if self._settled and self._refuse_conflicts((found.key,)):
            return
        self._new += 1
        self._splits.take(ties)
        self._progress.bytes_written += result.bytes_written
        source, notes = found.recording.source, result.notes
        line = f"{source}: {'; '.join(notes)}" if notes else source
        facts = {"steps": result.steps, "written_bytes": result.bytes_written}
        event = Event(name="done", item=source, notes=notes, facts=facts)
        self._watch.message(line, warning=bool(notes), event=event)

    def commit(self, *, at_end: bool = False) -> None:
        """Commit the finished recordings whose split is final, or at the end all, to the manifest.

        A run that ends before every input is found leaves the others to the next run.
        """
        with self._lock:
            if at_end:
                self.heed()
            self._new = 0
            rows, refused = self._placed_rows(at_end=at_end), list(self._refused)
            settings = self._corpus.info.settings_hash
            report = self._corpus.commit(
                rows,
                [self._naming.refused(refusal, settings) for refusal in refused],
                tie_to=self._choices.tie_to,
                allow_forgotten=self._choices.allow_forgotten,
            )
            # Cleared only now: if the commit is interrupted, it is repeated at the end of the run.
            committed = set(report.committed)
            for key in {row.recording for row in rows}:
                taken = self._taken.pop(key)
                if key in committed:
                    self._tally.add(taken.result)
                elif key in report.split_conflicts:
                    reason = str(Reason.SPLIT_CONFLICT)
                    self._progress.reasons[reason] += 1
                    event = Event(name="refused", item=taken.conflict.path, reason=reason)
                    self._watch.message("", warning=True, event=event)
            if committed:
                event = commit_event(report.version, len(committed))
                self._watch.message("", warning=False, event=event)
            del self._refused[: len(refused)]
            self._came_first += len(report.already_there)
            self._left_out += len(report.forgotten)
            self._last_commit = time.monotonic()

    def _note(self, each: Sorted) -> None:
        """Take note of one input that is not to be ingested."""
        match each:
            case Refusal():
                self._refuse(each)
            case SetAside():
                self._aside.append(each)
            case LeftOut():
                line = (
                    f"{each.source}: left out, this {each.kind} was forgotten (--allow-forgotten "
                    "takes it)"
                )
                self._watch.message(line, warning=True)
            case Copy():
                self._copies[each.key].append(each)
                self._watch.message(each.line, warning=True)
                if each.key in self._refused_here:
                    self._refuse(self._refused_here[each.key].of_copy(each))
                    self._refused_copies += 1

    def _settle(self) -> None:
        """Every input is found: which splits there are, and what the quarantine has to know."""
        self._settled = True
        sorting = self._intake.sorting
        if sorting.counts.to_do:
            self._splits.settle(sorting.ties, sorting.out, sorting.counts.already)
            sorting.ties.clear()
            self._said_empty = self._say_empty()
            self._refuse_conflicts([*self._taken])
        if self._aside:
            self._corpus.refused.note(*renamed(self._aside, self._corpus, self._naming))

    def _refuse_conflicts(self, keys: Collection[str]) -> bool:
        """Refuse those of these recordings that would tie two splits together; whether there is one."""
        conflicts = {
            key: split
            for key, split in self._splits.of(keys).items()
            if isinstance(split, Conflict)
        }
        for key, split in conflicts.items():
            why = RefusedInput(Reason.SPLIT_CONFLICT, str(split))
            self._refuse_all(replace(self._taken.pop(key).conflict, why=why))
        return bool(conflicts)

    def _placed_rows(self, *, at_end: bool) -> list[EpisodeRow]:
        """The rows to commit now, each with its split."""
        waiting = [each.ties for each in self._taken.values()]
        ready = set(self._taken) if at_end and self._settled else self._splits.final(waiting)
        rows = [row for key, each in self._taken.items() if key in ready for row in each.rows]
        if self._settings.split_by == "time":
            return rows
        splits = self._splits.of(ready)
        return [replace(row, split=str(splits[row.recording])) for row in rows]

    def _say_empty(self) -> str | None:
        """Say which splits will have no episode."""
        if self._splits.plan is None:
            return None
        line = empty_splits(self._splits.plan, self._settings)
        if line is not None:
            self._watch.message(line, warning=True)
        return line

    def _refuse_all(self, refusal: Refusal) -> None:
        """Refuse a recording and its copies, which would be refused for the same reason."""
        self._refused_here[refusal.key] = refusal
        for each in refusal.with_copies(self._copies):
            self._refuse(each)
        self._refused_copies += len(self._copies.get(refusal.key, ()))

    def _refuse(self, refusal: Refusal) -> None:
        self._refused.append(refusal)
        self._progress.reasons[str(refusal.why.reason)] += 1
        self._watch.message(refusal.line, warning=True, event=refusal.event)

    def report(self, seconds: float, cpu_hours: float | None) -> IngestReport:
        """The report of the run; its counts add up as in `IngestReport`."""
        counts, tally = self._intake.counts, self._tally
        if tally.ingested and self._said_empty is None:
            self._say_empty()
        reasons = Counter(self._progress.reasons)
        if counts.in_quarantine:
            reasons["refused by an earlier run"] += counts.in_quarantine
        return IngestReport(
            corpus=self._corpus.location,
            version=self._corpus.version,
            found=counts.found,
            ingested=tally.ingested,
            duplicates=counts.copies - self._refused_copies,
            quarantined=self._progress.refused + counts.in_quarantine,
            already_there=counts.already + self._came_first,
            not_reached=counts.to_do - self._progress.done + len(self._taken),
            forgotten=counts.forgotten + self._left_out,
            hashed=counts.hashed,
            known=counts.known,
            ignored_files=sum(self._intake.sorting.endings.values()),
            episodes=tally.episodes,
            steps=tally.steps,
            missing_actions=tally.missing_actions,
            hours=tally.hours,
            frames_in=tally.frames_in,
            frames_used=tally.frames_used,
            frames_dropped=dict(sorted(tally.frames_dropped.items())),
            reasons=dict(sorted(reasons.items())),
            seconds=seconds,
            bytes=tally.bytes,
            cpu_hours=cpu_hours,
        )


def renamed(
    set_aside: Collection[SetAside], corpus: Corpus, naming: Naming
) -> tuple[list[QuarantineRow], set[tuple[str, str]]]:
    """How the quarantine follows files that were copied or moved since an earlier run refused them.

    Returns:
        The rows to add for copies, and (path, settings) of the rows whose file is gone.
    """
    before = refused_in(corpus)
    added: list[QuarantineRow] = []
    gone: set[tuple[str, str]] = set()
    for each in set_aside:
        rows = before[each.key]
        path = printable_unicode(naming.text(each.source, each.player))
        if path in {row.path for row in rows}:
            continue
        added.append(replace(rows[0], path=path))
        if naming.key is None:  # else the rows hold no real paths
            files = ((row.path.partition("#")[0], row) for row in rows)
            gone |= {
                (row.path, row.settings) for file, row in files if not exists(source_path(file))
            }
    return added, gone
