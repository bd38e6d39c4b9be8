"""How fast dreams, tokenizers and training are, and what running out of memory looks like."""

from __future__ import annotations

import math
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_parts.models import (
    ACTION_NUMBERS,
    BIG_VIT,
    BIG_VIT_GFLOP,
    LARGE_TRAINED,
    SMALL_TRAINED,
    SMALL_VIT,
    RandomFiles,
    SameWindow,
    bundled_tokenizer,
    pictures,
    small_world_model,
)
from gpu_parts.report import GIB, Bench, tf32
from wham_data.inference.dream import Context, dream_batch
from wham_data.inference.gpt.bench import bench_dream, random_model
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.tokenizers.frame_tokenizer import FrameTokenizer, image_model
from wham_data.inference.tokenizers.vit_config import ViTConfig


def dream(bench: Bench) -> None:
    """Time per frame of random models of WHAM's shapes, with their prefills and sampling."""
    plans = (("200M", 400, 20), ("1.6B", 2000, 60)) if bench.gpu else (("small", 0, 0),)
    for shape, most, most_prefill in plans:
        where = str(bench.device)
        if bench.gpu:
            model = random_model(shape, where, "bf16", compile=True)
        else:
            model = small_world_model(where, "float32", compiled=True)
        _one_frame(bench, model, shape, most_prefill)
        for batch, guesses in ((1, False), (1, True), (12, True)) if bench.gpu else ((2, True),):
            made = bench_dream(model, batch=batch, steps=3, speculate=guesses)
            bench.speed(
                f"{shape}, batch {batch}, {'guesses' if guesses else 'token by token'}",
                made.ms_per_frame,
                "ms a frame",
                most=None if guesses else most,
                otherwise="the kernels above say what takes the time",
            )
            floor = f"{made.times_floor:.2f} x {made.floor_ms_per_frame:.1f} ms"
            bench.note("    times the floor", floor)
            bench.note("    tokens a pass", made.tokens_per_pass)
            bench.note("    memory", bench.gib(), "GiB")
        del model
        bench.free()


def _one_frame(bench: Bench, model: GPTWorldModel, shape: str, most_prefill: float) -> None:
    """What the first dream of a model costs more, a prefill alone, and the kernels of one frame."""
    from torch.profiler import ProfilerActivity, profile

    spec = model.spec
    seen = spec.steps - 1
    images = np.random.default_rng(0).integers(0, spec.image_vocab, (seen, spec.image_tokens))
    idle = np.zeros((seen, ACTION_NUMBERS), np.float32)

    def frame_ms() -> float:
        started = time.perf_counter()
        dream_batch(model, [Context(idle, tokens=images)], steps=1, actions=[idle[:1]])
        bench.sync()
        return 1000 * (time.perf_counter() - started)

    taken = [frame_ms() for _ in range(3)]
    bench.speed(
        f"{shape}: the first frame takes longer by",
        taken[0] - taken[2],
        "ms",
        most=2000,
        otherwise="see how many graphs are recorded, and how long each takes",
    )
    flat = torch.randint(0, spec.image_vocab, (1, seen * spec.tokens_per_step), device=bench.device)
    with torch.inference_mode():
        prefill = bench.ms(lambda: model.gpt.states(flat), rounds=5)
    bench.speed(
        f"{shape}: {flat.shape[1]} tokens in one pass",
        prefill,
        "ms",
        most=most_prefill,
        otherwise="find the slow kernel with torch's profiler around `GPT.states`",
    )
    seen_by = ProfilerActivity.CUDA if bench.gpu else ProfilerActivity.CPU
    with profile(activities=[seen_by]) as profiled:
        wall_ms = frame_ms()
    kernels = sorted(profiled.key_averages(), key=lambda kernel: -kernel.device_time_total)
    busy = sum(kernel.device_time_total for kernel in kernels) / 1000 / wall_ms
    bench.speed(
        f"{shape}: share of a frame in which the GPU works",
        busy,
        "",
        least=0.8,
        otherwise="the host starts too many operations: see the counts below",
    )
    for kernel in [kernel for kernel in kernels[:12] if kernel.device_time_total]:
        spent = f"{kernel.device_time_total / 1000:.2f} ms, {kernel.count} times"
        bench.note(f"    {kernel.key[:46]}", spent)


def tok(bench: Bench) -> None:
    frames = pictures(512 if bench.gpu else 2)
    tokenizer = bundled_tokenizer(str(bench.device))
    ids = tokenizer.encode(frames)
    host = "the host is the limit: copies from pinned memory, and one wait at the end"
    for name, work, least in (
        ("encode", lambda: tokenizer.encode(frames), 5000),
        ("decode", lambda: tokenizer.decode(ids), 5000),
    ):
        rate = 1000 * len(frames) / bench.ms(work, rounds=5)
        bench.speed(f"wham-tiny: {name}", rate, "frames/s", least=least, otherwise=host)
    config = BIG_VIT if bench.gpu else SMALL_VIT
    shown = frames[: 128 if bench.gpu else 2, : config.image_height, : config.image_width]
    large = FrameTokenizer.load(RandomFiles(TokenizerConfig(config)), str(bench.device))
    bench.gib()
    rate = 1000 * len(shown) / bench.ms(lambda: large.encode(shown), rounds=3)
    slow = "look at the kernels that cuBLAS chooses for float32"
    bench.speed("ViT of 12 x 1024: encode", rate, "frames/s", least=220, otherwise=slow)
    bench.note("    memory", bench.gib(), "GiB")
    _other_arithmetic(bench, config, shown[:32])


