"""Trains a very small world model into a folder, alone or in the processes of `torchrun`.

python train_in_ranks.py OUT STEPS STOP_AT BATCH_SIZE [--minutes]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from makers.token_windows import Made
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.training.ranks import joined
from wham_data.inference.training.world_model import WorldModelSettings, train_world_model
from wham_data.schemas.errors import WhamDataError

SPEC = GPTSpec(
    n_layer=1,
    n_head=2,
    n_embd=32,
    positions=2 * 556,
    image_tokens=540,
    image_vocab=4096,
    version=2,
    bias=False,
)


def made(count: int, seed: int) -> Made:
    windows = np.random.default_rng(seed).integers(0, 4096, (count, 2, 556)).astype(np.uint16)
    windows[..., 540:] = 4096 + 2 * np.arange(16)
    return Made(windows.reshape(count, -1))


def train(out: Path, *jobs: str) -> None:
    """Train for each job, from the checkpoint that is there; prints what each process knows then."""
    torch.set_num_threads(1)
    with joined("cpu") as (ranks, device):
        for job in jobs:
            folder, steps, stop_at, batch_size = job.split(",")
            settings = WorldModelSettings(
                SPEC,
                steps=int(steps) if steps else None,
                minutes=None if steps else 0.02,
                batch_size=int(batch_size),
                warm_up=1,
                bfloat16=False,
                checkpoint_every=2,
                held_out_windows=2,
            )
            report = train_world_model(
                made(12, seed=1), made(2, seed=2), "wham-tiny", out / folder, settings,
                resume=True, device=device, stop_at=int(stop_at), ranks=ranks,
            )  # fmt: skip
            told = json.dumps([folder, ranks.number, report.steps, report.curve])
            sys.stdout.write(f"{told}\n")  # at once, for others write too


if __name__ == "__main__":
    try:
        train(Path(sys.argv[1]), *sys.argv[2:])
    except WhamDataError as error:
        sys.stdout.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
