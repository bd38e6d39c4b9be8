"""Training of a tokenizer: it learns, it goes on where it was interrupted, and its codebook stays alive."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wham_data.inference.tokenizer import WEIGHTS_FILE, load_tokenizer, tokenizer_info
from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.tokenizers.vit_vqgan import on_sphere
from wham_data.inference.training.codebook import (
    CodebookState,
    follow,
    kmeans_rows,
    nearest_row,
    revive,
    start_codebook,
)
from wham_data.inference.training.files import CHECKPOINT_FILE, CURVES_FILE
from wham_data.inference.training.loop import CurvePoint, rate_factor
from wham_data.inference.training.tokenizer import (
    TrainSettings,
    draw_batch,
    train_tokenizer,
)
from wham_data.pipelines.video import decode_frames, index_video
from wham_data.schemas.errors import DeviceError, IntegrityError, MismatchError, UsageError

DEMOS = Path(__file__).parents[2] / "wham_data" / "pipelines" / "demo_recordings"

SETTINGS = TrainSettings(
    model=ViTConfig(
        image_width=60,
        image_height=40,
        patch_size=10,
        transf_dim=32,
        embedding_dim=8,
        num_layers=1,
        head_size=16,
        vocab_size=64,
    ),
    steps=20,
    patches_per_step=96,
    crop=(2, 3),
    warm_up=5,
    quantise_from=8,
    kmeans_frames=8,
    revive_every=4,
    checkpoint_every=10,
    held_out_frames=4,
)


TAMING = replace(
    SETTINGS,
    model=TamingConfig(
        resolution=40,
        channels=32,
        multipliers=(1, 1, 1),
        res_blocks=1,
        attention_at=(10,),
        latent_channels=8,
        embedding_dim=8,
        vocab_size=64,
    ),
    patches_per_step=72,
    crop=(3, 3),
)
"""100 tokens of 4 x 4 pixels for a frame of 40x40."""


@dataclass(frozen=True)
class Frames:
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Gameplay at 60x40: half a second apart from one level to learn from, from another to be judged by."""

    def shrunk(name: str) -> NDArray[np.uint8]:
        index = index_video(DEMOS / f"{name}.mp4")
        picks = np.arange(0, len(index.times_ns), len(index.times_ns) // 24)
        return np.concatenate(list(decode_frames(index, picks, (60, 40))))

    return Frames(shrunk("doom"), shrunk("coinrun"))


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


# The run


def test_twenty_steps_lower_the_loss(frames: Frames, tmp_path: Path) -> None:
    unquantised = replace(SETTINGS, quantise_from=100, checkpoint_every=5)
    report = train_tokenizer(frames, tmp_path, unquantised)
    losses = [point["loss"] for point in report.curve]
    assert report.steps == 20
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


def test_a_resumed_run_is_the_run_that_was_never_interrupted(
    frames: Frames, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_tokenizer(frames, whole, SETTINGS)
    for stop in (3, 8, 13, None):  # before k-means, at it, after it
        train_tokenizer(frames, parts, SETTINGS, resume=True, stop_at=stop)
    for name in ("tokenizer.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_the_other_family_learns_by_the_same_step(frames: Frames, tmp_path: Path) -> None:
    squares = Frames(frames.train[:, :, :40], frames.held_out[:, :, :40])
    report = train_tokenizer(squares, tmp_path, replace(TAMING, steps=30, checkpoint_every=10))
    losses = [point["loss"] for point in report.curve]
    assert losses[-1] < 0.8 * losses[0]
    assert report.held_out.codes_used > 8
    assert load_tokenizer(str(tmp_path), "cpu").encode(squares.held_out).shape[1] == 100


def test_the_other_family_resumes_as_if_never_interrupted(frames: Frames, tmp_path: Path) -> None:
    squares = Frames(frames.train[:, :, :40], frames.held_out[:, :, :40])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    short = replace(TAMING, steps=12)
    train_tokenizer(squares, whole, short)
    for stop in (9, None):
        train_tokenizer(squares, parts, short, resume=True, stop_at=stop)
    assert (whole / WEIGHTS_FILE).read_bytes() == (parts / WEIGHTS_FILE).read_bytes()


def test_rows_that_are_points_differ_by_length_too() -> None:
    vectors = torch.tensor([[1.0, 1.0], [1.1, 0.9], [5.0, 5.0]])
    rows = torch.tensor([[1.0, 1.0], [4.0, 4.0]])
    assert nearest_row(vectors, rows, spherical=False).tolist() == [0, 0, 1]
    assert torch.equal(start_codebook(rows, 6.0, spherical=False).rows, rows)


def test_a_trained_tokenizer_loads_and_its_curve_lies_beside_it(
    frames: Frames, tmp_path: Path
) -> None:
    seen: list[CurvePoint] = []
    report = train_tokenizer(frames, tmp_path, SETTINGS, seen.append)
    tokenizer = load_tokenizer(str(tmp_path), "cpu")
    assert tokenizer.encode(frames.held_out).shape == (len(frames.held_out), 24)
    assert [point["step"] for point in seen] == [10, 20]
    assert json.loads((tmp_path / CURVES_FILE).read_text()) == seen == list(report.curve)
    assert report.held_out.psnr_db == seen[-1]["psnr_db"]


def test_a_longer_run_may_go_on_from_a_finished_one(frames: Frames, tmp_path: Path) -> None:
    train_tokenizer(frames, tmp_path, SETTINGS)
    first = tokenizer_info(str(tmp_path)).fingerprint
    report = train_tokenizer(frames, tmp_path, replace(SETTINGS, steps=25), resume=True)
    assert [point["step"] for point in report.curve] == [10, 20, 25]
    assert tokenizer_info(str(tmp_path)).fingerprint != first


def test_a_run_by_the_clock_ends(frames: Frames, tmp_path: Path) -> None:
    by_clock = replace(SETTINGS, steps=None, minutes=0.01)
    assert train_tokenizer(frames, tmp_path, by_clock).minutes >= 0.01


def test_a_checkpoint_of_other_settings_is_refused_by_their_names(
    frames: Frames, tmp_path: Path
) -> None:
    train_tokenizer(frames, tmp_path, SETTINGS, stop_at=2)
    with pytest.raises(MismatchError, match="edge_weight"):
        train_tokenizer(frames, tmp_path, replace(SETTINGS, edge_weight=0.9), resume=True)


def test_a_damaged_checkpoint_is_refused(frames: Frames, tmp_path: Path) -> None:
    train_tokenizer(frames, tmp_path, SETTINGS, stop_at=2)
    whole = (tmp_path / CHECKPOINT_FILE).read_bytes()
    (tmp_path / CHECKPOINT_FILE).write_bytes(whole[:-100])
    with pytest.raises(IntegrityError, match="Remove it to start again"):
        train_tokenizer(frames, tmp_path, SETTINGS, resume=True)


def test_a_full_memory_is_one_line_and_costs_no_checkpoint(frames: Frames, tmp_path: Path) -> None:
    train_tokenizer(frames, tmp_path, SETTINGS, stop_at=10)
    kept = (tmp_path / CHECKPOINT_FILE).read_bytes()
    too_much = replace(SETTINGS, patches_per_step=1 << 50)
    with pytest.raises(DeviceError, match=r"on cpu: out of memory .+ The last checkpoint is kept"):
        train_tokenizer(frames, tmp_path, too_much)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == kept


def test_settings_and_frames_that_make_no_sense_are_refused(frames: Frames, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="either steps or minutes"):
        TrainSettings()
    with pytest.raises(UsageError, match="only"):
        replace(SETTINGS, crop=(5, 3))
    with pytest.raises(UsageError, match="whole patches"):
        replace(SETTINGS, model=replace(SETTINGS.model, image_width=62))
    with pytest.raises(UsageError, match="expected some uint8"):
        train_tokenizer(Frames(frames.train[:, :30], frames.held_out), tmp_path, SETTINGS)
    with pytest.raises(UsageError, match="held out"):
        train_tokenizer(Frames(frames.train, frames.held_out[:0]), tmp_path, SETTINGS)


# Batches and rate


def test_a_crop_keeps_its_own_rows_of_the_position_table() -> None:
    """Frames whose every pixel is the number of its patch say where a crop was cut."""
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6).repeat(10, 0).repeat(10, 1)
    batch = draw_batch(np.stack([numbers[..., None].repeat(3, 2)] * 2), SETTINGS, 0, 0.0)
    assert batch.grid == (2, 3)
    assert batch.frames.shape == (16, 20, 30, 3)
    assert (batch.frames[:, ::10, ::10, 0].flatten(1) == batch.places).all()
    assert len(batch.places.unique(dim=0)) > 4


def test_a_batch_depends_on_the_seed_and_the_step_alone(frames: Frames) -> None:
    batch = draw_batch(frames.train, SETTINGS, 7, 0.2)
    assert (draw_batch(frames.train, SETTINGS, 7, 0.3).frames == batch.frames).all()
    assert (draw_batch(frames.train, SETTINGS, 8, 0.2).frames != batch.frames).any()
    other = replace(SETTINGS, seed=1)
    assert (draw_batch(frames.train, other, 7, 0.2).frames != batch.frames).any()


def test_batches_turn_from_crops_to_whole_frames_in_the_second_half(frames: Frames) -> None:
    def whole(share: float) -> list[bool]:
        grids = [draw_batch(frames.train, SETTINGS, step, share).grid for step in range(40)]
        return [grid == (4, 6) for grid in grids]

    assert not any(whole(0.49))
    assert 5 < sum(whole(0.75)) < 35
    assert all(whole(1.0))


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    assert rate_factor(0, 0.0, 100) == pytest.approx(0.01)
    assert rate_factor(99, 0.0, 100) == 1
    assert rate_factor(5000, 0.5, 100) == pytest.approx(0.51)
    assert rate_factor(9999, 1.0, 100) == pytest.approx(0.02)


# The codebook


def test_kmeans_finds_the_directions_that_vectors_gather_around() -> None:
    centres = [10.0, 100.0, 200.0]
    spread = np.random.default_rng(0).normal(0, 2, 300)
    vectors = directions(*(centres[i % 3] + offset for i, offset in enumerate(spread)))
    found = kmeans_rows(vectors, 3, np.random.default_rng(6), rounds=10)
    degrees = torch.rad2deg(torch.atan2(found[:, 1], found[:, 0])) % 360
    assert degrees.sort().values.tolist() == pytest.approx(centres, abs=1)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_kmeans_makes_more_rows_than_there_are_vectors_if_asked() -> None:
    found = kmeans_rows(directions(0, 90), 5, np.random.default_rng(0), rounds=3)
    assert found.shape == (5, 2)
    assert found.isfinite().all()


def test_the_nearest_row_is_the_one_with_the_largest_cosine() -> None:
    chosen = nearest_row(directions(5, 80, 181), directions(0, 90, 180))
    assert chosen.tolist() == [0, 1, 2]


def test_a_row_moves_towards_the_vectors_that_choose_it_and_the_others_stay() -> None:
    state = start_codebook(directions(0, 90), uses_per_step=2)
    for _ in range(400):
        state = follow(state, directions(30, 30), torch.tensor([0, 0]), decay=0.9)
    assert torch.allclose(state.rows, directions(30, 90), atol=1e-4)
    assert state.uses.tolist() == pytest.approx([2, 0], abs=1e-3)


def test_one_step_of_the_running_means_is_the_written_formula() -> None:
    state = CodebookState(torch.tensor([1.0, 3.0]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    after = follow(state, directions(0, 90, 90), torch.tensor([0, 1, 1]), decay=0.75)
    assert after.uses.tolist() == pytest.approx([0.75 + 0.25, 2.25 + 0.5])
    assert torch.allclose(after.sums, torch.tensor([[1.0, 0.0], [0.0, 2.75]]), atol=1e-6)


def test_only_dead_rows_move_and_they_move_onto_vectors() -> None:
    uses = torch.tensor([10.0, 0.001, 5.0])
    state = CodebookState(uses, directions(0, 90, 180) * uses[:, None])
    revived = revive(state, directions(45), np.random.default_rng(0), least_share=0.05)
    assert torch.allclose(revived.rows, directions(0, 45, 180), atol=1e-6)
    assert revived.uses[1] == pytest.approx(0.5 * float(uses.sum()) / 3)
    again = revive(revived, directions(300), np.random.default_rng(1), least_share=0.05)
    assert torch.equal(again.sums, revived.sums)


def test_codebook_rows_have_unit_length() -> None:
    state = start_codebook(on_sphere(torch.randn(8, 3)), 100)
    assert state.rows.norm(dim=1).tolist() == pytest.approx([1] * 8)
