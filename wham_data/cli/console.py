"""How the commands speak: results on stdout (or one JSON object), everything else on stderr.

With `--log-format json` stderr is one JSON object per line; docs/watching-a-run.md describes them.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from wham_data.schemas.errors import StalledError, printable

LogFormat = Literal["text", "json"]
Level = Literal["info", "warning", "error"]
LEVEL_OF_EXIT: Mapping[int, Level] = {0: "info", 3: "warning"}
"""Exit code -> level of the last event; of all others it is an error."""


class _Stderr:
    """How this process writes on stderr.

    as_json  one JSON object per line
    report   the result of the command, for the last event
    """

    as_json = False
    report: Mapping[str, Any] | None = None
    lock = threading.Lock()


def write_log_as(log_format: LogFormat) -> LogFormat:
    """From now on, write stderr as text or as JSON."""
    _Stderr.as_json = log_format == "json"
    return log_format


def logs_json() -> bool:
    """Whether stderr is written as JSON."""
    return _Stderr.as_json


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result: `text` for a person, or `result` as exactly one JSON object."""
    _Stderr.report = result
    print(json.dumps(result, ensure_ascii=False, default=str) if as_json else text)


def say(line: str, event: str = "note", level: Level = "info") -> None:
    """Tell the person at the terminal something that is not the result; in JSON it is an event."""
    if _Stderr.as_json:
        log(event, line, level)
    else:
        print(line, file=sys.stderr, flush=True)


def log(event: str, message: str, level: Level = "info", **fields: Any) -> None:
    """Write one event as a line of JSON.

    Args:
        event: its name.
        message: what it is, for a person.
        level: "warning" or "error" if a person should know it.
        fields: more of it, as JSON can hold it.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    known = {"time": now, "event": event, "level": level, "message": printable(message)}
    line = json.dumps({**known, **fields}, default=str)
    with _Stderr.lock:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def log_ended() -> Iterator[None]:
    """Run a command. In JSON the last event of the log has its exit code, whatever happens."""
    write_log_as("text")
    _Stderr.report, started, code = None, time.monotonic(), 1
    try:
        yield
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except Exception as error:
        if not _Stderr.as_json:
            raise
        text = f"{type(error).__name__}: {error}"
        log("error", text, "error", traceback=traceback.format_exc())
        sys.exit(code)
    finally:
        if _Stderr.as_json and not sys.stderr.closed:
            log(
                "end",
                f"exit code {code}",
                LEVEL_OF_EXIT.get(code, "error"),
                exit_code=code,
                seconds=round(time.monotonic() - started, 3),
                report=_Stderr.report,
            )
        write_log_as("text")


@contextmanager
def resumable(kept: str) -> Iterator[None]:
    """If the block is interrupted, say what is kept and which command goes on.

    Args:
        kept: what is not lost, such as "what is written is kept".
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, StalledError) as end:
        why = "stopped" if isinstance(end, StalledError) else "interrupted"
        say(f"wham-data: {why}; {kept}. To go on, run the same command again:")
        say(f"  {shlex.join(['wham-data', *sys.argv[1:]])}")
        raise


def comma_list(text: str) -> list[str]:
    """The names in a text such as "train,val"; empty for an empty text."""
    return [name.strip() for name in text.split(",") if name.strip()]
