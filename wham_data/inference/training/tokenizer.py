"""Training of a tokenizer of either family, small enough for a laptop and resumable on a bigger machine.

Most steps see *crops* of whole patches, a ViT's with the crop's own rows of the position table, which
cost a ninth of a frame; in the second half more and more steps see whole frames, so that attention
over all patches is learned too. The learning rate falls along a cosine over the planned steps, or over
the planned minutes where those are given.

What step k draws depends on the seed and on k alone, and a checkpoint holds everything else
(weights, Adam's moments, codebook statistics), so a resumed run is the run that was never
interrupted. That holds for `steps`; with `minutes` the schedule follows the clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wham_data.inference.checkpoints.file_names import CONFIG_FILE, WEIGHTS_FILE
from wham_data.inference.tokenizer import load_tokenizer
from wham_data.inference.tokenizers.config import ImageConfig
from wham_data.inference.tokenizers.frame_tokenizer import ImageModel, image_model
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.tokenizers.vit_vqgan import on_sphere
from wham_data.inference.training import codebook as codebook_fit
from wham_data.inference.training.codebook import CodebookState
from wham_data.inference.training.evaluate import TokenizerFigures, tokenizer_figures
from wham_data.inference.training.files import (
    CHECKPOINT_FILE,
    CURVES_FILE,
    moments_of,
    rate_factor,
    read_checkpoint,
    replace_tensors,
    replace_text,
    restore_moments,
    share_done,
    write_checkpoint,
)
from wham_data.schemas.errors import UsageError

WHAM_TINY = ViTConfig(
    image_width=300,
    image_height=180,
    patch_size=10,
    transf_dim=160,
    embedding_dim=16,
    num_layers=4,
    head_size=32,
    vocab_size=4096,
)
"""1.4 million parameters a side; 540 tokens for a frame of 300x180."""

_LAST_REVIVAL = 0.9
"""Share of the run after which no codebook row is moved any more: the last ones need time to settle."""


class FrameSource(Protocol):
    """Frames to learn from and to be judged by, uint8 [N, H, W, 3] RGB, arrays or memory maps."""

    @property
    def train(self) -> NDArray[np.uint8]:
        """To learn from."""
        ...

    @property
    def held_out(self) -> NDArray[np.uint8]:
        """To be judged by; never learned from."""
        ...


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that decides what is learned. Either `steps` or `minutes` says how long.

    steps, minutes        length of the whole run; a resumed run counts from its beginning
    patches_per_step      patches in a batch, cut into as many crops or frames as fit
    crop                  rows and columns of a crop, patches
    full_frames_from      share of the run after which more and more steps see whole frames
    learning_rate         AdamW's, at its peak
    warm_up               steps until the peak
    quantise_from         step at which k-means makes the codebook; until then nothing is quantised
    kmeans_frames         frames whose vectors k-means sees
    edge_weight           weight of the error in the differences between neighbouring pixels
    commitment            weight of the encoder's squared distance to the codebook
    codebook_decay        of the running means that codebook rows follow
    revive_every          steps between searches for dead rows
    least_share           a row used less than this part of an equal share is dead
    bfloat16              matrix products in bfloat16
    checkpoint_every      steps between checkpoints, each with figures on held-out frames
    held_out_frames       number of those frames, spread evenly over what there is

    Raises:
        UsageError: both or neither of `steps` and `minutes`; a crop larger than the frame; a frame
            that is not made of whole patches.
    """

    model: ImageConfig = WHAM_TINY
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    patches_per_step: int = 1440
    crop: tuple[int, int] = (6, 10)
    full_frames_from: float = 0.5
    learning_rate: float = 1.5e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    quantise_from: int = 300
    kmeans_frames: int = 120
    edge_weight: float = 0.2
    commitment: float = 0.5
    codebook_decay: float = 0.99
    revive_every: int = 50
    least_share: float = 0.05
    bfloat16: bool = True
    checkpoint_every: int = 500
    held_out_frames: int = 64

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("length of the training: give either steps or minutes")
        if any(size > limit for size, limit in zip(self.crop, self.model.grid, strict=True)):
            raise UsageError(f"crop {self.crop}: the frame has only {self.model.grid} patches")
        sides = (self.model.image_width, self.model.image_height)
        if any(side % self.model.patch_size for side in sides):
            raise UsageError(f"frames of {sides}: training needs whole patches")
        if not 0 <= self.full_frames_from < 1:
            raise UsageError(f"full_frames_from is {self.full_frames_from}, expected [0, 1)")


