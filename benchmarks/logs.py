"""Measure how fast controller logs are read, against pyarrow's own reading of the same file.

    python benchmarks/logs.py [--rows 200000] [--rounds 5]

The same log of a full pad, 200 rows a second, is written in several forms; the event log has as many
rows, each a change of one control. For each form the two take turns in one process, with one thread
each: ours reads the log into an action track (columns recognised, values and clock checked), pyarrow
reads the file into a table of the types that it finds out, and no more. The first turn of each does
not count. Prints a Markdown table of CPU seconds, and how many times as long ours takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from wham_data.pipelines.readers.video_log.controller_log import read_controller_log  # noqa: E402
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata  # noqa: E402
from wham_data.schemas.actions import load_space  # noqa: E402

SPACE = load_space("xinput")
ROW_NS = 5_000_000
FRAME_NS = 16_666_667
READ = {".csv": pc.read_csv, ".jsonl": pj.read_json, ".parquet": pq.read_table}
"""How pyarrow reads each form."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each log")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each reader that count")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    print(
        "| form | MB | rows | ours, CPU s | pyarrow, CPU s | ours / pyarrow |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="wham-data-logs-") as scratch:
        for name, path in written(Path(scratch), arguments.rows).items():
            print(row(name, path, arguments.rows, arguments.rounds), flush=True)


def row(name: str, path: Path, rows: int, rounds: int) -> str:
    """Let the two read a log in turns; return a row of the table."""
    end_ns = rows * ROW_NS
    frames_ns = np.arange(0, end_ns, FRAME_NS, dtype=np.int64)
    ours, theirs = [], []
    for _ in range(rounds + 1):
        ours.append(
            seconds_of(lambda: read_controller_log(path, LogMetadata(), SPACE, frames_ns, end_ns))
        )
        theirs.append(seconds_of(lambda: READ[path.suffix](path)))
    ours, theirs = ours[1:], theirs[1:]
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    return (
        f"| {name} | {path.stat().st_size / 1e6:.1f} | {rows} | {median(ours):.2f} | {median(theirs):.3f} "
        f"| {median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
    )


def seconds_of(read: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads together."""
    started = time.process_time()
    read()
    return time.process_time() - started


def written(folder: Path, rows: int) -> dict[str, Path]:
    """The log in each form: what it is called, and its file."""
    values = played(rows)
    times_ms = np.arange(rows) * ROW_NS / 1e6
    table = pa.table({"time_ms": times_ms, **dict(zip(SPACE.names, values.T, strict=True))})
    paths = {
        "CSV": folder / "log.csv",
        "JSON lines": folder / "log.jsonl",
        "Parquet": folder / "log.parquet",
        "event CSV": folder / "events.csv",
    }
    pc.write_csv(table, paths["CSV"], pc.WriteOptions(quoting_style="needed"))
    with paths["JSON lines"].open("w") as file:
        file.writelines(f"{json.dumps(each)}\n" for each in table.to_pylist())
    pq.write_table(table, paths["Parquet"])
    pc.write_csv(
        events(values, times_ms), paths["event CSV"], pc.WriteOptions(quoting_style="needed")
    )
    return paths


def played(rows: int) -> NDArray[np.float64]:
    """Values of a pad, float64 [rows, A], rounded to 3 digits: buttons held a while, sticks that wander."""
    rng = np.random.default_rng(1)
    values = np.zeros((rows, SPACE.size))
    for column, (low, high) in enumerate(SPACE.ranges().tolist()):
        if column in SPACE.of_kind("button"):
            values[:, column] = np.cumsum(rng.random(rows) < 0.01) % 2
        else:
            wave = np.sin(np.cumsum(rng.normal(0, 0.02, rows)))
            values[:, column] = (low + (high - low) * (wave + 1) / 2).round(3)
    return values


def events(values: NDArray[np.float64], times_ms: NDArray[np.float64]) -> pa.Table:
    """An event a row: the control that changes takes turns."""
    control = np.arange(len(values)) % SPACE.size
    return pa.table(
        {
            "time_ms": times_ms,
            "control": pa.array([SPACE.names[k] for k in control.tolist()]),
            "value": values[np.arange(len(values)), control],
        }
    )


if __name__ == "__main__":
    main()
