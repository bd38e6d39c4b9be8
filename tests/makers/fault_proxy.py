"""An HTTP proxy in front of an object store that lets chosen requests go wrong.

    with FaultProxy(store) as proxy:
        proxy.faults = [Fault("lost", method="PUT")]       # the first PUT is done, its answer is lost

What can go wrong: "slow" (answers after a while), "500" and "503" (not done), "500 after" (done all
the same), "409" (not done), "refused" (the connection is cut before anything), "lost" (done, then
cut), "cut" (half of the answer's body), "403", "expired", "no bucket", "flip" (a bit of what is put
is changed), "unconditional" (the condition of a put does not reach the store), "kill" and "kill
after" (the process that asks is killed before or after it is done). A put that is changed is signed
anew, with the AWS_* variables of this process: the store is to lie, not to find out.
"""

from __future__ import annotations

import http.client
import random
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import from_url

ANSWERS = {
    "500": (500, "InternalError"),
    "500 after": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "409": (409, "ConditionalRequestConflict"),
    "403": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "no bucket": (404, "NoSuchBucket"),
}
DONE_FIRST = ("500 after", "lost", "cut", "kill after")


@dataclass
class Fault:
    """What goes wrong with the next requests that fit.

    times   how many of them
    skip    how many before them go well
    method  None: any
    part    of the path and query
    """

    kind: str
    times: float = 1
    method: str | None = None
    part: str = ""
    skip: int = 0

    def meets(self, method: str, path: str) -> bool:
        """Whether it happens to this request, which is counted."""
        if self.method not in (None, method) or self.part not in path or self.times <= 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class FaultProxy:
    """Listens on a free port of this machine for as long as the block lasts.

    target   URL of the store
    faults   what goes wrong, the first one that fits
    share    of all requests that go wrong in a way drawn from `kinds`, by `seed`
    seen     every request: method and path
    victim   the process to be killed
    """

    target: str
    faults: list[Fault] = field(default_factory=list)
    share: float = 0.0
    kinds: tuple[str, ...] = ("500", "500 after", "503", "refused", "lost", "cut")
    seed: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    injected: int = 0
    victim: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        proxy = self
        self._random, self._turn = random.Random(self.seed), threading.Lock()

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault_for(self, method: str, path: str) -> str | None:
        with self._turn:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault.meets(method, path):
                    self.injected += 1
                    return fault.kind
            if self._random.random() < self.share:
                self.injected += 1
                return self._random.choice(self.kinds)
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.owner.fault_for(self.command, self.path)
        if fault == "slow":
            time.sleep(0.7)
        if fault in ("refused", "kill"):
            self._hang_up(fault)
            return
        if fault in ANSWERS and fault not in DONE_FIRST:
            self._answer(*ANSWERS[fault])
            return
        path, headers = self.path, dict(self.headers.items())
        if fault == "flip" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault in ("flip", "unconditional"):
            path, headers = self._signed_anew(), {}
            if fault == "flip" and (condition := self.headers["If-None-Match"]):
                headers["If-None-Match"] = condition
        store = http.client.HTTPConnection(urlsplit(self.owner.target).netloc, timeout=60)
        store.request(self.command, path, body, headers)
        answer = store.getresponse()
        content = answer.read()
        store.close()
        if fault in ("lost", "kill after"):
            self._hang_up(fault)
        elif fault == "500 after":
            self._answer(*ANSWERS[fault])
        else:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = content if self.command != "HEAD" else answer.getheader("Content-Length", "0")
            self.send_header("Content-Length", str(len(length)) if length is content else length)
            self.end_headers()
            if fault == "cut":
                content, self.close_connection = content[: len(content) // 2], True
            self.wfile.write(content)

    def _signed_anew(self) -> str:
        """Path and query of a put of this name that says nothing of body and headers."""
        bucket, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        store = from_url(
            f"s3://{bucket}", endpoint=self.owner.target, client_options={"allow_http": True}
        )
        signed = urlsplit(obstore.sign(store, "PUT", name, timedelta(minutes=1)))
        return f"{signed.path}?{signed.query}"

    def _hang_up(self, fault: str) -> None:
        self.close_connection = True
        if fault.startswith("kill") and self.owner.victim is not None:
            self.owner.victim.kill()

    def _answer(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
        content = b"" if self.command == "HEAD" else text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
