"""The world model's transformer says what the formulas say, however its tokens are fed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.slow_gpt import random_gpt, slow_logits, tiny_spec
from torch.nn import functional

from wham_data.inference.gpt.model import GPT, Cache, Feed


def random_tokens(gpt: GPT, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, gpt.spec.vocabulary, (count,), generator=generator)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_logits_are_those_of_the_written_out_formulas(version: int, bias: bool) -> None:
    gpt = random_gpt(tiny_spec(version=version, bias=bias))
    tokens = random_tokens(gpt, 50)
    fast = gpt(tokens[None])[0].numpy()
    np.testing.assert_allclose(fast, slow_logits(gpt, tokens.numpy()), atol=1e-4)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_tensors_are_those_that_the_specification_names(version: int, bias: bool) -> None:
    spec = tiny_spec(version=version, bias=bias)
    tensors = {name: tuple(tensor.shape) for name, tensor in GPT(spec).state_dict().items()}
    assert tensors == spec.tensor_shapes()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
@torch.inference_mode()
def test_however_the_tokens_are_fed_the_logits_are_the_same(
    lengths: list[int], data: st.DataObject
) -> None:
    gpt = random_gpt(tiny_spec())
    lengths = [length for end, length in zip(np.cumsum(lengths), lengths, strict=True) if end <= 88]
    tokens = random_tokens(gpt, sum(lengths))
    whole = gpt(tokens[None])[0]
    cache = Cache(gpt, 1, gpt.spec.positions)
    start = 0
    for length in lengths:
        wanted = data.draw(st.integers(1, length))
        feed = Feed(0, start, tokens[start : start + length], wanted)
        logits = gpt.advance([feed], cache)
        torch.testing.assert_close(logits, whole[feed.end - wanted : feed.end], atol=1e-4, rtol=0)
        start = feed.end


@torch.inference_mode()
def test_sequences_at_different_places_advance_together() -> None:
    gpt = random_gpt(tiny_spec())
    one, two, three = (random_tokens(gpt, 60, seed) for seed in range(3))
    cache = Cache(gpt, 3, gpt.spec.positions)
    gpt.advance([Feed(0, 0, one[:20], 1), Feed(2, 0, three[:41], 1)], cache)
    together = [Feed(2, 41, three[41:42], 1), Feed(0, 20, one[20:27], 5), Feed(1, 0, two[:9], 2)]
    expected = [
        gpt(three[None])[0, 41:42],
        gpt(one[None])[0, 22:27],
        gpt(two[None])[0, 7:9],
    ]
    logits = gpt.advance(together, cache)
    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_tokens_that_were_taken_back_leave_no_trace() -> None:
    gpt = random_gpt(tiny_spec())
    tokens, wrong = random_tokens(gpt, 30), random_tokens(gpt, 30, seed=1)
    cache = Cache(gpt, 1, gpt.spec.positions)
    gpt.advance([Feed(0, 0, tokens[:20], 1)], cache)
    gpt.advance([Feed(0, 20, wrong[20:], 1)], cache)
    logits = gpt.advance([Feed(0, 20, tokens[20:25], 5)], cache)
    torch.testing.assert_close(logits, gpt(tokens[None])[0, 20:25], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bfloat16_stays_near_float32() -> None:
    gpt = random_gpt(tiny_spec(), spread=0.05)
    tokens = random_tokens(gpt, 40)
    exact = gpt(tokens[None])[0, 35:]
    half = gpt.to(torch.bfloat16)
    cache = Cache(half, 1, half.spec.positions)
    logits = half.advance([Feed(0, 0, tokens, 5)], cache)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, atol=0.05, rtol=0)


def test_it_learns_a_sequence_by_heart() -> None:
    torch.manual_seed(0)
    gpt = GPT(tiny_spec())
    tokens = random_tokens(gpt, 40)[None]
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)

    def loss() -> torch.Tensor:
        return functional.cross_entropy(gpt(tokens[:, :-1])[0], tokens[0, 1:])

    before = loss().item()
    for _ in range(25):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < before / 4
