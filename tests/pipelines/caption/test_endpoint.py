"""Whatever a server does, a clip gets a finished answer or a named failure, and the key goes nowhere else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.vision_server import (
    Asked,
    Behaviour,
    Handler,
    VisionServer,
    answers,
    completion,
    first,
    numbered,
    replies,
    vision_server,
)

from wham_data.corpus.captions.answers import MOST_CHARACTERS, Usage
from wham_data.pipelines.caption.endpoint import (
    Endpoint,
    EndpointSettings,
    Failure,
    Gate,
    Reply,
    answer_in,
)
from wham_data.pipelines.caption.exchange import MOST_ANSWER_BYTES, Address, seconds_to_wait
from wham_data.schemas.errors import UsageError, WhamDataError

KEY = "sk-secret-0123456789"
CLIP = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def endpoint(url: str, **changes: Any) -> Endpoint:
    usual = {"model": "tiny-vl", "timeout_s": 5, "retries": 2, "first_wait_s": 0.01}
    return Endpoint(EndpointSettings(url=url, **{**usual, **changes}), "What happens?")


@contextmanager
def asking(
    behave: Behaviour, **changes: Any
) -> Iterator[tuple[Reply | Failure, Usage, VisionServer]]:
    with vision_server(behave) as server:
        yield *endpoint(server.url, **changes).ask(CLIP), server


def drop(handler: Handler, _: Asked) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def half(handler: Handler, _: Asked) -> None:
    """Break off in the middle of the body."""
    body = completion("Half.")
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def drip(handler: Handler, _: Asked) -> None:
    """Send a byte now and then, for ever."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        return


