"""Guesses change what a dream costs and nothing of what comes out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from makers.slow_gpt import random_model

from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.gpt.speculation import (
    LONGEST_BLOCK,
    SHORTEST_BLOCK,
    BlockLength,
    agreed,
    block_lengths,
    find_motion,
    guess_frame,
    moved,
)
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Sampling, filtered
from wham_data.schemas.wham_tokens import token_ranges


def contexts_of(model: GPTWorldModel, lengths: list[int]) -> list[Context]:
    random = np.random.default_rng(1)
    return [
        Context(
            actions=np.zeros((length, 16), np.float32),
            tokens=random.integers(0, model.spec.image_vocab, (length, model.spec.image_tokens)),
        )
        for length in lengths
    ]


def test_choices_stand_up_to_the_first_that_differs() -> None:
    guesses = np.array([4, 5, 6])
    assert agreed(guesses, np.array([9, 5, 6, 7])) == 1
    assert agreed(guesses, np.array([4, 5, 9, 7])) == 3
    assert agreed(guesses, np.array([4, 5, 6, 7])) == 4
    assert agreed(guesses[:0], np.array([4])) == 1


def test_motion_is_found_and_goes_on() -> None:
    world = np.random.default_rng(0).integers(0, 50, (20, 40))
    frames = [world[5 - k : 13 - k, 4 + 2 * k : 16 + 2 * k] for k in range(3)]  # down 1, left 2
    before, last, following = frames
    assert find_motion(before, last) == (1, -2)
    guess = guess_frame(last.ravel(), before.ravel(), last.shape).reshape(last.shape)
    assert np.array_equal(guess[1:, :-2], following[1:, :-2])


def test_a_still_picture_is_guessed_to_stay() -> None:
    frame = np.zeros(12, np.int64)
    assert np.array_equal(guess_frame(frame, frame, (3, 4)), frame)
    assert find_motion(np.zeros((1, 3), np.int64), np.zeros((1, 3), np.int64)) == (0, 0)


def test_what_moves_in_repeats_the_edge() -> None:
    assert moved(np.array([[1, 2], [3, 4]]), 0, 1).tolist() == [[1, 1], [3, 3]]
    assert moved(np.array([[1, 2], [3, 4]]), -1, 0).tolist() == [[3, 4], [3, 4]]


def test_blocks_grow_while_guesses_are_right_and_shrink_while_they_are_not() -> None:
    block = BlockLength()
    for _ in range(20):
        block.came(block.tokens)
    assert block.tokens == LONGEST_BLOCK
    for _ in range(60):
        block.came(1)
    assert block.tokens == SHORTEST_BLOCK


def test_blocks_stay_long_where_a_tenth_of_them_comes() -> None:
    block = BlockLength()
    for _ in range(60):
        block.came(1 + block.tokens // 10)
    assert block.tokens == LONGEST_BLOCK


def test_blocks_on_a_gpu_have_the_tokens_that_cost_nothing_more() -> None:
    def block(rows: int, half: bool) -> tuple[int, int]:
        return block_lengths(rows, on_gpu=True, half=half)

    assert [block(rows, True)[1] for rows in (1, 3, 4, 6, 12, 32)] == [64, 64, 48, 32, 16, 8]
    assert [block(rows, False)[1] for rows in (1, 4, 12)] == [16, 16, 8]
    assert all(block(rows, True)[0] == block(rows, True)[1] for rows in (1, 12))
    assert BlockLength(16, 1.0, 16).tokens == BlockLength(16, 40.0, 16).tokens == 16
    for half in (True, False):
        assert block_lengths(12, on_gpu=False, half=half) == (SHORTEST_BLOCK, LONGEST_BLOCK)


@pytest.mark.parametrize(
    "sampling", [Sampling(greedy=True), Sampling(), Sampling(top_k=3), Sampling(top_p=0.8)]
)
@pytest.mark.parametrize("mode", ["world", "full"])
def test_the_tokens_are_those_of_plain_decoding(sampling: Sampling, mode: str) -> None:
    model = random_model(image_vocab=5)
    contexts = contexts_of(model, [1, 3, 2])
    actions = None if mode == "full" else [np.zeros((4, 16), np.float32)] * 3

    def dreams(speculate: bool) -> list[Dream]:
        return dream_batch(
            model,
            contexts,
            steps=4,
            mode=mode,  # type: ignore[arg-type]
            actions=actions,
            sampling=sampling,
            speculate=speculate,
        )

    for plain, guessed in zip(dreams(False), dreams(True), strict=True):
        assert np.array_equal(plain.tokens, guessed.tokens)
        assert np.array_equal(plain.actions, guessed.actions)
        assert plain.stats.tokens_per_pass == 1
        assert guessed.stats.passes < plain.stats.passes
        assert guessed.stats.generated == plain.stats.generated


def test_frames_come_with_the_probabilities_of_the_model() -> None:
    model = random_model(image_tokens=2, image_vocab=3, positions=2 * 18)
    [context] = contexts_of(model, [1])
    sampling = Sampling(temperature=1.5)
    draws = 3000
    dreams = dream_batch(
        model,
        [context] * draws,
        steps=1,
        actions=[np.zeros((1, 16), np.float32)] * draws,
        sampling=sampling,
    )
    frames = list(itertools.product([1, 2], [0, 1, 2]))  # the first token is never 0
    found = np.array([sum(tuple(d.tokens[0]) == frame for d in dreams) for frame in frames])
    assert found.sum() == draws
    assert sum(d.stats.accepted for d in dreams) > draws / 20

    ranges = torch.from_numpy(token_ranges(3, 2)[:2])
    assert context.tokens is not None
    step = np.concatenate([context.tokens[0], [3 + 2 * i for i in range(12)]])
    step = np.concatenate([step, [3 + 24 + 11 * j + 5 for j in range(4)]])
    expected = []
    for first, second in frames:
        logits = torch.from_numpy(model.logits(np.append(step, first)[None])[0, -2:])
        chances = filtered(logits, ranges, sampling).softmax(dim=1)
        expected.append(float(chances[0, first] * chances[1, second]) * draws)
    chi_square = ((found - np.array(expected)) ** 2 / expected).sum()
    assert chi_square < 20.6  # 1 in 1000 for 5 degrees of freedom
