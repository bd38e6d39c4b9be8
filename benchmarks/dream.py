"""Measure the time per dreamt step, and compare it with a plain implementation of the same model.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/dream.py --threads 2 --rounds 2
    OMP_WAIT_POLICY=PASSIVE python benchmarks/dream.py --model wham-tiny --steps 4

Without --model, a model of one of WHAM's shapes (mid: 8 layers, 8 heads, 512 wide; 540 + 16 tokens
per step, a vocabulary of 16 384 + 68, 10 steps) with one of two sets of weights:

    random  as before training. All ids are about equally likely, so guessing gains little.
    copy    random, except for a first layer that copies: at every place it finds the token at the
            same place of the previous frame, and gives it the probability --copy-mass. This imitates
            gameplay, in which consecutive frames share tokens: 51 % in CoinRun, 19 % in Doom and
            6 % in MiniWorld for the bundled recordings. The default is about their mean.

The dreams start from random frames that share the same part of their tokens. With --model (a bundled
name, a WHAM .ckpt or the folder of a model) they start from the bundled recordings, ingested with the
tokenizer of the model.

Three implementations take turns. All dream from the same context and seed, in mode world:

    plain        for every step a prefill over the context, one cached pass per image token, another
                 prefill, and one cached pass per action token; keys and values grow by
                 concatenation, attention is computed with plain matrix products
    one by one   this package without guesses
    guessing     this package with its default settings

    python benchmarks/dream.py --only counts

counts what a pass of fixed shapes, as a GPU records them, starts and allocates, and what calls of
`dream_batch` set up. It needs no GPU: the same work runs on the CPU.

On a shared machine look at the CPU time: it is the sum over all threads and does not include the time
of other programs. `wham-data bench dream` measures this package alone, and compares it with the lower
limit that memory bandwidth sets.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import wham_data
from wham_data.inference.checkpoints.lightning import open_checkpoint
from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.gpt.bench import SHAPES, random_gpt
from wham_data.inference.gpt.choosing import Chooser
from wham_data.inference.gpt.fixed_pass import COLUMNS, recorded_work
from wham_data.inference.gpt.model import GPT, Cache, Decoder, Feed
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.static_decode import StaticDecoder
from wham_data.inference.gpt.world_model import GPTWorldModel, torch_dtype
from wham_data.inference.sampling import Draw, HeldNoise, Noise, Sampling, choose
from wham_data.inference.tokenizer import BUNDLED
from wham_data.inference.world_model import load_world_model
from wham_data.pipelines.demo import RECORDINGS
from wham_data.schemas.wham_tokens import ACTION_SIZE, encode_actions, token_ranges

GAMEPLAY_COPY_MASS = 0.25


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU and wall time in seconds per step of one dream."""

    cpu_s: float
    wall_s: float


