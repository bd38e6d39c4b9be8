"""Measure a world model on recordings that were not used for training.

    python judge.py --model wham-tiny --train corpus --held-out held_corpus --out judged

Prints, per game:

    the loss per image token of the held-out steps in nats, for the model and for simple baselines
    how far the picture moves sideways per step, in recordings and in dreams, with the stick held to
    the left and to the right

and writes GAME.png: two dreams from the same context, with the stick held to the left in the left
column and to the right in the right column.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import wham_data
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.training.baselines import baselines
from wham_data.inference.training.evaluate import side_by_side
from wham_data.inference.training.world_model import held_out_loss
from wham_data.pipelines.video import encode_image
from wham_data.schemas.steps import EpisodeSteps

LEFT_STICK, RIGHT_STICK = 12, 14
"""Columns of wham16 for the horizontal axes of both sticks."""
MOVES_THE_PICTURE = {"coinrun": LEFT_STICK, "starpilot": LEFT_STICK}
"""Games in which the left stick moves the picture; in all others the right stick does."""
FARTHEST = 60
"""Largest shift in one step that is searched, in pixels."""
CLEARLY = 0.35
"""Smallest value of a stick axis that counts as held to a side."""
WINDOWS, STRIDE = 200, 5

Frames = NDArray[np.uint8]


def sideways(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> int:
    """The number of pixels by which the picture moved to the right between two frames.

    This is the shift with the smallest mean absolute difference where the frames overlap. The upper
    and lower fifth, where status lines are, are ignored.

    Args:
        before: uint8 [H, W, 3].
        after: uint8 [H, W, 3].
    """
    height, width = before.shape[:2]
    rows = slice(height // 5, height - height // 5)
    first, second = (frame[rows].mean(axis=2) for frame in (before, after))
    errors = []
    for shift in range(-FARTHEST, FARTHEST + 1):
        left, right = max(0, -shift), max(0, shift)
        errors.append(
            np.abs(first[:, left : width - right] - second[:, right : width - left]).mean()
        )
    return int(np.argmin(errors)) - FARTHEST


def recorded_moves(
    model: GPTWorldModel, episodes: list[EpisodeSteps], column: int
) -> dict[int, list[int]]:
    """Sideways moves between recorded steps, decoded from tokens; keys: -1 stick left, 1 right."""
    assert model.tokenizer is not None
    moves: dict[int, list[int]] = {-1: [], 1: []}
    for each in episodes:
        assert each.tokens is not None
        held = np.flatnonzero(np.abs(each.actions[:-1, column]) > CLEARLY)[:40]
        for step in held:
            pair = model.tokenizer.decode(each.tokens[step : step + 2])
            moves[int(np.sign(each.actions[step, column]))].append(sideways(*pair))
    return moves


def dreamt(
    model: GPTWorldModel,
    episodes: list[EpisodeSteps],
    column: int,
    push: float,
    contexts: int,
    steps: int,
) -> list[Frames]:
    """Dreams with the stick held, from places all over the episodes; the last context frame first."""
    assert model.tokenizer is not None
    held = np.zeros((steps, 16), np.float32)
    held[:, column] = push
    sight = model.spec.steps - 1
    starts, lasts = [], []
    for number in range(contexts):
        each = episodes[number % len(episodes)]
        assert each.tokens is not None
        first = (37 + 61 * number) % (each.n_steps - sight)
        window = slice(first, first + sight)
        actions = each.actions[window].copy()
        actions[-1] = held[0]
        starts.append(wham_data.Context(actions=actions, tokens=each.tokens[window]))
        lasts.append(model.tokenizer.decode(each.tokens[window][-1:]))
    dreams = wham_data.dream_batch(model, starts, steps=steps, actions=[held] * contexts)
    return [np.concatenate([last, made.frames]) for last, made in zip(lasts, dreams, strict=True)]


def mean(values: list[int]) -> str:
    """For a line of the report."""
    return f"{np.mean(values):+.1f}" if values else "-"


def main() -> None:
    """Judge, game by game."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="wham-tiny")
    parser.add_argument("--train", required=True, help="the corpus that it learned from")
    parser.add_argument("--held-out", required=True, help="a corpus of other recordings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--contexts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--push", type=float, default=0.6, help="how far the stick is held")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = wham_data.load_world_model(arguments.model)
    length = model.spec.steps
    seen = wham_data.WindowDataset(arguments.train, length, interleave=True).windows
    seen_rows = seen.flat(np.linspace(0, len(seen) - 1, 3 * WINDOWS).astype(np.int64))
    corpus = wham_data.Corpus.open(arguments.held_out)
    for game in corpus.episodes["game"].unique().sort():
        names = corpus.episodes.filter(pl.col("game") == game)["episode"].to_list()
        weights = {each: float(each in names) for each in corpus.episodes["episode"]}
        dataset = wham_data.WindowDataset(
            corpus, length, STRIDE, split=None, interleave=True, weights=weights, batch_size=16
        )
        numbers = np.concatenate([batch["window"] for batch in dataset])
        rows = dataset.windows.flat(np.sort(numbers)[:: max(1, len(numbers) // WINDOWS)])
        simple = baselines(seen_rows, rows, model.spec)
        image_loss, action_loss = held_out_loss(model.gpt, rows)
        print(
            f"{game}: {image_loss:.3f} nats per image token (copying {simple.copy:.3f}, unigram "
            f"{simple.unigram:.3f}), {action_loss:.3f} per action token"
        )
        column = MOVES_THE_PICTURE.get(game, RIGHT_STICK)
        episodes = [corpus.read_episode(name) for name in names]
        real = recorded_moves(model, episodes, column)
        left, right = (
            dreamt(
                model, episodes, column, sign * arguments.push, arguments.contexts, arguments.steps
            )
            for sign in (-1, 1)
        )
        moved = [
            mean([sideways(*pair) for one in made for pair in itertools.pairwise(one)])
            for made in (left, right)
        ]
        print(
            f"  pixels to the right per step, stick left and right: recorded {mean(real[-1])} and "
            f"{mean(real[1])}, dreamt {moved[0]} and {moved[1]}",
            flush=True,
        )
        picture = side_by_side(left[0], right[0], pairs_per_row=1)
        (arguments.out / f"{game}.png").write_bytes(encode_image(picture, "png"))


if __name__ == "__main__":
    main()
