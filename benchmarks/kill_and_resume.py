"""Kill an ingest at random moments, run it again, and compare with one that nobody disturbed.

    python benchmarks/kill_and_resume.py [--recordings 100] [--kills 10] [--seed 1]

Recordings are cut from the gameplay that ships with the package. Every kill is a SIGKILL: of the
command without Ray; of the command on Ray; or of one worker process, which the run must survive,
and of the command some time later. After each, the corpus is verified. At last the command runs to
its end, losing one more worker, and manifest and shards must be those of the undisturbed run.
Prints a Markdown table; exits with 1 if anything differs.
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
    parser.add_argument("--recordings", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a recording")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="wham-data-kill-") as name:
        folder = Path(name)
        for number, piece in enumerate(cuts(arguments.recordings, arguments.seconds)):
            cut(folder / "recordings", f"play{number:03}", piece)
        started = time.monotonic()
        assert start(folder, "undisturbed", workers=0).wait() == 0
        length = time.monotonic() - started
        want = digest(folder / "undisturbed")
        print(
            f"{arguments.recordings} recordings of {arguments.seconds:g} s, undisturbed and without "
            f"Ray in {length:.1f} s; seed {arguments.seed}"
        )
        print(
            "\n| kill | of | after s | exit | in the corpus then | verify |\n|---|---|---|---|---|---|"
        )
        window = 1.5 * length / arguments.kills
        whole = [disturb(folder, number, chance, window) for number in range(arguments.kills)]
        last = start(folder, "disturbed", workers=2)
        wait_for_worker(last)
        lost = "losing a worker" if kill_worker(last) else "with no worker left to kill"
        code = last.wait()
        report = Corpus.open(folder / "disturbed").verify()
        same = digest(folder / "disturbed") == want
        left_over = strangers(folder / "disturbed")
        print(
            f"\nrun to the end, {lost}: exit {code}, verify {verdict(report.problems)}, manifest and "
            f"shards {'equal' if same else 'DIFFERENT'}, files nobody names: {left_over or 'none'}"
        )
        sys.exit(0 if all(whole) and same and report.ok and code == 0 and not left_over else 1)


def start(folder: Path, corpus: str, workers: int) -> subprocess.Popen[bytes]:
    """Start the command."""
    command = [sys.executable, "-c", "from wham_data.cli.main import main; main()", "ingest"]
    command += [folder / "recordings", "--out", folder / corpus, "--workers", str(workers)]
    # Pictures and a high rate make the work long enough to be hit in the middle.
    command += ["--tokenizer", "none", "--frames", "png", "--rate", "15", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def disturb(folder: Path, number: int, chance: random.Random, window: float) -> bool:
    """Start, kill, look; false if what is there is damaged."""
    victim = ("the command", "the command on Ray", "a worker, then the command")[number % 3]
    run = start(folder, "disturbed", workers=0 if victim == "the command" else 2)
    if victim != "the command":
        wait_for_worker(run)
    begun = time.monotonic()
    time.sleep(chance.uniform(0, window))
    if victim.startswith("a worker"):
        if not kill_worker(run):
            victim = "no worker left to kill, then the command"
        time.sleep(chance.uniform(0, window))
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
    """What verify found, in a word or in its own."""
    return "clean" if not problems else "; ".join(problems)


if __name__ == "__main__":
    main()
