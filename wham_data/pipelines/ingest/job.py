"""Make a corpus from recordings: the whole job.

    plan      find the recordings, and which of them are new       plan.py
    describe  the corpus' settings, action space and columns       corpus_settings.py
    for every recording, in the process where the runner puts it:  stages.py
      open    its clocks and its log                               readers/
      place   steps on the grid, and choose the frame of each      align.py
      decode  those frames, in batches                             video.py
      encode  them into tokens                                     inference/tokenizer.py
      write   one shard                                            corpus/shards.py
    commit    finished recordings, every few seconds               corpus/corpus.py
    report    the result for every input and every frame           report.py

Each recording becomes one shard, whose name is a hash of the recording and the settings. So the run
after a killed one writes the same files again, byte for byte. If that makes many small shards, the
end of the run merges them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from wham_data.corpus import Corpus
from wham_data.corpus.compact import merge_small_shards, merged_text
from wham_data.corpus.runs import record_run
from wham_data.corpus.splits import Conflict, SplitPlan
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.corpus_settings import NoneRead, corpus_info, tokenizer_found
from wham_data.pipelines.ingest.decoder_process import DecoderDied
from wham_data.pipelines.ingest.encoder import Encoder, encoder_service
from wham_data.pipelines.ingest.estimate.afterwards import PastEstimate
from wham_data.pipelines.ingest.none_read import keep_refusals
from wham_data.pipelines.ingest.plan import (
    Copies,
    Found,
    IngestPlan,
    Refusal,
    planned,
    refusal_of,
    refused_in,
)
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.report import IngestProgress, IngestReport
from wham_data.pipelines.ingest.run_splits import empty_splits, planned_splits
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.ingest.stages import Ingested, ingest_recording
from wham_data.pipelines.run.choose import choose_runner as choose_runner
from wham_data.pipelines.run.choose import works_elsewhere
from wham_data.pipelines.run.cpu_time import CpuTime
from wham_data.pipelines.run.progress import ProgressListener, Silent
from wham_data.pipelines.run.runner import (
    Advance,
    Outcome,
    Runner,
    Stage,
    Work,
)
from wham_data.pipelines.run.same_files import same_files
from wham_data.schemas.corpus_info import CorpusInfo, content_hash
from wham_data.schemas.errors import (
    Reason,
    RefusedInput,
    WhamDataError,
)
from wham_data.schemas.manifest import EpisodeRow, QuarantineRow, printable_unicode
from wham_data.schemas.paths import expanded
from wham_data.schemas.player_key import read_player_key
from wham_data.versions import versions

COMMIT_EVERY_SECONDS = 2.0
COMMIT_EVERY_RECORDINGS = 64
MOST_DECODE_THREADS = 4
ALL = IngestChoices()


def ingest(
    sources: Sequence[str | Path],
    *,
    out: str | Path,
    tokenizer: str | None = "wham-tiny",
    actions: str | None = None,
    frames: str = "none",
    rate: Fraction | int | str | None = 10,
    size: tuple[int, int] = (300, 180),
    settings: IngestSettings | None = None,
    reader: str = "auto",
    workers: int | None = None,
    ray_address: str | None = None,
    ray_temp_dir: str | Path | None = None,
    device: str = "auto",
    limit: int | None = None,
    retry_quarantined: bool = False,
    license: str | None = None,
    player_key: str | Path | None = None,
    allow_forgotten: bool = False,
    merge_shards: bool = True,
    watch: ProgressListener | None = None,
) -> IngestReport:
    """Resample recordings to a grid of steps, tokenize them, and write or extend a corpus.

    The command `wham-data ingest` calls this. Running it again adds only what is missing.

    Args:
        sources: files and folders.
        out: path of the corpus; it may already exist.
        tokenizer: "wham-tiny", a folder, or None for a corpus without tokens.
        actions: action space of the corpus; None: that of the recordings.
        frames: whether to store the picture of each step: "none", "jpeg" or "png".
        rate: steps per second; None: every frame of the source is a step.
        size: (width, height) of a frame in pixels.
        settings: all settings that determine the steps; the five arguments before are then ignored.
        reader: "auto", or the name of the only reader to use.
        workers: count of recordings to work on at once; 0: in this process, without Ray; None: by
            the size of the job.
        ray_address: address of a running Ray cluster; None: start one here for this run.
        ray_temp_dir: folder for the logs and sockets of a cluster that is started here; None: /tmp.
        device: device of the tokenizer: "auto", "cpu" or "cuda".
        limit: ingest at most this many recordings, the first by path.
        retry_quarantined: try recordings again that an earlier run refused.
        license: licence of recordings whose source states none.
        player_key: file with the key for storing players under pseudonyms; None: they are stored
            by name.
        allow_forgotten: ingest recordings that `forget` has removed; if False, they are left out
            with a message.
        merge_shards: merge small shards at the end, if there are more than 64; see
            `wham_data.corpus.compact.merge_small_shards`.
        watch: receives progress and messages.

    Raises:
        UsageError: an argument is not valid.
        MismatchError: the corpus was made with other settings.
        NoInputsError: no recording was found.
    """
    out = expanded(out)
    if settings is None:
        settings = IngestSettings(
            rate=None if rate is None else Fraction(rate),
            size=size,
            actions=None if actions is None else expanded(actions),
            tokenizer=None if tokenizer is None else expanded(tokenizer),
            frames=frames,  # type: ignore[arg-type]  # checked by CorpusInfo
        )
    return run_ingest(
        [expanded(source) for source in sources],
        out,
        settings,
        choose_runner(workers, ray_address, ray_temp_dir, watch),
        IngestChoices(
            reader=reader,
            limit=limit,
            retry_quarantined=retry_quarantined,
            license=license,
            player_key=None
            if player_key is None
            else read_player_key(Path(expanded(player_key)), out),
            allow_forgotten=allow_forgotten,
            merge_shards=merge_shards,
        ),
        device=device,
        watch=watch,
    )


def run_ingest(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: IngestSettings,
    runner: Runner,
    choices: IngestChoices = ALL,
    *,
    device: str = "auto",
    watch: ProgressListener | None = None,
    estimate: PastEstimate | None = None,
) -> IngestReport:
    """Do the whole job, and compare it with an estimate; see `ingest` and the top of this module."""
    watch = watch or Silent()
    started, cpu = time.monotonic(), CpuTime()
    found = planned(sources, settings, choices)
    info = corpus_info(found, settings, Path(out), choices.reader, choices.player_key)
    naming = Naming(choices.player_key, choices.license)
    if note := tokenizer_found(settings):
        watch.message(f"tokenizer {note}", warning=True)
    if isinstance(info, NoneRead):
        report = keep_refusals(info, found, out, naming, watch, time.monotonic() - started)
        given = named_sources(sources, naming, found)
        record_run(open_storage(out), run_record(given, found, None, report, None))
        info.check()
        return report
    if estimate is not None:
        estimate.check(info.settings_hash)
    corpus = Corpus.open_or_create(out, info)
    barred = {} if choices.allow_forgotten else naming.barred(found.recordings, corpus)
    plan = found.against(corpus, retry_quarantined=choices.retry_quarantined, barred=barred)
    for each in plan.forgotten:
        kind = barred[each.key]
        line = f"{each.recording.source}: left out, this {kind} was forgotten (--allow-forgotten takes it)"
        watch.message(line, warning=True)
    corpus.refused.note(*renamed(plan, corpus, naming))
    run = _Run(corpus, plan, settings, choices, naming, watch)
    stage = Stage(
        "ingest",
        setup=IngestWork(settings, corpus, decode_threads(len(plan.to_do))),
        service=encoder_service(settings.tokenizer, device),
        check=partial(same_files, [corpus.storage], files_of(plan.to_do)),
    )
    ended: BaseException | None = None
    try:
        for outcome in runner.run(stage, plan.to_do, run.advance):
            run.take(outcome)
            cpu.look()
        run.commit(at_end=True)
        if choices.merge_shards and (merged := merge_small_shards(corpus)) is not None:
            watch.message(merged_text(corpus, merged), warning=True)
    except BaseException as error:
        ended = error
        raise
    finally:
        # Also when interrupted: finished work is kept, and inputs not reached are counted.
        run.commit(at_end=True)
        cpu_hours = None if works_elsewhere(runner) else cpu.hours()
        report = run.report(time.monotonic() - started, cpu_hours).against(estimate)
        given = named_sources(sources, naming, plan)
        corpus.record_run(run_record(given, plan, corpus.info, report, ended))
    return report


def files_of(recordings: Sequence[Found]) -> list[Path]:
    """The files of recordings."""
    return [path for found in recordings for path in found.recording.files]


def renamed(
    plan: IngestPlan, corpus: Corpus, naming: Naming
) -> tuple[list[QuarantineRow], set[tuple[str, str]]]:
    """How the quarantine follows files that were copied or moved since an earlier run refused them.

    Returns:
        The rows to add for copies, and (path, settings) of the rows whose file is gone.
    """
    before = refused_in(corpus)
    added: list[QuarantineRow] = []
    gone: set[tuple[str, str]] = set()
    for found in plan.in_quarantine:
        rows, who = before[found.key], found.recording.provenance.player
        path = printable_unicode(naming.text(found.recording.source, who))
        if path in {row.path for row in rows}:
            continue
        added.append(replace(rows[0], path=path))
        if naming.key is None:  # else the rows hold no real paths
            files = ((row.path.partition("#")[0], row) for row in rows)
            gone |= {(row.path, row.settings) for file, row in files if not os.path.lexists(file)}
    return added, gone


def named_sources(sources: Sequence[str | Path], naming: Naming, plan: IngestPlan) -> list[str]:
    """The sources as they were given, without the names of players."""
    players = {each.recording.provenance.player for each in plan.recordings}
    return [naming.text(str(source), *players) for source in sources]


def run_record(
    sources: Sequence[str | Path],
    plan: IngestPlan,
    info: CorpusInfo | None,
    report: IngestReport,
    ended: BaseException | None,
) -> dict[str, object]:
    """The record of a run for the folder `runs/`; a failed run has one too."""
    keys = [found.key for found in plan.recordings]
    return {
        "command": "ingest",
        "sources": [str(Path(source).absolute()) for source in sources],
        "settings": {**info.to_dict(), "settings_hash": info.settings_hash} if info else None,
        "inputs": {"recordings": len(keys), "hash": content_hash(keys)},
        "versions": versions(),
        "report": asdict(report),
        "exit_code": exit_code(ended, report),
    }


def exit_code(ended: BaseException | None, report: IngestReport) -> int:
    """The exit code of the command."""
    match ended:
        case None:
            return report.exit_code
        case SystemExit(code=int(code)):
            return code
        case KeyboardInterrupt():
            return 130
        case WhamDataError():
            return ended.exit_code
    return 1


@dataclass(frozen=True, slots=True)
class IngestWork:
    """Set-up of the stage. It is sent to the workers, and each worker calls it once."""

    settings: IngestSettings
    corpus: Corpus
    threads: int

    def __call__(self, encoder: Encoder | None) -> Work[Found, Ingested]:
        """The function that ingests one recording."""

        def once(found: Found, advance: Advance) -> Ingested:
            return ingest_recording(
                found, encoder, self.settings, self.corpus, advance, threads=self.threads
            )

        def work(found: Found, advance: Advance) -> Ingested:
            try:
                return once(found, advance)
            except DecoderDied:  # another process may have killed it, so try once more
                return once(found, advance)

        return work


def decode_threads(recordings: int) -> int:
    """Threads for the decoder of each recording: several for a single recording, else one."""
    return min(os.cpu_count() or 1, MOST_DECODE_THREADS) if recordings == 1 else 1


@dataclass(slots=True)
class _Run:
    """The state of one run in the driver: results waiting to be committed, and the counts.

    held  rows that the last commit left, because their split was not final
    """

    corpus: Corpus
    plan: IngestPlan
    settings: IngestSettings
    choices: IngestChoices
    naming: Naming
    watch: ProgressListener
    splits: SplitPlan = field(init=False)
    copies: Copies = field(init=False)
    progress: IngestProgress = field(init=False)
    conflicts: dict[str, Conflict] = field(init=False)
    said_empty: str | None = None
    rows: list[EpisodeRow] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    results: dict[str, Ingested] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    committed: set[str] = field(default_factory=set)
    held: int = 0
    came_first: int = 0
    refused_copies: int = 0
    left_out: int = 0
    last_commit: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.splits = planned_splits(
            self.plan, self.corpus, self.settings, self.naming, self.choices.tie_to
        )
        self.conflicts = {
            name: split
            for name, split in self.splits.splits().items()
            if isinstance(split, Conflict)
        }
        if self.plan.to_do:
            self.said_empty = self._say_empty()
        self.progress = IngestProgress(
            to_do=len(self.plan.to_do),
            bytes_to_do=sum(found.bytes for found in self.plan.to_do),
            rate=float(self.settings.rate or 0),
            tokens_per_frame=self.corpus.info.n_tokens,
        )
        self.copies = self.plan.copies
        for refusal in self.plan.refused:
            self._refuse(refusal)
        for copy, original in self.plan.duplicates:
            line = f"{copy.recording.source}: duplicate of {original.recording.source}"
            self.watch.message(line, warning=True)

    def advance(self, frames: int) -> None:
        self.progress.frames += frames
        self.watch.progressed(self.progress)

    def take(self, outcome: Outcome[Found, Ingested]) -> None:
        """Record the outcome of one recording, and commit if it is time."""
        found, result = outcome.item, outcome.result
        self.progress.done += 1
        self.progress.bytes_done += found.bytes
        if isinstance(result, RefusedInput):
            self.splits.refuse(found.key)
            self._refuse_all(refusal_of(found, "ingest", result))
        elif found.key in self.conflicts:
            why = RefusedInput(Reason.SPLIT_CONFLICT, str(self.conflicts[found.key]))
            self._refuse_all(refusal_of(found, "split", why))
        else:
            self.splits.take(found.key)
            self.results[found.key] = result
            self.rows += [self.naming.row(row) for row in result.episodes]
            notes = f": {'; '.join(result.notes)}" if result.notes else ""
            self.watch.message(f"{found.recording.source}{notes}", warning=bool(result.notes))
        self.watch.progressed(self.progress)
        waited = time.monotonic() - self.last_commit
        if waited > COMMIT_EVERY_SECONDS or len(self.rows) - self.held >= COMMIT_EVERY_RECORDINGS:
            self.commit()

    def commit(self, *, at_end: bool = False) -> None:
        """Commit the finished recordings whose split is final, or at the end all, to the manifest."""
        rows, refused = self._placed_rows(at_end=at_end), list(self.refused)
        settings = self.corpus.info.settings_hash
        report = self.corpus.commit(
            rows,
            [self.naming.refused(refusal, settings) for refusal in refused],
            tie_to=self.choices.tie_to,
            allow_forgotten=self.choices.allow_forgotten,
        )
        # Cleared only now: if the commit is interrupted, it is repeated at the end of the run.
        done = {row.recording for row in rows}
        self.rows = [row for row in self.rows if row.recording not in done]
        self.held = len(self.rows)
        del self.refused[: len(refused)]
        self.committed.update(report.committed)
        self.came_first += len(report.already_there)
        self.left_out += len(report.forgotten)
        self.reasons[str(Reason.SPLIT_CONFLICT)] += len(report.split_conflicts)
        self.progress.quarantined += len(report.split_conflicts)
        self.last_commit = time.monotonic()

    def _refuse_all(self, refusal: Refusal) -> None:
        """Refuse a recording and its copies, which would be refused for the same reason."""
        for each in refusal.with_copies(self.copies):
            self._refuse(each)
        self.refused_copies += len(self.copies.get(refusal.key, ()))

    def _placed_rows(self, *, at_end: bool) -> list[EpisodeRow]:
        """The rows to commit now, each with its split."""
        waiting = {row.recording for row in self.rows}
        ready = waiting if at_end else self.splits.final(waiting)
        if self.settings.split_by == "time":
            return [row for row in self.rows if row.recording in ready]
        splits = self.splits.splits(ready)
        return [
            replace(row, split=str(splits[row.recording]))
            for row in self.rows
            if row.recording in ready
        ]

    def _say_empty(self) -> str | None:
        """Say which splits will have no episode."""
        line = empty_splits(self.splits, self.settings)
        if line is not None:
            self.watch.message(line, warning=True)
        return line

    def _refuse(self, refusal: Refusal) -> None:
        self.refused.append(refusal)
        self.reasons[str(refusal.why.reason)] += 1
        self.progress.quarantined += 1
        self.watch.message(refusal.line, warning=True)

    def report(self, seconds: float, cpu_hours: float | None) -> IngestReport:
        """The report of the run; its counts add up as in `IngestReport`."""
        plan, corpus = self.plan, self.corpus
        if self.committed and self.said_empty is None:
            self._say_empty()
        if plan.in_quarantine:
            self.reasons["refused by an earlier run"] += len(plan.in_quarantine)
        results = [self.results[key] for key in sorted(self.committed)]
        dropped: Counter[str] = Counter()
        for result in results:
            dropped.update(result.frames_dropped)
        return IngestReport(
            corpus=corpus.location,
            version=corpus.version,
            found=plan.found,
            ingested=len(results),
            duplicates=len(plan.duplicates) - self.refused_copies,
            quarantined=self.progress.quarantined + len(plan.in_quarantine),
            already_there=len(plan.already) + self.came_first,
            not_reached=len(plan.to_do) - self.progress.done,
            forgotten=len(plan.forgotten) + self.left_out,
            ignored_files=len(plan.ignored),
            episodes=sum(len(result.episodes) for result in results),
            bytes=sum(result.bytes for result in results),
            steps=sum(row.n_steps for result in results for row in result.episodes),
            missing_actions=sum(row.missing_actions for each in results for row in each.episodes),
            hours=sum(result.hours for result in results),
            frames_in=sum(result.frames_in for result in results),
            frames_used=sum(result.frames_used for result in results),
            frames_dropped=dict(sorted(dropped.items())),
            reasons={reason: count for reason, count in sorted(self.reasons.items()) if count},
            seconds=seconds,
            cpu_hours=cpu_hours,
        )
