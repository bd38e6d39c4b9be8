"""Progress of a long run, for the person or the program that watches it.

drawn.py       for a person: a live block on a terminal, plain lines elsewhere
json_lines.py  for a program that reads stderr: one JSON object per event
metrics.py     for a program that asks: numbers at http://127.0.0.1:PORT/metrics
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from wham_data import __version__
from wham_data.cli.console import LogFormat, log, say
from wham_data.cli.progress import drawn
from wham_data.cli.progress.json_lines import JsonLines
from wham_data.pipelines.run.progress import ProgressListener, Silent, Together
from wham_data.schemas.errors import UsageError

REPORT_EVERY_SECONDS = 10.0


@contextmanager
def shown(
    command: str = "",
    *,
    quiet: bool,
    verbose: bool,
    report_every: float = REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: int | None = None,
) -> Iterator[ProgressListener]:
    """A listener to hand to any job: it shows what it hears until the block ends.

    Args:
        command: name of the command.
        quiet: show no progress and no messages.
        verbose: draw every message, not warnings alone. JSON has every message in any case.
        report_every: shortest time between two lines of progress, in seconds; not on a terminal,
            where progress is drawn all the time.
        log_format: "json" as far as stderr was set to it, see `console.write_log_as`.
        metrics_port: port that serves numbers; 0: a free one; None: none.

    Raises:
        UsageError: the port cannot be opened, or `report_every` is not a time.
    """
    if not report_every >= 0:
        raise UsageError(f"--report-every {report_every}: expected a time from 0 on, in seconds")
    with ExitStack() as stack:
        listeners: list[ProgressListener] = []
        url = None
        if metrics_port is not None:
            from wham_data.cli.progress.metrics import served  # a web server, which few runs need

            metrics, url = stack.enter_context(served(metrics_port, command))
            listeners.append(metrics)
        if log_format == "json":
            log("start", f"{command} begins", command=command, version=__version__, metrics=url)
        elif url is not None:
            say(f"metrics: {url}")
        if not quiet:
            listeners.append(
                stack.enter_context(JsonLines(report_every))
                if log_format == "json"
                else stack.enter_context(drawn.for_a_person(verbose=verbose, every=report_every))
            )
        yield Together(*listeners) if listeners else Silent()
