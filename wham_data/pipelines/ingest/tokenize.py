"""Make tokens from the stored pictures of a corpus: the whole job.

The new corpus has the same episodes, splits and actions, byte for byte.

    for every recording, in the process where the runner puts it:
      decode   the pictures of its steps, in batches
      encode   them into tokens, as ingest does
      write    one shard, with the same name and layout as from ingest
    commit     finished recordings, every few seconds

PNG pictures are exactly the pictures that ingest tokenizes. From them the new corpus equals, byte
for byte, the one that ingest would have made, and ingest can extend it. JPEG pictures have lost
detail, so their tokens differ; the settings of the new corpus record that (TOKENS_OF).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from wham_data.corpus import Corpus
from wham_data.corpus.compact import merge_small_shards
from wham_data.corpus.shard_view import steps_from
from wham_data.corpus.shards import shard_id
from wham_data.corpus.storage.contract import hash_file
from wham_data.corpus.storage.local import LocalStorage
from wham_data.corpus.tombstones import copy_marks
from wham_data.pipelines.ingest.encoder import Encoder, encoder_service
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.report import TokenizeProgress
from wham_data.pipelines.run.choose import check_device, choose_runner
from wham_data.pipelines.run.progress import Event, ProgressListener, Silent, commit_event
from wham_data.pipelines.run.runner import Advance, Outcome, Runner, Stage, Work
from wham_data.pipelines.run.same_files import same_files
from wham_data.pipelines.video import decode_image
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo, content_hash
from wham_data.schemas.errors import IntegrityError, RefusedInput, UsageError, WhamDataError
from wham_data.schemas.manifest import EpisodeRow, QuarantineRow
from wham_data.schemas.paths import expanded
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import EpisodeSteps
from wham_data.versions import versions

BATCH_FRAMES = 32
COMMIT_EVERY_SECONDS = 10.0
TOKENS_OF = "tokens_of"
"""Name of a setting: the format of the pictures that were tokenized, if it is not lossless."""


@dataclass(frozen=True, slots=True)
class TokenizeReport:
    """The result of a run.

    corpus           location of the new corpus
    version          version of its manifest after the run
    recordings, episodes, steps  counts of what was tokenized in this run
    already_there    count of recordings that an earlier run had done
    seconds          wall time
    """

    corpus: str
    version: int
    recordings: int
    episodes: int
    steps: int
    already_there: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Played:
    """A recording of the corpus: its episodes, sorted by start time."""

    rows: tuple[EpisodeRow, ...]

    @property
    def recording(self) -> str:
        """Hash of the recording."""
        return self.rows[0].recording

    @property
    def n_steps(self) -> int:
        """Count of steps in all its episodes."""
        return sum(row.n_steps for row in self.rows)


def tokenize(
    corpus: str | os.PathLike[str] | Corpus,
    *,
    tokenizer: str,
    out: str | Path,
    keep_frames: bool = True,
    workers: int | None = None,
    ray_address: str | None = None,
    ray_temp_dir: str | Path | None = None,
    device: str = "auto",
    watch: ProgressListener | None = None,
) -> TokenizeReport:
    """Write a corpus with the same steps and with tokens. Running it again adds only what is missing.

    The command `wham-data tokenize` calls this.

    Args:
        corpus: a corpus that contains pictures; it is not changed.
        tokenizer: "wham-tiny", a folder, or a WHAM checkpoint.
        out: path of the new corpus; it may already exist in part.
        keep_frames: whether the new corpus contains the pictures too.
        workers, ray_address, ray_temp_dir, device, watch: as for `ingest`.

    Raises:
        UsageError: the corpus has no pictures, or their size is not the one the tokenizer needs.
        MismatchError: there is a corpus with other settings at `out`.
        IntegrityError: a shard is damaged, or a picture does not decode; damage is never copied.
    """
    from wham_data.inference.tokenizer import tokenizer_info, tokenizer_note

    tokenizer, watch = expanded(tokenizer), watch or Silent()
    if note := tokenizer_note(tokenizer):
        watch.message(f"tokenizer {note}", warning=True)
    source = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    agreed = tokenized(source.info, tokenizer_info(tokenizer), keep_frames, source.location)
    runner = choose_runner(workers, ray_address, ray_temp_dir, watch)
    check_device(device, runner, watch)
    target = Corpus.open_or_create(out, agreed)
    return _tokenize(source, target, tokenizer, runner, device, watch)


def tokenized(
    info: CorpusInfo, tokenizer: TokenizerInfo, keep_frames: bool, where: str
) -> CorpusInfo:
    """The description of a corpus after tokenizing.

    Args:
        info: of the source corpus.
        tokenizer: to be used.
        keep_frames: whether the new corpus contains the pictures too.
        where: location of the source corpus, for messages.

    Raises:
        UsageError: the corpus has no pictures, or their size is not the one the tokenizer needs.
    """
    if info.frames == "none":
        raise UsageError(
            f"{where}: contains no pictures to make tokens from; ingest its recordings with "
            "--tokenizer, or with --frames png to tokenize them later"
        )
    if tokenizer.frame_size != info.size:
        width, height = tokenizer.frame_size
        raise UsageError(
            f"{where}: its pictures are {info.size[0]}x{info.size[1]}, but tokenizer "
            f"{tokenizer.name} needs {width}x{height}; ingest its recordings with "
            f"--size {width}x{height}"
        )
    return replace(
        info,
        tokenizer=tokenizer,
        frames=info.frames if keep_frames else "none",
        layout="mapped",
        settings={**info.settings, **({TOKENS_OF: "jpeg"} if info.frames == "jpeg" else {})},
    )


def played(corpus: Corpus) -> Iterator[Played]:
    """The recordings of a corpus, grouped by shard."""
    rows = corpus.episodes.sort("shard", "recording", "start_ns", "episode").drop("created")
    of: dict[str, list[EpisodeRow]] = {}
    for record in rows.iter_rows(named=True):
        of.setdefault(record["recording"], []).append(EpisodeRow.from_record(record))
    for episodes in of.values():
        yield Played(tuple(sorted(episodes, key=lambda row: (row.start_ns, row.episode))))


@dataclass(frozen=True, slots=True)
class TokenizeWork:
    """Set-up of the stage. It is sent to the workers, and each worker calls it once."""

    source: Corpus
    target: Corpus

    def __call__(self, encoder: Encoder | None) -> Work[Played, tuple[EpisodeRow, ...]]:
        """The function that tokenizes one recording and returns its rows for the new manifest."""
        if encoder is None:
            raise UsageError("tokenize needs a tokenizer")
        sound: set[str] = set()

        def work(item: Played, advance: Advance) -> tuple[EpisodeRow, ...]:
            for row in item.rows:
                if row.shard not in sound:
                    check_shard(self.source, row)
                    sound.add(row.shard)
            return tokenize_recording(item, encoder, self.source, self.target, advance)

        return work


def tokenize_recording(
    item: Played, encoder: Encoder, source: Corpus, target: Corpus, advance: Advance
) -> tuple[EpisodeRow, ...]:
    """Write the shard of one recording.

    Returns:
        Its rows for the manifest of `target`.

    Raises:
        IntegrityError: its shard is damaged, or a picture does not decode.
    """
    info = target.info
    name = shard_id([item.recording], info.settings_hash)
    captioned = any(row.captions for row in item.rows)
    if captioned:  # its bytes follow from the texts too
        hashes = sorted({row.shard_sha256 for row in item.rows})
        name = content_hash(["tokenize", info.settings_hash, item.recording, hashes])
    steps = with_tokens(item, encoder, source, info, advance)
    shard = target.write_shard(steps, name, captioned=captioned)
    start = {each.episode: each.start for each in shard.episodes}
    return tuple(
        replace(
            row,
            shard=shard.name,
            shard_sha256=shard.sha256,
            row_start=start[row.episode],
            settings=info.settings_hash,
            tokenizer=info.tokenizer.fingerprint if info.tokenizer else None,
        )
        for row in item.rows
    )


def with_tokens(
    item: Played, encoder: Encoder, source: Corpus, info: CorpusInfo, advance: Advance
) -> Iterator[EpisodeSteps]:
    """The steps of a recording with their tokens, in batches."""
    waiting: deque[EpisodeSteps] = deque()

    def pictures() -> Iterator[Frames]:
        for row in item.rows:
            for steps in stored_steps(source, row):
                coded = steps.frames or ()
                waiting.append(replace(steps, frames=coded if info.frames != "none" else None))
                yield decoded(steps, source.info.size, row.shard)

    for tokens in encoder.stream(pictures()):
        steps = waiting.popleft()
        yield replace(steps, tokens=tokens)
        advance(steps.n_steps)


def stored_steps(corpus: Corpus, row: EpisodeRow) -> Iterator[EpisodeSteps]:
    """The steps of an episode, BATCH_FRAMES at a time, without tokens."""
    view = corpus.open_shard(row.shard)
    for _, table in view.read_rows(row.row_start, row.row_start + row.n_steps):
        for first in range(0, len(table), BATCH_FRAMES):
            steps = steps_from(row.episode, table.slice(first, BATCH_FRAMES))
            yield replace(steps, tokens=None)


def decoded(steps: EpisodeSteps, size: tuple[int, int], shard: str) -> Frames:
    """The pictures of some steps, uint8 [B, H, W, 3].

    Raises:
        IntegrityError: a picture does not decode, or has another size.
    """
    width, height = size
    pictures = np.empty((steps.n_steps, height, width, 3), np.uint8)
    for number, coded in enumerate(steps.frames or ()):
        where = f"shards/{shard}: step {steps.first_step + number} of episode {steps.episode}"
        try:
            picture = decode_image(coded)
        except RefusedInput as why:
            raise IntegrityError(f"{where}: {why}") from None
        if picture.shape != (height, width, 3):
            found = f"{picture.shape[1]}x{picture.shape[0]}"
            raise IntegrityError(f"{where}: a picture of {found}, expected {width}x{height}")
        pictures[number] = picture
    return pictures


def check_shard(corpus: Corpus, row: EpisodeRow) -> None:
    """Compare the bytes of a shard with its hash in the manifest.

    Raises:
        IntegrityError: the shard is damaged.
    """
    found = hash_file(corpus.shard_path(row.shard))
    if found != row.shard_sha256:
        raise IntegrityError(
            f"shards/{row.shard}: corrupt: sha256 is {found}, but the manifest has "
            f"{row.shard_sha256}"
        )


@dataclass(slots=True)
class _Run:
    """The state of one run in the driver: rows that wait to be committed, and the counts."""

    target: Corpus
    to_do: Sequence[Played]
    watch: ProgressListener
    progress: TokenizeProgress = field(init=False)
    rows: list[EpisodeRow] = field(default_factory=list)
    done: list[EpisodeRow] = field(default_factory=list)
    last_commit: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        rate = self.target.info.rate
        self.progress = TokenizeProgress(
            Counts(to_do=len(self.to_do), bytes_to_do=sum(item.n_steps for item in self.to_do)),
            rate=float(rate) if isinstance(rate, Fraction) else 0.0,
            tokens_per_frame=self.target.info.n_tokens,
        )

    def advance(self, frames: int) -> None:
        self.progress.frames += frames
        self.watch.progressed(self.progress)

    def take(self, outcome: Outcome[Played, tuple[EpisodeRow, ...]]) -> None:
        """Record the outcome of one recording, and commit if it is time.

        Raises:
            WhamDataError: the recording's worker died repeatedly.
        """
        source = outcome.item.rows[0].source
        if isinstance(outcome.result, RefusedInput):
            raise WhamDataError(f"{source}: {outcome.result}")
        self.rows += outcome.result
        self.progress.done += 1
        self.progress.bytes_done += outcome.item.n_steps
        steps = sum(row.n_steps for row in outcome.result)
        event = Event(name="done", item=source, facts={"steps": steps})
        self.watch.message(source, warning=False, event=event)
        self.watch.progressed(self.progress)
        if time.monotonic() - self.last_commit > COMMIT_EVERY_SECONDS:
            self.commit()

    def commit(self, refused: Sequence[QuarantineRow] = ()) -> None:
        """Commit the finished recordings to the manifest, with the splits of the source corpus."""
        rows = list(self.rows)
        self.target.adopt(rows, refused)
        # Cleared only now: if the commit is interrupted, it is repeated at the end of the run.
        del self.rows[: len(rows)]
        self.done += rows
        if rows:
            recordings = len({row.recording for row in rows})
            self.watch.message(
                "", warning=False, event=commit_event(self.target.version, recordings)
            )
        self.last_commit = time.monotonic()


def _tokenize(
    source: Corpus,
    target: Corpus,
    tokenizer: str,
    runner: Runner,
    device: str,
    watch: ProgressListener,
) -> TokenizeReport:
    started = time.monotonic()
    copy_marks(source.storage, target.storage)
    known = target.known_recordings()
    every = list(played(source))
    run = _Run(target, [item for item in every if item.recording not in known], watch)
    watch.progressed(run.progress)
    stage = Stage(
        "tokenize",
        TokenizeWork(source, target),
        encoder_service(tokenizer, device),
        check=partial(same_files, [target.storage], source_files(source)),
    )
    try:
        for outcome in runner.run(stage, run.to_do, run.advance):
            run.take(outcome)
    finally:
        # Also when interrupted: finished work is kept.
        run.commit()
    run.commit(refused_in(source, target.info.settings_hash))
    if (merged := merge_small_shards(target)) is not None:
        watch.message(merged.line, warning=True)
    report = TokenizeReport(
        corpus=target.location,
        version=target.version,
        recordings=len({row.recording for row in run.done}),
        episodes=len(run.done),
        steps=sum(row.n_steps for row in run.done),
        already_there=len(every) - len(run.to_do),
        seconds=time.monotonic() - started,
    )
    target.record_run(
        {
            "command": "tokenize",
            "source": {"corpus": source.location, "version": source.version},
            "settings": {**target.info.to_dict(), "settings_hash": target.info.settings_hash},
            "versions": versions(),
            "report": asdict(report),
            "exit_code": 0,
        }
    )
    return report


def source_files(source: Corpus) -> list[Path]:
    """Files of a corpus that is read; none on an object store, which looks the same to every node."""
    storage = source.storage
    return [storage.path("corpus.json")] if isinstance(storage, LocalStorage) else []


def refused_in(source: Corpus, settings_hash: str) -> list[QuarantineRow]:
    """The quarantine rows of a corpus under its present settings, with new settings in them.

    Args:
        source: the corpus.
        settings_hash: of the new corpus, which refuses the same inputs.
    """
    rows = source.quarantine.drop("created").rows(named=True)
    refused = [QuarantineRow.from_record(row) for row in rows]
    mine = source.info.settings_hash
    return [replace(row, settings=settings_hash) for row in refused if row.settings == mine]
