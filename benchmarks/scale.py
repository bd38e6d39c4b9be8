"""Measure what a very large corpus costs before a step is read: its manifest, by simulation.

    python benchmarks/scale.py [--episodes 1000000] [--steps-each 1000] [--commit 10000]

Commits rows of made-up episodes, through the real manifest, into a corpus whose shards are empty files
(256 MB of WHAM tokens each, had they been written). Then measures, each in a process of its own:
opening the corpus, listing every episode, finding which recordings are known, the summary of `info`,
and setting up a `WindowDataset`. Prints a Markdown table of wall and CPU seconds and of the
memory that the measurement added.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import wham_data  # noqa: E402
from wham_data.corpus import Corpus  # noqa: E402
from wham_data.schemas.actions import load_space  # noqa: E402
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo  # noqa: E402
from wham_data.schemas.manifest import EpisodeRow  # noqa: E402

SHARD_BYTES = 256_000_000
BYTES_PER_STEP = 2 * 540 + 4 * 16
PLAYERS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--steps-each", type=int, default=1_000)
    parser.add_argument("--commit", type=int, default=10_000, help="episodes per transaction")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(MEASUREMENTS[arguments.measure], arguments.corpus)))
        return
    with tempfile.TemporaryDirectory() as folder:
        location = Path(folder, "corpus")
        first, last, shards = fill(location, arguments)
        total = arguments.episodes * arguments.steps_each
        size = sum(p.stat().st_size for p in (location / "episodes").rglob("*") if p.is_file())
        print(
            f"{arguments.episodes:,} episodes, {total:,} steps, {shards:,} shards of 256 MB, manifest "
            f"{size / 1e6:,.0f} MB on disk; a transaction of {arguments.commit:,} episodes takes "
            f"{first:.2f} CPU s in the empty corpus and {last:.2f} in the full one\n"
        )
        print("| what | seconds | CPU s | MB |\n|---|---|---|---|")
        for name in MEASUREMENTS:
            command = [sys.executable, __file__, "--measure", name, "--corpus", str(location)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, cpu, megabytes = json.loads(output)
            print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {megabytes:.0f} |", flush=True)


def fill(location: Path, arguments: argparse.Namespace) -> tuple[float, float, int]:
    """Commit the episodes; CPU seconds of the first and the last transaction, and the count of shards."""
    info = CorpusInfo(
        action_space=load_space("wham16"),
        tokenizer=TokenizerInfo("made-up", "0" * 64, (18, 30), 4096, (300, 180)),
    )
    corpus = Corpus.create(location, info)
    together = max(1, SHARD_BYTES // (BYTES_PER_STEP * arguments.steps_each))
    spent: list[float] = []
    shards: set[str] = set()
    for begin in range(0, arguments.episodes, arguments.commit):
        numbers = range(begin, min(begin + arguments.commit, arguments.episodes))
        rows = [episode(number, together, arguments.steps_each, info) for number in numbers]
        for name in {row.shard for row in rows} - shards:
            shards.add(name)
            (location / "shards" / name).touch()
        started = time.process_time()
        corpus.adopt(rows)
        spent.append(time.process_time() - started)
    return spent[0], spent[-1], len(shards)


def episode(number: int, together: int, n_steps: int, info: CorpusInfo) -> EpisodeRow:
    """One made-up episode of one made-up recording."""
    recording = hashlib.sha256(str(number).encode()).hexdigest()
    shard = hashlib.sha256(f"shard {number // together}".encode()).hexdigest()
    return EpisodeRow(
        episode=f"{recording[:24]}-0",
        recording=recording,
        source=f"s3://recordings/2026/{number // 1000:05d}/{number:08d}.mp4",
        format="video-log",
        shard=f"{shard[:24]}.parquet",
        shard_sha256=shard,
        row_start=(number % together) * n_steps,
        n_steps=n_steps,
        split="val" if number % 20 == 0 else "train",
        settings=info.settings_hash,
        game="maze",
        player=f"player {number % PLAYERS}",
        source_fps=60.0,
        tokenizer=info.tokenizer.fingerprint if info.tokenizer else None,
    )


def measured(what: Callable[[Path], object], location: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds, and the growth of this process' peak memory in MB."""
    before, started, cpu = peak_mb(), time.monotonic(), time.process_time()
    what(location)
    return time.monotonic() - started, time.process_time() - cpu, peak_mb() - before


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def window_dataset(location: Path) -> object:
    """Everything that a training run does before its first batch."""
    corpus = Corpus.open(location)
    return len(wham_data.WindowDataset(corpus, length=10, split="train", batch_size=32))


MEASUREMENTS: dict[str, Callable[[Path], object]] = {
    "open": Corpus.open,
    "list every episode": lambda location: Corpus.open(location).episodes,
    "which recordings are known": lambda location: Corpus.open(location).known_recordings(),
    "WindowDataset, set up": window_dataset,
}

if __name__ == "__main__":
    main()
