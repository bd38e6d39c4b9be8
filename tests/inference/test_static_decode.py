"""Passes of fixed shapes say what passes of any shape say, and can be recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from makers.slow_gpt import random_gpt, random_model, tiny_spec

from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.gpt.attention import Kernel, kernel_for
from wham_data.inference.gpt.fixed_pass import static_pass
from wham_data.inference.gpt.model import GPT, Cache, Feed
from wham_data.inference.gpt.static_decode import StaticDecoder
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Sampling

EIGHT_STEPS = {"positions": 8 * 22}


def random_tokens(gpt: GPT, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, gpt.spec.vocabulary, (count,), generator=generator)


def dreams(model: GPTWorldModel, **how: Any) -> list[Dream]:
    random = np.random.default_rng(1)
    contexts = [
        Context(
            actions=np.zeros((steps, 16), np.float32),
            tokens=random.integers(0, model.spec.image_vocab, (steps, model.spec.image_tokens)),
        )
        for steps in (1, 3, 2)
    ]
    given = {"actions": [np.zeros((4, 16), np.float32)] * 3} if how["mode"] == "world" else {}
    return dream_batch(model, contexts, steps=4, **how, **given)


@torch.inference_mode()
def test_each_row_goes_on_from_its_own_place() -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    one, two, three = (random_tokens(gpt, 170, seed) for seed in range(3))
    decoder = StaticDecoder(gpt, 3, gpt.spec.positions)
    decoder.advance([Feed(0, 0, one[:20], 1), Feed(2, 0, three[:141], 1)])
    together = [Feed(2, 141, three[141:142], 1), Feed(0, 20, one[20:27], 5), Feed(1, 0, two[:9], 2)]
    expected = [gpt(three[None])[0, 141:142], gpt(one[None])[0, 22:27], gpt(two[None])[0, 7:9]]
    logits = decoder.advance(together)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_row_that_sits_out_keeps_its_past() -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    one, two = (random_tokens(gpt, 60, seed) for seed in range(2))
    decoder = StaticDecoder(gpt, 2, gpt.spec.positions)
    decoder.advance([Feed(0, 0, one[:40], 1), Feed(1, 0, two[:50], 1)])
    decoder.advance([Feed(1, 50, two[50:55], 1)])
    logits = decoder.advance([Feed(0, 40, one[40:45], 5)])
    torch.testing.assert_close(logits, gpt(one[None])[0, 40:45], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_last_positions_have_room_for_what_pads_them() -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    tokens = random_tokens(gpt, gpt.spec.positions)
    decoder = StaticDecoder(gpt, 1, gpt.spec.positions)
    start = gpt.spec.positions - decoder.lengths[-1] + 7
    decoder.advance([Feed(0, 0, tokens[:start], 1)])
    logits = decoder.advance([Feed(0, start, tokens[start:], 4)])
    torch.testing.assert_close(logits, gpt(tokens[None])[0, -4:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("speculate", [True, False])
@pytest.mark.parametrize("mode", ["world", "full"])
def test_dreams_come_out_the_same(mode: str, speculate: bool) -> None:
    model = random_model(image_vocab=5, **EIGHT_STEPS)
    for sampling in (Sampling(), Sampling(greedy=True)):
        how = {"mode": mode, "speculate": speculate, "sampling": sampling, "context_steps": 3}
        for any_shape, fixed in zip(
            dreams(model, **how), dreams(replace(model, compiled=True), **how), strict=True
        ):
            assert np.array_equal(any_shape.tokens, fixed.tokens)
            assert np.array_equal(any_shape.actions, fixed.actions)
            assert any_shape.stats == fixed.stats


@torch.inference_mode()
def test_nothing_in_a_pass_is_decided_by_what_it_reads() -> None:
    gpt = random_gpt(tiny_spec())
    tokens, starts = random_tokens(gpt, 8).view(2, 4), torch.tensor([5, 30])
    traced = torch.compile(static_pass, backend="eager", fullgraph=True)
    found, expected = (
        a_pass(gpt, Cache(gpt, 2, gpt.spec.positions), tokens, starts)
        for a_pass in (traced, static_pass)
    )
    torch.testing.assert_close(found, expected)


def test_a_cpu_attends_through_sdpa() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert kernel_for(torch.zeros(1, dtype=dtype), 64) is Kernel.SDPA


# On a GPU


@pytest.mark.gpu
@torch.inference_mode()
def test_recorded_passes_say_what_the_cpu_says(cuda: str) -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    tokens = random_tokens(gpt, 100)
    expected = gpt(tokens[None])[0]
    decoder = StaticDecoder(gpt.to(cuda), 2, gpt.spec.positions)
    decoder.advance([Feed(0, 0, tokens[:20], 1)])
    for start in (20, 36, 52):  # recorded, replayed, and replayed elsewhere
        logits = decoder.advance([Feed(0, start, tokens[start : start + 16], 16)])
        torch.testing.assert_close(logits.cpu(), expected[start : start + 16], atol=1e-2, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_dreams_alike_in_recorded_passes(cuda: str, dtype: torch.dtype) -> None:
    model = random_model(image_vocab=5, n_embd=48, **EIGHT_STEPS)
    model.gpt.to(cuda, dtype)
    how = {"mode": "full", "sampling": Sampling(greedy=True)}
    pairs = zip(dreams(model, **how), dreams(replace(model, compiled=True), **how), strict=True)
    same = np.mean([np.mean(one.tokens[0] == two.tokens[0]) for one, two in pairs])
    assert same == 1 if dtype is torch.float32 else same > 0.5  # near ties may fall the other way