CurvePoint = dict[str, float]
"""One checkpoint of the learning curve: `step`, `minutes`, `loss` (mean over the steps since the
last
one), and `psnr_db`, `codes_used`, `perplexity` over the held-out frames."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a run came to: the figures of its last checkpoint and the curve that led there."""

    steps: int
    minutes: float
    held_out: TokenizerFigures
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class CropBatch:
    """Crops of frames, and where in their frames they were cut.

    frames   uint8 [B, h p, w p, 3]
    places   int64 [B, h w]         rows of the position table
    grid     (h, w), patches
    """

    frames: Tensor
    places: Tensor
    grid: tuple[int, int]


@dataclass(slots=True)
class Training:
    """A run between two steps: what a checkpoint holds. `codebook` is None before k-means."""

    model: ImageModel
    optimizer: torch.optim.AdamW
    codebook: CodebookState | None
    step: int
    minutes: float
    curve: list[CurvePoint]


def train_tokenizer(
    frames: FrameSource,
    out: Path,
    settings: TrainSettings,
    progress: Callable[[CurvePoint], None] = lambda _: None,
    *,
    resume: bool = False,
    device: str = "cpu",
    stop_at: int | None = None,
) -> TrainReport:
    """Train a tokenizer into the folder `out`, which `load_tokenizer` reads from the first
    checkpoint on.

    Beside the tokenizer lie `curves.json` and the checkpoint `training.safetensors`.

    Args:
        progress: called at every checkpoint.
        resume: go on from the checkpoint in `out`; where there is none, start afresh. Only the
            length of the run may have changed since.
        device: where to train, as torch names it.
        stop_at: leave off at this step, with a checkpoint, as if interrupted there.

    Raises:
        UsageError: frames of another size than the model's, or none.
        MismatchError: the checkpoint was made with other settings.
        IntegrityError: the checkpoint is damaged.
    """
    _check_frames(frames, settings.model)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT_FILE
    resumed = resume and checkpoint.exists()
    run = _restored(checkpoint, settings, device) if resumed else _fresh(settings, device)
    judged = _evenly(frames.held_out, settings.held_out_frames)
    started = time.monotonic() - 60 * run.minutes
    losses: list[float] = []
    finished = _share_done(run, settings) >= 1
    while not finished:
        share = _share_done(run, settings)
        if run.step == settings.quantise_from:
            run.codebook = first_codebook(run.model, frames.train, settings)
        batch = draw_batch(frames.train, settings, run.step, share, device)
        losses.append(training_step(run, batch, settings, share))
        run.minutes = (time.monotonic() - started) / 60
        finished = _share_done(run, settings) >= 1 or run.step == stop_at
        if finished or run.step % settings.checkpoint_every == 0:
            _save_tokenizer(run.model, out)
            figures = tokenizer_figures(load_tokenizer(str(out), device), judged)
            point: CurvePoint = {
                "step": run.step,
                "minutes": round(run.minutes, 3),
                "loss": float(np.mean(losses)),
                **asdict(figures),
            }
            run.curve.append(point)
            losses.clear()
            _save_checkpoint(run, settings, out)
            progress(point)
    last = run.curve[-1]
    figures = TokenizerFigures(last["psnr_db"], int(last["codes_used"]), last["perplexity"])
    return TrainReport(run.step, run.minutes, figures, tuple(run.curve))


