"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path

from wham_data.schemas.errors import UsageError


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
