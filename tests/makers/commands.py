"""The `wham-data` of this checkout, run in a process of its own or in this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import IO
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def command(arguments: Sequence[str | Path]) -> list[str]:
    """The command line that runs `wham-data` with this interpreter."""
    start = "from wham_data.cli.main import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


def run_apart(
    arguments: Sequence[str | Path], environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, to its end. Its imports take a second or two."""
    return subprocess.run(
        command(arguments),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=100,
        check=False,
    )


def run_python(code: str, folder: Path, **variables: str) -> str:
    """What a Python text prints in a process of its own, where nothing has set torch's threads."""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return ended.stdout.strip()


def run_here(
    arguments: Sequence[str | Path], environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, to its end, with what is imported already.

    The environment, the working folder, the signal handlers and both streams are its own for as
    long as it runs. What C libraries and child processes print is in the result, too.
    """
    from wham_data.cli.main import main

    words = ["wham-data", *map(str, arguments)]
    with (
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as told,
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", words),
        contextlib.chdir(cwd or Path.cwd()),
        handlers_kept(),
    ):
        with printed_to("stdout", 1, said, "strict"), printed_to("stderr", 2, told, None):
            code = exit_code(main)
        out, error = (text_of(each) for each in (said, told))
    return subprocess.CompletedProcess(words, code, out, error)


def exit_code(program: Callable[[], None]) -> int:
    """Run a program as the interpreter does: what it exits with, 1 behind a traceback."""
    try:
        program()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def printed_to(stream: str, number: int, file: IO[bytes], errors: str | None) -> Iterator[None]:
    """Send a stream and its file descriptor to a file."""
    getattr(sys, stream).flush()
    before = os.dup(number)
    os.dup2(file.fileno(), number)
    text = TextIOWrapper(
        open(number, "wb", closefd=False),  # noqa: SIM115  # a descriptor, not a path
        encoding="utf-8",
        errors=errors or "backslashreplace",
        write_through=True,
    )
    try:
        with patch.object(sys, stream, text):
            yield
        if not text.closed:
            text.flush()
    finally:
        os.dup2(before, number)
        os.close(before)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the signal handlers that a command replaces."""
    kept = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "surrogateescape")
