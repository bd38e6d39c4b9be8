"""Fetching for a process that was forked and so cannot talk to a store itself.

A child, started afresh, does it: a line of JSON asks for a copy, a line answers once it is in the
cache. It ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from wham_data.schemas import errors
from wham_data.schemas.errors import WhamDataError

if TYPE_CHECKING:
    from wham_data.corpus.storage.object_store import ObjectStorage


class _Fetcher:
    """The child of this process."""

    def __init__(self) -> None:
        self.owner, self.turn = os.getpid(), threading.Lock()
        self.child: subprocess.Popen[str] | None = None

    def ask(self, request: str) -> str:
        with self.turn:
            if self.child is None or self.child.poll() is not None:
                self.child = subprocess.Popen(
                    [sys.executable, "-m", "wham_data.corpus.storage.forked_fetch"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            assert self.child.stdin is not None
            assert self.child.stdout is not None
            self.child.stdin.write(request + "\n")
            self.child.stdin.flush()
            return self.child.stdout.readline()


_fetcher = _Fetcher()


def fetch(storage: ObjectStorage, name: str, sha256: str) -> None:
    """Have a file put into the cache.

    Raises:
        WhamDataError: whatever `ObjectStorage.file` raises in the child, or that it died.
    """
    global _fetcher
    if _fetcher.owner != os.getpid():
        _fetcher = _Fetcher()
    cache = storage.cache
    request = [storage.location, str(cache.folder), cache.most_bytes, name, sha256]
    try:
        answer = _fetcher.ask(json.dumps(request))
    except OSError:
        answer = ""
    if not answer:
        raise WhamDataError(f"{storage.where(name)}: the process that was to fetch it died")
    if (told := json.loads(answer)) is not None:
        kind, text = told
        raise getattr(errors, kind, WhamDataError)(text)


def main() -> None:
    """Fetch what is asked for on stdin, until it ends."""
    from wham_data.corpus.storage.cache import Cache
    from wham_data.corpus.storage.object_store import ObjectStorage

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    for line in sys.stdin:
        location, folder, most_bytes, name, sha256 = json.loads(line)
        storage = ObjectStorage(location, Cache.of_user(folder, most_bytes))
        failed = None
        try:
            storage.file(name, lambda sha256=sha256: sha256)  # type: ignore[misc]
        except WhamDataError as error:
            failed = [type(error).__name__, str(error)]
        print(json.dumps(failed), flush=True)


if __name__ == "__main__":
    main()
