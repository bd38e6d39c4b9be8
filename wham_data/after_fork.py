"""What a forked process cannot use. A fork copies the memory of a process, but not its threads.

polars gives nearly all its work to a pool of threads and waits for them. If the pool was started
before the fork, a process waits for ever. The runtime of `deltalake` notices the fork and panics,
with an error that `except Exception` does not catch. pyarrow starts its threads anew, so what needs
to work after a fork uses pyarrow.

`import wham_data` loads this module, so that it knows of forks before a corpus is opened.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from wham_data.schemas.errors import UsageError

_TASKS: Final = Path("/proc/self/task")
_NAME_BYTES: Final = 15
"""Linux keeps this many bytes of a thread's name."""


class _Process:
    """Whether this process was forked from one in which a library had started its threads.

    Of both libraries: it runs in this process; it is lost, because it ran before a fork.
    """

    polars_runs = polars_lost = False
    deltalake_runs = deltalake_lost = False

    @classmethod
    def before_fork(cls) -> None:
        """Called in the process that forks."""
        if "polars" in sys.modules:
            name = os.environ.get("POLARS_THREAD_NAME", "polars")
            cls.polars_runs = _has_thread(f"{name}-", numbered=True)
        if "deltalake" in sys.modules:
            cls.deltalake_runs = cls.deltalake_runs or _has_thread("tokio-")

    @classmethod
    def after_fork(cls) -> None:
        """Called in the new process."""
        cls.polars_lost |= cls.polars_runs
        cls.deltalake_lost |= cls.deltalake_runs


os.register_at_fork(before=_Process.before_fork, after_in_child=_Process.after_fork)


def use_deltalake() -> bool:
    """Whether `deltalake` can work on tables in this process; if so, it is taken to be used from now on."""
    _Process.deltalake_runs = True
    return not _Process.deltalake_lost


def check_polars(what: str) -> None:
    """Raise an error if polars would wait for ever in this process.

    Args:
        what: what needs polars, for the message.

    Raises:
        UsageError: this process was forked from one in which polars had started its threads.
    """
    if _Process.polars_lost:
        raise UsageError(
            f"{what} cannot be used in this process: it was forked from one that had used polars, and "
            'the threads of polars do not exist after a fork; start workers with "spawn" or "forkserver" '
            "(DataLoader: multiprocessing_context), or read with WindowDataset, Corpus.read_episode or "
            "Corpus.manifest_columns, which work after a fork"
        )


def _has_thread(name: str, *, numbered: bool = False) -> bool:
    """Whether this process has a thread whose name begins so. Without /proc: True.

    Args:
        name: beginning of the name. Only a thread that has done something has got its name.
        numbered: a number follows.
    """
    start = name.encode()[:_NAME_BYTES]
    try:
        tasks = list(_TASKS.iterdir())
    except FileNotFoundError:
        return True
    for task in tasks:
        with suppress(OSError):  # the thread has ended
            found = (task / "comm").read_bytes().strip()
            rest = found.removeprefix(start)
            if found.startswith(start) and (not numbered or not rest or rest[:1].isdigit()):
                return True
    return False
