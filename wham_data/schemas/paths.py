"""Paths as people write them, and paths of what lies on an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from wham_data.schemas.errors import UsageError

OBJECT_STORES: Final = ("s3", "gs")
_URL: Final = re.compile(rf"({'|'.join(OBJECT_STORES)}):/+(.*)", re.DOTALL)
_IN_STORE: Final = tuple(f"/{scheme}:/" for scheme in OBJECT_STORES)


def expanded(path: str | os.PathLike[str]) -> str:
    """A path in which `~` at the start stands for the home folder, as in a shell.

    A shell leaves it alone in `--out=~/corpus`, in variables and in files. Only `~` and `~/...` count;
    a folder that is really called `~` is `./~`. Other paths, and URLs, stay as they are.

    Raises:
        UsageError: this system knows no home folder.
    """
    text = os.fspath(path)
    if text != "~" and not text.startswith("~/"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise UsageError(
            f"{text}: no home folder is known; set HOME, or give a full path"
        ) from None


def store_path(location: str | os.PathLike[str]) -> Path | None:
    """The path by which an object, or a folder of them, is known in this program; None: no URL.

    `s3://bucket/folder/a.mp4` is `/s3:/bucket/folder/a.mp4`. Nothing lies on the disk there.

    Raises:
        UsageError: the URL has no bucket, or its path has an empty, `.` or `..` part.
    """
    url = _URL.fullmatch(os.fspath(location))
    if url is None:
        return None
    parts = url[2].removesuffix("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UsageError(
            f"{url[0]}: expected {url[1]}://bucket/folder, without empty, . or .. parts"
        )
    return Path("/", f"{url[1]}:", *parts)


def source_path(source: str | os.PathLike[str]) -> Path:
    """The absolute path of an input: of a file or folder as it is named, or that of `store_path`.

    Raises:
        UsageError: as `store_path`.
    """
    return store_path(source) or Path(source).absolute()


def is_in_store(path: Path) -> bool:
    """Whether a path is one of `store_path`."""
    return str(path).startswith(_IN_STORE)


def told(path: Path) -> str:
    """How a path is shown to a person: the URL of what is on an object store."""
    text = str(path)
    return text[1:].replace(":/", "://", 1) if text.startswith(_IN_STORE) else text
