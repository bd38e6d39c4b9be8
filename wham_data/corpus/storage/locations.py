"""Open the storage for a location: a folder on this machine, or an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from wham_data.corpus.storage.contract import Storage
from wham_data.corpus.storage.local import LocalStorage
from wham_data.corpus.storage.object_store import ObjectStorage
from wham_data.schemas.errors import UsageError
from wham_data.schemas.paths import OBJECT_STORES, expanded

SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """The storage at a location. The location need not exist yet.

    Args:
        location: a path, which may start with `~/`, or `s3://bucket/folder` or `gs://bucket/folder`.
            `s3:/bucket/folder` with one slash, which `pathlib` makes of a URL, is understood too.

    Raises:
        UsageError: the URL has another scheme, or no bucket.
    """
    text = expanded(location)
    scheme = SCHEME.match(text)
    if scheme is None or scheme[1] == "file":
        return LocalStorage(Path(text[scheme.end() - 1 :] if scheme else text).absolute())
    if scheme[1] not in OBJECT_STORES:
        raise UsageError(f"{text}: expected a path, s3://bucket/folder or gs://bucket/folder")
    return ObjectStorage.at(scheme[1], text[scheme.end() :])


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is the URL of an object store, not a path."""
    scheme = SCHEME.match(os.fspath(location))
    return scheme is not None and scheme[1] in OBJECT_STORES
