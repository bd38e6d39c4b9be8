"""Fetching files for a forked process, which cannot use the client of an object store itself.

A new child process (`fetch_child.py`) does it. One line of JSON asks for a copy; one line answers
when the copy is in the cache. The child ends when its parent ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from wham_data.corpus.storage.cache import Cache
from wham_data.schemas import errors
from wham_data.schemas.errors import WhamDataError


class _Fetcher:
    """The child of this process."""

    def __init__(self) -> None:
        self.owner, self.turn = os.getpid(), threading.Lock()
        self.child: subprocess.Popen[str] | None = None

    def ask(self, request: str) -> str:
        with self.turn:
            if self.child is None or self.child.poll() is not None:
                self.child = subprocess.Popen(
                    [sys.executable, "-m", "wham_data.corpus.storage.fetch_child"],
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


def fetch_in_child(
    location: str, cache: Cache, name: str, sha256: str, part: range | None = None
) -> None:
    """Let the child process fetch a file into the cache.

    Args:
        location: URL of the corpus on its object store.
        cache: where the copy goes.
        name: name of the file in the corpus.
        sha256: expected hash of its bytes, hex digits.
        part: the bytes to fetch; None: all.

    Raises:
        WhamDataError: whatever `ObjectStorage.file` raises in the child, or the child died.
    """
    global _fetcher
    if _fetcher.owner != os.getpid():
        _fetcher = _Fetcher()
    start, stop = (part.start, part.stop) if part else (None, None)
    request = [location, str(cache.folder), cache.most_bytes, name, sha256, start, stop]
    try:
        answer = _fetcher.ask(json.dumps(request))
    except OSError:
        answer = ""
    if not answer:
        raise WhamDataError(f"{location}/{name}: the process that fetches it died")
    if (failure := json.loads(answer)) is not None:
        kind, text = failure
        raise getattr(errors, kind, WhamDataError)(text)
