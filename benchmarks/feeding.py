"""How frames come from the decoders to a tokenizer on Ray. Part of `ray.py`: `--only feeding`."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.run import ray_work
from wham_data.pipelines.run.appetite import Load
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.ray_services import Hosting, RemoteService, ServiceActor
from wham_data.pipelines.run.ray_start import connected
from wham_data.pipelines.run.runner import Service, Stage
from wham_data.pipelines.video import decode_frames, index_video

DEMOS = Path(__file__).parents[1] / "wham_data" / "pipelines" / "demo_recordings"
REQUEST, TOGETHER, PASS = 32, 64, 32
"""Frames in a request, at most in a call of the tokenizer, and in a pass on a GPU."""
FRAME = (180, 300, 3)
TENTH_NS = 100_000_000
RATES = {
    "wham-tiny, at least": 5000,
    "large ViT, float32": 270,
    "large ViT, bf16": 4400,
}
"""Frames tokenised per second on an H200: arithmetic, not measured."""
DECODED = {"720p60 H.264": 601 / 6.90, "1080p60 H.264": 601 / 12.47}
"""Frames on the 10 Hz grid per CPU second, one thread, as `decode.py` measured."""
CARDS, CORES = 8, 64


def answers_at_once(_: str) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """A service without work. To a single frame it answers the number of its process."""
    return lambda frames: np.full((len(frames), 540), os.getpid() if len(frames) == 1 else 0)


def answers_slowly(rate: float) -> Callable[[str], Callable[[NDArray[Any]], NDArray[Any]]]:
    """A service that takes as long as a GPU with full passes of so many frames per second.

    To a single frame that is not black it answers the part of its passes that was filled so far.
    """

    def opened(_: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
        frames = places = 0

        def call(batch: NDArray[Any]) -> NDArray[Any]:
            nonlocal frames, places
            if batch.any():
                return np.array([frames / places])
            passes = -(-len(batch) // PASS)
            frames, places = frames + len(batch), places + passes * PASS
            time.sleep(passes * PASS / rate)
            return batch

        return call

    return opened


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    row = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(row[11]) + int(row[12])) / os.sysconf("SC_CLK_TCK")


def sends(hosting: Hosting, node: str, seconds: float) -> tuple[int, float, float, float]:
    """In a worker: send frames for some seconds. Frames, wall and CPU seconds here, and there."""
    service = RemoteService()
    service.use([hosting], node, 0)
    batch = np.random.default_rng(0).integers(0, 256, (REQUEST, *FRAME), np.uint8)
    there = int(service.ask(batch[:1])[0, 0])
    frames, wall = 0, time.monotonic()
    mine, others = time.process_time(), cpu_seconds(there)

    def batches() -> Iterator[NDArray[np.uint8]]:
        while time.monotonic() - wall < seconds:
            yield batch

    for answer in service.stream(batches()):
        frames += len(answer)
    spent = time.process_time() - mine
    return frames, time.monotonic() - wall, spent, cpu_seconds(there) - others


def decodes(hosting: Hosting, node: str, rate: float, steps: int, seconds: float) -> None:
    """In a worker: send what a decoder of so many frames per second would, in recordings of `steps`."""
    service = RemoteService()
    service.use([hosting], node, 0)
    begun = time.monotonic()

    def batches() -> Iterator[NDArray[np.uint8]]:
        while time.monotonic() - begun < seconds:
            for start in range(0, steps, REQUEST):
                count = min(REQUEST, steps - start)
                time.sleep(count / rate)
                yield np.zeros((count, 1), np.uint8)

    for _ in service.stream(batches()):
        pass


def decoded_per_second() -> float:
    """Frames of the demo recordings on the 10 Hz grid per CPU second of a decoder with one thread."""
    frames, spent = 0, time.process_time()
    for video in sorted(DEMOS.glob("*.mp4")) * 3:
        index = index_video(video)
        ticks = np.arange(int(index.times_ns[0]), index.end_ns, TENTH_NS)
        on_screen = np.searchsorted(index.times_ns, ticks, side="right") - 1
        frames += sum(map(len, decode_frames(index, on_screen)))
    return frames / (time.process_time() - spent)


def measure(seconds: float) -> None:
    """Print the tables."""
    with connected(None, 2, None) as ray:
        node = ray.get_runtime_context().get_node_id()
        per_frame = transport(ray, node, seconds)
        filling(ray, node, min(seconds, 8.0))
    follows()
    needed(decoded_per_second(), per_frame)


def actor_of(ray: Any, node: str, open: Callable[[str], Any]) -> Hosting:
    """An actor that holds a service, ready."""
    service = Service("frames", open, "cpu", rows_together=TOGETHER)
    actor = ray.remote(ServiceActor).options(max_concurrency=1000, num_cpus=0)
    hosting = Hosting(actor.remote(service, "cpu"), node)
    ray.get(hosting.actor.ready.remote())
    return hosting


def transport(ray: Any, node: str, seconds: float) -> float:
    """Print what a frame costs on its way. Returns the CPU seconds on both sides."""
    buffers: list[pickle.PickleBuffer] = []
    batch = np.zeros((REQUEST, *FRAME), np.uint8)
    rest = len(pickle.dumps(batch, protocol=5, buffer_callback=buffers.append))
    size = (rest + sum(each.raw().nbytes for each in buffers)) / REQUEST
    hosting = actor_of(ray, node, answers_at_once)
    sender = ray.remote(sends).options(num_cpus=0.5)
    frames, wall, here, there = ray.get(sender.remote(hosting, node, seconds))
    ray.kill(hosting.actor)
    print("| bytes per frame | frames/s, one sender | us of CPU per frame: sender | actor |")
    print("|---|---|---|---|")
    print(
        f"| {size:.0f} | {frames / wall:.0f} | {1e6 * here / frames:.0f} | {1e6 * there / frames:.0f} |\n"
    )
    return (here + there) / frames


def filling(ray: Any, node: str, seconds: float) -> None:
    """Print how full the passes of a tokenizer are, by the number of decoders that feed it."""
    rate, each = 1000.0, 200.0
    print(
        f"A tokenizer of {rate:.0f} frames/s in passes of {PASS}, decoders of {each:.0f} frames/s each (simulated).\n\n"
        "| decoders | steps of a recording | busy | wait when it takes some | frames in a call | passes filled |\n"
        "|---|---|---|---|---|---|"
    )
    sender = ray.remote(decodes).options(num_cpus=0)
    for decoders, steps in ((2, 1000), (5, 1000), (8, 1000), (8, 100), (8, 40)):
        hosting = actor_of(ray, node, answers_slowly(rate))
        running = [sender.remote(hosting, node, each, steps, seconds + 3) for _ in range(decoders)]
        time.sleep(3.0)  # until all have begun
        ray.get(hosting.actor.load.remote())
        time.sleep(seconds)
        load: Load = ray.get(hosting.actor.load.remote())
        ray.get(running)
        full = float(ray.get(hosting.actor.ask.remote(np.ones((1, 1), np.uint8)))[0])
        print(
            f"| {decoders} | {steps} | {load.busy:.0%} | {load.left:.1f} | {load.rows / max(load.calls, 1):.0f} "
            f"| {full:.0%} |",
            flush=True,
        )
        ray.kill(hosting.actor)
    print()


def follows() -> None:
    """Print how the number of items in work follows two instances on a GPU, which is pretended.

    The decoders take 0.4 s for 32 frames at first, and 2 ms later; each instance answers 400 frames/s.
    """
    from ray.cluster_utils import Cluster

    decide, begun = ray_work.items_at_once, time.monotonic()

    def told(now: int, loads: Sequence[Load], least: int, most: int) -> int:
        then = decide(now, loads, least, most)
        if then != now:
            busy, left = (
                ", ".join(f"{each:.1f}" for each in (*column,))
                for column in zip(*((load.busy, load.left) for load in loads), strict=True)
            )
            print(
                f"| {time.monotonic() - begun:.0f} | {busy} | {left} | {now} | {then} |", flush=True
            )
        return then

    def setup(service: Any) -> Callable[[int, Any], int]:
        def work(item: int, _: Any) -> int:
            def batches() -> Iterator[NDArray[Any]]:
                for _ in range(12):
                    time.sleep(0.4 if item < 80 else 0.002)
                    yield np.zeros(32)

            return sum(map(len, service.stream(batches())))

        return work

    def opened(_: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
        def call(rows: NDArray[Any]) -> NDArray[Any]:
            time.sleep(len(rows) / 400)
            return rows

        return call

    print("| s | busy | wait | in work | then |\n|---|---|---|---|---|")
    ray_work.LOAD_SECONDS, ray_work.items_at_once = 1.0, told
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 6, "num_gpus": 1})
    stage = Stage("slow", setup, Service("slow", opened, "cuda", rows_together=TOGETHER))
    for _ in RayRunner(None, cluster.address).run(stage, list(range(160)), lambda _: None):
        pass
    cluster.shutdown()
    ray_work.items_at_once = decide
    print()


def needed(demo: float, per_frame: float) -> None:
    """Print how many decoders a GPU needs, and what a node reaches."""
    print(
        "| recordings | frames per CPU second, to the tokenizer | of a GPU (on paper) | decoders for it "
        f"| {CARDS} GPUs and {CORES} cores: frames/s | GPUs busy |\n|---|---|---|---|---|---|"
    )
    for source, decoded in {"the demo's, 300x180": demo, **DECODED}.items():
        alone = 1 / (1 / decoded + per_frame)
        for name, rate in RATES.items():
            reached = min(CARDS * rate, CORES * alone)
            print(
                f"| {source} | {alone:.0f} | {name}: {rate} | {rate / alone:.1f} | {reached:.0f} "
                f"| {reached / (CARDS * rate):.0%} |"
            )
