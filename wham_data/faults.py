"""Named points at which this process can be made to fail, for tests of what a crash leaves behind.

    WHAM_DATA_FAULT=POINT[~TEXT][@N]:ACTION[:FILE]

ends the process that reaches POINT for the N-th time (default: the first) while it works on
something whose name holds TEXT. With FILE it happens once in all processes together: whoever makes
that file is the one. Without the variable a point costs one comparison.

    kill      SIGKILL to itself, as by the kernel out of memory, or by a power cut
    segfault  SIGSEGV to itself, as in a codec
    hang      never comes back
    bomb      takes memory until there is none
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Final

VARIABLE: Final = "WHAM_DATA_FAULT"
RECORDING_POINTS: Final = ("recording.open", "recording.decode")
NAME_POINTS: Final = ("name.begun", "name.written", "name.linked", "name.published")
"""Whatever a corpus gets, a shard, a log entry, goes through these; `about` is its name there."""
POINTS: Final = (*RECORDING_POINTS, *NAME_POINTS)

_SPEC: Final = re.compile(
    r"(?P<point>[a-z.]+)(~(?P<about>[^@:]*))?(@(?P<nth>\d+))?"
    r":(?P<action>kill|segfault|hang|bomb)(:(?P<once>.+))?"
)
_fault = os.environ.get(VARIABLE)
_reached: Final = Counter[str]()


def arm(fault: str) -> None:
    """Let this process, and those that it starts, fail as the variable would."""
    global _fault
    os.environ[VARIABLE] = _fault = fault


def fault_point(name: str, about: str = "") -> None:
    """A place to fail at; `about` names what is being worked on."""
    if _fault is not None:
        _reach(name, about, _fault)


def _reach(name: str, about: str, fault: str) -> None:
    spec = _SPEC.fullmatch(fault)
    if spec is None or spec["point"] not in POINTS:
        raise ValueError(f"{VARIABLE}={fault}: expected POINT[~TEXT][@N]:ACTION[:FILE]")
    if name != spec["point"] or (spec["about"] or "") not in about:
        return
    _reached[name] += 1
    if _reached[name] != int(spec["nth"] or 1) or not _first(spec["once"]):
        return
    match spec["action"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            while True:
                signal.pause()
        case "bomb":
            taken = []
            while True:
                taken.append(bytes(range(256)) * 40_000)


def _first(file: str | None) -> bool:
    """Whether this process makes the file; True where there is none to be made."""
    try:
        if file is not None:
            Path(file).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