def endless(handler: Handler, _: Asked) -> None:
    """Send more than anybody wants."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(64):
            handler.wfile.write(b"x" * (MOST_ANSWER_BYTES // 16))
    except OSError:
        return


def no_http(handler: Handler, _: Asked) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def echo(handler: Handler, asked: Asked) -> None:
    """Repeat the key in the answer."""
    handler.send(200, completion(f"You sent {asked.headers['authorization']}."))


def test_a_request_holds_the_prompt_the_clip_and_the_settings() -> None:
    changes = {"seed": 7, "max_tokens": 50, "fields": {"top_p": 0.5, "temperature": None}}
    with asking(numbered, **changes) as (reply, usage, server):
        assert (reply, usage) == (Reply("Text 0.", "tiny-vl-1"), Usage(1000, 20))
        (asked,) = server.asked
        assert asked.path == "/v1/chat/completions"
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.body == {
            "model": "tiny-vl",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What happens?"}, CLIP]}
            ],
            "max_tokens": 50,
            "seed": 7,
            "top_p": 0.5,
        }


def test_without_a_key_none_is_sent() -> None:
    with asking(numbered, key_env="") as (_, _, server):
        assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    "trouble",
    [
        replies(429, b"", Retry_After="0"),
        replies(500, b"oops"),
        replies(502, b"<html>bad gateway"),
        replies(503, b"", Retry_After="soon"),
        replies(408),
        drop,
        half,
        no_http,
        replies(200, b"{"),
        replies(200, b"null"),
        replies(200, b'{"choices": []}'),
        replies(200, b'{"choices": [{"message": {"content": 5}}]}'),
        replies(200, b'{"choices": [{"message": null}]}'),
        replies(200, b"[" * 100_000),
        replies(200, b'{"choices": NaN}'),
        answers(""),
        answers(None),
        answers(" \n\t\u200e"),
    ],
)
def test_after_trouble_that_may_pass_it_asks_again(trouble: Behaviour) -> None:
    with asking(first(trouble)) as (reply, _, server):
        assert reply == Reply("Text 1.", "tiny-vl-1")
        assert len(server.asked) == 2


def test_a_server_that_is_too_slow_is_asked_again() -> None:
    with asking(first(drip), timeout_s=0.4) as (reply, _, server):
        assert reply == Reply("Text 1.", "tiny-vl-1")
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        (
            replies(429, b'{"error": {"message": "slow down"}}', Retry_After="0"),
            "rate_limit",
            "slow",
        ),
        (replies(500, b'{"detail": "no memory"}'), "server_error", "HTTP 500: no memory (3 tries)"),
        (drop, "connection", "connection broke"),
        (replies(200, b"{"), "bad_answer", "JSON"),
        (replies(200, b'{"error": {"message": "busy"}}'), "bad_answer", "busy"),
        (answers(""), "empty", "empty"),
    ],
)
def test_trouble_that_stays_is_a_failure_after_all_tries(
    trouble: Behaviour, code: str, words: str
) -> None:
    with asking(trouble) as (failure, _, server):
        assert isinstance(failure, Failure)
        assert (failure.code, failure.stops, len(server.asked)) == (code, False, 3)
        assert words in str(failure)


@pytest.mark.parametrize(
    ("behave", "code", "words"),
    [
        (answers("A long", "length"), "cut_off", "--max-tokens"),
        (answers("A", "content_filter"), "content_filter", "filter"),
        (answers(None, "stop", refusal="I cannot."), "refused", "I cannot."),
        (answers("A", "tool_calls"), "bad_answer", "'tool_calls'"),
        (answers("x" * (MOST_CHARACTERS + 1)), "too_long", "4,001"),
        (answers("<think> The red"), "thinking", "enable_thinking"),
        (replies(400, b'{"error": {"message": "too large an image"}}'), "rejected", "too large an"),
        (replies(413, b"\x1b[2J<h1>413"), "rejected", "\\x1b[2J<h1>413"),
        (endless, "too_large", "1,048,576 bytes"),
        (echo, "key_in_answer", "repeats the key"),
    ],
)
def test_what_another_try_would_not_change_is_a_failure_at_once(
    behave: Behaviour, code: str, words: str
) -> None:
    with asking(behave) as (failure, _, server):
        assert isinstance(failure, Failure)
        assert (failure.code, failure.stops, len(server.asked)) == (code, False, 1)
        assert words in str(failure)
        assert KEY not in str(failure)


@pytest.mark.parametrize(
    ("behave", "code", "words"),
    [
        (replies(401, f'{{"error": "wrong key {KEY}"}}'.encode()), "not_allowed", "OPENAI_API_KEY"),
        (replies(403), "not_allowed", "OPENAI_API_KEY"),
        (replies(404, b"no such model"), "not_found", "no such model"),
        (
            replies(302, Location=f"http://127.0.0.1:9/{KEY}"),
            "redirect",
            "http://127.0.0.1:9/[key]",
        ),
    ],
)
def test_what_stops_every_request_stops_the_run(behave: Behaviour, code: str, words: str) -> None:
    with asking(behave) as (failure, _, server):
        assert isinstance(failure, Failure)
        assert (failure.code, failure.stops, len(server.asked)) == (code, True, 1)
        assert words in str(failure)
        assert KEY not in str(failure)


def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else() -> None:
    with vision_server() as other:
        for status in (301, 302, 307, 308):
            with asking(replies(status, Location=f"{other.url}/chat/completions")) as (
                failure,
                _,
                _,
            ):
                assert isinstance(failure, Failure)
                assert failure.code == "redirect"
        assert other.asked == []


def test_a_message_of_the_server_is_one_printable_line_without_the_key() -> None:
    said = f"a\r\nb\x07 {KEY} \u202e" + "x" * 5000
    with asking(replies(400, said.encode())) as (failure, _, _):
        text = str(failure)
        assert text.isprintable()
        assert len(text) <= 400
        assert "[key]" in text
        assert KEY[:12] not in text


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}, Usage(7, 2)),
        (None, Usage(unknown=1)),
        ({"prompt_tokens": "7", "completion_tokens": 2}, Usage(unknown=1)),
        ({"prompt_tokens": -7, "completion_tokens": 2}, Usage(unknown=1)),
        ({"prompt_tokens": True, "completion_tokens": 2.0}, Usage(unknown=1)),
        ([7, 2], Usage(unknown=1)),
    ],
)
def test_tokens_are_as_the_server_counts_them_or_not_known(usage: object, counted: Usage) -> None:
    with asking(answers("A.", usage=usage)) as (_, found, _):
        assert found == counted


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NAMES = st.sampled_from(
    ["choices", "message", "content", "finish_reason", "refusal", "usage", "prompt_tokens"]
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(
    ANYTHING | st.fixed_dictionaries({"choices": st.lists(ANYTHING, min_size=1), "usage": ANYTHING})
)
def test_any_json_is_an_answer_or_a_failure(body: object) -> None:
    usage, reply = answer_in(json.dumps(body).encode())

    assert usage.unknown in (0, 1)
    if isinstance(reply, Reply):
        assert 0 < len(reply.text) <= MOST_CHARACTERS
        reply.text.encode()


@given(st.binary())
def test_any_bytes_are_an_answer_or_a_failure(body: bytes) -> None:
    _, reply = answer_in(body)

    assert isinstance(reply, Failure)


@pytest.mark.parametrize("depth", [100, 300, 500, 900, 990, 5000])
def test_nesting_of_any_depth_is_a_failure_and_no_crash(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    wrapped = b'{"choices": [{"finish_reason": "stop", "message": {"refusal": %s}}]}' % deep
    for body in (wrapped, wrapped.replace(b"refusal", b"content"), b'{"error": %s}' % deep):
        with asking(replies(200, body), retries=0) as (failure, _, _):
            assert isinstance(failure, Failure)
        with asking(replies(400, body)) as (failure, _, _):
            assert isinstance(failure, Failure)


def test_the_tokens_of_tries_without_an_answer_count_too() -> None:
    with asking(first(answers(""))) as (_, usage, _):
        assert usage == Usage(2000, 40)
    with asking(answers("A", "length")) as (_, usage, _):
        assert usage == Usage(1000, 20)


def test_a_server_that_asks_to_wait_is_left_alone_for_so_long() -> None:
    started = time.monotonic()
    with asking(first(replies(429, Retry_After="1"))) as (reply, _, _):
        assert isinstance(reply, Reply)
        assert 1 <= time.monotonic() - started < 4


def test_the_time_to_wait_is_a_number_or_a_date() -> None:
    soon = datetime.fromtimestamp(time.time() + 30, UTC)
    waits = [seconds_to_wait(each) for each in ("5", "0.5", "-3", "inf", "soon", None)]

    assert waits == [5.0, 0.5, 0.0, None, None, None]
    assert seconds_to_wait(format_datetime(soon, usegmt=True)) == pytest.approx(30, abs=2)


def test_requests_keep_to_so_many_per_minute() -> None:
    gate = Gate(per_minute=600)
    started = time.monotonic()
    for _ in range(4):
        gate.enter()

    assert 0.3 <= time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("https://HOST/v1/chat/completions", "https://host/v1/chat/completions"),
        ("http://[::1]:8080", "http://[::1]:8080/chat/completions"),
    ],
)
def test_the_address_is_that_of_the_server_or_of_its_completions(url: str, address: str) -> None:
    assert str(Address.parse(url)) == address


@pytest.mark.parametrize(
    "url",
    [
        *(
            "localhost:8000",
            "ftp://host/v1",
            "http://",
            "http://host:99999/v1",
            "file:///etc/passwd",
        ),
        *(
            "http://me:sk-secret@host/v1",
            "http://host/v1?key=sk-secret",
            "http://host/v1#sk-secret",
        ),
        *("http://host/v1\r\nX: y", "http://h\u00f6st/v1", "http://[::1/v1", ""),
    ],
)
def test_another_address_is_refused_without_repeating_a_key(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        EndpointSettings(url=url, model="m")

    assert "sk-secret" not in str(refused.value)


def test_a_key_with_a_line_end_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\nX-Other: 1")

    with pytest.raises(UsageError, match="OPENAI_API_KEY") as refused:
        endpoint("http://localhost:9/v1")
    assert "sk-secret" not in str(refused.value)


def test_nothing_at_the_address_is_said_at_once() -> None:
    with vision_server() as server:
        gone = Address.parse(server.url)
    with pytest.raises(WhamDataError, match="Is the server running"):
        gone.check()
