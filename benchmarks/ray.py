"""Measure what the driver of a run on Ray costs, by the number of streams that it listens to.

    python benchmarks/ray.py [--only streams,feeding] [--streams 4,100,1000,4096] [--seconds 15]

The streams are real, and so is the loop that reads them; the work behind them is simulated: one process sends,
for every stream, what a worker would. All streams together report 100 times a second, and 10 items end
in a second, so that only the number of streams differs. Each number is measured twice, one after the other:
"before" takes one event per wait, as the loop did until 2026-11-30, "now" is the loop of the package. The last
rows have items of 36 seconds on every stream (six minutes of play at 100 steps a second), as in a real run.
CPU is that of the driver's thread. An item has a first and a last event besides its reports.

"Of its time" is the share of its time that the driver is busy with events and items. The work that
it has others do in that time is that of all streams.

`--only feeding` measures how frames come to a tokenizer: bytes and time for each through Ray's object store, how
full its calls are, and how many decoders it needs, with what is measured here and token rates that are given.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, where `import ray` would find this file
os.environ["PYTHONPATH"] = str(ROOT)

from benchmarks import feeding  # noqa: E402
from wham_data.pipelines.run.progress import Silent  # noqa: E402
from wham_data.pipelines.run.ray_jobs import Patience, Stall, run_all  # noqa: E402
from wham_data.pipelines.run.ray_nodes import Nodes  # noqa: E402
from wham_data.pipelines.run.ray_start import connected  # noqa: E402
from wham_data.pipelines.run.ray_work import Ended, Event, Started  # noqa: E402

REPORTS, ITEMS = 100, 10
"""Of all streams together in a second."""
REAL_SECONDS = 36.0


class Workers:
    """Pretends to be any number of workers."""

    async def item(self, every: float, reports: int, first: float) -> AsyncIterator[Event]:
        """The events of an item; the first one comes after a while, so that streams differ."""
        yield Started("node")
        await asyncio.sleep(first)
        for _ in range(reports):
            yield 32
            await asyncio.sleep(every)
        yield Ended(None, 0)


class Pool:
    """A pool of pretended workers."""

    service = "none"
    refs: tuple[Any, ...] = ()
    waiting = None

    def __init__(self, workers: Any, size: int, every: float, item_seconds: float) -> None:
        self._workers = workers
        self.size = size
        self._every = every
        self._seconds = item_seconds
        self._submitted = 0

    def submit(self, item: int) -> Any:
        """A stream of events."""
        reports = max(0, round(self._seconds / self._every) - 1)
        self._submitted += 1
        # The streams of the beginning do not end together, as those of a run would not after a while.
        new = self._submitted <= self.size
        reports = round(reports * self._submitted / self.size) if new else reports
        first = self._every * (item % 97) / 97
        streaming = self._workers.item.options(num_returns="streaming")
        return streaming.remote(self._every, reports, first)

    def follow(self) -> None:
        """Nothing."""

    def heard(self, ref: Any) -> None:
        """Nothing."""

    def release(self, stream: Any, *, died: bool) -> None:
        """Nothing."""

    def useful(self) -> None:
        """Nothing."""


@dataclass
class Count:
    """Events and items of a measurement, which ends after some seconds."""

    seconds: float
    events: int = 0
    items: int = 0
    cpu: float = 0.0
    wall: float = 0.0

    def run(self, loop: Callable[[Callable[[int], None]], Any], settle: float) -> Count:
        """Read outcomes from a loop, and measure after it has settled."""
        begun = time.monotonic()

        def advance(_: int) -> None:
            self.events += 1

        cpu = started = 0.0
        for _ in loop(advance):
            now = time.monotonic()
            if not started and now - begun >= settle:
                started, cpu = now, time.thread_time()
                self.events = self.items = 0
            self.items += 1
            if started and now - started >= self.seconds:
                break
        self.wall = time.monotonic() - started
        self.cpu = time.thread_time() - cpu
        return self


def one_by_one(ray: Any, pool: Pool, items: range, advance: Callable[[int], None]) -> Any:
    """The loop as it was: one event for each wait."""
    waiting = deque(items)
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < pool.size:
            item = waiting.popleft()
            running[pool.submit(item)] = item
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for stream in ready:
            event = ray.get(next(stream))
            if isinstance(event, int):
                advance(event)
            elif isinstance(event, Ended):
                yield running.pop(stream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="streams,feeding", help="what to measure")
    parser.add_argument("--streams", default="4,100,1000,4096", help="numbers of streams")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a measurement")
    arguments = parser.parse_args()
    if "feeding" in arguments.only.split(","):
        feeding.measure(arguments.seconds)
    if "streams" in arguments.only.split(","):
        measure_streams([int(each) for each in arguments.streams.split(",")], arguments.seconds)


def measure_streams(counts: list[int], of_seconds: float) -> None:
    """Print the table of the streams."""
    print(
        "| streams | items of s | loop | events/s | items/s | CPU, us per event | of its time |\n"
        "|---|---|---|---|---|---|---|"
    )
    with connected(None, 2, None) as ray:
        for count, seconds in (
            *((each, each / ITEMS) for each in counts),
            (counts[-1], REAL_SECONDS),
        ):
            for name in ("before", "now"):
                print(row(ray, count, seconds, name, of_seconds), flush=True)


def row(ray: Any, count: int, item_seconds: float, name: str, seconds: float) -> str:
    """A row of the table."""
    workers = ray.remote(Workers).options(max_concurrency=count + 10, num_cpus=0).remote()
    pool = Pool(workers, count, count / REPORTS, item_seconds)
    items = range(1_000_000)

    def loop(advance: Callable[[int], None]) -> Any:
        if name == "before":
            return one_by_one(ray, pool, items, advance)
        nodes = Nodes(ray, None, Silent())
        return run_all(ray, pool, nodes, items, advance, Stall(Patience(), Silent()))

    measured = Count(seconds).run(loop, settle=10.0)
    ray.kill(workers)
    events = measured.events + 2 * measured.items
    return (
        f"| {count} | {item_seconds:g} | {name} | {events / measured.wall:.0f} "
        f"| {measured.items / measured.wall:.1f} | {1e6 * measured.cpu / max(events, 1):.0f} "
        f"| {measured.cpu / measured.wall:.1%} |"
    )


if __name__ == "__main__":
    main()
