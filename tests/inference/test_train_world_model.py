"""Training of a world model: it learns what follows, goes on where it was interrupted, and dreams."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.token_windows import Made

from wham_data.inference.dream import Context, dream
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.structured_start import structured_start
from wham_data.inference.sampling import Sampling
from wham_data.inference.training.baselines import baselines
from wham_data.inference.training.files import CHECKPOINT_FILE
from wham_data.inference.training.loop import CurvePoint
from wham_data.inference.training.world_model import (
    WorldModelSettings,
    draw_batch,
    held_out_loss,
    train_world_model,
)
from wham_data.inference.world_model import load_world_model
from wham_data.schemas.errors import DeviceError, IntegrityError, MismatchError, UsageError

SPEC = GPTSpec(
    n_layer=1,
    n_head=2,
    n_embd=48,
    positions=3 * 556,
    image_tokens=540,
    image_vocab=4096,
    version=2,
    bias=False,
)
"""As small as a model of wham-tiny's tokens can be: 3 steps."""

SETTINGS = WorldModelSettings(
    SPEC, steps=6, batch_size=1, warm_up=2, checkpoint_every=3, held_out_windows=2
)


def still_pictures(count: int, seed: int, vocabulary: int = 4096) -> Made:
    """Windows in which a tenth of the tokens change from step to step and the pad lies idle."""
    rng = np.random.default_rng(seed)
    windows = np.zeros((count, 3, 556), np.uint16)
    windows[:, 0, :540] = rng.integers(0, vocabulary, (count, 540))
    for step in (1, 2):
        changed = rng.random((count, 540)) < 0.1
        fresh = rng.integers(0, vocabulary, (count, 540))
        windows[:, step, :540] = np.where(changed, fresh, windows[:, step - 1, :540])
    windows[..., 540:] = 4096 + 2 * np.arange(16)
    return Made(windows.reshape(count, -1))


TRAIN, HELD_OUT = still_pictures(20, seed=1), still_pictures(4, seed=2)


def trained(out: Path, settings: WorldModelSettings = SETTINGS, **how: object) -> list[CurvePoint]:
    seen: list[CurvePoint] = []
    train_world_model(TRAIN, HELD_OUT, "wham-tiny", out, settings, seen.append, **how)  # type: ignore[arg-type]
    return seen


def test_what_was_trained_can_dream(tmp_path: Path) -> None:
    curve = trained(tmp_path)

    model = load_world_model(tmp_path, "cpu")
    made = dream(
        model,
        Context(np.zeros((2, 16), np.float32), tokens=TRAIN.tokens[0].reshape(3, 556)[:2, :540]),
        steps=1,
        actions=np.zeros((1, 16), np.float32),
        sampling=Sampling(greedy=True),
    )

    assert [point["step"] for point in curve] == [3, 6]
    assert made.frames.shape == (1, 180, 300, 3)
    assert model.tokenizer is not None
    assert model.tokenizer.fingerprint.startswith("9fba13d0f874")


def test_a_batch_that_does_not_fit_is_one_line_with_what_to_lower(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"on cpu: out of memory .+ with a --batch-size below \d+$"
    ):
        trained(tmp_path, replace(SETTINGS, batch_size=1 << 50))


def test_a_resumed_run_is_the_run_that_was_never_interrupted(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", stop_at=3)
    resumed = trained(tmp_path / "parts", resume=True)

    assert resumed[-1]["image_loss"] == whole[-1]["image_loss"]
    assert (tmp_path / "parts" / "world_model.safetensors").read_bytes() == (
        tmp_path / "whole" / "world_model.safetensors"
    ).read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, replace(SETTINGS, steps=1))

    with pytest.raises(MismatchError, match="learning_rate"):
        trained(tmp_path, replace(SETTINGS, learning_rate=0.5), resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trained(tmp_path, replace(SETTINGS, steps=1))
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"not a checkpoint")

    with pytest.raises(IntegrityError, match="Remove it to start again"):
        trained(tmp_path, resume=True)


def test_a_structured_start_expects_the_last_frame_again() -> None:
    torch.manual_seed(0)
    wider = replace(SPEC, n_head=4, n_embd=256)
    plain, structured = GPT(wider), GPT(wider)
    rows = np.random.default_rng(0).normal(size=(4096, 16)).astype(np.float32)
    structured_start(structured, rows, seed=0)

    unstructured_loss, _ = held_out_loss(plain, HELD_OUT.tokens)
    structured_loss, _ = held_out_loss(structured, HELD_OUT.tokens)

    assert structured_loss < unstructured_loss - 2


def test_what_is_read_is_noisy_and_what_is_to_be_predicted_is_not() -> None:
    noisy = replace(SETTINGS, input_noise=0.5, batch_size=8)

    read, truth = draw_batch(TRAIN, noisy, step=0)

    differs = (read != truth).view(8, 3, 556)
    assert 0 < differs[..., :540].float().mean() < 0.5
    assert not differs[..., 540:].any()
    assert all(any((row == TRAIN.tokens).all(1)) for row in truth.numpy())


def test_windows_are_drawn_by_seed_and_step() -> None:
    again = draw_batch(TRAIN, SETTINGS, step=5)

    assert torch.equal(draw_batch(TRAIN, SETTINGS, step=5)[0], again[0])
    assert not torch.equal(draw_batch(TRAIN, SETTINGS, step=6)[1], again[1])


def test_predictors_without_a_model() -> None:
    few = still_pictures(50, seed=3, vocabulary=8)

    simple = baselines(few.tokens, few.tokens, SPEC)

    assert simple.unigram == pytest.approx(np.log(8), abs=0.05)
    stays = 0.9 + 0.1 / 8
    ideal = -stays * np.log(stays) - (1 - stays) * np.log((1 - stays) / 7)
    assert simple.copy == pytest.approx(ideal, abs=0.05)
    assert simple.copied == pytest.approx(0.9, abs=0.02)


def test_without_windows_there_is_nothing_to_learn(tmp_path: Path) -> None:
    none = Made(np.zeros((0, 3 * 556), np.uint16))

    with pytest.raises(UsageError, match="there are none of 3 steps"):
        train_world_model(none, HELD_OUT, "wham-tiny", tmp_path, SETTINGS)


def test_a_tokenizer_of_other_tokens_is_refused(tmp_path: Path) -> None:
    other = replace(SETTINGS, spec=replace(SPEC, image_vocab=512))

    with pytest.raises(UsageError, match="540 tokens out of 4096"):
        train_world_model(TRAIN, HELD_OUT, "wham-tiny", tmp_path, other)


def test_the_curves_are_kept(tmp_path: Path) -> None:
    curve = trained(tmp_path)

    assert json.loads((tmp_path / "curves.json").read_text()) == curve
