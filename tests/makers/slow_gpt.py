"""Small random world models, and the obvious way to compute what they say: everything again for
every token, in float64, without a cache.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Noise, Sampling, choose
from wham_data.schemas.wham_tokens import decode_actions, encode_actions, token_ranges


def tiny_spec(**changes: int | bool) -> GPTSpec:
    sizes: dict[str, int | bool] = {
        "n_layer": 2,
        "n_head": 3,
        "n_embd": 24,
        "positions": 4 * 22,
        "image_tokens": 6,
        "image_vocab": 20,
    }
    return GPTSpec(**{**sizes, **changes})  # type: ignore[arg-type]


def random_gpt(spec: GPTSpec, seed: int = 0, spread: float = 0.6) -> GPT:
    """Weights far larger than fresh ones, so that what comes depends on what came."""
    torch.manual_seed(seed)
    gpt = GPT(spec).eval().requires_grad_(False)
    for weight in gpt.parameters():
        torch.nn.init.normal_(weight, std=spread)
    return gpt


def random_model(seed: int = 0, **changes: int | bool) -> GPTWorldModel:
    return GPTWorldModel("random", random_gpt(tiny_spec(**changes), seed), None)


def slow_logits(gpt: GPT, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logits float64 [n, ids] behind each of tokens int64 [n], head by head and key by key."""
    spec = gpt.spec
    weights = {name: tensor.double().numpy() for name, tensor in gpt.state_dict().items()}

    def affine(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return scaled * weights.get(f"{name}.weight", 1.0) + weights.get(f"{name}.bias", 0.0)

    x = weights["lm_head.weight"][tokens] + weights["transformer.wpe.weight"][: len(tokens)]
    for layer in range(spec.n_layer):
        block = f"transformer.h.{layer}"
        qkv = affine(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn")
        mixed = np.zeros_like(x)
        for head in range(spec.n_head):
            own = slice(head * spec.head_size, (head + 1) * spec.head_size)
            query, key, value = (part[:, own] for part in np.split(qkv, 3, axis=1))
            for place in range(len(tokens)):
                scores = key[: place + 1] @ query[place] / np.sqrt(spec.head_size)
                shares = np.exp(scores - scores.max())
                mixed[place, own] = shares @ value[: place + 1] / shares.sum()
        x = x + affine(mixed, f"{block}.attn.c_proj")
        wide = affine(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        gelu = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
        x = x + affine(gelu, f"{block}.mlp.c_proj")
    return affine(norm(x, "transformer.ln_f"), "lm_head")


def slow_dream(
    gpt: GPT,
    tokens: NDArray[np.int64],
    actions: NDArray[np.float32],
    steps: int,
    crop: int,
    sampling: Sampling,
    *,
    given_actions: NDArray[np.float32] | None = None,
    given_frames: NDArray[np.int64] | None = None,
    noise: Noise | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The published protocol, token by token: image tokens [K, N] and measured actions [K, 16].

    A context that has grown to `crop` steps loses its oldest one when a new one comes, and the
    model itself drops the oldest of S.
    """
    spec = gpt.spec
    ranges = torch.from_numpy(
        token_ranges(
            spec.image_vocab, spec.image_tokens, without_first_zero=sampling.without_first_zero
        )
    )
    offset = spec.image_vocab
    context = [
        np.concatenate(step)
        for step in zip(tokens, encode_actions(actions)[0] + offset, strict=True)
    ][-crop:]
    made = []
    for step in range(steps):
        seen = context[1:] if len(context) == spec.steps else context
        new = np.zeros(0, np.int64)
        if given_frames is not None:
            new = given_frames[step]
        last = spec.image_tokens if given_actions is not None else spec.tokens_per_step
        for place in range(len(new), last):
            logits = slow_logits(gpt, np.concatenate([*seen, new]))[-1:]
            drawn = (
                noise.at(step, place, 1, spec.vocabulary, torch.device("cpu")) if noise else None
            )
            token = choose(
                torch.from_numpy(logits), ranges[place : place + 1], sampling, drawn
            ).numpy()
            new = np.concatenate([new, token])
        if given_actions is not None:
            new = np.concatenate([new, encode_actions(given_actions[step])[0] + offset])
        if len(context) == crop:
            context = context[1:]
        context = [*context, new]
        made.append(new)
    dreamt = np.stack(made)
    return dreamt[:, : spec.image_tokens], decode_actions(dreamt[:, spec.image_tokens :] - offset)
