"""Measures how fast a world model dreams, and compares it with the floor set by memory bandwidth.

A pass of few tokens does little arithmetic, but it must read every weight once, and the keys and
values of every dream in the batch. A pass cannot be faster than this reading:

    floor, s per frame = passes per frame (weights + keys and values) bytes / bandwidth, bytes per s

The length of keys and values is their mean: the window's known steps and half a step. A prefill,
which reads a whole window again, is limited by arithmetic and is not part of the floor. The bandwidth
is measured in the same run, by copying a large array.
"""

from __future__ import annotations

import re
import resource
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.device import choose_device
from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.gpt.attention import kernel_for
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.world_model import DType, GPTWorldModel, torch_dtype
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import ACTION_SIZE

SHAPES = {"mid": (8, 8, 512), "200M": (16, 16, 1024), "1.6B": (24, 18, 2304)}
"""Layers, heads and width: a mid-size model and the released ones."""

_STEPS, _IMAGE_TOKENS, _VOCABULARY = 10, 540, 16384
_STREAMED_BYTES, _STREAMED_BYTES_ON_GPU = 1 << 28, 1 << 32
_STREAMS = 5
_LARGEST_LAYERS, _LARGEST_WIDTH = 128, 8192


@dataclass(frozen=True, slots=True)
class DreamBench:
    """The results of a benchmark.

    ms_per_frame        wall time per dreamt frame, prefills and sampling included
    tokens_per_second   of all dreams together
    tokens_per_pass     of one dream; 1 without guesses
    acceptance          share of the guesses that were right
    host_memory_bytes   most resident memory of the process
    device_memory_bytes most memory that torch held on the GPU; None on a CPU
    attention           the kernel in use
    compiled            passes of fixed shapes, replayed as CUDA graphs
    fused               such passes go through torch.compile
    bytes_per_pass      weights, and keys and values of all dreams
    bandwidth           bytes per second
    floor_ms_per_frame  see above
    """

    model: str
    device: str
    dtype: str
    batch: int
    context: int
    steps: int
    speculate: bool
    ms_per_frame: float
    tokens_per_second: float
    tokens_per_pass: float
    acceptance: float
    host_memory_bytes: int
    device_memory_bytes: int | None
    attention: str
    compiled: bool
    fused: bool
    bytes_per_pass: int
    bandwidth: float
    floor_ms_per_frame: float

    @property
    def times_floor(self) -> float:
        """How many times the floor a frame takes."""
        return self.ms_per_frame / self.floor_ms_per_frame


def random_model(
    shape: str,
    device: str = "auto",
    dtype: DType | None = None,
    *,
    compile: bool | None = None,
    fuse: bool = False,
) -> GPTWorldModel:
    """A world model of WHAM's layout with random weights, only for measuring speed.

    Args:
        shape: one of `SHAPES`, or LxHxD: layers, heads and width.
        dtype, compile, fuse: as for `load_world_model`.

    Raises:
        UsageError: no such shape, or `fuse` on a CPU.
        MissingPartError: `device` is CUDA, but there is no CUDA.
    """
    gpt = random_gpt(shape, device, dtype)
    on_gpu = gpt.lm_head.weight.device.type == "cuda"
    compiled = on_gpu if compile is None else compile
    return GPTWorldModel(f"random {shape}", gpt, None, compiled=compiled, fused=fuse)


def random_gpt(shape: str, device: str = "auto", dtype: DType | None = None) -> GPT:
    """The transformer of `random_model`, which says what the arguments are.

    Its weights are the same on every device. They are drawn on the CPU.
    """
    named = re.fullmatch(r"(\d{1,3})x(\d{1,3})x(\d{1,5})", shape)
    sizes = SHAPES.get(shape) or (tuple(map(int, named.groups())) if named else None)
    if sizes is None:
        raise UsageError(f"shape {shape[:40]!r}: expected {', '.join(SHAPES)} or LxHxD, as 8x8x512")
    layers, heads, width = sizes
    if (
        not (0 < layers <= _LARGEST_LAYERS and 0 < heads <= width <= _LARGEST_WIDTH)
        or width % heads
    ):
        raise UsageError(
            f"shape {shape}: expected 1 to {_LARGEST_LAYERS} layers, a width up to "
            f"{_LARGEST_WIDTH}, and heads that divide it"
        )
    spec = GPTSpec(
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        positions=_STEPS * (_IMAGE_TOKENS + ACTION_SIZE),
        image_tokens=_IMAGE_TOKENS,
        image_vocab=_VOCABULARY,
    )
    where = choose_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the GPUs' too
        gpt = GPT(spec)
    return gpt.to(where, torch_dtype(dtype, where)).eval().requires_grad_(False)


