"""Fault points: places where a test can make this process crash, to check what a crash leaves.

    WHAM_DATA_FAULT=POINT[~TEXT][@N]:ACTION[:FILE]

The process does ACTION when it reaches POINT for the N-th time (default: the first time) while it
works on something whose name contains TEXT. With FILE the fault happens in one process only: the
first that creates this file. Without the variable a fault point costs one comparison.

    kill      the process sends itself SIGKILL, as the kernel does when memory runs out
    segfault  the process sends itself SIGSEGV, as a crash in a codec does
    hang      the process waits forever
    bomb      the process allocates memory until there is none left
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
"""Every file that is put into a corpus passes these points; `about` is its name in the corpus."""
POINTS: Final = (*RECORDING_POINTS, *NAME_POINTS)

_SPEC: Final = re.compile(
    r"(?P<point>[a-z.]+)(~(?P<about>[^@:]*))?(@(?P<nth>\d+))?"
    r":(?P<action>kill|segfault|hang|bomb)(:(?P<once>.+))?"
)
_fault = os.environ.get(VARIABLE)
_reached: Final = Counter[str]()


def arm(fault: str) -> None:
    """Set the fault for this process and for the processes that it starts.

    Args:
        fault: as the value of WHAM_DATA_FAULT.
    """
    global _fault
    os.environ[VARIABLE] = _fault = fault


def fault_point(name: str, about: str = "") -> None:
    """Fail here if WHAM_DATA_FAULT says so.

    Args:
        name: one of POINTS.
        about: name of the recording or file that is being worked on.

    Raises:
        ValueError: the value of WHAM_DATA_FAULT cannot be understood.
    """
    if _fault is not None:
        _reach(name, about, _fault)


def _reach(name: str, about: str, fault: str) -> None:
    spec = _SPEC.fullmatch(fault)
    if spec is None or spec["point"] not in POINTS:
        raise ValueError(f"{VARIABLE}={fault}: expected POINT[~TEXT][@N]:ACTION[:FILE]")
    if name != spec["point"] or (spec["about"] or "") not in about:
        return
    _reached[name] += 1
    if _reached[name] != int(spec["nth"] or 1) or not _creates(spec["once"]):
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
            blocks = []
            while True:
                blocks.append(bytes(range(256)) * 40_000)


def _creates(file: str | None) -> bool:
    """Create the file; False if another process has already done so. True without a file."""
    try:
        if file is not None:
            Path(file).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
