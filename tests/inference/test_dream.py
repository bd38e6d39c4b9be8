"""Dreams follow the published protocol, and each keeps to itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.slow_gpt import random_model, slow_dream
from makers.wham_checkpoints import VIT, gpt, write_checkpoint
from numpy.typing import NDArray

from wham_data.inference.checkpoints.convert import convert
from wham_data.inference.dream import Context, dream, dream_batch
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Noise, Sampling
from wham_data.inference.tokenizer import BUNDLED, CONFIG_FILE, WEIGHTS_FILE, TokenizerInfo
from wham_data.inference.world_model import load_world_model
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import measured_from_bins

GREEDY = Sampling(greedy=True)


class BlockTokenizer:
    """A picture of 2 x 3 grey blocks of 4 pixels; the grey is ten times the id."""

    info = TokenizerInfo("blocks", "0" * 64, (2, 3), 20, (12, 8))
    fingerprint, grid, vocab_size, frame_size = info.fingerprint, info.grid, 20, (12, 8)

    def encode(self, frames_u8: NDArray[np.uint8]) -> NDArray[np.uint16]:
        return (frames_u8[:, ::4, ::4, 0] // 10).reshape(-1, 6).astype(np.uint16)

    def decode(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        blocks = (tokens.reshape(-1, 2, 3, 1) * 10).astype(np.uint8)
        return blocks.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)


def some_tokens(count: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 20, (count, 6))


def some_actions(count: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    buttons, sticks = random.integers(0, 2, (count, 12)), random.integers(0, 11, (count, 4))
    return measured_from_bins(np.concatenate([buttons, sticks], axis=1))


def some_context(steps: int, seed: int = 0) -> Context:
    return Context(actions=some_actions(steps, seed), tokens=some_tokens(steps, seed))


@pytest.mark.parametrize("context_steps", [None, 2])
@pytest.mark.parametrize("given", [1, 2, 4])
@pytest.mark.parametrize("mode", ["world", "full", "policy"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_a_dream_is_what_the_protocol_says_token_by_token(
    mode: Any, given: int, context_steps: int | None, sampling: Sampling
) -> None:
    model = random_model()
    context = some_context(given)
    actions = some_actions(3, seed=9) if mode == "world" else None
    frames = some_tokens(3, seed=9) if mode == "policy" else None
    dreamt = dream(
        model,
        context,
        steps=3,
        mode=mode,
        actions=actions,
        frames=frames,
        sampling=sampling,
        context_steps=context_steps,
        seed=5,
    )
    tokens, made = slow_dream(
        model.gpt,
        some_tokens(given),
        some_actions(given),
        3,
        context_steps or 4,
        sampling,
        given_actions=actions,
        given_frames=frames,
        noise=None if sampling.greedy else Noise(5, 0),
    )
    assert np.array_equal(dreamt.tokens, tokens)
    assert np.array_equal(dreamt.actions, made)


def test_base_and_comprehensive_are_other_names_for_world_and_full() -> None:
    model, context, future = random_model(), some_context(2), some_actions(2, seed=3)
    world, base = (
        dream(model, context, steps=2, mode=mode, actions=future) for mode in ("world", "base")
    )
    full, comprehensive = (
        dream(model, context, steps=2, mode=mode) for mode in ("full", "comprehensive")
    )
    assert np.array_equal(world.tokens, base.tokens)
    assert np.array_equal(full.tokens, comprehensive.tokens)


def test_a_dream_comes_out_the_same_in_any_batch() -> None:
    model = random_model()
    contexts = [some_context(steps, seed=steps) for steps in (3, 1, 2)]
    together = dream_batch(model, contexts, steps=3, mode="full", seed=1)
    for index in (2, 0, 1):
        [alone] = dream_batch(
            model, [contexts[index]], steps=3, mode="full", seed=1, indices=[index]
        )
        assert np.array_equal(alone.tokens, together[index].tokens)
        assert np.array_equal(alone.actions, together[index].actions)


def test_another_seed_is_another_dream() -> None:
    model, context = random_model(), some_context(2)
    one, two = (dream(model, context, steps=2, mode="full", seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.tokens, two.tokens)


def test_the_action_taken_on_the_last_frame_shapes_nothing() -> None:
    model, context, future = random_model(), some_context(2), some_actions(3)
    other = future.copy()
    other[-1] = some_actions(1, seed=7)
    one, two = (dream(model, context, steps=3, actions=given) for given in (future, other))
    assert np.array_equal(one.tokens, two.tokens)
    assert np.array_equal(two.actions, other)
    other[0] = some_actions(1, seed=8)
    changed = dream(model, context, steps=3, actions=other)
    assert np.array_equal(one.tokens[0], changed.tokens[0])
    assert not np.array_equal(one.tokens[1:], changed.tokens[1:])


def test_given_actions_are_not_generated() -> None:
    model = random_model()
    world = dream(model, some_context(2), steps=4, actions=some_actions(4))
    full = dream(model, some_context(2), steps=4, mode="full")
    assert world.stats.generated == 4 * 6
    assert full.stats.generated == 4 * 22


def test_the_cache_is_kept_while_the_context_grows_and_read_again_once_it_slides() -> None:
    model = random_model(positions=8 * 22)
    growing = dream(model, some_context(1), steps=7, mode="full")
    assert (growing.stats.prefills, growing.stats.context_steps) == (1, 7)
    sliding = dream(model, some_context(7), steps=3, mode="full")
    assert (sliding.stats.prefills, sliding.stats.context_steps) == (3, 7)


def test_id_0_is_never_the_first_of_a_frame_unless_it_may_be() -> None:
    model = random_model()
    model.gpt.lm_head.weight[1:] *= 0  # id 0 or, where it would be negative, a tie of all others
    dreams = {
        allowed: dream_batch(
            model,
            [some_context(1, seed) for seed in range(8)],
            steps=1,
            mode="full",
            sampling=Sampling(greedy=True, without_first_zero=not allowed),
        )
        for allowed in (True, False)
    }
    assert any(d.tokens[0, 0] == 0 for d in dreams[True])
    assert all(d.tokens[0, 0] == 1 for d in dreams[False])


def test_frames_go_in_and_come_out_through_the_tokenizer() -> None:
    model = GPTWorldModel("blocks", random_model().gpt, BlockTokenizer())
    frames = BlockTokenizer().decode(some_tokens(2))
    seen = dream(model, Context(actions=some_actions(2), frames=frames), steps=2, mode="full")
    read = dream(model, some_context(2), steps=2, mode="full")
    assert np.array_equal(seen.tokens, read.tokens)
    assert np.array_equal(seen.frames, BlockTokenizer().decode(seen.tokens))
    assert seen.frames.shape == (2, 8, 12, 3)
    acted = dream(model, some_context(2), steps=2, mode="policy", frames=frames)
    assert np.array_equal(acted.tokens, some_tokens(2))


def test_sticks_beyond_their_range_are_clamped_and_counted() -> None:
    future = some_actions(1)
    future[0, 12] = 1.7
    dreamt = dream(random_model(), some_context(1), steps=1, actions=future)
    assert dreamt.stats.clamped == 1
    assert dreamt.actions[0, 12] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"steps": 0}, "0 steps"),
        ({"mode": "lucid"}, "expected one of world"),
        ({"mode": "world"}, "none were given"),
        ({"actions": np.zeros((2, 16))}, "makes its own actions"),
        ({"mode": "world", "actions": np.zeros((3, 16))}, "expected (2, 16)"),
        ({"mode": "world", "actions": np.full((2, 16), np.nan)}, "whole number"),
        ({"mode": "policy"}, "none were given"),
        ({"mode": "policy", "frames": np.full((2, 6), 20)}, "0..19"),
        ({"mode": "policy", "frames": np.zeros((2, 8, 12, 3), np.uint8)}, "no tokenizer"),
        ({"seed": -1}, "from 0 up"),
        ({"context_steps": 5}, "expected 1 to 4"),
        ({"context_steps": 0}, "expected 1 to 4"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint.replace("(", r"\(").replace(")", r"\)")):
        dream(random_model(), some_context(2), **{"steps": 2, "mode": "full", **arguments})


@pytest.mark.parametrize(
    "parts",
    [
        {"actions": np.zeros((2, 16))},
        {"actions": np.zeros((0, 16)), "tokens": np.zeros((0, 6), int)},
        {"actions": np.zeros((1, 16)), "tokens": np.zeros((2, 6), int)},
        {"actions": np.zeros(16), "tokens": np.zeros((2, 6), int)},
        {"actions": np.zeros((1, 16)), "tokens": np.zeros((1, 6)), "frames": np.zeros((1, 8, 12))},
    ],
)
def test_a_context_that_is_none_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Context(**parts)


def test_actions_of_another_space_are_refused() -> None:
    context = Context(actions=np.zeros((2, 15)), tokens=some_tokens(2))
    with pytest.raises(UsageError, match=r"actions of shape \(2, 15\)"):
        dream(random_model(), context, steps=1, mode="full")


@pytest.mark.parametrize("tokens", [np.full((2, 6), 20), np.zeros((2, 5), int), np.zeros((2, 6))])
def test_tokens_that_are_not_the_models_are_refused(tokens: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="image tokens"):
        dream(random_model(), Context(actions=some_actions(2), tokens=tokens), steps=1, mode="full")


def test_a_checkpoint_and_its_converted_folder_dream_alike(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.ckpt")
    folder = convert(path, tmp_path / "folder").out
    one, two = (load_world_model(ref, device="cpu") for ref in (str(path), folder))
    assert one.spec == two.spec == gpt(VIT)
    assert (one.device, one.dtype, one.action_space) == ("cpu", "float32", "wham16")
    tokens = np.arange(30).reshape(2, 15)
    assert np.array_equal(one.logits(tokens), two.logits(torch.from_numpy(tokens)))
    assert one.logits(tokens).shape == (2, 15, one.spec.vocabulary)
    frames = np.random.default_rng(0).integers(0, 256, (1, 18, 30, 3), dtype=np.uint8)
    context = Context(actions=some_actions(1), frames=frames)
    first, second = (
        dream(model, context, steps=2, mode="full", context_steps=1) for model in (one, two)
    )
    assert np.array_equal(first.tokens, second.tokens)
    assert np.array_equal(first.frames, second.frames)
    assert first.frames.shape == (2, 18, 30, 3)


def test_a_world_model_computes_in_bf16_where_asked(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.ckpt")
    model = load_world_model(path, device="cpu", dtype="bf16")
    assert model.dtype == "bf16"
    assert dream(model, some_context_of(model), steps=1, mode="full").tokens.shape == (1, 12)


def some_context_of(model: GPTWorldModel) -> Context:
    return Context(
        actions=some_actions(1), tokens=np.zeros((1, model.spec.image_tokens), np.uint16)
    )


@pytest.mark.parametrize("tokens", [np.zeros(5, int), np.zeros((1, 89), int), np.full((1, 5), 88)])
def test_logits_of_what_cannot_be_are_refused(tokens: NDArray[Any]) -> None:
    with pytest.raises(UsageError):
        random_model().logits(tokens)


def test_a_model_without_a_world_model_is_refused(tmp_path: Path) -> None:
    shutil.copy(BUNDLED["wham-tiny"] / WEIGHTS_FILE, tmp_path)
    both = json.loads((BUNDLED["wham-tiny"] / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(both["tokenizer"]))

    with pytest.raises(UsageError, match="without a world model"):
        load_world_model(tmp_path, device="cpu")


def test_a_dtype_of_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="float32 or bf16"):
        load_world_model("wham-tiny", dtype="float64")  # type: ignore[arg-type]
