"""What a forked process cannot use. A fork copies the memory of a process, but not its threads.

polars gives nearly all its work to a pool of threads and waits for them. If the pool was started
before the fork, a process waits for ever. The runtime of `deltalake` notices the fork and panics,
with an error that `except Exception` does not catch. pyarrow starts its threads anew, so what needs
to work after a fork uses pyarrow.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from wham_data.schemas.errors import UsageError

_TASKS: Final = Path("/proc/self/task")
_NAME_BYTES: Final = 15
"""Linux keeps this many bytes of a thread's name."""


class _Process:
    """What is known of this process.

    forked       it was forked, itself or a process before it, after this module was loaded
    polars_lost  polars had started its threads in the process that it was forked from
    """

    forked = False
    polars_lost = False
    polars_runs = False

    @classmethod
    def before_fork(cls) -> None:
        """Called in the process that forks."""
        cls.polars_runs = "polars" in sys.modules and _has_polars_threads()

    @classmethod
    def after_fork(cls) -> None:
        """Called in the new process."""
        cls.forked, cls.polars_lost = True, cls.polars_lost or cls.polars_runs


os.register_at_fork(before=_Process.before_fork, after_in_child=_Process.after_fork)


def was_forked() -> bool:
    """Whether this process was forked, so that `deltalake` may not work in it."""
    return _Process.forked


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


def _has_polars_threads() -> bool:
    """Whether the thread pool of polars has been started. Unknown without /proc: True."""
    try:
        names = {(task / "comm").read_text().strip() for task in _TASKS.iterdir()}
    except FileNotFoundError:
        # A thread ended meanwhile, or there is no /proc.
        return True
    first = f"{os.environ.get('POLARS_THREAD_NAME', 'polars')}-0"
    return first.encode()[:_NAME_BYTES].decode(errors="ignore") in names
