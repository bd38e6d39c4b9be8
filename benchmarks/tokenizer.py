"""Measure how fast a tokenizer is, and how well it reconstructs the demo recordings.

    python benchmarks/tokenizer.py [--tokenizer wham-tiny] [--device cpu] [--threads 2] [--runs 5]

The frames are those of the demo recordings on the 10 Hz grid. No bundled tokenizer was trained on
them. Runs of encode and decode alternate. The median of the runs is printed, in frames per second of
wall time and in CPU milliseconds per frame.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.tokenizer import load_tokenizer
from wham_data.inference.training.evaluate import tokenizer_figures
from wham_data.pipelines.video import decode_frames, index_video

DEMOS = Path(__file__).parents[1] / "wham_data" / "pipelines" / "demo_recordings"
TENTH_NS = 100_000_000


def frames_on_grid(video: Path) -> NDArray[np.uint8]:
    """The frames on screen at every tenth of a second, uint8 [N, 180, 300, 3]."""
    index = index_video(video)
    ticks = np.arange(int(index.times_ns[0]), index.end_ns, TENTH_NS)
    on_screen = np.searchsorted(index.times_ns, ticks, side="right") - 1
    return np.concatenate(list(decode_frames(index, on_screen)))


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and CPU time of one call, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", default="wham-tiny", help="a bundled name or a folder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is taken")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = load_tokenizer(arguments.tokenizer, arguments.device)
    frames = {video.stem: frames_on_grid(video) for video in sorted(DEMOS.glob("*.mp4"))}

    every = np.concatenate(list(frames.values()))
    tokens = tokenizer.encode(every)  # the first call also warms up the tokenizer
    encodes, decodes = [], []
    for _ in range(arguments.runs):
        encodes.append(seconds(lambda: tokenizer.encode(every)))
        decodes.append(seconds(lambda: tokenizer.decode(tokens)))

    where = f"{arguments.device}, {arguments.threads} threads, median of {arguments.runs} runs"
    print(f"{arguments.tokenizer} {tokenizer.fingerprint[:12]}, {len(every)} frames, {where}\n")
    print("| | frames/s | CPU ms per frame |\n|---|---|---|")
    for name, runs in (("encode", encodes), ("decode", decodes)):
        wall, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {len(every) / wall:.0f} | {1000 * cpu / len(every):.1f} |")
    print("\n| recording | frames | PSNR, dB | codes used | perplexity |\n|---|---|---|---|---|")
    for name, part in frames.items():
        figures = tokenizer_figures(tokenizer, part)
        print(
            f"| {name} | {len(part)} | {figures.psnr_db:.2f} | {figures.codes_used} "
            f"| {figures.perplexity:.0f} |"
        )


if __name__ == "__main__":
    main()