def _other_arithmetic(bench: Bench, config: ViTConfig, frames: NDArray[np.uint8]) -> None:
    """What TF32 or bf16 would bring to the ViT, and how many ids they would change."""
    torch.manual_seed(0)
    model = image_model(config).eval().requires_grad_(False).to(bench.device)
    batch = torch.from_numpy(np.ascontiguousarray(frames)).to(bench.device)
    with torch.inference_mode(), tf32(False):
        exact = model.ids(batch)
    for name, loose, half in (
        ("float32", False, False),
        ("TF32", True, False),
        ("bf16", False, True),
    ):
        autocast = torch.autocast(bench.device.type, torch.bfloat16, enabled=half)
        with torch.inference_mode(), tf32(loose), autocast:
            same = float((model.ids(batch) == exact).float().mean())
            rate = 1000 * len(batch) / bench.ms(lambda: model.ids(batch), rounds=5)
        bench.note(f"ViT passes in {name}", f"{rate:.0f} frames/s, ids as in float32 {same:.4f}")
        if bench.gpu:
            bench.note("    arithmetic", rate * BIG_VIT_GFLOP / 1000, "TFLOP/s")


def oom(bench: Bench) -> None:
    if not bench.gpu:
        bench.note("out of memory", "not run: a CPU gives no such error")
        return
    model = random_model("200M", str(bench.device), "bf16", compile=True)
    idle = np.zeros((9, ACTION_NUMBERS), np.float32)
    context = Context(idle, tokens=np.zeros((9, 540), np.int64))

    def dreams(rows: int) -> None:
        dream_batch(model, [context] * rows, steps=1, actions=[idle] * rows)

    card = torch.cuda.get_device_properties(bench.device).total_memory
    what = "another class: whoever translates it must walk __cause__ and __context__"
    for rows, gib in ((32, 4), (1, 1.05), (1, 1.2), (1, 1.6), (1, 4)):
        bench.free()
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / card), bench.device)
        try:
            dreams(rows)
            said, good = "fits", True
        except Exception as error:
            said = f"{type(error).__module__}.{type(error).__name__}"
            good = _is_out_of_memory(error)
        bench.check(f"{rows} dreams in {gib} GiB", said, good, "fits, or OutOfMemoryError", what)
    torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
    bench.free()
    dreams(1)
    bench.note("dreams are possible afterwards; held", torch.cuda.memory_allocated() / GIB, "GiB")


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is one of memory, or came from one."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def train(bench: Bench) -> None:
    """Steps of `train_world_model` on one window, again and again, so that the loss must fall."""
    spec = LARGE_TRAINED if bench.gpu else SMALL_TRAINED
    if find_spec("safetensors") is None:
        bench.note("training", "not run: safetensors is not installed")
        return
    for batch in (1, 4, 16) if bench.gpu else (1,):
        try:
            _train_steps(bench, spec, batch)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            bench.note(f"batch {batch}", f"out of memory: {error}"[:80])
        bench.free()


def _train_steps(bench: Bench, spec: GPTSpec, batch: int) -> None:
    from wham_data.inference.training.world_model import WorldModelSettings, train_world_model

    def trained(steps: int) -> tuple[float, float]:
        """Seconds and mean loss of so many steps; the checkpoint at their end is not in the time."""
        settings = WorldModelSettings(
            spec=spec, steps=steps, batch_size=batch, warm_up=1, held_out_windows=1
        )
        same = SameWindow(spec)
        with TemporaryDirectory() as out:
            done = train_world_model(
                same, same, "wham-tiny", Path(out), settings, device=str(bench.device)
            )
        return 60 * done.minutes, done.curve[-1]["loss"]

    bench.gib()
    (first_s, first_loss), (all_s, mean_loss) = trained(2), trained(12)
    step_s = (all_s - first_s) / 10
    weights = sum(math.prod(shape) for shape in spec.tensor_shapes().values())
    bench.speed(
        f"{spec.n_layer} x {spec.n_embd}, batch {batch}: arithmetic",
        6 * weights * batch * spec.positions / step_s / 1e12,
        "TFLOP/s",
        least=250 if batch == 16 else None,
        otherwise="AdamW with fused=True, then torch.compile of the blocks",
    )
    bench.note("    a step", 1000 * step_s, "ms")
    bench.speed("    memory", bench.gib(), "GiB", most=100, otherwise="checkpoint the activations")
    bench.check(
        "    the loss falls",
        f"{first_loss:.3f} to {mean_loss:.3f}",
        mean_loss < first_loss,
        "a fall",
        "compare the gradients with those of the CPU",
    )
