"""How fast a tokenizer is, and what is left of the demo recordings after it.

    python benchmarks/tokenizer.py [--tokenizer wham-tiny] [--device cpu] [--threads 2] [--runs 5]

Frames are those of the demo recordings on the 10 Hz grid, which no bundled tokenizer was trained
on. Encode and decode alternate; the median of the runs is printed, in frames per second of wall
time and in CPU milliseconds per frame.
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
    """Wall and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", default="wham-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    tokenizer = load_tokenizer(wanted.tokenizer, wanted.device)
    frames = {video.stem: frames_on_grid(video) for video in sorted(DEMOS.glob("*.mp4"))}

    every = np.concatenate(list(frames.values()))
    tokens = tokenizer.encode(every)  # also warms up
    encodes, decodes = [], []
    for _ in range(wanted.runs):
        encodes.append(seconds(lambda: tokenizer.encode(every)))
        decodes.append(seconds(lambda: tokenizer.decode(tokens)))

    where = f"{wanted.device}, {wanted.threads} threads, median of {wanted.runs} runs"
    print(f"{wanted.tokenizer} {tokenizer.fingerprint[:12]}, {len(every)} frames, {where}\n")
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
