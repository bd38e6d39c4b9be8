"""The machine, and whether the GPU gives the tokens and dreams of the CPU."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from gpu_parts.models import (
    ACTION_NUMBERS,
    SMALL_TAMING,
    TAMING,
    RandomFiles,
    bundled_tokenizer,
    bundled_world_model,
    pictures,
    small_world_model,
)
from gpu_parts.report import GIB, Bench, tf32
from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.gpt.bench import copy_bandwidth
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Sampling
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.tokenizers.frame_tokenizer import FrameTokenizer


def env(bench: Bench) -> None:
    bench.note("torch", torch.__version__)
    bench.note("CUDA of torch, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    bench.note("device", torch.cuda.get_device_name(bench.device) if bench.gpu else "cpu")
    for name in ("flash-attn", "av", "numpy"):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        bench.note(f"package {name}", found)
    defaults = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    override = os.environ.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "not set")
    bench.note("TF32 by default: products, convolutions", f"{defaults[0]}, {defaults[1]}")
    bench.note("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", override)
    source = torch.ones(GIB if bench.gpu else 1 << 18, device=bench.device)
    target = torch.empty_like(source)
    moved = 2 * source.nbytes / bench.ms(lambda: target.copy_(source)) / 1e9
    shared = "other programs use the card: look at nvidia-smi"
    bench.speed("copy of 4 GiB", moved, "TB/s", least=4.1, otherwise=shared)
    bandwidth = copy_bandwidth(bench.device) / 1e12
    less = "the floors of `bench dream` are too high by the ratio to the line above"
    bench.speed("copy as `bench dream` measures it", bandwidth, "TB/s", least=3.9, otherwise=less)
    side = 8192 if bench.gpu else 128
    for name, dtype, allowed, least in (
        ("bf16", torch.bfloat16, False, 700),
        ("float32", torch.float32, False, 40),
        ("TF32", torch.float32, True, 330),
    ):
        with tf32(allowed):
            square = torch.randn(side, side, device=bench.device, dtype=dtype)
            taken = bench.ms(lambda square=square: square @ square)  # type: ignore[misc]
        tflops = 2 * side**3 / taken / 1e9
        bench.speed(f"matrix product, {name}", tflops, "TFLOP/s", least=least, otherwise=shared)


def right(bench: Bench) -> None:
    _right_draws(bench)
    _right_tokenizers(bench)
    _right_dreams(bench)


def _right_draws(bench: Bench) -> None:
    from wham_data.inference.sampling import Noise  # the only internal that this part needs

    rows, ids = 64, 16452
    noise = Noise(7, 3)
    here, there = (noise.at(2, 5, rows, ids, torch.device(name)) for name in ("cpu", bench.device))
    differ = int((here != there.cpu()).sum())
    what = "the logarithm of this GPU's float64 is another: say so in docs/dreaming.md"
    bench.check(f"noise that differs, of {rows * ids}", differ, differ <= 2, "0, at most 2", what)
    tied = torch.zeros(rows, ids, device=bench.device)
    tied[:, 99:] = 1
    first = bool((tied.argmax(1) == 99).all()) and bool(((-tied).min(1).indices == 99).all())
    what = "argmax does not take the first of equals here: `choose` must break ties itself"
    bench.check("of equals the first is taken", str(first), first, "True", what)


def _right_tokenizers(bench: Bench) -> None:
    device = str(bench.device)
    frames = pictures(32 if bench.gpu else 2)
    here, there = bundled_tokenizer("cpu"), bundled_tokenizer(device)
    expected, found = here.encode(frames), there.encode(frames)
    layer = "find the layer that differs by comparing both with float64"
    same = float(np.mean(expected == found))
    bench.check("wham-tiny: ids as on the CPU", same, same >= 0.999, ">= 0.999", layer)
    split = "a sum is split by the batch: encode with a batch of 1, or test each place in the batch"
    alone = all(
        (there.encode(frames[i : i + 1])[0] == found[i]).all() for i in (0, len(frames) - 1)
    )
    bench.check("ids of a frame alone as in a batch", str(alone), alone, "True", split)
    shifted = bool((there.encode(np.roll(frames, 1, 0)) == np.roll(found, 1, 0)).all())
    bench.check("ids of a frame in another place", str(shifted), shifted, "True", split)
    off = int(np.abs(here.decode(expected).astype(int) - there.decode(expected)).max())
    bench.check("decoded pixels: largest difference", off, off <= 1, "<= 1", layer)
    with tf32(True):
        kept = float(np.mean(there.encode(frames) == found))
    off_again = "the tokenizer's passes must set TF32 off themselves, and restore it"
    bench.check("ids after a caller allowed TF32", kept, kept == 1, "1", off_again)
    config = TokenizerConfig(TAMING if bench.gpu else SMALL_TAMING)
    conv_here, conv_there = (FrameTokenizer.load(RandomFiles(config), on) for on in ("cpu", device))
    side = conv_here.frame_size[0]
    blurred = np.random.default_rng(0).integers(0, 256, (4, side // 8, side // 8, 3), np.uint8)
    squares = blurred.repeat(8, 1).repeat(8, 2)
    same = float(np.mean(conv_here.encode(squares) == conv_there.encode(squares)))
    convolutions = "convolutions run in TF32 unless torch.backends.cudnn.allow_tf32 is False"
    bench.check("taming VQGAN: ids as on the CPU", same, same >= 0.999, ">= 0.999", convolutions)


def _right_dreams(bench: Bench) -> None:
    load = bundled_world_model if bench.gpu else small_world_model
    device = str(bench.device)
    eager, graphs = (load(device, "float32", compiled=on) for on in (False, True))
    reference = load("cpu", "float32", compiled=False)
    spec = reference.spec
    steps = min(3, spec.steps)
    flat = np.random.default_rng(0).integers(0, spec.vocabulary, (1, 2 * spec.tokens_per_step))
    error = float(np.abs(reference.logits(flat) - eager.logits(flat)).max())
    bench.check(
        "logits: largest difference", error, error < 0.02, "< 0.02", "compare layer by layer"
    )

    def dreams(model: GPTWorldModel, greedy: bool, rows: int = 3, **how: Any) -> list[Dream]:
        images = np.random.default_rng(1).integers(0, spec.image_vocab, (3, 2, spec.image_tokens))
        idle = np.zeros((steps, ACTION_NUMBERS), np.float32)
        contexts = [Context(idle[:2], tokens=images[row]) for row in range(rows)]
        sampling = Sampling(greedy=greedy)
        given = [idle] * rows
        return dream_batch(
            model, contexts, steps=steps, actions=given, sampling=sampling, seed=1, **how
        )

    for greedy in (True, False):
        kind = "greedy" if greedy else "sampled"
        expected = dreams(reference, greedy)
        for name, found, least in (
            ("without graphs as on the CPU", dreams(eager, greedy), 0.99),
            ("in graphs as on the CPU", dreams(graphs, greedy), 0.99),
            ("in graphs, token by token", dreams(graphs, greedy, speculate=False), 0.99),
            ("in graphs, again", dreams(graphs, greedy), 0.99),
            ("in graphs, alone as in a batch", dreams(graphs, greedy, rows=1), 0.99),
        ):
            share = float(
                np.mean(
                    [np.mean(a.tokens == b.tokens) for a, b in zip(expected, found, strict=False)]
                )
            )
            what = (
                "if only graphs are low: a buffer is stale; compare `static_pass` without a graph"
            )
            bench.check(f"dreams, {kind}, {name}", share, share >= least, f">= {least}", what)
    if bench.gpu:
        half = [load(device, "bf16", compiled=on) for on in (False, True)]
        plain, recorded = (dreams(model, True)[0].tokens[0] for model in half)
        bench.note("bf16, greedy: graphs as without", float(np.mean(plain == recorded)))
