"""A Ray session: a new cluster on this machine, or one that is running.

What can go wrong is found before Ray is asked, because Ray itself tries for more than a minute, or ends in
a traceback: nobody at the address, no token or a wrong one, a folder that cannot be written to.

Ray listens on all network interfaces, so a cluster of our own requires a token, which is new in every run.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from wham_data.inference.device import HIDDEN
from wham_data.schemas.errors import UsageError, WhamDataError, short_message

DEFAULT_FOLDER: Final = Path("/tmp")
"""Not TMPDIR, which may be long: the paths of Unix sockets must be short."""
PREFIX: Final = "wd-ray-"
LOCK: Final = "in-use"
LONGEST_FOLDER: Final = 32
"""Ray adds 74 characters to it, and the path of a Unix socket may have 107."""
LEAST_FREE: Final = 64 << 20
ANSWER_SECONDS: Final = 5.0
TRIAL_SECONDS: Final = 30.0
TRIAL: Final = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
WITNESS: Final = "import sys; sys.stdin.buffer.read() or sys.stderr.write(sys.argv[1])"
ENDED_AT_ONCE: Final = (
    "wham-data: the run ended at once: its process was killed, or the process of Ray on this machine (the "
    "raylet) died. What was done is kept. To go on, run the same command again\n"
)
MODE: Final = "RAY_AUTH_MODE"
TOKEN: Final = "RAY_AUTH_TOKEN"


@contextlib.contextmanager
def connected(
    address: str | None, cpus: int | None, temp_dir: Path | None, card: str | None = None
) -> Iterator[Any]:
    """A Ray session.

    Args:
        address: of a running cluster; None: a new cluster on this machine, which requires a token.
        cpus: of a new cluster; None: those of this machine.
        temp_dir: where a new cluster keeps its logs and sockets; None: in /tmp.
        card: the only GPU that a new cluster has, as CUDA_VISIBLE_DEVICES names it; None: all.

    Raises:
        UsageError: the folder cannot be used.
        WhamDataError: nobody answers at the address, or the token is refused.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints dead workers to stdout, among our own output; we report them ourselves.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    # Otherwise Ray hides the GPUs from a whole worker as soon as it runs a task without a GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        with (
            _variables({} if card is None else {HIDDEN: card}),
            _own_token(),
            own_folder(temp_dir or DEFAULT_FOLDER) as folder,
        ):
            yield from _session(
                address="local",
                num_cpus=cpus or os.cpu_count(),
                include_dashboard=False,
                _temp_dir=str(folder),
                configure_logging=True,
            )
    else:
        try_address(address)
        yield from _session(address=address)


def _session(**options: Any) -> Iterator[Any]:
    import ray

    _read_token_again()
    try:
        with _sigterm_stays_ours():
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            except (OSError, RuntimeError, ray.exceptions.RayError) as error:
                raise WhamDataError(f"Ray did not start: {short_message(error)}") from error
        with _witness():
            yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _witness() -> Iterator[None]:
    """Have it said if this process ends at once: Ray ends it without a word if its raylet dies."""
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", WITNESS, ENDED_AT_ONCE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # not for Ctrl-C
    ) as witness:
        try:
            yield
        finally:
            assert witness.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                witness.stdin.write(b"ended")
                witness.stdin.close()


@contextlib.contextmanager
def _own_token() -> Iterator[None]:
    """Require a token during the block: a new one, unless the caller has chosen one, or a mode."""
    own = {MODE: os.environ.get(MODE, "token")}
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        own[TOKEN] = os.environ.get(TOKEN, secrets.token_hex(32))
    with _variables(own):
        yield


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment during the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def _read_token_again() -> None:
    """Let Ray read mode and token anew; it reads them when it is imported, and keeps them."""
    with contextlib.suppress(
        ImportError, AttributeError
    ):  # Ray's own way to do it has no public name
        from ray import _raylet

        inside: Any = _raylet
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A new folder for the files of a cluster, removed at the end, as are those of killed runs.

    Raises:
        UsageError: the parent's path is too long, or it cannot be written to, or it is full.
    """
    other = "Choose another folder with --ray-temp-dir"
    if len(str(parent.absolute())) > LONGEST_FOLDER:
        raise UsageError(
            f"{parent}: too long for the folder of Ray, whose sockets need short paths (at most "
            f"{LONGEST_FOLDER} characters). {other}"
        )
    try:
        free = shutil.disk_usage(parent).free
        if free < LEAST_FREE:
            raise UsageError(
                f"{parent}: {free >> 20} MiB free, but Ray needs {LEAST_FREE >> 20} MiB for its logs "
                f"and sockets. {other}"
            )
        remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent.absolute()))
        lock = (folder / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise UsageError(
            f"{parent}: Ray needs a folder for its logs and sockets, but here: "
            f"{error.strerror or error}. {other}"
        ) from error
    try:
        with lock:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove the folders of runs that were killed. A run that is alive holds a lock in its folder."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)


def try_address(address: str) -> None:
    """Connect to a cluster in a process of its own, which can be given up.

    Raises:
        WhamDataError: nobody answers, the token is missing or wrong, or Ray refuses to connect.
    """
    if address != "auto":
        _answers(address, address)
    with subprocess.Popen(
        [sys.executable, "-c", TRIAL, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as trial:
        assert trial.stderr is not None
        try:
            _judge(address, trial, trial.stderr)
        finally:
            trial.kill()


def _judge(address: str, trial: subprocess.Popen[str], said: IO[str]) -> None:
    """Wait for the end of a trial, or for what shows that it will fail."""
    timer = threading.Timer(TRIAL_SECONDS, trial.kill)
    timer.start()
    started, last = time.monotonic(), ""
    try:
        for line in said:
            last = line.strip() or last
            if "InvalidAuthToken" in line or "AuthenticationError" in line:
                raise WhamDataError(f"--ray-address {address}: {token_problem()}")
            found = re.search(r"existing Ray cluster at address: ([^\s]+:\d+)", line)
            if found:
                _answers(found[1], address)
    finally:
        timer.cancel()
    if trial.wait() == 0:
        return
    if time.monotonic() - started >= TRIAL_SECONDS:
        last = f"no answer of Ray within {TRIAL_SECONDS:g} s"
    why = last.rpartition("Error: ")[2][:200].rstrip(".")
    raise WhamDataError(f"--ray-address {address}: {why}. Is a cluster running? `ray status` tells")


def _answers(address: str, given: str) -> None:
    """Check that somebody listens at HOST:PORT.

    Raises:
        WhamDataError: nobody does.
        UsageError: this is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--ray-address {given}: expected auto or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        named = address if address == given else f"{given}, which is {address}"
        raise WhamDataError(
            f"--ray-address {named}: nobody answers ({getattr(error, 'strerror', None) or error}). "
            "Expected the head node of a running cluster (`ray start --head`)"
        ) from None


def token_problem() -> str:
    """Which token was refused, and what to do."""
    if os.environ.get(MODE, "token") != "token":
        used = f"no token was sent, because RAY_AUTH_MODE is {os.environ[MODE]}"
    elif TOKEN in os.environ:
        used = "the token in RAY_AUTH_TOKEN is refused"
    elif path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        used = f"the token in {path} (RAY_AUTH_TOKEN_PATH) is missing or refused"
    else:
        used = "the cluster requires a token, and there is none in RAY_AUTH_TOKEN_PATH"
    return (
        f"{used}. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with the token of the cluster "
        "(docs/cluster.md)"
    )


@contextlib.contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Restore the handler of SIGTERM after Ray starts; Ray's handler exits with other codes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, ours)
