"""Ways to compute the attention of one pass over the cached keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from gpu_parts.models import ACTION_NUMBERS, small_world_model
from gpu_parts.report import Bench
from wham_data.inference.dream import Context, dream_batch
from wham_data.inference.gpt.bench import copy_bandwidth, random_model

AS_IT_IS = "as it is"


def attn(bench: Bench) -> None:
    """Attention of few tokens over a long cache, in each way that torch offers."""
    shapes = (("1.6B", 18, 128), ("200M", 16, 64)) if bench.gpu else (("tiny", 2, 16),)
    bandwidth = copy_bandwidth(bench.device)
    for model, heads, size in shapes:
        for rows, count in ((1, 1), (1, 64), (12, 64)) if bench.gpu else ((2, 4),):
            case = Case.random(bench, rows, heads, count, size)
            floor_us = 1e6 * 2 * case.keys.nbytes / bandwidth
            for way, work in case.ways().items():
                _measure(bench, f"{model}, {rows} x {count}: {way}", case, work, floor_us)
            bench.free()
    _new_lengths(bench)


@dataclass(frozen=True, slots=True)
class Case:
    """One pass: the tokens of each of R rows over the row's cache.

    query         [R, h, m, hd]
    keys, values  [R, h, n, hd]
    positions     int64 [R, m], of the tokens
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor

    @classmethod
    def random(cls, bench: Bench, rows: int, heads: int, count: int, size: int) -> Case:
        held = 5696 if bench.gpu else 128
        query, keys, values = (
            torch.randn(rows, heads, length, size, device=bench.device).to(bench.dtype)
            for length in (count, held, held)
        )
        places = torch.arange(count, device=bench.device) + held * 15 // 16
        return cls(query, keys, values, places.expand(rows, count))

    def mask(self) -> Tensor:
        """Whether a token sees a key: bool [R, 1, m, n]."""
        places = torch.arange(self.keys.shape[2], device=self.keys.device)
        return (places <= self.positions[..., None])[:, None]

    def bias(self) -> Tensor:
        """The mask as 0 or -inf."""
        return torch.where(self.mask(), 0.0, -torch.inf).to(self.query.dtype)

    def exact(self) -> Tensor:
        """The result in float32."""
        query, keys, values = (each.float() for each in (self.query, self.keys, self.values))
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=self.mask())

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        """The ways by name; the first is that of the package."""
        mask, bias = self.mask(), self.bias()
        sdpa = partial(functional.scaled_dot_product_attention, self.query, self.keys, self.values)

        def by(backend: SDPBackend, bias: Tensor | None) -> Tensor:
            with sdpa_kernel(backend):
                return sdpa(attn_mask=bias)

        ways = {
            AS_IT_IS: lambda: attend_now(self),
            "a mask of bools": lambda: sdpa(attn_mask=mask),
            "efficient": lambda: by(SDPBackend.EFFICIENT_ATTENTION, bias),
            "cuDNN": lambda: by(SDPBackend.CUDNN_ATTENTION, bias),
            "math": lambda: by(SDPBackend.MATH, bias),
            "flash, no mask (a bound)": lambda: by(SDPBackend.FLASH_ATTENTION, None),
        }
        for pieces in (2, 4, 8):
            ways[f"keys in {pieces} pieces"] = partial(_in_pieces, self, bias, pieces)
        if self.query.is_cuda:
            ways["flex"] = partial(_flex, self)
        return ways


def attend_now(case: Case) -> Tensor:
    """The package's own attention over a cache. No other part of this script knows that function."""
    from wham_data.inference.gpt.attention import Seen, attend_each

    rows, heads, count, size = case.query.shape
    seen = Seen.at(case.positions, case.keys)
    mixed = attend_each(case.query.transpose(1, 2), case.keys, case.values, seen)
    return mixed.view(rows, count, heads, size).transpose(1, 2)


