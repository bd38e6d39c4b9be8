"""A vision-language model behind an OpenAI-compatible endpoint: requests, retries, and answers.

    Gate         when the next request may go: requests per minute, and pauses that the server asks for
    Endpoint     asks about one clip, again and again if that may help
    answer_in    what the body of an answer says; a text is taken only if the model finished it

Nothing of a server's answer is executed, formatted or followed. It may repeat the key; so the key is
taken out of every message, and an answer with the key in it is refused.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wham_data.corpus.captions.answers import MOST_CHARACTERS, Usage, plain_caption
from wham_data.pipelines.caption.exchange import Address, Response, Unanswered, Untrusted, post
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import UsageError, printable

LONGEST_WAIT_S: Final = 60.0
LONGEST_PAUSE_S: Final = 600.0
"""A server that wants to be left alone for longer is asked again after this time."""
MOST_MESSAGE: Final = 200
SHORTEST_SECRET: Final = 8
"""A key with fewer characters is a placeholder (EMPTY, none), which servers without keys want."""
NOT_HERE: Final = (404, 405, 410, 501)
NOT_ALLOWED: Final = (401, 402, 403)
LATER: Final = (408, 409, 425, 429)
ASKED_WRONGLY: Final = frozenset(("redirect", "not_allowed", "not_found", "certificate"))
"""Codes of failures that other options or another key would prevent."""
FINISHED: Final = ("stop", "eos", "end_turn", "", None)
OURS: Final = frozenset({"model", "messages", "stream", "n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """A model, where it is, and how it is asked.

    url          of the server, such as http://localhost:8000/v1
    model        name of the model there
    key_env      environment variable with the key; "": no key. The key itself is stored nowhere
    max_tokens   most tokens of an answer
    temperature  0: the likeliest answer
    seed         None: not sent
    fields       more fields of the request; null: leave this field out
    per_minute   most requests per minute, repeated ones too; None: no limit
    concurrent   requests at the same time
    timeout_s    most seconds for one request
    retries      how often to ask again
    first_wait_s  seconds before the first repetition; each further one waits twice as long

    Raises:
        UsageError: a value makes no sense.
    """

    url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 300
    temperature: float = 0.0
    seed: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    per_minute: float | None = None
    concurrent: int = 4
    timeout_s: float = 120.0
    retries: int = 5
    first_wait_s: float = 1.0

    def __post_init__(self) -> None:
        Address.parse(self.url)
        if not self.model.strip() or not self.model.isprintable() or len(self.model) > 300:
            raise UsageError("--model: expected the name of a model, as the server calls it")
        if taken := sorted(OURS & self.fields.keys()):
            raise UsageError(f"--field {taken[0]}: this field is filled by the command itself")

    def key(self) -> str:
        """The key from the environment; "": none.

        Raises:
            UsageError: it cannot be part of an HTTP header.
        """
        key = os.environ.get(self.key_env, "").strip() if self.key_env else ""
        if key and not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"the key in {self.key_env} has characters that a key cannot have, such as a line end "
                "in the middle; set the variable again"
            )
        return key


class Failure(Exception):
    """A clip that gets no text. The message has one line.

    code   a stable code, see docs/captions.md
    again  another try may help
    stops  no clip can get a text, so the run ends
    wait_s  seconds that the server asks to wait
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        again: bool = False,
        stops: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.again, self.stops, self.wait_s = code, again, stops, wait_s


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer.

    text   see `plain_caption`
    model  the name that the server gave; "": none
    """

    text: str
    model: str


class Gate:
    """Lets requests through: at most so many per minute, and none during a pause.

    Args:
        per_minute: None: no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._gap_s = 60 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = self._closed_until = 0.0

    def enter(self) -> None:
        """Wait until the next request may go."""
        with self._lock:
            at = max(time.monotonic(), self._next)
            self._next = at + self._gap_s
        while (left := max(at, self._closed_until) - time.monotonic()) > 0:
            time.sleep(left)

    def pause(self, seconds: float) -> None:
        """Let no request through for so long."""
        with self._lock:
            self._closed_until = max(self._closed_until, time.monotonic() + seconds)


