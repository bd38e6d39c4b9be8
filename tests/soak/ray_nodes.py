"""Nodes of a Ray cluster are killed and others join while it ingests; the corpus must not show it.

    python tests/soak/ray_nodes.py [--recordings 10000] [--nodes 6] [--tokenizer none] [--seed 1]

Recordings are stretches of the bundled gameplay of one second each. The cluster is on this machine, with a
process for each node. Every few seconds a node is killed (never the head) or a new one joins. At the
end manifest and shards must be equal, byte for byte, to those of a run in one process. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = ".*"  # Ray prints of each node that it died
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

from makers.recordings import cut, cuts, digest  # noqa: E402

from wham_data.pipelines.ingest.job import run_ingest  # noqa: E402
from wham_data.pipelines.ingest.settings import IngestSettings  # noqa: E402
from wham_data.pipelines.run.progress import Progress  # noqa: E402
from wham_data.pipelines.run.ray_jobs import RayRunner  # noqa: E402
from wham_data.pipelines.run.runner import LocalRunner  # noqa: E402

DIFFERENT = 30
FREE_BOX = b"\0\0\0\x08free"
"""An mp4 box without content: a copy with another number of them is another recording."""
FEWEST_NODES = 2


class Said:
    """Prints what a run says of nodes."""

    def progressed(self, progress: Progress) -> None:
        """Nothing."""

    def message(self, text: str, *, warning: bool) -> None:  # noqa: ARG002
        """Print it, unless it is of a recording."""
        if "/rec/" not in text:
            print(f"  {text}", flush=True)


class Weather:
    """Kills nodes and adds others."""

    def __init__(self, cluster: Any, most: int, every: float, seed: int) -> None:
        self.killed = self.added = 0
        self._cluster = cluster
        self._most = most
        self._every = every
        self._chance = random.Random(seed)

    def blow(self, until: threading.Event) -> None:
        """Change the nodes until it is over. In the main thread, because Ray sets handlers of signals."""
        while not until.wait(self._chance.uniform(0.5, 1.5) * self._every):
            nodes = list(self._cluster.worker_nodes)
            full, few = len(nodes) + 1 >= self._most, len(nodes) + 1 <= FEWEST_NODES
            if full or (not few and self._chance.random() < 0.5):
                self._cluster.remove_node(self._chance.choice(nodes), allow_graceful=False)
                self.killed += 1
            else:
                self._cluster.add_node(num_cpus=1)
                self.added += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--tokenizer", default="none", help="wham-tiny or none")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two changes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the changes")
    arguments = parser.parse_args()
    settings = IngestSettings(
        tokenizer=None if arguments.tokenizer == "none" else arguments.tokenizer
    )
    with tempfile.TemporaryDirectory(prefix="wham-data-soak-") as name:
        folder = Path(name)
        make_recordings(folder / "rec", arguments.recordings)
        killed, added, seconds = on_a_cluster(folder, settings, arguments)
        run_ingest([folder / "rec"], folder / "here", settings, LocalRunner())
        same = digest(folder / "there") == digest(folder / "here")
    print(
        f"{arguments.recordings} recordings in {seconds:.0f} s on {FEWEST_NODES} to {arguments.nodes} nodes; "
        f"{killed} killed, {added} joined: {'equal' if same else 'DIFFERENT'}"
    )
    sys.exit(0 if same and killed and added else 1)


def make_recordings(folder: Path, count: int) -> None:
    """Write recordings, of which none is equal to another."""
    pieces = list(cuts(min(count, DIFFERENT), 1.0))
    originals = [cut(folder, f"play{number}", piece) for number, piece in enumerate(pieces)]
    for number in range(len(pieces), count):
        original = originals[number % len(originals)]
        copy = folder / f"{original.stem}-{number}.mp4"
        copy.write_bytes(original.read_bytes() + number // len(originals) * FREE_BOX)
        for ending in (".csv", ".toml"):
            shutil.copy(original.with_suffix(ending), copy.with_suffix(ending))


def on_a_cluster(
    folder: Path, settings: IngestSettings, arguments: argparse.Namespace
) -> tuple[int, int, float]:
    """Ingest while nodes come and go.

    Returns:
        Count of nodes killed, count of nodes that joined, and seconds.
    """
    from ray.cluster_utils import Cluster

    # A lost node is noticed after a few seconds rather than after fifteen.
    config = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": config}
    )
    try:
        for _ in range(arguments.nodes - 1):
            cluster.add_node(num_cpus=1)
        started = time.monotonic()
        over = threading.Event()

        def ingest() -> None:
            try:
                runner = RayRunner(address=cluster.address, watch=Said())
                run_ingest([folder / "rec"], folder / "there", settings, runner, watch=Said())
            finally:
                over.set()

        run = threading.Thread(target=ingest)
        run.start()
        weather = Weather(cluster, arguments.nodes, arguments.every, arguments.seed)
        weather.blow(over)
        run.join()
        return weather.killed, weather.added, time.monotonic() - started
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
