"""Describe the clips of a corpus in words: the whole job.

    cut        every episode into clips                             clips.py
    leave out  clips whose steps all have a text, and clips that were answered before
    for every other clip, in the process where the runner puts it:
      draw     its pictures, as a sheet or a video                  clips.py
      ask      the model, through the service, which keeps the answer at once   service.py, endpoint.py
    write      all answers into the column `text`, in one new version           corpus/captions/texts.py
    report     clips without an answer are listed; their steps have no text     report.py

Answers are kept as they come, so a run that was killed asks only for what is missing. A new version is
made at the end.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from wham_data.corpus import Corpus
from wham_data.corpus.captions.answers import (
    Answer,
    AnswerBook,
    Clip,
    Usage,
    forget_answers,
)
from wham_data.corpus.captions.texts import WrittenTexts, steps_with_text, write_texts
from wham_data.corpus.tombstones import Forgotten
from wham_data.inference.tokenizer import decoding_tokenizer
from wham_data.pipelines.caption.clips import ClipForm, clips_of
from wham_data.pipelines.caption.endpoint import ASKED_WRONGLY, EndpointSettings
from wham_data.pipelines.caption.exchange import Address
from wham_data.pipelines.caption.report import (
    MOST_FAILURES,
    CaptionPlan,
    CaptionProgress,
    CaptionReport,
    FailedClip,
    Prices,
    expected_usage,
)
from wham_data.pipelines.caption.service import (
    CaptionWork,
    ClipBatch,
    ClipOutcome,
    caption_service,
    requests_of,
)
from wham_data.pipelines.run.choose import check_device, choose_workers
from wham_data.pipelines.run.progress import Event, ProgressListener, Silent
from wham_data.pipelines.run.runner import LocalRunner, Stage
from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.errors import NoInputsError, RefusedInput, UsageError, WhamDataError
from wham_data.schemas.manifest import Captions, EpisodeRow
from wham_data.versions import versions

BATCH_CLIPS: Final = 256
"""Clips that a worker is given at a time."""
MOST_VIDEO_STEPS: Final = 2_000
"""All pictures of a video are in memory while it is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings:
    """What is asked, and about what.

    prompt   the instruction that goes with each clip
    every    steps of a clip
    form     how a clip is sent
    replace  also replace texts that are there; if False, only steps without one get one
    limit    most clips to ask about in this run; None: all

    Raises:
        UsageError: a clip of no steps, or a video of too many.
    """

    prompt: str
    every: int = 81
    form: ClipForm = field(default_factory=ClipForm)
    replace: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"--every {self.every}: expected at least one step")
        if self.form.sent_as == "mp4" and self.every > MOST_VIDEO_STEPS:
            raise UsageError(
                f"--every {self.every}: a video has at most {MOST_VIDEO_STEPS} steps; use --as sheet"
            )

    def hash_with(self, endpoint: EndpointSettings) -> str:
        """A hash of all that shapes a text: answers with another hash are another set."""
        frames = self.form.frames if self.form.sent_as == "sheet" else None
        shape = [endpoint.model, self.prompt, self.form.sent_as, frames]
        try:
            return content_hash(
                ["captions", *shape, endpoint.temperature, endpoint.seed, dict(endpoint.fields)]
            )
        except (ValueError, TypeError) as error:
            raise UsageError(f"--field: no value of JSON: {error}") from None


def caption(
    corpus: str | os.PathLike[str] | Corpus,
    settings: CaptionSettings,
    endpoint: EndpointSettings,
    *,
    prices: Prices | None = None,
    tokenizer: str | None = None,
    device: str = "auto",
    dry_run: bool = False,
    workers: int | None = None,
    ray_address: str | None = None,
    watch: ProgressListener | None = None,
) -> CaptionReport | CaptionPlan:
    """Ask a vision-language model about each clip of a corpus, and store its answers as texts.

    The command `wham-data caption` calls this. Running it again asks only for what is missing.

    Args:
        corpus: a corpus with pictures, or with tokens that can be decoded to pictures. Its newest
            version gets a successor with the texts.
        settings: what is asked, and about what.
        endpoint: the model.
        prices: for the cost in the report; None: no cost.
        tokenizer: decodes tokens if the corpus stores no pictures; None: the bundled tokenizer, if it
            made the tokens.
        device: where the tokenizer runs.
        dry_run: ask nothing; only count.
        workers, ray_address, watch: as for `export`.

    Raises:
        UsageError: the corpus has neither pictures nor tokens, or the server refuses every request
            with these settings or this key.
        NoInputsError: there are no episodes.
        IntegrityError: a shard, a picture or a file of answers is damaged.
        WhamDataError: nothing answers at the address.
    """
    watch = watch or Silent()
    opened = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    runner = choose_workers(workers, ray_address, watch=watch) or LocalRunner()
    decoded_by = _decoded_by(opened, tokenizer)
    if decoded_by is not None:
        check_device(device, runner, watch)
    run = _Run(opened, settings, endpoint, prices, decoded_by, watch)
    run.find()
    if dry_run:
        return run.plan()
    if run.to_ask:
        Address.parse(endpoint.url).check()
        for note in run.notes():
            watch.message(note, warning=True)
        work = CaptionWork(opened, settings.form, decoded_by, device)
        service = caption_service(endpoint, settings.prompt, opened.storage, run.hash)
        stage = Stage("caption", work, service)
        for outcome in runner.run(stage, run.batches(), run.advance):
            if isinstance(outcome.result, RefusedInput):
                raise WhamDataError(f"a worker of caption: {outcome.result}")
            run.take(outcome.result)
            if run.stopped:
                break
        run.book.tidy()
    run.check_answered()
    run.write()
    return run.report()