class Endpoint:
    """Asks the model. Several threads may do so at once.

    Args:
        settings: where and how.
        prompt: the instruction that goes with each clip.
    """

    def __init__(self, settings: EndpointSettings, prompt: str) -> None:
        self._settings, self._prompt = settings, prompt
        self._address = Address.parse(settings.url)
        self._gate = Gate(settings.per_minute)
        self._key = settings.key()
        self._secret = len(self._key) >= SHORTEST_SECRET

    def ask(self, clip: Mapping[str, Any]) -> tuple[Reply | Failure, Usage]:
        """Ask about a clip until there is an answer, or no hope of one.

        Args:
            clip: the part of the message that holds its pictures.

        Returns:
            The answer or why there is none, and the tokens of all tries.
        """
        body = json.dumps(self._request(clip)).encode()
        spent = Usage()
        for attempt in range(self._settings.retries + 1):
            self._gate.enter()
            try:
                reply, usage = self._ask_once(body)
                return reply, spent + usage
            except _Counted as counted:
                failure, spent = counted.failure, spent + counted.usage
            if not failure.again or attempt == self._settings.retries:
                break
            if failure.wait_s is not None:
                self._gate.pause(min(failure.wait_s, LONGEST_PAUSE_S))
            else:
                wait_s = min(self._settings.first_wait_s * 2**attempt, LONGEST_WAIT_S)
                time.sleep(wait_s * random.uniform(0.75, 1.25))
        tries = f" ({attempt + 1} tries)" if attempt else ""
        return Failure(failure.code, f"{failure}{tries}", stops=failure.stops), spent

    def _request(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        settings = self._settings
        content = [{"type": "text", "text": self._prompt}, dict(clip)]
        request: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed,
            **settings.fields,
        }
        return {name: value for name, value in request.items() if value is not None}

    def _ask_once(self, body: bytes) -> tuple[Reply, Usage]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "wham-data",
            "Connection": "close",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        usage = Usage()
        try:
            response = post(self._address, body, headers, self._settings.timeout_s)
            self._check_status(response)
            usage, reply = answer_in(response.body)
            if isinstance(reply, Failure):
                raise reply
            if self._secret and self._key in f"{reply.text}\n{reply.model}":
                raise Failure("key_in_answer", "the answer repeats the key that was sent")
        except Unanswered as why:
            failure = Failure(why.code, self._safe(str(why)), again=why.code != "too_large")
        except Untrusted as why:
            message = f"{self._address}: its certificate is not trusted: {why}"
            failure = Failure("certificate", message, stops=True)
        except Failure as why:
            failure = Failure(
                why.code,
                self._safe(str(why)),
                again=why.again,
                stops=why.stops,
                wait_s=why.wait_s,
            )
        else:
            return reply, usage
        raise _Counted(failure, usage)

    def _check_status(self, response: Response) -> None:
        """Raise a `Failure` for every status but 200."""
        status = response.status
        if status == 200:
            return
        said = f"HTTP {status}{_said(response.body)}"
        if 300 <= status < 400:
            raise Failure(
                "redirect",
                f"{self._address} redirects to {response.location or 'an unnamed place'}, which is not "
                "followed, so that the key goes nowhere else. Give the address of the server itself "
                "with --endpoint",
                stops=True,
            )
        if status in NOT_ALLOWED:
            key = f"the key in {self._settings.key_env}" if self._key else "a request without a key"
            raise Failure(
                "not_allowed",
                f"{self._address} refuses {key}: {said}. Set the environment variable "
                f"{self._settings.key_env or 'that --key-env names'}",
                stops=True,
            )
        if status in NOT_HERE:
            raise Failure(
                "not_found",
                f"{self._address}: no chat completions, or no model {self._settings.model!r}, here: "
                f"{said}. --endpoint is often http://HOST:PORT/v1",
                stops=True,
            )
        if status in LATER or status >= 500:
            code = "rate_limit" if status == 429 else "server_error"
            raise Failure(code, said, again=True, wait_s=response.wait_s)
        raise Failure("rejected", f"the server rejects the request: {said}")

    def _safe(self, message: str) -> str:
        """A message for people and files: one line, without the key, cut."""
        plain = message.replace(self._key, "[key]") if self._secret else message
        return printable(" ".join(plain.split()))[: 2 * MOST_MESSAGE]


class _Counted(Exception):
    """A failure, and the tokens that the server counted for it."""

    def __init__(self, failure: Failure, usage: Usage) -> None:
        super().__init__(str(failure))
        self.failure, self.usage = failure, usage


def answer_in(body: bytes) -> tuple[Usage, Reply | Failure]:
    """What the body of a chat completion says.

    Returns:
        The tokens that the server counted, and the model's text or why there is none to take: the
        model did not finish it, was stopped or refused, or the body is no chat completion.
    """
    try:
        found = parse_json(body)
    except UsageError as error:
        return Usage(unknown=1), Failure("bad_answer", f"no JSON: {error}", again=True)
    choices = found.get("choices") if isinstance(found, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not (isinstance(found, dict) and isinstance(choice, dict) and isinstance(message, dict)):
        why = f"no chat completion{_said(body)}"
        return Usage(unknown=1), Failure("bad_answer", why, again=True)
    usage = _usage_in(found.get("usage"))
    return usage, _reply_in(choice, message, found.get("model"))


def _reply_in(
    choice: Mapping[str, Any], message: Mapping[str, Any], model: object
) -> Reply | Failure:
    finish, content = choice.get("finish_reason"), message.get("content")
    if finish == "length":
        return Failure("cut_off", "the answer was cut at its most tokens; raise --max-tokens")
    if finish == "content_filter":
        return Failure("content_filter", "the server's content filter stopped the answer")
    if refusal := message.get("refusal"):
        return Failure("refused", f"the model refuses: {plain_caption(str(refusal))}")
    if finish not in FINISHED:
        return Failure("bad_answer", f"the answer ended with {finish!r}, expected 'stop'")
    if content is not None and not isinstance(content, str):
        return Failure("bad_answer", "the content of the answer is no text", again=True)
    text = plain_caption(content or "")
    if not text:
        return Failure("empty", "the answer is empty", again=True)
    if len(text) > MOST_CHARACTERS:
        what = f"an answer of {len(text):,} characters, expected at most {MOST_CHARACTERS:,}"
        return Failure("too_long", what)
    if text.startswith("<think>"):
        return Failure(
            "thinking",
            "the answer begins with the model's thoughts (<think>); turn them off, such as with "
            "--field chat_template_kwargs='{\"enable_thinking\": false}', or let the server part them",
        )
    named = plain_caption(model) if isinstance(model, str) else ""
    return Reply(text, named if len(named) <= MOST_MESSAGE else "")


def _usage_in(found: object) -> Usage:
    match found:
        case {"prompt_tokens": asked, "completion_tokens": written} if all(
            type(each) is int and 0 <= each < 1 << 40 for each in (asked, written)
        ):
            return Usage(asked, written)
    return Usage(unknown=1)


def _said(body: bytes) -> str:
    """The message in the body of an error, for the end of a line."""
    try:
        found = parse_json(body)
    except UsageError:
        found = body.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        found = found.get(name, found) if isinstance(found, dict) else found
    text = " ".join(str(found).split())[:1000] if found else ""
    return f": {text}" if text else ""
