"""Make a corpus from recordings: the whole job.

    describe  the corpus' settings, action space and columns       corpus_settings.py
    find      the recordings, and which of them are new, in a      intake/
              thread, while those found first are worked on
    for every recording, in the process where the runner puts it:  stages.py
      open    its clocks and its log                               readers/
      place   steps on the grid, and choose the frame of each      align.py
      decode  those frames, in batches                             video.py
      encode  them into tokens                                     inference/tokenizer.py
      write   one shard                                            corpus/shards.py
    commit    finished recordings, every few seconds               results.py, corpus/corpus.py
    report    the result for every input and every frame           report.py

Each recording becomes one shard, whose name is a hash of the recording and the settings. So the run
after a killed one writes the same files again, byte for byte. If that makes many small shards, the
end of the run merges them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

from wham_data.corpus import Corpus
from wham_data.corpus.compact import merge_small_shards
from wham_data.corpus.runs import record_run
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.corpus_settings import (
    Columns,
    columns_held,
    columns_there,
    corpus_info,
    tokenizer_found,
)
from wham_data.pipelines.ingest.decoder_process import DecoderDied
from wham_data.pipelines.ingest.encoder import Encoder, encoder_service
from wham_data.pipelines.ingest.estimate.afterwards import PastEstimate
from wham_data.pipelines.ingest.intake.inputs import Found
from wham_data.pipelines.ingest.intake.intake import Intake
from wham_data.pipelines.ingest.intake.known_inputs import KnownInputs
from wham_data.pipelines.ingest.intake.known_units import KnownUnits
from wham_data.pipelines.ingest.none_read import NoneRead, keep_refusals
from wham_data.pipelines.ingest.plan import (
    IngestPlan,
    against_corpus,
    chosen,
    make_plan,
    nothing_found,
    search_of,
)
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.results import Results
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.ingest.stages import Ingested, ingest_recording
from wham_data.pipelines.readers.kit.units import FoundInUnit
from wham_data.pipelines.run.choose import check_device, works_elsewhere
from wham_data.pipelines.run.choose import choose_runner as choose_runner
from wham_data.pipelines.run.cpu_time import CpuTime
from wham_data.pipelines.run.progress import ProgressListener, Silent
from wham_data.pipelines.run.runner import Advance, Runner, Stage, Work
from wham_data.pipelines.run.same_files import same_files
from wham_data.pipelines.video import need_gpu
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import WhamDataError
from wham_data.schemas.paths import expanded, source_path, told
from wham_data.schemas.player_key import read_player_key
from wham_data.schemas.recording import Recording
from wham_data.versions import versions

MOST_DECODE_THREADS = 4
MANY = 1 << 30
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
    stage: bool = False,
    rehash: bool = False,
    allow_forgotten: bool = False,
    merge_shards: bool = True,
    watch: ProgressListener | None = None,
) -> IngestReport:
    """Resample recordings to a grid of steps, tokenize them, and write or extend a corpus.

    The command `wham-data ingest` calls this. Running it again adds only what is missing.

    Args:
        sources: files and folders, also URLs of an object store.
        out: path or URL of the corpus; it may already exist.
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
        stage: fetch files of an object store whole before they are read.
        rehash: read every file to identify it; if False, a file whose path, size and times an earlier
            run into this corpus has noted is not read again.
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
    if stage:
        settings = replace(settings, stage=True)
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
            rehash=rehash,
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
    check_decoder(settings, runner)
    started, cpu = time.monotonic(), CpuTime()
    naming = Naming(choices.player_key, choices.license)
    if settings.tokenizer is not None:
        check_device(device, runner, watch)
    if note := tokenizer_found(settings):
        watch.message(f"tokenizer {note}", warning=True)
    search = search_of(sources, settings, choices)
    units: KnownUnits | None = None
    found = chosen(search.found(lambda unit: units.known(unit) if units else None), choices)
    columns = columns_there(out, choices.player_key)
    looked_at: list[Recording | FoundInUnit] = []
    is_new = columns is None
    if columns is None:
        columns = columns_held(recordings_of(found, looked_at), settings)
        found = chain(looked_at, found)
    info = corpus_info(columns, settings, choices.reader, choices.player_key)
    if info is None or (is_new and not any(map(is_input, looked_at))):
        plan = make_plan(found)
        return nothing_read(sources, out, settings, columns, plan, naming, watch, started)
    if estimate is not None:
        estimate.check(info.settings_hash)
    corpus = Corpus.open_or_create(out, info)
    known = KnownInputs(corpus.storage, choices.player_key, rehash=choices.rehash)
    if (problem := known.problem) is not None:
        watch.message(problem, warning=True)
    against = against_corpus(corpus, settings, choices)
    if choices.limit is None and choices.only is None:
        how = settings.options_of_search(choices.reader)
        units = KnownUnits(known, against.there, search, how, sources, naming)
    intake = Intake(found, against, known, units)
    results = Results(corpus, intake, settings, choices, naming, watch)
    ended: BaseException | None = None
    try:
        if not intake.settle():
            raise nothing_found(sources, intake.sorting.endings)
        stage = Stage(
            "ingest",
            setup=IngestWork(
                settings, corpus, decode_threads(intake.left if intake.all_known else MANY)
            ),
            service=encoder_service(settings.tokenizer, device),
            check=partial(same_files, [corpus.storage], intake.first_files()),
        )
        for outcome in runner.run(stage, intake, results.advance):
            results.take(outcome)
            cpu.look()
        intake.close(broken_off=False)
        results.commit(at_end=True)
        if choices.merge_shards and (merged := merge_small_shards(corpus)) is not None:
            watch.message(merged.line, warning=True)
    except BaseException as error:
        ended = error
        # Finished work is kept also when interrupted.
        intake.close(broken_off=True)
        if intake.counts.found:
            results.commit(at_end=True)
        raise
    finally:
        # Inputs not reached are counted.
        if known.problem not in (None, problem):
            watch.message(str(known.problem), warning=True)
        if intake.counts.found:
            cpu_hours = None if works_elsewhere(runner) else cpu.hours()
            report = results.report(time.monotonic() - started, cpu_hours).against(estimate)
            given = named_sources(sources, naming, intake.sorting.players)
            keys = sorted(intake.sorting.seen)
            corpus.record_run(run_record(given, keys, corpus.info, settings, report, ended))
    return report