def bench_dream(
    model: GPTWorldModel,
    *,
    batch: int = 1,
    steps: int = 2,
    context: int | None = None,
    speculate: bool = True,
    frames: NDArray[np.uint8] | None = None,
) -> DreamBench:
    """Measure `steps` dreamt steps, after one step for warm-up, in which a GPU records its passes.

    Args:
        batch: number of dreams side by side. They start alike, with different random numbers.
        context: steps that the model sees; None: as many as it can.
        frames: uint8 [T, H, W, 3], at least `context` frames to start from. They influence how
            many guesses are right. None: random tokens, which suit a random model.

    Raises:
        UsageError: no dreams, no steps, or more context than the model holds.
    """
    if batch < 1 or steps < 1:
        raise UsageError(f"batch {batch}, steps {steps}: expected at least 1 of each")
    spec = model.spec
    seen = spec.steps - 1 if context is None else context
    if not 1 <= seen < spec.steps:
        raise UsageError(f"context {seen}: this model sees 1 to {spec.steps - 1} steps")
    device = model.gpt.lm_head.weight.device
    on_gpu = device.type == "cuda"
    idle = np.zeros((max(seen, steps), ACTION_SIZE), np.float32)
    tokens: NDArray[np.integer] = np.random.default_rng(0).integers(
        0, spec.image_vocab, (seen, spec.image_tokens)
    )
    if frames is not None and model.tokenizer is not None:
        tokens = model.tokenizer.encode(frames[:seen])

    def dreamt(count: int) -> list[Dream]:
        made = dream_batch(
            model,
            [Context(idle[:seen], tokens=tokens)] * batch,
            steps=count,
            actions=[idle[:count]] * batch,
            context_steps=seen,
            speculate=speculate,
        )
        if on_gpu:
            torch.cuda.synchronize(device)
        return made

    dreamt(1)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    dreams = dreamt(steps)
    seconds = time.perf_counter() - started
    passes = max(made.stats.passes for made in dreams)
    bytes_per_pass = weight_bytes(model.gpt) + batch * cache_bytes(spec, seen, model.gpt)
    bandwidth = copy_bandwidth(device)
    return DreamBench(
        model=model.name,
        device=model.device,
        dtype=model.dtype,
        batch=batch,
        context=seen,
        steps=steps,
        speculate=speculate,
        ms_per_frame=1000 * seconds / (batch * steps),
        tokens_per_second=sum(made.stats.generated for made in dreams) / seconds,
        tokens_per_pass=float(np.mean([made.stats.tokens_per_pass for made in dreams])),
        acceptance=float(np.mean([made.stats.acceptance for made in dreams])),
        host_memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        device_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        attention=str(kernel_for(model.gpt.lm_head.weight, spec.head_size)),
        compiled=model.compiled,
        fused=model.fused,
        bytes_per_pass=bytes_per_pass,
        bandwidth=bandwidth,
        floor_ms_per_frame=floor_ms_per_frame(passes / (batch * steps), bytes_per_pass, bandwidth),
    )


def floor_ms_per_frame(passes_per_frame: float, bytes_per_pass: int, bandwidth: float) -> float:
    """Least time per frame in milliseconds, given the memory to read and bytes per second."""
    return 1000 * passes_per_frame * bytes_per_pass / bandwidth


def weight_bytes(gpt: GPT) -> int:
    """Bytes of weights that a pass reads: all but the position table, of which it reads a few rows."""
    return sum(
        weight.numel() * weight.element_size()
        for name, weight in gpt.named_parameters()
        if not name.endswith("wpe.weight")
    )


def cache_bytes(spec: GPTSpec, seen: int, gpt: GPT) -> int:
    """Mean number of bytes of keys and values that a token of one dream reads."""
    positions = round((seen + 0.5) * spec.tokens_per_step)
    return 2 * spec.n_layer * positions * spec.n_embd * gpt.lm_head.weight.element_size()


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of the fastest of a few copies.

    They have 256 MiB; on a GPU 4 GiB, beside which the time to start one does not count.
    """
    size = _STREAMED_BYTES if device.type == "cpu" else _STREAMED_BYTES_ON_GPU
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    fastest = float("inf")
    for _ in range(_STREAMS):
        started = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * source.numel() * source.element_size() / fastest