def _decoded_by(corpus: Corpus, tokenizer: str | None) -> str | None:
    """The tokenizer that decodes the pictures; None: they are stored.

    Raises:
        UsageError: there are neither pictures nor tokens, or a tokenizer is given but not needed.
        MismatchError: it is not the one that made the tokens.
    """
    info = corpus.info
    if info.frames != "none":
        if tokenizer is not None:
            raise UsageError("--tokenizer: nothing is decoded, as the corpus stores pictures")
        return None
    if info.tokenizer is None:
        raise UsageError(
            f"{corpus.location}: holds neither pictures nor tokens to make some from; ingest its "
            "recordings with --frames jpeg, or with --tokenizer"
        )
    return decoding_tokenizer(info.tokenizer, tokenizer, corpus.location)


@dataclass(slots=True)
class _Run:
    """The state of one run in the driver."""

    corpus: Corpus
    settings: CaptionSettings
    endpoint: EndpointSettings
    prices: Prices | None
    decoded_by: str | None
    watch: ProgressListener
    hash: str = field(init=False)
    book: AnswerBook = field(init=False)
    started: float = field(default_factory=time.monotonic)
    rows: dict[str, EpisodeRow] = field(default_factory=dict)
    clips: list[Clip] = field(default_factory=list)
    has_text: int = 0
    kept: dict[Clip, Answer] = field(default_factory=dict)
    before: dict[Clip, Answer] = field(default_factory=dict)
    to_ask: list[Clip] = field(default_factory=list)
    beyond_limit: int = 0
    answers: dict[Clip, Answer] = field(default_factory=dict)
    failures: list[FailedClip] = field(default_factory=list)
    failed: int = 0
    stopped: str = ""
    written: WrittenTexts = field(default_factory=WrittenTexts)
    progress: CaptionProgress = field(default_factory=lambda: CaptionProgress(0))

    def __post_init__(self) -> None:
        self.hash = self.settings.hash_with(self.endpoint)
        self.book = AnswerBook(self.corpus.storage, self.hash)

    def find(self) -> None:
        """Find the clips to ask about, in the order in which the shards hold them."""
        records = self.corpus.episodes.sort("shard", "row_start").drop("created")
        if not len(records):
            raise NoInputsError(f"{self.corpus.location}: has no episodes")
        self.kept = self.book.read()
        for record in records.iter_rows(named=True):
            row = EpisodeRow.from_record(record)
            self.rows[row.episode] = row
            clips = list(clips_of(row, self.settings.every))
            self.clips += clips
            without = clips
            if not self.settings.replace:
                there = steps_with_text(self.corpus, row)
                without = [clip for clip in clips if not there[clip.start : clip.stop].all()]
            self.has_text += len(clips) - len(without)
            for clip in without:
                if clip in self.kept:
                    self.before[clip] = self.kept[clip]
                else:
                    self.to_ask.append(clip)
        if self.settings.limit is not None:
            self.beyond_limit = max(len(self.to_ask) - self.settings.limit, 0)
            del self.to_ask[self.settings.limit :]
        self.progress = CaptionProgress(len(self.to_ask))

    def batches(self) -> list[ClipBatch]:
        """The clips to ask about, in batches for the workers."""
        batches = []
        for first in range(0, len(self.to_ask), BATCH_CLIPS):
            some = self.to_ask[first : first + BATCH_CLIPS]
            by_episode = groupby(some, key=lambda clip: clip.episode)
            batches.append(
                ClipBatch(tuple((self.rows[name], tuple(clips)) for name, clips in by_episode))
            )
        return batches

    def notes(self) -> Iterator[str]:
        """What the user should know before anything is sent."""
        address, key = Address.parse(self.endpoint.url), self.endpoint.key()
        if key and address.is_open:
            yield (
                f"the key in {self.endpoint.key_env} and the pictures go to {address.host} "
                'unencrypted (http); --key-env "" sends no key'
            )
        if self.decoded_by is not None:
            yield "the corpus stores no pictures: those that are sent are decoded from its tokens"

    def advance(self, clips: int) -> None:
        """So many more clips are done."""
        self.progress.done += clips
        self.watch.progressed(self.progress)

    def take(self, outcomes: Iterable[ClipOutcome]) -> None:
        """Count the outcomes of a batch."""
        for outcome in outcomes:
            self.progress.usage += outcome.usage
            self.stopped = self.stopped or outcome.stopped
            if outcome.answer is not None:
                self.answers[outcome.clip] = outcome.answer
            elif outcome.asked:
                failed = FailedClip.of(outcome.clip, outcome.code, outcome.message)
                self.failed += 1
                self.progress.reasons[failed.code] += 1
                if len(self.failures) < MOST_FAILURES:
                    self.failures.append(failed)
                place = f"{failed.episode} steps {failed.start} to {failed.stop - 1}"
                event = Event(name="failed", item=place, reason=failed.code)
                self.watch.message(str(failed), warning=False, event=event)
        self.watch.progressed(self.progress)

    def check_answered(self) -> None:
        """Refuse settings or a key with which the server refuses every request.

        Raises:
            UsageError: it does.
        """
        wrong = [each for each in self.failures if each.code in ASKED_WRONGLY]
        if wrong and not self.answers:
            raise UsageError(wrong[0].message)

    def write(self) -> None:
        """Write all answers into a new version, those of earlier runs too."""
        storage = self.corpus.storage
        forgotten = Forgotten.read(storage)
        gone = {
            clip.recording for clip in self.answers if forgotten.holds("recording", clip.recording)
        }
        if gone:
            forget_answers(storage, gone)
        about = Captions(self.endpoint.model, self.settings.prompt, self.hash, datetime.now(UTC))
        self.written = write_texts(
            self.corpus,
            [*self.before.values(), *self.answers.values()],
            about,
            replace_texts=self.settings.replace,
        )

    def report(self) -> CaptionReport:
        """The report, which is also left in `runs/` if anything was asked or written."""
        usage = self.progress.usage
        models = Counter(each.model for each in self.answers.values() if each.model)
        report = CaptionReport(
            **self._found(),
            version=self.corpus.version,
            endpoint=str(Address.parse(self.endpoint.url)),
            settings=self.hash,
            answered=len(self.answers),
            failed=self.failed,
            left=self.beyond_limit + len(self.to_ask) - len(self.answers) - self.failed,
            episodes=self.written.episodes,
            steps=self.written.steps,
            usage=usage,
            cost=self._cost(usage),
            models=dict(models.most_common(20)),
            failures=tuple(self.failures),
            stopped=self.stopped,
            seconds=round(time.monotonic() - self.started, 3),
        )
        if self.progress.done or self.written.steps:
            self.corpus.record_run(
                {
                    "command": "caption",
                    "settings": {
                        **asdict(self.endpoint),
                        **asdict(self.settings),
                        "settings_hash": self.hash,
                        "tokenizer": self.decoded_by,
                    },
                    "versions": versions(),
                    "report": asdict(report),
                    "exit_code": report.exit_code,
                }
            )
        return report

    def plan(self) -> CaptionPlan:
        """What a run would do."""
        per_minute = self.endpoint.per_minute
        n_bytes = 0
        if self.to_ask:
            sample = ClipBatch(((self.rows[self.to_ask[0].episode], (self.to_ask[0],)),))
            work = CaptionWork(self.corpus, self.settings.form, self.decoded_by, "cpu")
            for request in requests_of(self.corpus, sample, self.settings.form, work.decoder()):
                n_bytes = len(str(request.part))
        counted = [answer.usage for answer in self.kept.values()]
        usage = expected_usage(counted, len(self.to_ask))
        return CaptionPlan(
            **self._found(),
            to_ask=len(self.to_ask),
            beyond_limit=self.beyond_limit,
            megabytes=round(n_bytes * len(self.to_ask) / 1e6, 1),
            minutes=round(len(self.to_ask) / per_minute, 1) if per_minute else None,
            usage=usage,
            cost=None if usage is None else self._cost(usage),
        )

    def _found(self) -> dict[str, Any]:
        """What reports and plans have in common."""
        every = self.settings.every
        return {
            "corpus": self.corpus.location,
            "model": self.endpoint.model,
            "pictures": "stored" if self.decoded_by is None else "decoded",
            "sent_as": self.settings.form.sent_as,
            "every": every,
            "clips": len(self.clips),
            "short": sum(clip.n_steps < every for clip in self.clips),
            "has_text": self.has_text,
            "answered_before": len(self.before),
        }

    def _cost(self, usage: Usage) -> float | None:
        if self.prices is None or usage.unknown:
            return None
        return self.prices.of(usage)