def main() -> None:
    settings = _arguments()
    if settings.only == "counts":
        _counts()
        return
    if settings.threads:
        torch.set_num_threads(settings.threads)
    gpt, model = _models(settings)
    contexts, futures = (_recorded if settings.model else _gameplay)(model, settings)
    sampling = Sampling(temperature=settings.temperature)

    def ours(speculate: bool) -> list[Dream]:
        return dream_batch(
            model,
            contexts,
            steps=settings.steps,
            actions=futures,
            sampling=sampling,
            seed=settings.seed,
            speculate=speculate,
        )

    paths: dict[str, Callable[[], object]] = {
        "one by one": lambda: ours(False),
        "guessing": lambda: ours(True),
    }
    if not settings.no_plain:
        plain_steps = min(settings.plain_steps, settings.steps)
        paths["plain"] = lambda: _plain(gpt, contexts[0], futures[0], plain_steps, settings)
    spent: dict[str, list[Spent]] = {name: [] for name in paths}
    results: dict[str, object] = {}
    for _ in range(settings.rounds):
        for name, path in paths.items():
            cpu, wall = time.process_time(), time.perf_counter()
            results[name] = path()
            steps = plain_steps if name == "plain" else settings.steps * settings.batch
            spent[name].append(
                Spent((time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps)
            )
    _report(settings, model, spent, results)


def _report(
    settings: argparse.Namespace,
    model: GPTWorldModel,
    spent: dict[str, list[Spent]],
    results: dict[str, object],
) -> None:
    report: dict[str, object] = {
        "model": model.name,
        "weights": None if settings.model else settings.weights,
        "copy_mass": None if settings.model or settings.weights == "random" else settings.copy_mass,
        "batch": settings.batch,
        "steps": settings.steps,
        "dtype": model.dtype,
        "device": model.device,
        "threads": torch.get_num_threads(),
    }
    best = {name: min(figure.cpu_s for figure in times) for name, times in spent.items()}
    for name, times in spent.items():
        line: dict[str, object] = {
            "cpu_s_per_step": [round(figure.cpu_s, 2) for figure in times],
            "wall_s_per_step": [round(figure.wall_s, 2) for figure in times],
        }
        if "plain" in best and name != "plain":
            line["times_less_cpu_than_plain"] = round(best["plain"] / best[name], 2)
        dreams = results[name]
        if isinstance(dreams, list):
            stats = dreams[0].stats
            line["tokens_per_pass"] = round(stats.tokens_per_pass, 2)
            line["acceptance"] = round(stats.acceptance, 3)
        report[name] = line
    one_by_one, guessing = results["one by one"], results["guessing"]
    assert isinstance(one_by_one, list)
    assert isinstance(guessing, list)
    report["tokens_equal"] = all(
        np.array_equal(a.tokens, b.tokens) for a, b in zip(one_by_one, guessing, strict=True)
    )
    if "plain" in results:
        plain = results["plain"]
        report["plain_tokens_equal"] = bool(
            np.array_equal(plain, one_by_one[0].tokens[: len(plain)])
        )
    report["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the time per dreamt step; compare with a plain implementation."
    )
    parser.add_argument(
        "--only", choices=("counts",), help="counts: count operations, and measure no time"
    )
    parser.add_argument("--model", help="a bundled name, a WHAM .ckpt, or the folder of a model")
    parser.add_argument(
        "--shape",
        default="mid",
        help=f"shape of a random model: {', '.join(SHAPES)}, or layers x heads x width as LxHxD",
    )
    parser.add_argument(
        "--weights", choices=("random", "copy"), default="copy", help="weights of a random model"
    )
    parser.add_argument(
        "--copy-mass",
        type=float,
        default=GAMEPLAY_COPY_MASS,
        help="probability of the token of the previous frame, for --weights copy",
    )
    parser.add_argument("--steps", type=int, default=2, help="steps to dream")
    parser.add_argument(
        "--plain-steps", type=int, default=1, help="steps to dream with the plain implementation"
    )
    parser.add_argument("--no-plain", action="store_true", help="leave the plain one out")
    parser.add_argument(
        "--batch", type=int, default=1, help="dreams at the same time (the plain one makes one)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each figure")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's default")
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bf16"), default="float32")
    return parser.parse_args()


class _Ops(TorchDispatchMode):
    """Counts the operations that torch starts, without views, and the tensors that they allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.started = self.allocated = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if not func.is_view and not str(func).startswith(("aten.resolve_", "aten.detach")):
            self.started += 1
            self.allocated += not func._schema.is_mutable
        return func(*args, **(kwargs or {}))


def _counts() -> None:
    """Print how many operations a pass of one token per dream starts, and what three calls set up.

    The model has 24 layers, as 1.6B has; its other sizes do not matter.
    """
    spec = GPTSpec(24, 2, 32, positions=4 * 24, image_tokens=8, image_vocab=64)
    torch.manual_seed(0)
    gpt = GPT(spec).eval().requires_grad_(False)
    print(
        "| dreams | passes of any shape, operations | of fixed shapes: recorded | beside these "
        "| tensors that these allocate |"
    )
    print("|---|---|---|---|---|")
    for dreams in (1, 12):
        print(f"| {dreams} |", " | ".join(str(figure) for figure in _operations(gpt, dreams)), "|")
    model = GPTWorldModel("counted", gpt, None, compiled=True)
    context = Context(np.zeros((3, ACTION_SIZE), np.float32), tokens=np.zeros((3, 8), np.int64))
    for _ in range(3):
        dream_batch(model, [context], steps=4, mode="full")
    decoder = model.kept.take(gpt, 1, spec.positions)
    print(
        f"\nthree calls of dream_batch: {model.kept.built} decoder, {decoder.passes_made} recordings; "
        f"lengths that are recorded: {decoder.lengths}"
    )


def _operations(gpt: GPT, dreams: int) -> tuple[int, int, int, int]:
    """The figures of `_counts` for so many dreams."""
    spec, device = gpt.spec, gpt.lm_head.weight.device
    chooser, cache = Chooser(spec, Sampling(), device), Cache(gpt, dreams, 192)
    table = torch.zeros(dreams, 1 + COLUMNS, dtype=torch.int64)
    feeds = [Feed(row, 0, torch.zeros(1, dtype=torch.int64), 1) for row in range(dreams)]

    def chosen(decoder: Decoder) -> object:
        noises = [HeldNoise(Noise(0, row), spec.vocabulary, device) for row in range(dreams)]
        return decoder.choose(feeds, [Draw(noise, 0, range(1)) for noise in noises], chooser)

    plain, fixed = Decoder(gpt, cache), StaticDecoder(gpt, dreams, spec.positions)
    made = _ops_of(lambda: [HeldNoise(Noise(0, 0), 1, device) for _ in range(dreams)])
    any_shape, whole = _ops_of(lambda: chosen(plain)), _ops_of(lambda: chosen(fixed))
    recorded = _ops_of(lambda: recorded_work(gpt, cache, chooser, 1, False, table))
    return (
        any_shape.started - made.started,
        recorded.started,
        whole.started - made.started - recorded.started,
        whole.allocated - made.allocated - recorded.allocated,
    )


@torch.inference_mode()
def _ops_of(work: Callable[[], object]) -> _Ops:
    """The operations of some work, which was done once before."""
    work()
    with _Ops() as ops:
        work()
    return ops


def _models(settings: argparse.Namespace) -> tuple[GPT, GPTWorldModel]:
    """The transformer for the plain path, and the world model of the same weights."""
    dtype = torch_dtype(settings.dtype, torch.device(settings.device))
    if settings.model:
        model = load_world_model(settings.model, settings.device, settings.dtype)
        return _loaded_gpt(settings.model).to(settings.device, dtype), model
    gpt = random_gpt(settings.shape, "cpu")
    if settings.weights == "copy":
        _make_it_copy(gpt, settings.copy_mass, settings.temperature)
    gpt.to(settings.device, dtype)
    name, compiled = f"random {settings.shape}", settings.device != "cpu"
    return gpt, GPTWorldModel(name, gpt, None, compiled=compiled)


def _loaded_gpt(ref: str) -> GPT:
    """A transformer of its own for the plain path, on the CPU."""
    checkpoint = open_checkpoint(BUNDLED.get(ref, Path(ref)))
    with torch.device("meta"):
        gpt = GPT(checkpoint.gpt)
    weights = {name: each.clone() for name, each in checkpoint.world_model_tensors()}
    gpt.load_state_dict(weights, assign=True)
    return gpt.eval().requires_grad_(False)


def _recorded(
    model: GPTWorldModel, settings: argparse.Namespace
) -> tuple[list[Context], list[NDArray[np.float32]]]:
    """Contexts and future actions from the middle of each bundled recording."""
    assert model.tokenizer is not None
    seen = model.spec.steps
    contexts, futures = [], []
    with tempfile.TemporaryDirectory() as folder:
        wham_data.ingest(
            [RECORDINGS],
            out=folder,
            tokenizer=settings.model,
            actions=model.action_space,
            size=model.tokenizer.frame_size,
            workers=0,
        )
        corpus = wham_data.Corpus.open(folder)
        episodes = corpus.episodes["episode"].sort().to_list()
        for dream in range(settings.batch):
            steps = corpus.read_episode(episodes[dream % len(episodes)])
            first = (len(steps.time_ns) - seen - settings.steps) // 2
            known, future = np.split(steps.actions[first:][: seen + settings.steps], [seen])
            contexts.append(Context(known, tokens=steps.tokens[first:][:seen]))
            futures.append(future)
    return contexts, futures


def _gameplay(
    model: GPTWorldModel, settings: argparse.Namespace
) -> tuple[list[Context], list[NDArray[np.float32]]]:
    """Contexts whose frames share `copy_mass` of their tokens, with actions, and future actions."""
    spec, space = model.spec, wham_data.load_space(model.action_space)
    random = np.random.default_rng(settings.seed)
    contexts, futures = [], []
    for _ in range(settings.batch):
        frames = [random.integers(0, spec.image_vocab, spec.image_tokens)]
        for _ in range(spec.steps - 1):
            fresh = random.integers(0, spec.image_vocab, spec.image_tokens)
            same = random.random(spec.image_tokens) < settings.copy_mass
            frames.append(np.where(same, frames[-1], fresh))
        actions = np.zeros((spec.steps + settings.steps, space.size), np.float32)
        sticks = space.of_kind("axis")
        actions[:, sticks] = random.uniform(-1, 1, (len(actions), len(sticks)))
        contexts.append(Context(actions=actions[: spec.steps], tokens=np.stack(frames)))
        futures.append(actions[spec.steps :])
    return contexts, futures


@torch.inference_mode()
def _make_it_copy(gpt: GPT, mass: float, temperature: float) -> None:
    """Change the first layer so that it copies the token at the same place of the previous frame.

    The first dimensions (as many as a head has) of each position hold a code of cosines and sines.
    A query rotates this code by one step minus one token, so that it matches the key of the token to
    copy. The values are token embeddings. The projection scales them so that the copied token gets
    the mean probability `mass`.
    """
    spec = gpt.spec
    width, size = spec.n_embd, spec.head_size
    block = gpt.transformer.h[0]
    generator = torch.Generator().manual_seed(0)
    frequency = torch.rand(size // 2, generator=generator) * math.pi
    angle = torch.arange(spec.positions)[:, None] * frequency
    gpt.transformer.wpe.weight[:, : size // 2] = 0.2 * angle.cos()
    gpt.transformer.wpe.weight[:, size // 2 : size] = 0.2 * angle.sin()
    gpt.lm_head.weight.mul_(2)[:, :size] = 0
    turn = torch.zeros(size, size)
    back = frequency * (1 - spec.tokens_per_step)
    half = size // 2
    turn[:half, :half], turn[:half, half:] = back.cos().diag(), -back.sin().diag()
    turn[half:, :half], turn[half:, half:] = back.sin().diag(), back.cos().diag()
    attention = block.attn.c_attn.weight
    attention.zero_()
    for head in range(spec.n_head):
        rows = slice(head * size, (head + 1) * size)
        attention[rows, :size] = turn * 2
        attention[width:][rows, :size] = torch.eye(size)
        attention[2 * width :][rows, rows] = torch.eye(size) * (head > 0)
    random = np.random.default_rng(0)
    frame = random.integers(0, spec.image_vocab, spec.image_tokens)
    actions = encode_actions(np.zeros((1, ACTION_SIZE)))[0][0] + spec.image_vocab
    step = np.concatenate([frame, actions])
    tokens = torch.from_numpy(np.concatenate([step, step]))[None]
    weak, strong = 0.0, 1.0
    for _ in range(10):
        strength = (weak + strong) / 2
        block.attn.c_proj.weight.copy_(torch.eye(width) * strength)
        logits = gpt(tokens)[0, spec.tokens_per_step - 1 :][: spec.image_tokens]
        chance = (logits[:, : spec.image_vocab] / temperature).softmax(1)
        copied = chance.gather(1, torch.from_numpy(frame)[:, None]).mean().item()
        weak, strong = (strength, strong) if copied < mass else (weak, strength)


@torch.inference_mode()
def _plain(
    gpt: GPT,
    context: Context,
    future: NDArray[np.float32],
    steps: int,
    settings: argparse.Namespace,
) -> NDArray[np.int64]:
    """The published behaviour's work for one dream in mode world; its image tokens [steps, N]."""
    spec = gpt.spec
    device = gpt.lm_head.weight.device
    sampling, noise = Sampling(temperature=settings.temperature), Noise(settings.seed, 0)
    ranges = torch.from_numpy(token_ranges(spec.image_vocab, spec.image_tokens)).to(device)
    assert context.tokens is not None
    offset = spec.image_vocab
    actions = encode_actions(context.actions)[0] + offset
    given = encode_actions(future)[0] + offset
    history = [np.concatenate(step) for step in zip(context.tokens, actions, strict=True)]

    def phase(known: Tensor, step: int, first: int, count: int) -> Tensor:
        """Prefill `known`, int64 [n], and generate `count` tokens, one cached pass each."""
        logits, keys, values = _prefill(gpt, known)
        chosen: list[Tensor] = []
        for place in range(first, first + count):
            if chosen:
                position = len(known) + len(chosen) - 1
                logits = _one_token(gpt, chosen[-1], position, keys, values)
            drawn = noise.at(step, place, 1, spec.vocabulary, device)
            chosen.append(choose(logits, ranges[place : place + 1], sampling, drawn))
        return torch.cat(chosen)

    frames = []
    for step in range(steps):
        window = history[-(spec.steps - 1) :]
        known = torch.from_numpy(np.concatenate(window)).to(device)
        frame = phase(known, step, 0, spec.image_tokens)
        phase(torch.cat([known, frame]), step, spec.image_tokens, ACTION_SIZE)
        frames.append(frame.cpu().numpy())
        history.append(np.concatenate([frames[-1], given[step]]))
    return np.stack(frames)


def _prefill(gpt: GPT, tokens: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Process a whole context: logits float32 [1, ids] after its end, keys and values per layer."""
    x = (gpt.lm_head.weight[tokens] + gpt.transformer.wpe.weight[: len(tokens)])[None]
    keys, values = [], []
    for block in gpt.transformer.h:
        query, key, value = _heads(gpt, block.attn.c_attn(block.ln_1(x)))
        keys.append(key)
        values.append(value)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + block.attn.c_proj(mixed.transpose(1, 2).reshape(x.shape))
        x = x + block.mlp(block.ln_2(x))
    return gpt.lm_head(gpt.transformer.ln_f(x[:, -1])).float(), keys, values


def _one_token(
    gpt: GPT, token: Tensor, position: int, keys: list[Tensor], values: list[Tensor]
) -> Tensor:
    """Process one more token, int64 [1], and extend the cache; logits float32 [1, ids]."""
    x = (gpt.lm_head.weight[token] + gpt.transformer.wpe.weight[position])[None]
    for layer, block in enumerate(gpt.transformer.h):
        query, key, value = _heads(gpt, block.attn.c_attn(block.ln_1(x)))
        keys[layer] = torch.cat([keys[layer], key], dim=2)
        values[layer] = torch.cat([values[layer], value], dim=2)
        scores = query @ keys[layer].transpose(2, 3) / math.sqrt(gpt.spec.head_size)
        mixed = scores.softmax(dim=-1) @ values[layer]
        x = x + block.attn.c_proj(mixed.transpose(1, 2).reshape(x.shape))
        x = x + block.mlp(block.ln_2(x))
    return gpt.lm_head(gpt.transformer.ln_f(x[:, -1])).float()


def _heads(gpt: GPT, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each [1, h, n, hd]."""
    split = qkv.view(1, qkv.shape[1], 3, gpt.spec.n_head, -1).permute(2, 0, 3, 1, 4)
    return split[0], split[1], split[2]


if __name__ == "__main__":
    main()
