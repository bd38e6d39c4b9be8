"""What is costly to make is made once for all workers of a test run."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")


def made_once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What `make` returned for a folder, whichever worker came first; the others wait for it.

    Args:
        name: of the folder.
        make: fills the empty folder, and returns something to be pickled.
    """
    base = folders.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    result = run / f"{name}.pickle"
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            (run / name).mkdir()
            result.write_bytes(pickle.dumps(make(run / name)))
        made: Made = pickle.loads(result.read_bytes())
        return made
