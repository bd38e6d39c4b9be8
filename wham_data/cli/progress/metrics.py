"""Numbers of a run for Prometheus, at http://127.0.0.1:PORT/metrics while it lasts (`--metrics-port`).

The page is in Prometheus' text format 0.0.4. It is served on the loopback interface alone, because it
asks for no password: only programs on this machine can read it.
"""

from __future__ import annotations

import socketserver
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Literal

from wham_data import __version__
from wham_data.cli.console import say
from wham_data.inference.device import gpu_busy
from wham_data.pipelines.run.progress import Event, Number, Progress
from wham_data.schemas.errors import UsageError, short_message

HOST: Final = "127.0.0.1"
PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE_SECONDS: Final = 5.0
"""A client that sends nothing for this time is dropped."""
POLL_SECONDS: Final = 0.1
"""The end of a run waits for the server at most this long."""

Kind = Literal["counter", "gauge"]


class Metrics:
    """A listener that keeps the numbers of a run, for a server in another thread.

    A counter of Prometheus must not go down. If frames have to be made again and are taken back, the
    page keeps the largest value until the run is beyond it.

    Args:
        command: name of the command that runs.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._started = self._grew = time.monotonic()
        self._progress: Progress | None = None
        self._most: dict[str, float] = {}

    def progressed(self, progress: Progress) -> None:
        """See `ProgressListener.progressed`."""
        with self._lock:
            if progress is not self._progress:  # a run may have several jobs; each counts from 0
                self._progress, self._most = progress, {}
            self._note(progress)

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:
        """Does nothing, because the progress counts everything."""

    def page(self) -> str:
        """The numbers as they are now, in the text format of Prometheus."""
        busy = [({"gpu": str(number)}, share) for number, share in gpu_busy().items()]
        with self._lock:  # the run waits for it, so nothing slow is done here
            families = [*self._families()]
        if busy:
            families.append(family("gpu_busy_ratio", GPU_HELP, "gauge", *busy))
        return "".join(families)

    def _note(self, progress: Progress) -> None:
        """Keep the largest values, and the time at which one of them grew."""
        refused = Number(progress.refusal, progress.refused, "")
        for each in (*numbers_of(progress), refused):
            if each.grows and each.value > self._most.get(each.name, 0):
                self._most[each.name] = each.value
                self._grew = time.monotonic()

    def _families(self) -> Iterator[str]:
        now, progress = time.monotonic(), self._progress
        about = {"command": self._command, "version": __version__}
        yield family("run_info", "Always 1; the labels say what runs.", "gauge", (about, 1))
        yield family("run_seconds", "Time since the run began.", "gauge", ({}, now - self._started))
        if progress is not None:
            self._note(progress)
            for each in numbers_of(progress):
                value = self._most.get(each.name, 0) if each.grows else each.value
                yield family(
                    each.name, each.help, "counter" if each.grows else "gauge", ({}, value)
                )
            counts = [({"reason": why}, n) for why, n in sorted(dict(progress.reasons).items())]
            yield family(progress.refusal, REFUSED_HELP, "counter", *counts)
        last = "Time since a count of this run last grew."
        yield family("since_progress_seconds", last, "gauge", ({}, now - self._grew))


REFUSED_HELP: Final = "Inputs of this run that were refused or failed, by the code of the reason."
GPU_HELP: Final = "Share of the last moment in which a GPU of this machine worked, 0 to 1."


def numbers_of(progress: Progress) -> Iterator[Number]:
    """All numbers of a job, except for what was refused or failed."""
    unit, (done, planned), left = progress.unit, progress.counts, progress.seconds_left
    yield Number(f"{unit}_done", done, f"Number of {unit} that are done.")
    yield Number(
        f"{unit}_planned",
        planned,
        f"Number of {unit} to do in this run, those done included.",
        False,
    )
    yield Number("progress_ratio", progress.share, "Share of the run that is done, 0 to 1.", False)
    if left is not None:
        yield Number("left_seconds", left, "Time left, at the average speed so far.", False)
    yield from progress.numbers


def family(name: str, help: str, kind: Kind, *samples: tuple[Mapping[str, str], float]) -> str:
    """The lines of one metric.

    Args:
        name: without `wham_data_`, and without the `_total` at the end of a counter.
        help: what it is.
        kind: "counter" or "gauge".
        samples: labels and value of each.
    """
    full = f"wham_data_{name}_total" if kind == "counter" else f"wham_data_{name}"
    text = help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
    for labels, value in samples:
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{full}{{{pairs}}} {value!r}" if pairs else f"{full} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """The value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@contextmanager
def served(port: int, command: str) -> Iterator[tuple[Metrics, str]]:
    """Serve the numbers of a run until the block ends.

    Args:
        port: 0: a free one.
        command: name of the command that runs.

    Yields:
        The listener, and the URL of the page.

    Raises:
        UsageError: the port cannot be opened.
    """
    metrics = Metrics(command)
    try:
        server = _Server((HOST, port), partial(_Answer, metrics))
    except OSError as error:
        raise UsageError(
            f"--metrics-port {port}: cannot listen on {HOST}:{port} ({error.strerror}). Choose another "
            "port, or 0 for a free one"
        ) from None
    with server:
        threading.Thread(
            target=server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True
        ).start()
        try:
            yield metrics, f"http://{HOST}:{server.server_address[1]}{PATH}"
        finally:
            server.shutdown()


class _Server(socketserver.ThreadingTCPServer):
    """Answers each client in a thread of its own, which nothing waits for."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say what went wrong, unless the client just went away."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            say(
                f"{PATH} failed: {type(error).__name__}: {short_message(error)}",
                "warning",
                "warning",
            )


class _Answer(BaseHTTPRequestHandler):
    """Answers one request: `GET /metrics`, and nothing else."""

    timeout = PATIENCE_SECONDS

    def __init__(self, metrics: Metrics, *about: Any) -> None:
        self._metrics = metrics
        super().__init__(*about)

    def do_GET(self) -> None:
        """Send the page."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, f"only {PATH} is here")
            return
        page = self._metrics.page().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def version_string(self) -> str:
        """The name of the server, without the version of Python."""
        return "wham-data"

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""
