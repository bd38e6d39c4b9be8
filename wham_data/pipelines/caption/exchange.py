"""One request over HTTP, within limits: time, size of the answer, no redirect, no proxy.

The address is the user's; what answers there is not trusted. A redirect is never followed, so the key
goes nowhere else.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from wham_data.schemas.errors import UsageError, WhamDataError, printable

PATH: Final = "/chat/completions"
MOST_ANSWER_BYTES: Final = 1 << 20
CONNECT_SECONDS: Final = 10.0
LOCAL: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class Unanswered(Exception):
    """A request that got no complete answer; another try may get one. The message has one line.

    code  "timeout", "connection" or "too_large"
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Untrusted(Exception):
    """The server's certificate does not show that it is the server it should be."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where chat completions are.

    path  with a slash in front
    """

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in a URL such as http://localhost:8000/v1.

        Raises:
            UsageError: it is no URL of http or https, or it holds a user name, a query or a fragment.
        """
        where = f"--endpoint {printable(url)[:200]}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"--endpoint: no URL: {printable(str(error))[:100]}") from None
        if (
            parts.username is not None
            or parts.password is not None
            or parts.query
            or parts.fragment
        ):
            raise UsageError(
                f"--endpoint: expected a URL such as http://{host or 'localhost:8000'}/v1, without a "
                "user, a password, ? or #. The address is stored with the corpus; a key comes from "
                "an environment variable (--key-env)"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError(f"{where}: expected a URL such as http://localhost:8000/v1")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError(f"{where}: expected a URL of plain ASCII letters")
        secure = parts.scheme == "https"
        path = parts.path.rstrip("/")
        return cls(
            secure,
            host,
            port or (443 if secure else 80),
            path if path.endswith(PATH) else path + PATH,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == (443 if self.secure else 80) else f":{self.port}"
        return f"http{'s' if self.secure else ''}://{host}{port}{self.path}"

    @property
    def is_open(self) -> bool:
        """Whether what is sent there can be read on the way: no TLS, to another machine."""
        return not self.secure and self.host not in LOCAL

    def check(self) -> None:
        """Connect once, to say at once that nothing answers there.

        Raises:
            WhamDataError: there is no connection.
        """
        try:
            socket.create_connection((self.host, self.port), CONNECT_SECONDS).close()
        except OSError as error:
            raise WhamDataError(
                f"--endpoint {self}: no connection ({error.strerror or error}). Is the server running, "
                "and is this its address?"
            ) from None


@dataclass(frozen=True, slots=True)
class Response:
    """What a server sent.

    wait_s    seconds after which it wants to be asked again; None: it does not say
    location  where it redirects to
    """

    status: int
    body: bytes
    wait_s: float | None = None
    location: str = ""


def post(address: Address, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Response:
    """Send a request and read the answer.

    Args:
        address: where to.
        body: of the request.
        headers: of the request.
        timeout_s: most seconds for all of it, however slowly the server sends.

    Raises:
        Unanswered: there is no connection, or no complete answer in time and size.
        Untrusted: the certificate of the server is not valid for it.
    """
    connection: HTTPConnection = (
        HTTPSConnection(
            address.host,
            address.port,
            timeout=timeout_s,
            context=ssl.create_default_context(),
        )
        if address.secure
        else HTTPConnection(address.host, address.port, timeout=timeout_s)
    )
    over = threading.Event()
    started = time.monotonic()
    watch: threading.Timer | None = None
    try:
        connection.connect()
        reached = connection.sock

        def cut() -> None:
            over.set()
            with suppress(OSError):
                reached.shutdown(socket.SHUT_RDWR)

        left = max(timeout_s - (time.monotonic() - started), 0.001)
        watch = threading.Timer(left, cut)
        watch.daemon = True
        watch.start()
        connection.request("POST", address.path, body, dict(headers))
        answer = connection.getresponse()
        content = answer.read(MOST_ANSWER_BYTES + 1)
        wait_s = seconds_to_wait(answer.getheader("Retry-After"))
        location = answer.getheader("Location") or ""
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(printable(str(error.verify_message))[:200]) from None
    except (OSError, HTTPException, ValueError) as error:
        if over.is_set() or isinstance(error, TimeoutError):
            raise Unanswered("timeout", _late(timeout_s)) from None
        why = printable(str(error) or type(error).__name__)[:200]
        raise Unanswered("connection", f"the connection broke: {why}") from None
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()
    if over.is_set():
        raise Unanswered("timeout", _late(timeout_s))
    if len(content) > MOST_ANSWER_BYTES:
        raise Unanswered("too_large", f"an answer of more than {MOST_ANSWER_BYTES:,} bytes")
    return Response(answer.status, content, wait_s, printable(location))


def _late(timeout_s: float) -> str:
    return f"no complete answer within {timeout_s:g} s (--timeout)"


def seconds_to_wait(header: str | None) -> float | None:
    """The seconds in a `Retry-After` header, which holds a number or a date; None: neither."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
