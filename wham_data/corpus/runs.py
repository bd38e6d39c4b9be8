"""Reports of runs, for people: `runs/<id>.json`. They also tell which versions the tables have had.

Nothing else is decided on them but where to look for inputs again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wham_data.corpus.delta.actions import LOG, entry_name
from wham_data.corpus.delta.log import DeltaLog
from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.corpus_info import parse_json
from wham_data.schemas.errors import IntegrityError, RefusedInput, UsageError

RUNS: Final = "runs"
TABLES: Final = ("episodes", "quarantine")
MOST_RUN_BYTES: Final = 1 << 24
ENDED: Final = (0, RefusedInput.exit_code)


def record_run(storage: Storage, run: Mapping[str, Any]) -> str:
    """Write the report of a run to `runs/`, with the versions of the tables now as `log`.

    Returns:
        The name of the file there.
    """
    log = {table: DeltaLog(storage, table).files().newest for table in TABLES}
    text = json.dumps({**run, "log": log}, indent=2, ensure_ascii=False, default=str) + "\n"
    name = f"{uuid.uuid4().hex}.json"
    storage.put_if_absent(f"{RUNS}/{name}", text.encode("utf-8", "backslashreplace"))
    return name


def read_run(storage: Storage, name: str) -> dict[str, Any]:
    """One report.

    Raises:
        IntegrityError: it is damaged.
    """
    content = storage.read(f"{RUNS}/{name}", MOST_RUN_BYTES)
    try:
        run = parse_json(content)
    except UsageError as error:
        run, why = None, f" ({error})"
    else:
        why = ""
    if not isinstance(run, dict):
        raise IntegrityError(
            f"{storage.where(f'{RUNS}/{name}')}: damaged: {len(content)} bytes that are no report of a "
            f"run{why}. Copy this file again, or delete it"
        )
    return run


def runs(storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every report by the name of its file.

    Raises:
        IntegrityError: one is damaged.
    """
    for name in storage.list(RUNS):
        yield name, read_run(storage, name)


def a_run_has_ended(storage: Storage) -> bool:
    """Whether a run has done all it should, so that somebody may use the version it left.

    A damaged report counts as that of such a run.
    """
    for name in storage.list(RUNS):
        try:
            if read_run(storage, name).get("exit_code") in ENDED:
                return True
        except IntegrityError:
            return True
    return False


def problems_of_runs(storage: Storage) -> Iterator[str]:
    """The damaged reports, and the commits of which a report tells and the log does not."""
    reached = dict.fromkeys(TABLES, (-1, ""))
    for name in storage.list(RUNS):
        try:
            versions = _versions_in(read_run(storage, name))
        except IntegrityError as error:
            yield str(error)
            continue
        for table, version in versions.items():
            reached[table] = max(reached[table], (version, name))
    for table, (version, name) in reached.items():
        newest = DeltaLog(storage, table).files().newest
        if version > newest:
            first, others = entry_name(newest + 1), version - newest - 1
            yield (
                f"{storage.where(f'{table}/{LOG}/{first}')}: damaged: this log entry "
                f"{f'(and {others} after it) ' if others else ''}is missing, so a commit is lost: the "
                f"log ends with version {newest}, but the run {RUNS}/{name} left version {version}. "
                "Copy the file again from where it is whole"
            )


def check_runs(storage: Storage) -> None:
    """Make sure that no commit of which a report tells is lost.

    Raises:
        IntegrityError: one is, or a report is damaged.
    """
    for problem in problems_of_runs(storage):
        raise IntegrityError(problem)


def _versions_in(run: Mapping[str, Any]) -> dict[str, int]:
    """The versions of the tables at the end of a run; of an earlier release only that of `episodes`."""
    report, log = run.get("report"), run.get("log")
    found = {"episodes": report.get("version")} if isinstance(report, dict) else {}
    if isinstance(log, dict):
        found = {table: log.get(table) for table in TABLES}
    return {table: version for table, version in found.items() if isinstance(version, int)}
