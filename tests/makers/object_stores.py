"""A real object store on this machine for the tests, and buckets in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
from obstore.store import from_url

ENDPOINT = "WHAM_DATA_TEST_ENDPOINT"
"""The URL of another S3 server to test against, with AWS_* variables that let us in."""
BUCKET = "WHAM_DATA_TEST_BUCKET"
"""A bucket there, in which each test makes a folder of its own."""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


@contextmanager
def running_store(folder: Path) -> Iterator[str]:
    """The URL of a server that lives for as long as the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("ministack", path=str(Path(sys.executable).parent)) or "ministack"
    with (folder / "store.log").open("wb") as log:
        server = subprocess.Popen(
            [program],
            env={
                **os.environ,
                "BIND_HOST": "127.0.0.1",
                "SERVICES": "s3",
                "GATEWAY_PORT": str(port),
            },
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            until = time.monotonic() + 60
            while server.poll() is None and time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                raise RuntimeError(f"the store did not start: {(folder / 'store.log').read_text()}")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@dataclass(frozen=True)
class Bucket:
    """A place of a test's own on a server.

    url       of the server
    location  to put a corpus at
    """

    url: str
    location: str

    @property
    def raw(self) -> Any:
        """The store at this location, to change things behind everybody's back."""
        return from_url(self.location, endpoint=self.url, client_options={"allow_http": True})

    def put(self, folder: Path, name: str = "") -> str:
        """Copy a folder here, under a name; its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                below = path.relative_to(folder).as_posix()
                obstore.put(self.raw, f"{name}/{below}".lstrip("/"), path.read_bytes())
        return f"{self.location}/{name}".rstrip("/")

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder and all below it."""
        pages = obstore.list(self.raw, folder or None)
        return sorted(each["path"] for page in pages for each in page)


def make_bucket(url: str, name: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT")).close()
