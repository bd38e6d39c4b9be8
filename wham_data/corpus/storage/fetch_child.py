"""The child process of `forked_fetch`: it reads requests on stdin and fetches files into the cache.

Request, one line:  [location, cache folder, cache bytes, file name, SHA-256, first byte, byte after]
Answer, one line:   null, or [name of the error's class, message]
"""

from __future__ import annotations

import json
import signal
import sys

from wham_data.corpus.storage.cache import Cache
from wham_data.corpus.storage.object_store import ObjectStorage
from wham_data.schemas.errors import WhamDataError


def main() -> None:
    """Answer requests until stdin is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    for line in sys.stdin:
        location, folder, most_bytes, name, sha256, start, stop = json.loads(line)
        storage = ObjectStorage(location, Cache.of_user(folder, most_bytes))
        failure = None
        try:
            part = None if stop is None else range(start, stop)
            storage.file(name, lambda sha256=sha256: sha256, part)  # type: ignore[misc]
        except WhamDataError as error:
            failure = [type(error).__name__, str(error)]
        print(json.dumps(failure), flush=True)


if __name__ == "__main__":
    main()
