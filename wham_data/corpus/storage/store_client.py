"""Requests to an object store, with retries. Only this module imports `obstore`.

The retries of the client itself are off: after such a retry we could not know whether our put or
another writer's had taken the name. Instead this module repeats a request that failed for a passing
reason, after random and growing waits. For every other failure it raises an error at once.
"""

from __future__ import annotations

import math
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar

from wham_data.schemas.errors import UsageError, WhamDataError

PATIENCE: Final = "WHAM_DATA_STORE_TIMEOUT"
DEFAULT_PATIENCE_S: Final = 60.0
TRIES: Final = 8
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 10.0
REQUEST_S: Final = 30.0
CONNECT_S: Final = 5.0
SLOWEST_UPLOAD: Final = 500_000
"""Bytes per second; a slower upload is given up as stuck."""
DENIED: Final = {401, 403}
DENIED_CODES: Final = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"}
PASSING: Final = {408, 425, 429}
NO_BUCKET: Final = "NoSuchBucket"
ROLE_ADDRESS: Final = "169.254.169.254"

Answer = TypeVar("Answer")
Request = Callable[[Any, Any], Answer]
"""A function that makes a request, given `obstore` and its store object for a location."""


class AgainError(Exception):
    """The answer to a request shows a passing failure, so the request must be repeated."""


def ask(location: str, where: str, request: Request[Answer], n_bytes: int = 0) -> Answer:
    """Make a request, repeat it after passing failures, and return the answer.

    Args:
        location: URL of the corpus.
        where: URL of the object that the request is about, for messages.
        request: makes the request; may raise `AgainError` to have it repeated.
        n_bytes: size of the upload in the request; a larger upload is given more time.

    Raises:
        FileNotFoundError: nothing has this name.
        WhamDataError: the store refuses, or did not answer in time.
    """
    upload_s = n_bytes / SLOWEST_UPLOAD
    patience_s = _patience_s() + upload_s
    api, store = _client(location, min(REQUEST_S, patience_s) + upload_s)
    began, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return request(api, store)
        except (FileNotFoundError, api.exceptions.BaseError, AgainError) as error:
            trouble = _Trouble.of(error)
            if trouble.code == NO_BUCKET:
                bucket = location.split("/")[2]
                raise WhamDataError(f"{where}: there is no bucket {bucket!r}") from None
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(where) from None
            if trouble.denied:
                raise WhamDataError(
                    f"{where}: access denied ({trouble}): the credentials are missing, expired or "
                    "do not allow it; docs/object-stores.md lists the variables"
                ) from None
            wait_s = random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**tries))
            waited_s = time.monotonic() - began
            left_s = patience_s - waited_s
            if not trouble.passing or tries >= TRIES or left_s <= 0:
                raise WhamDataError(
                    f"{where}: the store failed ({trouble}; {tries} tries in {waited_s:.0f} s, "
                    f"{PATIENCE} {patience_s:.0f}); run the same command again when it is back"
                ) from None
            time.sleep(min(wait_s, left_s))


def was_forked() -> bool:
    """Whether this process was forked from one that had used a store; it cannot use one itself."""
    return _Process.was_forked


@dataclass(frozen=True, slots=True)
class _Trouble:
    """The cause of a failed request.

    status  HTTP status; None: there was no answer
    code    error code of the store, such as `NoSuchBucket`; None: the answer has none
    text    description, one line
    """

    status: int | None
    code: str | None
    text: str

    @classmethod
    def of(cls, error: BaseException) -> _Trouble:
        """Parse the message of an error; the client gives no other details."""
        message = str(error).partition("\n\nDebug source")[0]
        if ROLE_ADDRESS in message:
            return cls(401, None, "none in the environment, and this machine has no role")
        status = re.search(r"status code: (\d{3})", message)
        code = re.search(r"<Code>(\w{1,60})</Code>", message)
        words = message.rpartition(" - ")[2].partition("<")[0].removeprefix("Server returned ")
        text = " ".join(words.split()).rstrip(":")[:160] or type(error).__name__
        return cls(int(status[1]) if status else None, code[1] if code else None, text)

    @property
    def denied(self) -> bool:
        """Whether the credentials are to blame."""
        return self.status in DENIED or self.code in DENIED_CODES

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status >= 500 or self.status in PASSING

    def __str__(self) -> str:
        return f"{self.text}, {self.code}" if self.code else self.text


class _Process:
    """Whether this process may use a store. The client runs on Tokio, which fails after a fork."""

    has_asked = False
    was_forked = False

    @classmethod
    def after_fork(cls) -> None:
        """Called in the new process."""
        cls.was_forked = cls.has_asked


os.register_at_fork(after_in_child=_Process.after_fork)


def _client(location: str, request_s: float) -> tuple[Any, Any]:
    """`obstore`, and its store object for a location.

    Args:
        location: URL of the corpus.
        request_s: time limit of a request in seconds.

    Raises:
        WhamDataError: this process was forked after a store had been used.
        UsageError: the environment variables are not valid.
    """
    if _Process.was_forked:
        raise WhamDataError(
            f"{location}: this process was forked from one that had used an object store, and the "
            "client of a store does not work after a fork; start processes with spawn"
        )
    _Process.has_asked = True
    # Rounded up to a power of two, so that few clients are made and connections are reused.
    return _connected(location, 2 ** math.ceil(math.log2(max(request_s, 1.0))))


@lru_cache(maxsize=64)
def _connected(location: str, request_s: float) -> tuple[Any, Any]:
    import obstore
    import obstore.exceptions
    from obstore.store import from_url

    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    try:
        store = from_url(
            location,
            client_options={
                # An endpoint without TLS is used only if the user names one, such as a local server.
                "allow_http": endpoint.startswith("http://"),
                "timeout": timedelta(seconds=request_s),
                "connect_timeout": timedelta(seconds=min(CONNECT_S, request_s)),
            },
            retry_config={"max_retries": 0},
        )
    except obstore.exceptions.BaseError as error:
        raise UsageError(f"{location}: {_Trouble.of(error)}") from error
    return obstore, store


def _patience_s() -> float:
    text = os.environ.get(PATIENCE, "")
    try:
        return float(text) if text else DEFAULT_PATIENCE_S
    except ValueError:
        raise UsageError(f"{PATIENCE}={text[:40]!r}: expected seconds") from None
