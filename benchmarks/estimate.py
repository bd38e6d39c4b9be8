"""Measure how long a dry run takes on many recordings, and how far its estimate is from the truth.

    python benchmarks/estimate.py [--counts 10,2000,12000] [--truth 2000] [--ingest 200]

Makes 60 recordings of 0.6 to 3 s from the bundled gameplay, three of them torn, and copies them so
that each copy has other bytes. The command `wham-data ingest --dry-run` is timed as a whole on each
count, without Ray and without tokens. For `--truth` recordings the estimates of ten seeds are compared with
`--sample all`. `--ingest` recordings are ingested, to compare the CPU time and bytes too. Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.recordings import PLAIN, cut, cuts  # noqa: E402

from wham_data.pipelines.ingest.dry_run import Thoroughness, dry_run  # noqa: E402

FREE_BOX = b"\0\0\0\x08free"
"""An mp4 box without content."""
MADE = 60
TORN = (7, 22, 41)
SEEDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="10,2000,12000", help="recordings of the dry runs")
    parser.add_argument("--truth", type=int, default=2000, help="recordings that are all opened")
    parser.add_argument("--ingest", type=int, default=200, help="recordings that are ingested")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wham-data-estimate-") as folder:
        made = make(Path(folder) / "made")
        print("| recordings | opened | measured | wall s | CPU s |\n|---|---|---|---|---|")
        for count in map(int, filter(None, arguments.counts.split(","))):
            print(timed(copies(made, Path(folder) / str(count), count)), flush=True)
        if arguments.truth:
            print_errors(copies(made, Path(folder) / "truth", arguments.truth))
        if arguments.ingest:
            print_run(copies(made, Path(folder) / "ingest", arguments.ingest))


def make(folder: Path) -> list[Path]:
    """The recordings that are copied."""
    videos = []
    for number, piece in enumerate(cuts(MADE, 3.0)):
        length = 0.6 + 2.4 * (number * 37 % MADE) / MADE
        videos.append(cut(folder, f"play{number:02}", replace(piece, seconds=length)))
        if number in TORN:
            videos[-1].write_bytes(videos[-1].read_bytes()[:1500])
    return videos


def copies(made: list[Path], folder: Path, count: int) -> Path:
    """So many recordings, all different."""
    if not folder.exists():
        folder.mkdir()
        for number in range(count):
            video = made[number % len(made)]
            name = folder / f"{number:06}.mp4"
            name.write_bytes(video.read_bytes() + number // len(made) * FREE_BOX)
            for ending in (".csv", ".toml"):
                os.link(video.with_suffix(ending), name.with_suffix(ending))
    return folder


def command(folder: Path, *options: str) -> tuple[dict[str, Any], float, float]:
    """The result of `wham-data ingest`, wall seconds, and CPU seconds of it and its children."""
    program = "from wham_data.cli.main import main; main()"
    arguments = ["ingest", folder, "--out", f"{folder}.corpus", "--json", "--quiet", *options]
    begun, before = time.monotonic(), os.times()
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--tokenizer", "none", "--workers", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 3), run.returncode
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return json.loads(run.stdout), time.monotonic() - begun, cpu


def timed(folder: Path) -> str:
    """A row of the first table."""
    told, wall, cpu = command(folder, "--dry-run")
    seen = told["forecast"]
    return f"| {seen['of']} | {seen['sampled']} | {seen['measured']} | {wall:.1f} | {cpu:.1f} |"


def print_errors(folder: Path) -> None:
    """The second table: estimates of several seeds against the truth."""
    begun = time.monotonic()
    quick = Thoroughness(measure=0)
    truth = dry_run([folder], "nowhere", PLAIN, thoroughness=replace(quick, sample=None))
    took = time.monotonic() - begun
    told = [
        dry_run([folder], "nowhere", PLAIN, thoroughness=replace(quick, seed=seed)).forecast
        for seed in range(SEEDS)
    ]
    print(f"\n{truth.forecast.of} recordings, all opened in {took:.0f} s; {SEEDS} seeds\n")
    print("| | truth | mean error | largest error | half of the range | in the range |")
    print("|---|---|---|---|---|---|")
    for name in ("steps", "hours", "bytes", "refused"):
        true = getattr(truth.forecast, name).estimate
        each = [getattr(one, name) for one in told]
        off = [abs(one.estimate / true - 1) for one in each]
        half = [(one.high - one.low) / 2 / true for one in each]
        inside = sum(one.low <= true <= one.high for one in each)
        print(
            f"| {name} | {true:,.2f} | {sum(off) / SEEDS:.1%} | {max(off):.1%} "
            f"| {sum(half) / SEEDS:.1%} | {inside} of {SEEDS} |"
        )


def print_run(folder: Path) -> None:
    """The third table: an estimate beside the run."""
    told, _, _ = command(folder, "--dry-run", "--sample", "50")
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(told))
    report, _, _ = command(folder, "--estimate", str(path))
    print(f"\n{told['forecast']['of']} recordings, 50 opened, then all ingested\n")
    print("| | estimate | low | high | took | took / estimate |\n|---|---|---|---|---|---|")
    for name, each in report["against_estimate"].items():
        print(f"| {name} | " + " | ".join(map(figure, figures(each))) + " |")


def figures(each: dict[str, Any]) -> Iterator[float | None]:
    """The columns of a row."""
    yield from (each[name] for name in ("estimate", "low", "high", "took", "ratio"))


def figure(value: float | None) -> str:
    """A number of a table."""
    return "-" if value is None else f"{value:,.4g}"


if __name__ == "__main__":
    main()
