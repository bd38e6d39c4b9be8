"""The processes below a command, to look at and to kill."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

RAY_TASK = b"ray::ingest"
"""How Ray titles the process that works on a recording."""


def below(pid: int) -> list[int]:
    """All processes below `pid`."""
    found = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [int(child), *below(int(child))]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def workers_of(pid: int) -> list[int]:
    """The processes below `pid` that work on a recording now."""
    return [each for each in below(pid) if title(each).startswith(RAY_TASK)]


def title(pid: int) -> bytes:
    """The command line of a process; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_for_worker(run: subprocess.Popen[Any]) -> None:
    """Wait until a recording is in work, or the command has ended."""
    while run.poll() is None and not workers_of(run.pid):
        time.sleep(0.01)


def kill_worker(run: subprocess.Popen[Any]) -> bool:
    """SIGKILL one process that works on a recording; whether there was one."""
    for pid in workers_of(run.pid)[:1]:
        os.kill(pid, signal.SIGKILL)
        return True
    return False
