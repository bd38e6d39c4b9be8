"""Kill an ingest at random moments, run it again, and compare the result with an undisturbed run.

    python benchmarks/kill_and_resume.py [--recordings 100] [--kills 10] [--seed 1]

Recordings are cut from the bundled gameplay. Every kill is a SIGKILL, in turn to: the command without
Ray; the command on Ray; one worker process, which the run must survive, and later the command. After
each kill the corpus is verified. Finally the command runs to its end while one more worker is killed.
Then its manifest and shards must be equal to those of the undisturbed run. Prints a Markdown table;
exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.processes import kill_worker, wait_for_worker  # noqa: E402
from makers.recordings import cut, cuts, digest, strangers  # noqa: E402

from wham_data.corpus import Corpus  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=100, help="number of recordings")
    parser.add_argument("--kills", type=int, default=10, help="number of kills")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a recording")
    parser.add_argument("--seed", type=int, default=1, help="seed for the moments of the kills")
    arguments = parser.parse_args()
    random_source = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="wham-data-kill-") as name:
        folder = Path(name)
        for number, piece in enumerate(cuts(arguments.recordings, arguments.seconds)):
            cut(folder / "recordings", f"play{number:03}", piece)
        started = time.monotonic()
        assert start(folder, "undisturbed", workers=0).wait() == 0
        length = time.monotonic() - started
        expected = digest(folder / "undisturbed")
        print(
            f"{arguments.recordings} recordings of {arguments.seconds:g} s, undisturbed and without "
            f"Ray in {length:.1f} s; seed {arguments.seed}"
        )
        print(
            "\n| kill | of | after s | exit | in the corpus then | verify |\n|---|---|---|---|---|---|"
        )
        window = 1.5 * length / arguments.kills
        intact = [
            disturb(folder, number, random_source, window) for number in range(arguments.kills)
        ]
        last = start(folder, "disturbed", workers=2)
        wait_for_worker(last)
        lost = "losing a worker" if kill_worker(last) else "with no worker left to kill"
        code = last.wait()
        report = Corpus.open(folder / "disturbed").verify()
        same = digest(folder / "disturbed") == expected
        left_over = strangers(folder / "disturbed")
        print(
            f"\nrun to the end, {lost}: exit {code}, verify {verdict(report.problems)}, manifest and "
            f"shards {'equal' if same else 'DIFFERENT'}, files not in the manifest: {left_over or 'none'}"
        )
        sys.exit(0 if all(intact) and same and report.ok and code == 0 and not left_over else 1)


def start(folder: Path, corpus: str, workers: int) -> subprocess.Popen[bytes]:
    """Start the command; return its process."""
    command = [sys.executable, "-c", "from wham_data.cli.main import main; main()", "ingest"]
    command += [folder / "recordings", "--out", folder / corpus, "--workers", str(workers)]
    # Pictures and a high rate make the run long enough for a kill in the middle.
    command += ["--tokenizer", "none", "--frames", "png", "--rate", "15", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def disturb(folder: Path, number: int, random_source: random.Random, window: float) -> bool:
    """Start the command, kill it, and verify the corpus; False if the corpus is damaged."""
    victim = ("the command", "the command on Ray", "a worker, then the command")[number % 3]
    run = start(folder, "disturbed", workers=0 if victim == "the command" else 2)
    if victim != "the command":
        wait_for_worker(run)
    begun = time.monotonic()
    time.sleep(random_source.uniform(0, window))
    if victim.startswith("a worker"):
        if not kill_worker(run):
            victim = "no worker left to kill, then the command"
        time.sleep(random_source.uniform(0, window))
    after = time.monotonic() - begun
    run.kill()
    line = f"| {number + 1} | {victim} | {after:.2f} | {run.wait()} |"
    if not (folder / "disturbed" / "corpus.json").exists():
        print(f"{line} no corpus yet | - |", flush=True)
        return True
    corpus = Corpus.open(folder / "disturbed")
    report = corpus.verify()
    print(f"{line} {corpus.n_episodes} | {verdict(report.problems)} |", flush=True)
    return report.ok


def verdict(problems: tuple[str, ...]) -> str:
    """The problems that `verify` found as text; "clean" if there are none."""
    return "clean" if not problems else "; ".join(problems)


if __name__ == "__main__":
    main()
