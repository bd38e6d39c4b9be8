"""Train the tokenizer of wham-tiny on the arrays of `frames.py`, and measure its quality.

    python train.py --frames frames --out wham-tiny --minutes 70 [--resume] [--only-judge]

Writes the tokenizer to the folder `out`, with `held_out.png` (original and reconstructed frames side by
side), and prints the figures for the model card, computed from all held-out frames.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.tokenizer import Tokenizer, load_tokenizer
from wham_data.inference.training.evaluate import side_by_side, tokenizer_figures
from wham_data.inference.training.tokenizer import CurvePoint, TrainSettings, train_tokenizer
from wham_data.pipelines.video import encode_png


@dataclass(frozen=True, slots=True)
class Frames:
    """Memory maps of both shares, uint8 [N, 180, 300, 3], and the recordings of the held-out one."""

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    recordings: list[tuple[str, int, int]]

    @classmethod
    def open(cls, folder: Path) -> Frames:
        """Map the arrays that `frames.py` wrote to a folder."""
        train, held_out = (
            np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("train", "held_out")
        )
        return cls(train, held_out, json.loads((folder / "held_out.json").read_text()))


def print_progress(point: CurvePoint) -> None:
    """Print one line for a checkpoint."""
    print({name: round(value, 3) for name, value in point.items()}, flush=True)


def judge(tokenizer: Tokenizer, frames: Frames, picture: Path) -> None:
    """Print figures for each engine and for all frames; draw a frame of each held-out recording."""
    engines: dict[str, list[NDArray[np.uint8]]] = {}
    shown: list[NDArray[np.uint8]] = []
    for name, start, end in frames.recordings:
        part = np.asarray(frames.held_out[start:end])
        engines.setdefault(name.split("_")[0], []).append(part)
        shown.append(part[len(part) // 3])
    print("| engine | frames | PSNR, dB | codes used | perplexity |\n|---|---|---|---|---|")
    for engine, parts in (*engines.items(), ("all", [np.asarray(frames.held_out)])):
        every = np.concatenate(parts)
        figures = tokenizer_figures(tokenizer, every)
        print(
            f"| {engine} | {len(every)} | {figures.psnr_db:.2f} | {figures.codes_used} "
            f"| {figures.perplexity:.0f} |"
        )
    originals = np.stack(shown)
    sheet = side_by_side(originals, tokenizer.decode(tokenizer.encode(originals)))
    picture.write_bytes(encode_png(sheet))


def main() -> None:
    """Train (unless `--only-judge` is given), then measure the quality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--only-judge", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    frames = Frames.open(arguments.frames)
    if not arguments.only_judge:
        settings = TrainSettings(minutes=arguments.minutes, seed=arguments.seed)
        train_tokenizer(
            frames,
            arguments.out,
            settings,
            print_progress,
            resume=arguments.resume,
            device=arguments.device,
        )
    judge(
        load_tokenizer(str(arguments.out), arguments.device), frames, arguments.out / "held_out.png"
    )


if __name__ == "__main__":
    main()
