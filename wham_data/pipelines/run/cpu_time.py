"""CPU time of a run: of this process and of all below it, as Linux tells it in /proc."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

LOOK_EVERY_SECONDS: Final = 1.0
PARENT, USER, SYSTEM, BEGUN = 1, 11, 12, 19
"""Columns of /proc/PID/stat after the name; see `man proc_pid_stat`."""


class CpuTime:
    """CPU time since it was made.

    A process that has ended counts with what it had used when it was last looked at.
    """

    def __init__(self) -> None:
        self._used: dict[tuple[int, str], float] = {}
        self._last_look = 0.0
        self.look(at_end=True)
        self._before = sum(self._used.values())

    def look(self, *, at_end: bool = False) -> None:
        """Look at all processes, at most once a second except at the end."""
        now = time.monotonic()
        if at_end or now - self._last_look > LOOK_EVERY_SECONDS:
            self._used.update(_below(os.getpid()))
            self._last_look = now

    def hours(self) -> float:
        """CPU hours so far."""
        self.look(at_end=True)
        return (sum(self._used.values()) - self._before) / 3600


def _below(root: int) -> dict[tuple[int, str], float]:
    """CPU seconds of a process and those below it, by number and time of start."""
    tick = os.sysconf("SC_CLK_TCK")
    found: dict[int, list[str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):  # it has just ended
            found[int(folder.name)] = (
                (folder / "stat").read_text("latin-1").rpartition(")")[2].split()
            )
    mine = {root}
    while more := {pid for pid, row in found.items() if int(row[PARENT]) in mine} - mine:
        mine |= more
    return {
        (pid, row[BEGUN]): (int(row[USER]) + int(row[SYSTEM])) / tick
        for pid, row in found.items()
        if pid in mine
    }
