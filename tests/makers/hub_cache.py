"""A folder of files laid out as the cache of a model hub: links in `snapshots/` to files in `blobs/`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def linked(link: Path, target: Path) -> Path:
    """A relative link, with the folders above it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
    return link


def as_hub_cache(source: Path, repository: Path) -> Path:
    """Copy a folder into a repository of a cache; returns its snapshot."""
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(each for each in source.rglob("*") if each.is_file())):
        blob = repository / "blobs" / f"{number:040x}"
        shutil.copy(file, blob)
        linked(snapshot / file.relative_to(source), blob)
    return snapshot
