"""Measure what it costs to find, identify and sort inputs: until the first frame, and with nothing to do.

    python benchmarks/plan.py --work FOLDER [--counts 10 2000 100000] [--before CHECKOUT]

Makes that many recordings of 0.6 s: one video under many names (hard links), each with a log and with
metadata of its own, a thousand in a folder. Every figure is of a process of its own, without tokens, and
but for the second without Ray:

    first frame   from the start of the process until the first frame is decoded, then it is stopped
    on Ray        the same where Ray is started for it; the CPU time has that of Ray and of the workers,
                  the memory is the driver's
    plan          all inputs found, identified and sorted, and nothing done
    nothing to do the corpus has every recording; after a run that left hints, and before

With --before, the same for another checkout of this package, which knows no hints, in turns. Prints a
Markdown table. Memory per recording is the growth of the peak from the smallest count to each other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PER_FOLDER = 1000
LINKS_EACH = 20_000
ROWS_AT_ONCE = 20_000

CHILD = '''
import json, os, sys, time
started = time.monotonic()
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import LocalRunner

what, source, out = sys.argv[1:]

told = []

def cpu_seconds():
    """CPU time of this process and of all below it, in seconds."""
    parents, used = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(name)] = int(fields[1])
        used[int(name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    ours = [os.getpid()]
    for process in ours:
        ours += [child for child, parent in parents.items() if parent == process]
    return sum(used[process] for process in ours)

def tell(**found):
    told.append(found)
    seconds = time.monotonic() - started
    cpu = cpu_seconds()
    with open("/proc/self/status") as status:  # ru_maxrss would have the parent's, too
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": peak / 1024, **found}))
    sys.stdout.flush()
    if what != "ray":
        os._exit(0)
    raise KeyboardInterrupt  # Ray's processes are to end, too

class Watch:
    def progressed(self, progress):
        if what in ("first", "ray") and progress.frames and not told:
            tell()
    def message(self, text, *, warning, event=None):
        pass

class Nothing:
    def run(self, stage, items, advance):
        for _ in items:
            pass
        return iter(())

runner = {"plan": Nothing, "ray": RayRunner}.get(what, LocalRunner)()
try:
    report = run_ingest([source], out, IngestSettings(tokenizer=None), runner, watch=Watch())
except KeyboardInterrupt:
    os._exit(0)
tell(found=report.found, ingested=report.ingested, known=report.already_there)
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for the inputs")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 2000, 100_000])
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--only", default="", help="only the runs whose name begins so")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT, **({"before": arguments.before} if arguments.before else {})}
    print(
        "| inputs | checkout | run | wall s | CPU s | CPU ms a recording | peak MB | KB a recording |"
    )
    print("|---|---|---|---|---|---|---|---|")
    least: dict[tuple[str, str], float] = {}
    for count in sorted(arguments.counts):
        source = arguments.work / f"in-{count}"
        if not source.exists():
            make(source, count)
        for checkout, root in checkouts.items():
            for run, figures in measured(root, source, arguments, count):
                smallest = least.setdefault((checkout, run), figures["mb"])
                print(
                    f"| {count:,} | {checkout} | {run} | {figures['seconds']:.1f} | "
                    f"{figures['cpu']:.1f} | {1000 * figures['cpu'] / count:.2f} | "
                    f"{figures['mb']:.0f} | {1024 * (figures['mb'] - smallest) / count:.2f} |",
                    flush=True,
                )


def measured(
    root: Path, source: Path, arguments: argparse.Namespace, count: int
) -> list[tuple[str, dict[str, Any]]]:
    """The runs of one checkout over one folder."""
    out, only = arguments.work / "corpus", arguments.only
    found = []
    for run, what in (
        ("first frame", "first"),
        ("first frame on Ray", "ray"),
        ("plan", "plan"),
    ):
        if run.startswith(only):
            shutil.rmtree(out, ignore_errors=True)
            found.append((run, child(root, what, source, out)))
    if not "nothing to do".startswith(only):
        return found
    shutil.rmtree(out, ignore_errors=True)
    fill(source, out)
    for run in ("nothing to do, no hints", "nothing to do")[root != ROOT :]:
        figures = child(root, "all", source, out)
        assert (figures["found"], figures["known"]) == (count, count), figures
        found.append((run, figures))
    return found


def child(root: Path, what: str, source: Path, out: Path) -> dict[str, Any]:
    """Run one process to its end."""
    command = [sys.executable, "-c", CHILD, what, str(source), str(out)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(command, env=env, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def make(folder: Path, count: int) -> None:
    """Make recordings, each with other bytes, a while ago."""
    from makers.recordings import Cut, cut

    seed = cut(folder.parent / "seed", "seed", Cut("coinrun", 1, 0.6))
    log = seed.with_suffix(".csv").read_text()
    for number in range(count):
        if number % LINKS_EACH == 0:
            video = folder.parent / "seed" / f"{folder.name}-{number}.mp4"
            shutil.copy(seed, video)
        inside = folder / f"part-{number // PER_FOLDER:05}"
        if number % PER_FOLDER == 0:
            inside.mkdir(parents=True)
        path = inside / f"play-{number:06}.mp4"
        os.link(video, path)
        path.with_suffix(".csv").write_text(log)
        path.with_suffix(".toml").write_text(f'actions = "xinput"\nmap = "{number}"\n')
    time.sleep(3)  # what was written a moment ago leaves no hint


def fill(source: Path, out: Path) -> None:
    """Make a corpus that has every recording: the first one really, the others in the manifest alone."""
    from wham_data.corpus import Corpus
    from wham_data.pipelines.ingest.job import ingest

    videos = sorted(source.rglob("*.mp4"))
    ingest([videos[0]], out=out, tokenizer=None, workers=0)
    corpus = Corpus.open(out)
    shutil.rmtree(out / "hints", ignore_errors=True)
    from wham_data.schemas.manifest import EpisodeRow

    table = corpus.manifest_columns(tuple(corpus.episodes.columns)).drop_columns(["created"])
    first = EpisodeRow.from_record(table.to_pylist()[0])
    rows = []
    for video in videos[1:]:
        files = (video.with_suffix(ending).read_bytes() for ending in (".mp4", ".csv", ".toml"))
        key = sha256(b"".join(sha256(each).digest() for each in files)).hexdigest()
        rows.append(replace(first, episode=f"{key[:24]}-0", recording=key, source=str(video)))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        corpus.commit(rows[start : start + ROWS_AT_ONCE])


if __name__ == "__main__":
    main()
