"""Kill an ingest at random moments, run it again, and compare the result with an undisturbed run.

    python benchmarks/kill_and_resume.py [--recordings 100] [--kills 10] [--seed 1] [--store]

Recordings are cut from the bundled gameplay. Every kill is a SIGKILL, in turn to: the command without
Ray; the command on Ray; one worker process, which the run must survive, and later the command. After
each kill the corpus is verified. Finally the command runs to its end while one more worker is killed.
Then its manifest and shards must be equal to those of the undisturbed run. With --store, all of that is
done again with the recordings on an object store (a server on this machine). Prints a Markdown table for
each; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.object_stores import CREDENTIALS, Bucket, make_bucket, running_store  # noqa: E402
from makers.processes import kill_worker, wait_for_worker  # noqa: E402
from makers.recordings import cut, cuts, digest, strangers  # noqa: E402

from wham_data.corpus import Corpus  # noqa: E402

BUCKET = "kill-and-resume"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=100, help="number of recordings")
    parser.add_argument("--kills", type=int, default=10, help="number of kills")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a recording")
    parser.add_argument("--seed", type=int, default=1, help="seed for the moments of the kills")
    parser.add_argument("--store", action="store_true", help="also read them from an object store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wham-data-kill-") as name:
        folder = Path(name)
        for number, piece in enumerate(cuts(arguments.recordings, arguments.seconds)):
            cut(folder / "recordings", f"play{number:03}", piece)
        undisturbed = Ingest(str(folder / "recordings"), folder / "undisturbed")
        started = time.monotonic()
        assert undisturbed.start(workers=0).wait() == 0
        length = time.monotonic() - started
        print(
            f"{arguments.recordings} recordings of {arguments.seconds:g} s, undisturbed and without "
            f"Ray in {length:.1f} s; seed {arguments.seed}"
        )
        expected = undisturbed.holds()
        window = 1.5 * length / arguments.kills
        chance = random.Random(arguments.seed)
        good = disturbed(
            Ingest(undisturbed.source, folder / "disturbed"),
            expected,
            arguments.kills,
            window,
            chance,
        )
        if arguments.store:
            with stored(folder / "recordings", folder) as url:
                print("\nThe same with the recordings on an object store:")
                from_store = Ingest(url, folder / "from-store")
                good &= disturbed(from_store, expected, arguments.kills, window, chance)
        sys.exit(0 if good else 1)


@contextmanager
def stored(recordings: Path, folder: Path) -> Iterator[str]:
    """The URL of the recordings on an object store that runs for as long as the block."""
    with running_store(folder) as server:
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=server)
        os.environ["WHAM_DATA_CACHE_DIR"] = str(folder / "cache")
        make_bucket(server, BUCKET)
        yield Bucket(server, f"s3://{BUCKET}").put(recordings, "recordings")


@dataclass(frozen=True)
class Ingest:
    """The command, from a source into a corpus."""

    source: str
    corpus: Path

    def start(self, workers: int) -> subprocess.Popen[bytes]:
        """Start the command; return its process."""
        command = [sys.executable, "-c", "from wham_data.cli.main import main; main()", "ingest"]
        command += [self.source, "--out", str(self.corpus), "--workers", str(workers)]
        # Pictures and a high rate make the run long enough for a kill in the middle. Merging at the end
        # would leave shards of earlier versions, which look like left over ones.
        command += ["--tokenizer", "none", "--frames", "png", "--rate", "15", "--quiet"]
        command += ["--no-merge-shards"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def holds(self) -> dict[str, Any]:
        """What the corpus holds, with the names of the sources relative to where they are."""
        found = digest(self.corpus)
        rows = found["episodes"]
        return {
            **found,
            "episodes": [
                {**row, "source": row["source"].removeprefix(self.source)} for row in rows
            ],
        }


def disturbed(
    ingest: Ingest, expected: dict[str, Any], kills: int, window: float, chance: random.Random
) -> bool:
    """Kill an ingest so many times and let it end; whether all was well."""
    print(
        "\n| kill | of | after s | exit | in the corpus then | verify |\n|---|---|---|---|---|---|"
    )
    intact = [disturb(ingest, number, chance, window) for number in range(kills)]
    last = ingest.start(workers=2)
    wait_for_worker(last)
    lost = "losing a worker" if kill_worker(last) else "with no worker left to kill"
    code = last.wait()
    report = Corpus.open(ingest.corpus).verify()
    same = ingest.holds() == expected
    left_over = strangers(ingest.corpus)
    print(
        f"\nrun to the end, {lost}: exit {code}, verify {verdict(report.problems)}, manifest and "
        f"shards {'equal' if same else 'DIFFERENT'}, files not in the manifest: {left_over or 'none'}",
        flush=True,
    )
    return all(intact) and same and report.ok and code == 0 and not left_over


def disturb(ingest: Ingest, number: int, chance: random.Random, window: float) -> bool:
    """Start the command, kill it, and verify the corpus; False if the corpus is damaged."""
    victim = ("the command", "the command on Ray", "a worker, then the command")[number % 3]
    run = ingest.start(workers=0 if victim == "the command" else 2)
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
    if not (ingest.corpus / "corpus.json").exists():
        print(f"{line} no corpus yet | - |", flush=True)
        return True
    corpus = Corpus.open(ingest.corpus)
    report = corpus.verify()
    print(f"{line} {corpus.n_episodes} | {verdict(report.problems)} |", flush=True)
    return report.ok


def verdict(problems: tuple[str, ...]) -> str:
    """The problems that `verify` found as text; "clean" if there are none."""
    return "clean" if not problems else "; ".join(problems)


if __name__ == "__main__":
    main()
