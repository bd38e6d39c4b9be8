"""Asking an object store, with patience: the one home of `obstore`.

The client's own retries are off: after one of them nobody could tell our put from another's. What
may go well next time is asked again here, at random and growing distances; what will not get better
is told at once.
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
"""Bytes per second below which an upload is given up as stuck."""
DENIED: Final = {401, 403}
DENIED_CODES: Final = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"}
PASSING: Final = {408, 425, 429}
NO_BUCKET: Final = "NoSuchBucket"
ROLE_ADDRESS: Final = "169.254.169.254"

Answer = TypeVar("Answer")
Request = Callable[[Any, Any], Answer]
"""What to do with `obstore` and its store for a location."""


class AgainError(Exception):
    """An answer that makes sense only as one of a bad moment."""


def ask(location: str, where: str, request: Request[Answer], n_bytes: int = 0) -> Answer:
    """The answer to a request, which is made again while there is hope.

    Args:
        location: of the corpus, a URL.
        where: what the request is about, for messages.
        request: may raise `AgainError`.
        n_bytes: that go up with it.

    Raises:
        FileNotFoundError: the store says that there is nothing under this name.
        WhamDataError: it refuses, or did not answer in time.
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
    """Whether this process was forked from one that had asked a store, and so cannot itself."""
    return _Process.was_forked


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What a failed request says of itself.

    status  of HTTP; None: there was no answer
    code    of the store
    text    one line
    """

    status: int | None
    code: str | None
    text: str

    @classmethod
    def of(cls, error: BaseException) -> _Trouble:
        """Read from the message, which is all that the client gives."""
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
        """Whether it may go well next time."""
        return self.status is None or self.status >= 500 or self.status in PASSING

    def __str__(self) -> str:
        return f"{self.text}, {self.code}" if self.code else self.text


class _Process:
    """What this process may do: Tokio, on which the client runs, does not survive a fork."""

    has_asked = False
    was_forked = False

    @classmethod
    def after_fork(cls) -> None:
        """In the new process."""
        cls.was_forked = cls.has_asked


os.register_at_fork(after_in_child=_Process.after_fork)


def _client(location: str, request_s: float) -> tuple[Any, Any]:
    """`obstore`, and its store for a location whose requests may take so long.

    Raises:
        WhamDataError: this process was forked after a store had been used.
        UsageError: the variables make no sense.
    """
    if _Process.was_forked:
        raise WhamDataError(
            f"{location}: this process was forked from one that had used an object store, whose "
            "client does not survive it; start processes with spawn"
        )
    _Process.has_asked = True
    # A power of two, so that there are few clients, each with its open connections.
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
                # Whoever names an endpoint without TLS means it: a server on the same machine.
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