def check_decoder(settings: IngestSettings, runner: Runner) -> None:
    """Refuse to decode on a GPU where the work is done on this machine, and it cannot.

    Raises:
        MissingPartError: it has no GPU, or no driver that decodes.
    """
    if settings.limits.decoder == "nvdec" and not works_elsewhere(runner):
        need_gpu()


def recordings_of(
    found: Iterable[Recording | FoundInUnit], looked_at: list[Recording | FoundInUnit]
) -> Iterator[Recording]:
    """The recordings among what was found; everything that was taken is added to `looked_at`."""
    for each in found:
        looked_at.append(each)
        if isinstance(each, Recording):
            yield each


def is_input(each: Recording | FoundInUnit) -> bool:
    """Whether this is a recording, or refused."""
    return isinstance(each, Recording) or bool(each.refused)


def nothing_read(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: IngestSettings,
    columns: Columns,
    plan: IngestPlan,
    naming: Naming,
    watch: ProgressListener,
    started: float,
) -> IngestReport:
    """End a first run in which no recording tells the action space of the corpus.

    Raises:
        NoInputsError: nothing was found, or recordings open and have no log.
    """
    if not plan.counts.found:
        raise nothing_found(sources, plan.endings)
    none_read = NoneRead.of(columns, plan)
    report = keep_refusals(none_read, plan, out, naming, watch, time.monotonic() - started)
    given = named_sources(sources, naming, plan.players)
    record_run(open_storage(out), run_record(given, plan.keys, None, settings, report, None))
    none_read.check()
    return report


def named_sources(
    sources: Sequence[str | Path], naming: Naming, players: Iterable[str]
) -> list[str]:
    """The sources as they were given, without the names of players."""
    return [naming.text(str(source), *players) for source in sources]


def run_record(
    sources: Sequence[str | Path],
    keys: Sequence[bytes],
    info: CorpusInfo | None,
    settings: IngestSettings,
    report: IngestReport,
    ended: BaseException | None,
) -> dict[str, object]:
    """The record of a run for the folder `runs/`; a failed run has one too.

    Args:
        sources: without the names of players.
        keys: of all recordings that were found, sorted.
        info: of the corpus; None: there is none.
        settings: of the run.
        report: of the run.
        ended: the error that ended it.
    """
    return {
        "command": "ingest",
        "sources": [told(source_path(source)) for source in sources],
        "settings": {**info.to_dict(), "settings_hash": info.settings_hash} if info else None,
        "decoder": settings.limits.decoder,
        "inputs": {"recordings": len(keys), "hash": hash_of_keys(keys)},
        "versions": versions(),
        "report": asdict(report),
        "exit_code": exit_code(ended, report),
    }


def hash_of_keys(keys: Iterable[bytes]) -> str:
    """`content_hash` of the list of these keys as hex digits, without such a list."""
    told = hashlib.sha256(b"[")
    for number, key in enumerate(keys):
        told.update(b'%s"%s"' % (b"," if number else b"", key.hex().encode()))
    told.update(b"]")
    return told.hexdigest()[:24]


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
