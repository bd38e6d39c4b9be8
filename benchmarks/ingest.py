"""Measure how fast recordings become a corpus, from start to end, and the memory needed.

    python benchmarks/ingest.py [--copies 8] [--tokenised-copies 2]

Runs the command on copies of the bundled gameplay, which differ in a few bytes, so that no copy counts
as a duplicate. There are runs without Ray and on Ray with two workers, without tokens and with
`wham-tiny`. Wall time is the time of the whole command, including the start of Python and Ray. Memory
is the largest resident size of the command's own process and of its largest child process, measured
ten times a second. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.processes import below  # noqa: E402
from makers.recordings import DEMO  # noqa: E402

FREE_BOX = b"\0\0\0\x08free"
"""An mp4 box without content."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: its report, wall seconds, and peak memory in MiB of the command and of a worker."""

    report: dict[str, float]
    seconds: float
    driver_mb: float
    worker_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--copies", type=int, default=8, help="copies of each recording in runs without tokens"
    )
    parser.add_argument(
        "--tokenised-copies", type=int, default=2, help="copies of each in runs with wham-tiny"
    )
    arguments = parser.parse_args()
    print(
        "| tokenizer | workers | hours of play | wall s | hours of play per hour | steps/s "
        "| source frames/s | command MB | largest worker MB |\n|---|---|---|---|---|---|---|---|---|"
    )
    for tokenizer, copies in (
        ("none", arguments.copies),
        ("wham-tiny", arguments.tokenised_copies),
    ):
        for workers in (0, 2):
            with tempfile.TemporaryDirectory(prefix="wham-data-ingest-") as folder:
                copy_demo(Path(folder) / "recordings", copies)
                print(
                    row(tokenizer, workers, measure(Path(folder), tokenizer, workers)), flush=True
                )


def copy_demo(folder: Path, copies: int) -> None:
    """Copy the demo recordings; each copy counts as a separate recording."""
    folder.mkdir()
    for video in DEMO.glob("*.mp4"):
        for number in range(copies):
            stem = f"{video.stem}{number:03}"
            (folder / f"{stem}.mp4").write_bytes(video.read_bytes() + number * FREE_BOX)
            for ending in (".csv", ".toml"):
                shutil.copy(video.with_suffix(ending), folder / f"{stem}{ending}")


def measure(folder: Path, tokenizer: str, workers: int) -> Measured:
    """Run the command once."""
    program = "from wham_data.cli.main import main; main()"
    command = [sys.executable, "-c", program, "ingest", folder / "recordings", "--json", "--quiet"]
    command += ["--out", folder / "corpus", "--tokenizer", tokenizer, "--workers", str(workers)]
    started = time.monotonic()
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as run:
        driver = worker = 0.0
        while run.poll() is None:
            driver = max(driver, resident_mb(run.pid))
            worker = max([worker, *map(resident_mb, below(run.pid))])
            time.sleep(0.1)
        seconds = time.monotonic() - started
        assert run.stdout is not None
        report = json.loads(run.stdout.read())
    assert run.returncode == 0
    return Measured(report, seconds, driver, worker)


def resident_mb(pid: int) -> float:
    """Largest resident size of a process so far, in MiB; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(float(line.split()[1]) / 1024 for line in status.splitlines() if "VmHWM" in line)


def row(tokenizer: str, workers: int, run: Measured) -> str:
    """A row of the table."""
    report = run.report
    return (
        f"| {tokenizer} | {workers} | {report['hours']:.3f} | {run.seconds:.1f} "
        f"| {report['hours'] * 3600 / run.seconds:.1f} | {report['steps'] / run.seconds:.0f} "
        f"| {report['frames_in'] / run.seconds:.0f} | {run.driver_mb:.0f} "
        f"| {f'{run.worker_mb:.0f}' if run.worker_mb else '-'} |"
    )


if __name__ == "__main__":
    main()