def draw_batch(
    frames: NDArray[np.uint8],
    settings: TrainSettings,
    step: int,
    share_done: float,
    device: str = "cpu",
) -> CropBatch:
    """The batch of one step, drawn by the seed and the step.

    Crops at first; whole frames more and more often once `full_frames_from` of the run is done.
    """
    rng = np.random.default_rng((settings.seed, step))
    patch, grid = settings.model.patch_size, settings.model.grid
    crops_only = settings.full_frames_from
    whole = rng.random() < (share_done - crops_only) / (1 - crops_only)
    rows, columns = grid if whole else settings.crop
    count = max(1, round(settings.patches_per_step / (rows * columns)))
    picked = rng.integers(0, len(frames), count)
    tops = rng.integers(0, grid[0] - rows + 1, count)
    lefts = rng.integers(0, grid[1] - columns + 1, count)
    table = np.arange(settings.model.tokens).reshape(grid)
    corners = list(zip(tops, lefts, strict=True))
    crops = [
        frames[i, y * patch : (y + rows) * patch, x * patch : (x + columns) * patch]
        for i, (y, x) in zip(picked, corners, strict=True)
    ]
    places = [table[y : y + rows, x : x + columns].ravel() for y, x in corners]
    return CropBatch(
        torch.from_numpy(np.stack(crops)).to(device),
        torch.from_numpy(np.stack(places)).to(device),
        (rows, columns),
    )


def training_step(
    run: Training, batch: CropBatch, settings: TrainSettings, share_done: float
) -> float:
    """One step of AdamW and of the codebook's running means. Returns the loss before the step."""
    for group in run.optimizer.param_groups:
        group["lr"] = settings.learning_rate * rate_factor(run.step, share_done, settings.warm_up)
    target = run.model.prepared(batch.frames)
    half = torch.autocast(batch.frames.device.type, torch.bfloat16, enabled=settings.bfloat16)
    with half:
        latents = run.model.latents_of(target, batch.places).float()
    if run.model.spherical:
        latents = on_sphere(latents)
    codes, chosen = _quantised(latents, run.codebook)
    with half:
        decoded = run.model.image_of(codes, batch.places, batch.grid)
    error = decoded.float() - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    commitment = (latents - codes.detach()).square().sum(-1).mean()
    loss = error.square().mean() + settings.edge_weight * edges + settings.commitment * commitment
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    run.step += 1
    if chosen is not None:
        _move_codebook(run, latents.detach().flatten(0, 1), chosen, settings, share_done)
    return float(loss.detach())


def _quantised(latents: Tensor, codebook: CodebookState | None) -> tuple[Tensor, Tensor | None]:
    """The codebook rows nearest to the vectors [B, n, e], and their ids [B n].

    The decoder's gradient with respect to the rows passes straight to the encoder. Without a
    codebook the vectors themselves pass.
    """
    if codebook is None:
        return latents, None
    vectors, rows = latents.detach().flatten(0, 1), codebook.rows
    chosen = codebook_fit.nearest_row(vectors, rows, codebook.spherical)
    rows = rows[chosen].view_as(latents)
    return latents + (rows - latents).detach(), chosen


def _move_codebook(
    run: Training, vectors: Tensor, chosen: Tensor, settings: TrainSettings, share_done: float
) -> None:
    """Let the rows follow the vectors [M, e] that chose them, and now and then revive dead ones."""
    assert run.codebook is not None, "ids were chosen from it"
    run.codebook = codebook_fit.follow(run.codebook, vectors, chosen, settings.codebook_decay)
    if run.step % settings.revive_every == 0 and share_done < _LAST_REVIVAL:
        rng = np.random.default_rng((settings.seed, run.step, 1))
        run.codebook = codebook_fit.revive(run.codebook, vectors, rng, settings.least_share)
    run.model.codebook.set_rows(run.codebook.rows)


