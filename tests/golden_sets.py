"""Do our tokenizers and world models give what the reference gave? Checks golden sets, by hand.

    python tests/golden_sets.py FOLDER...

Each folder holds `model.ckpt`, `inputs.npz` and `expected.npz` as the reference wrote them. Compared
are the image tokens, the logits (to 1e-4), and the greedy dreams of both protocols: at once with and
without speculation, and step by step with actions decided after the frame was seen, through a clone
and a save. The exit code is 1 where anything differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wham_data import LATER, Context, Sampling, dream_batch, load_world_model
from wham_data.schemas.wham_tokens import bins_from_measured, measured_from_bins

GREEDY = Sampling(greedy=True)
LOGIT_TOLERANCE = 1e-4


def main(folders: list[str]) -> int:
    wrong = 0
    for folder in map(Path, folders):
        for what, equal in checks(folder):
            wrong += not equal
            print(f"{folder.name:20} {what:28} {'equal' if equal else 'DIFFERS'}", flush=True)
    return 1 if wrong else 0


def checks(folder: Path) -> Iterator[tuple[str, bool]]:
    model = load_world_model(folder / "model.ckpt", device="cpu")
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    images = inputs["images"].transpose(0, 1, 3, 4, 2)
    tokens = expected["image_tokens"]
    encoded = np.stack([model.tokenizer.encode(np.ascontiguousarray(each)) for each in images])
    yield "image tokens", np.array_equal(encoded, tokens)
    scores = model.logits(expected["interleaved_tokens"][:1])
    yield "logits", bool(np.abs(scores - expected["logits"]).max() <= LOGIT_TOLERANCE)
    actions = np.stack([measured_from_bins(each) for each in inputs["actions"]])
    for protocol, start in starts(model.spec.steps, len(tokens)).items():
        for speculate in (True, False):
            made = dreams(model, start, tokens, actions, expected, protocol, speculate)
            what = f"{protocol}, {'guessing' if speculate else 'token by token'}"
            yield what, same(made, expected, protocol)
    yield "base, decided late", late_is_same(model, tokens, actions, expected)


def starts(steps: int, batch: int) -> dict[str, tuple[int, int, int]]:
    """Episodes, steps of context and context_steps of each protocol."""
    return {
        "base": (batch, steps, steps),
        "comp": (batch, steps - 1, steps - 1),
        "grow": (1, 1, steps),
    }


def dreams(
    model: Any,
    start: tuple[int, int, int],
    tokens: Any,
    actions: Any,
    expected: Any,
    protocol: str,
    speculate: bool,
) -> list[Any]:
    batch, seen, context_steps = start
    steps = expected[f"{protocol}_image_tokens"].shape[1]
    given = list(actions[:, seen : seen + steps]) if protocol == "base" else None
    return dream_batch(
        model,
        [Context(actions[b, :seen], tokens=tokens[b, :seen]) for b in range(batch)],
        steps=steps,
        mode="world" if protocol == "base" else "full",
        actions=given,
        sampling=GREEDY,
        context_steps=context_steps,
        speculate=speculate,
    )


def same(made: list[Any], expected: Any, protocol: str) -> bool:
    tokens = np.stack([each.tokens for each in made])
    bins = np.stack([bins_from_measured(each.actions)[0] for each in made])
    return np.array_equal(tokens, expected[f"{protocol}_image_tokens"]) and np.array_equal(
        bins, expected[f"{protocol}_actions"]
    )


def late_is_same(model: Any, tokens: Any, actions: Any, expected: Any) -> bool:
    """The frames of a person who acts after seeing each, through a clone and a save on the way."""
    seen = model.spec.steps
    contexts = [
        Context(own[:seen], tokens=ids[:seen]) for own, ids in zip(actions, tokens, strict=True)
    ]
    session = model.begin(contexts, [0] * len(contexts), sampling=GREEDY, context_steps=seen)
    equal = True
    for step, frames in enumerate(expected["base_image_tokens"].swapaxes(0, 1)):
        equal &= np.array_equal(session.step(LATER).tokens, frames)
        session.act(actions[:, seen + step])
        session = model.restore(session.save()) if step else session.clone()
    return equal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
