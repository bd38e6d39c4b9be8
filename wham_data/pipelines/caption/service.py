"""The service that asks the model and keeps its answers, and the stage that makes the requests.

All requests of a job go through one instance of the service, so that it can keep to the limit of
requests per minute, and end the job when nothing works any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from typing import Any, Final

from wham_data.corpus import Corpus
from wham_data.corpus.captions.answers import Answer, AnswerBook, Clip, Usage
from wham_data.corpus.storage.contract import Storage
from wham_data.pipelines.caption.clips import ClipForm, Decode, pictures_of
from wham_data.pipelines.caption.endpoint import Endpoint, EndpointSettings, Failure, Reply
from wham_data.pipelines.run.runner import Advance, Hosted, Service, Work
from wham_data.schemas.errors import UsageError
from wham_data.schemas.manifest import EpisodeRow

MOST_IN_A_ROW: Final = 10
"""After so many clips without an answer, one after another, the run ends."""


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A clip, and the part of a message that holds its pictures."""

    clip: Clip
    part: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClipOutcome:
    """What came of a request.

    answer   None: there is none
    code, message  why there is none
    usage    tokens of all tries
    stopped  why the run ends; "": it goes on
    asked    False: the run had ended before, and nothing was asked
    """

    clip: Clip
    answer: Answer | None = None
    code: str = ""
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    stopped: str = ""
    asked: bool = True


def caption_service(
    endpoint: EndpointSettings, prompt: str, storage: Storage, settings: str
) -> Service:
    """The service: takes a `ClipRequest`, gives a `ClipOutcome`; an answer is durable by then.

    Args:
        endpoint: the model. Its key is read from the environment where the service runs.
        prompt: the instruction that goes with each clip.
        storage: the files of the corpus, where answers are kept.
        settings: hash of all that shapes a text.
    """
    opened = partial(_open, endpoint, prompt, storage, settings, bool(endpoint.key()))
    return Service("endpoint", opened, "cpu", at_once=endpoint.concurrent)


def _open(
    endpoint: EndpointSettings,
    prompt: str,
    storage: Storage,
    settings: str,
    keyed: bool,
    device: str,  # noqa: ARG001  the model is elsewhere
) -> _AskAndKeep:
    if keyed and not endpoint.key():
        raise UsageError(f"{endpoint.key_env} is not set on the machine that asks the model")
    return _AskAndKeep(Endpoint(endpoint, prompt), AnswerBook(storage, settings))


class _AskAndKeep:
    """Asks about clips and keeps the answers; several threads call it."""

    def __init__(self, endpoint: Endpoint, book: AnswerBook) -> None:
        self._endpoint, self._book = endpoint, book
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._stopped = ""

    def __call__(self, request: ClipRequest) -> ClipOutcome:
        clip = request.clip
        if self._stopped:
            return ClipOutcome(clip, stopped=self._stopped, asked=False)
        reply, usage = self._endpoint.ask(request.part)
        if isinstance(reply, Reply):
            answer = Answer(clip, reply.text, datetime.now(UTC), reply.model, usage)
            self._book.keep(answer)
            self._in_a_row = 0
            return ClipOutcome(clip, answer, usage=usage)
        stopped = self._after(reply)
        return ClipOutcome(clip, code=reply.code, message=str(reply), usage=usage, stopped=stopped)

    def _after(self, failure: Failure) -> str:
        """Why the run ends after a failure; "": it goes on."""
        with self._lock:
            self._in_a_row += 1
            if not self._stopped and failure.stops:
                self._stopped = str(failure)
            elif not self._stopped and self._in_a_row >= MOST_IN_A_ROW:
                self._stopped = f"{MOST_IN_A_ROW} clips in a row got no answer; the last: {failure}"
            return self._stopped


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Clips to ask about: (episode, clips of it in order) each."""

    episodes: tuple[tuple[EpisodeRow, tuple[Clip, ...]], ...]


@dataclass(frozen=True, slots=True)
class CaptionWork:
    """Set-up of the stage. It is sent to the workers, and each worker calls it.

    tokenizer  decodes pictures from tokens; None: pictures are stored
    device     where it runs
    """

    corpus: Corpus
    form: ClipForm
    tokenizer: str | None
    device: str

    def __call__(
        self, service: Hosted[ClipRequest, ClipOutcome] | None
    ) -> Work[ClipBatch, tuple[ClipOutcome, ...]]:
        """The function that asks about the clips of a batch."""
        assert service is not None
        decode = self.decoder()

        def work(batch: ClipBatch, advance: Advance) -> tuple[ClipOutcome, ...]:
            outcomes: list[ClipOutcome] = []

            def requests() -> Iterator[ClipRequest]:
                for request in requests_of(self.corpus, batch, self.form, decode):
                    if outcomes and outcomes[-1].stopped:
                        return
                    yield request

            for outcome in service.stream(requests()):
                outcomes.append(outcome)
                advance(int(outcome.asked))
            return tuple(outcomes)

        return work

    def decoder(self) -> Decode | None:
        """Makes pictures from tokens; None: they are stored."""
        if self.tokenizer is None:
            return None
        from wham_data.inference.tokenizer import load_tokenizer

        return load_tokenizer(self.tokenizer, self.device).decode


def requests_of(
    corpus: Corpus, batch: ClipBatch, form: ClipForm, decode: Decode | None
) -> Iterator[ClipRequest]:
    """The requests for the clips of a batch, in order. Arguments as for `pictures_of`."""
    for row, clips in batch.episodes:
        rate = corpus.info.rate
        if not isinstance(rate, Fraction):
            rate = Fraction(row.source_fps).limit_denominator(1001)
        if form.sent_as == "mp4" and rate <= 0:
            raise UsageError(
                f"{row.episode}: its steps per second are not known, so its clips cannot be sent as "
                "videos; use --as sheet"
            )
        for clip, pictures in pictures_of(corpus, row, clips, form, decode):
            yield ClipRequest(clip, form.part(pictures, rate))