def _measure(
    bench: Bench, name: str, case: Case, work: Callable[[], Tensor], floor_us: float
) -> None:
    try:
        with torch.inference_mode():
            exact = case.exact()
            error = float((work().float() - exact).norm() / exact.norm())
            us = 1000 * bench.ms(_replayed(work, bench.gpu), calls=20)
    except (RuntimeError, NotImplementedError) as why:
        bench.note(name, f"{type(why).__name__}: {why}".splitlines()[0][:80])
        return
    if not name.endswith(AS_IT_IS):
        bench.note(name, f"{us / floor_us:.2f} x floor, {us:.0f} us, error {error:.1e}")
        return
    what = "take the fastest way below whose error is as small"
    bench.speed(name, us / floor_us, "x floor", most=2, otherwise=what)
    what = "compare each row with float32: a mask or a position is wrong"
    bench.check("    its error against float32", error, error < 0.02, "< 0.02", what)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)


def _flex(case: Case) -> Tensor:
    def masked(score: Tensor, row: Tensor, _head: Tensor, at: Tensor, key: Tensor) -> Tensor:
        return torch.where(key <= case.positions[row, at], score, -float("inf"))

    return _compiled_flex()(case.query, case.keys, case.values, score_mod=masked)


def _in_pieces(case: Case, bias: Tensor, pieces: int) -> Tensor:
    """The keys cut into pieces, joined by their log-sum-exp, so that more of the GPU works."""
    rows, heads, held, size = case.keys.shape
    count, piece = case.query.shape[2], held // pieces
    keys, values = (
        each.view(rows, heads * pieces, piece, size) for each in (case.keys, case.values)
    )
    query = case.query.repeat_interleave(pieces, 1)
    # Finite: a piece without a visible key gives some mean of its values, which then counts nothing.
    bias = bias.clamp(min=torch.finfo(query.dtype).min / 4)
    bias = bias.view(rows, 1, count, pieces, piece).permute(0, 1, 3, 2, 4)
    bias = bias.expand(rows, heads, pieces, count, piece).reshape(rows, -1, count, piece)
    if query.is_cuda:
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        mixed, sums = attend(query, keys, values, bias, True)[:2]
        sums = sums[:, :, :count]
    else:
        scores = query @ keys.transpose(2, 3) / size**0.5 + bias
        mixed, sums = scores.softmax(-1) @ values, scores.logsumexp(-1)
    weights = sums.view(rows, heads, pieces, count).float().softmax(2)[..., None]
    parts = mixed.view(rows, heads, pieces, count, size).float()
    return (parts * weights).sum(2).to(query.dtype)


def _replayed(work: Callable[[], object], gpu: bool) -> Callable[[], object]:
    """The work as a CUDA graph, so that starting its kernels costs nothing."""
    if not gpu:
        return work
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        work()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _new_lengths(bench: Bench) -> None:
    """What a number of keys costs that was never seen: without graphs, nearly every pass has one."""
    if bench.gpu:
        model = random_model("2x8x1024", str(bench.device), "bf16", compile=False)
    else:
        model = small_world_model(str(bench.device), "float32", compiled=False)
    spec = model.spec

    def dreamt(seen: int) -> tuple[float, int]:
        """Milliseconds and passes of a frame after so many steps."""
        images = np.zeros((seen, spec.image_tokens), np.int64)
        idle = np.zeros((seen, ACTION_NUMBERS), np.float32)
        started = time.perf_counter()
        (made,) = dream_batch(
            model, [Context(idle, tokens=images)], steps=1, actions=[idle[:1]], speculate=False
        )
        bench.sync()
        return 1000 * (time.perf_counter() - started), made.stats.passes

    dreamt(1)
    (first_ms, passes), (second_ms, _) = dreamt(2), dreamt(2)
    bench.speed(
        "a pass over a number of keys seen for the first time",
        max(0.0, first_ms - second_ms) / passes,
        "ms more",
        most=0.5,
        otherwise="cuDNN plans each length: rule it out with sdpa_kernel in gpt/attention.py",
    )
