"""A server on this machine that speaks OpenAI's chat completions, and misbehaves when told to."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 1000, "completion_tokens": 20}


@dataclass(frozen=True)
class Asked:
    """A request as it came.

    headers  by their names in small letters
    body     the JSON
    number   count of requests before it
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int

    @property
    def media(self) -> tuple[str, bytes]:
        """The kind of the clip's data URL, and its bytes."""
        part = self.body["messages"][0]["content"][1]
        head, _, data = part[part["type"]]["url"].partition(",")
        return head, base64.b64decode(data)


class Handler(BaseHTTPRequestHandler):
    """Answers one request as the server is told; a `Behaviour` has it as its first argument."""

    server: VisionServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = self.server.note(self.path, headers, json.loads(content))
        self.server.behave(self, asked)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """Send a whole answer. An underscore in the name of a header stands for a dash."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


Behaviour = Callable[[Handler, Asked], None]


class VisionServer(ThreadingHTTPServer):
    """The server; `asked` holds every request so far."""

    daemon_threads = True

    def __init__(self, behave: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    def note(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Asked:
        with self._lock:
            self.asked.append(Asked(path, headers, body, len(self.asked)))
            return self.asked[-1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no matter."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def completion(
    text: str | None, finish: str | None = "stop", usage: object = USAGE, **message: object
) -> bytes:
    """The body of a chat completion."""
    return json.dumps(
        {
            "id": "x",
            "model": "tiny-vl-1",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text, **message},
                }
            ],
            **({} if usage is None else {"usage": usage}),
        }
    ).encode()


def answers(text: str | None, finish: str | None = "stop", **more: Any) -> Behaviour:
    """Always the same completion."""
    return lambda handler, _: handler.send(200, completion(text, finish, **more))


def replies(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Always the same answer."""
    return lambda handler, _: handler.send(status, body, **headers)


def numbered(handler: Handler, asked: Asked) -> None:
    """Text N for request N."""
    handler.send(200, completion(f"Text {asked.number}."))


def first(*behaviours: Behaviour, then: Behaviour = numbered) -> Behaviour:
    """One behaviour for each of the first requests, then another."""

    def behave(handler: Handler, asked: Asked) -> None:
        (behaviours[asked.number] if asked.number < len(behaviours) else then)(handler, asked)

    return behave


@dataclass
class Held:
    """A behaviour that answers nothing until it is let go."""

    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, handler: Handler, asked: Asked) -> None:
        self.go.wait(30)
        numbered(handler, asked)


@contextmanager
def vision_server(behave: Behaviour = numbered) -> Iterator[VisionServer]:
    """A server that lives for as long as the block."""
    server = VisionServer(behave)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