def first_codebook(
    model: ImageModel, frames: NDArray[np.uint8], settings: TrainSettings
) -> CodebookState:
    """The codebook that k-means finds in the encoder's vectors of frames drawn from `frames`."""
    rng = np.random.default_rng((settings.seed, settings.quantise_from, 2))
    device = next(model.parameters()).device
    places = torch.arange(settings.model.tokens, device=device)
    vectors = []
    with torch.no_grad():
        for i in rng.integers(0, len(frames), settings.kmeans_frames):
            frame = torch.from_numpy(frames[i : i + 1].copy()).to(device)
            vectors.append(model.latents_of(model.prepared(frame), places)[0])
    rows = codebook_fit.kmeans_rows(
        torch.cat(vectors), settings.model.vocab_size, rng, rounds=10, spherical=model.spherical
    )
    return codebook_fit.start_codebook(rows, settings.patches_per_step, model.spherical)


def _share_done(run: Training, settings: TrainSettings) -> float:
    return share_done(run.step, run.minutes, settings.steps, settings.minutes)


def _fresh(settings: TrainSettings, device: str) -> Training:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = image_model(settings.model)
        for name, weight in model.named_parameters():
            if name.endswith("c_proj.weight"):  # every block starts as the identity
                nn.init.zeros_(weight)
            elif name.endswith("pos_embeds.weight"):
                nn.init.normal_(weight, std=0.02)
    model.codebook.requires_grad_(False)
    model.to(device)
    learned = [weight for _, weight in _learned(model)]
    optimizer = torch.optim.AdamW(
        learned, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    return Training(model, optimizer, None, 0, 0.0, [])


def _learned(model: ImageModel) -> list[tuple[str, nn.Parameter]]:
    """The parameters that the optimizer moves, in its order."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _save_tokenizer(model: ImageModel, out: Path) -> None:
    """Write the tokenizer in float16: half the bytes, and less than 0.01 dB."""
    weights = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in model.state_dict().items()
    }
    replace_text(out / CONFIG_FILE, model.config.to_json())
    replace_tensors(out / WEIGHTS_FILE, weights, {})


def _save_checkpoint(run: Training, settings: TrainSettings, out: Path) -> None:
    tensors = {f"model.{name}": tensor.cpu() for name, tensor in run.model.state_dict().items()}
    tensors |= moments_of(run.optimizer, _learned(run.model))
    if run.codebook is not None:
        tensors["codebook.uses"] = run.codebook.uses.cpu()
        tensors["codebook.sums"] = run.codebook.sums.cpu()
    state = {
        "settings": asdict(settings),
        "step": run.step,
        "minutes": run.minutes,
        "curve": run.curve,
    }
    write_checkpoint(out / CHECKPOINT_FILE, tensors, state)
    replace_text(out / CURVES_FILE, json.dumps(run.curve, indent=1) + "\n")


def _restored(checkpoint: Path, settings: TrainSettings, device: str) -> Training:
    run = _fresh(settings, device)

    def restore(tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        run.model.load_state_dict(
            {name: tensors[f"model.{name}"] for name in run.model.state_dict()}
        )
        restore_moments(run.optimizer, _learned(run.model), tensors, state["step"])
        if "codebook.uses" in tensors:
            run.codebook = CodebookState(
                tensors["codebook.uses"], tensors["codebook.sums"], run.model.spherical
            )
        run.step, run.minutes, run.curve = state["step"], state["minutes"], state["curve"]

    read_checkpoint(checkpoint, asdict(settings), device, restore)
    return run


def _evenly(frames: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """At most `count` of the frames, spread evenly over them."""
    picked = np.linspace(0, len(frames) - 1, count).round().astype(np.int64)
    return np.asarray(frames[np.unique(picked)])


def _check_frames(frames: FrameSource, model: ImageConfig) -> None:
    expected = (model.image_height, model.image_width, 3)
    for name, part in (("train", frames.train), ("held out", frames.held_out)):
        if part.dtype != np.uint8 or part.shape[1:] != expected or not len(part):
            raise UsageError(
                f"frames ({name}): {part.dtype} {part.shape}, expected some uint8 {expected}"
            )
