"""Training of a tokenizer of either family, small enough for a laptop.

Most steps see *crops* of whole patches, which cost a ninth of a frame; a ViT sees them with their own
rows of its position table. In the second half more and more steps see whole frames, so that the
tokenizer learns attention over all patches too.

The loop (`training/loop.py`) does the rest: learning rate, checkpoints, resuming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wham_data.inference.checkpoints.file_names import CONFIG_FILE, WEIGHTS_FILE
from wham_data.inference.device.failures import device_errors
from wham_data.inference.tokenizer import load_tokenizer
from wham_data.inference.tokenizers.config import ImageConfig
from wham_data.inference.tokenizers.frame_tokenizer import ImageModel, image_model
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.tokenizers.vit_vqgan import on_sphere
from wham_data.inference.training import codebook as codebook_fit
from wham_data.inference.training import loop
from wham_data.inference.training.codebook import CodebookState
from wham_data.inference.training.evaluate import TokenizerFigures, tokenizer_figures
from wham_data.inference.training.files import half_weights, replace_tensors, replace_text
from wham_data.inference.training.loop import CurvePoint
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
"""Part of the run after which no dead row is revived any more: the last ones need time to settle."""


class FrameSource(Protocol):
    """Frames, uint8 [N, H, W, 3] RGB, as arrays or memory maps."""

    @property
    def train(self) -> NDArray[np.uint8]:
        """Frames to learn from."""
        ...

    @property
    def held_out(self) -> NDArray[np.uint8]:
        """Frames to judge by; the tokenizer never learns from them."""
        ...


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that decides what is learned. Give either `steps` or `minutes`.

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
    codebook_decay        decay per step of the running means that codebook rows follow
    revive_every          steps between searches for dead rows
    least_share           a row is dead if it is used less than this part of an equal share
    bfloat16              whether matrix products are in bfloat16
    checkpoint_every      steps between checkpoints, each with figures on held-out frames
    held_out_frames       number of those frames, spread evenly over what there is

    Raises:
        UsageError: both or neither of `steps` and `minutes`, or one that is not above 0; a crop
            larger than the frame; a frame that is not made of whole patches.
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
        loop.check_length(self)
        if any(size > limit for size, limit in zip(self.crop, self.model.grid, strict=True)):
            raise UsageError(f"crop {self.crop}: the frame has only {self.model.grid} patches")
        sides = (self.model.image_width, self.model.image_height)
        if any(side % self.model.patch_size for side in sides):
            raise UsageError(f"frames of {sides}: training needs whole patches")
        if not 0 <= self.full_frames_from < 1:
            raise UsageError(f"full_frames_from is {self.full_frames_from}, expected [0, 1)")


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of a run: the figures of its last checkpoint, and the curve up to it."""

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
class TokenizerLearner:
    """A tokenizer between two steps of its training, for the loop.

    codebook   statistics of its rows; None before k-means
    judged     the held-out frames to judge by, uint8 [B, H, W, 3]
    """

    model: ImageModel
    optimizer: torch.optim.AdamW
    settings: TrainSettings
    train: NDArray[np.uint8]
    judged: NDArray[np.uint8]
    device: str
    codebook: CodebookState | None = None

    def learn(self, step: int, share_done: float) -> float:
        """One step of AdamW and of the codebook's running means."""
        if step == self.settings.quantise_from:
            self.codebook = first_codebook(self.model, self.train, self.settings)
        batch = draw_batch(self.train, self.settings, step, share_done, self.device)
        loss, latents, chosen = _loss(self.model, self.codebook, batch, self.settings)
        before = loop.descend(self, loss)
        if self.codebook is not None and chosen is not None:
            may_revive = share_done < _LAST_REVIVAL
            self.codebook = _moved(
                self.codebook, latents, chosen, step + 1, may_revive, self.settings
            )
            self.model.codebook.set_rows(self.codebook.rows)
        return before

    def save(self, out: Path) -> None:
        """Write the tokenizer in float16, which costs less than 0.01 dB."""
        replace_text(out / CONFIG_FILE, self.model.config.to_json())
        replace_tensors(out / WEIGHTS_FILE, half_weights(self.model), {})

    def judge(self, out: Path) -> CurvePoint:
        """Figures of the tokenizer that was saved, so float16 is judged too."""
        return asdict(tokenizer_figures(load_tokenizer(str(out), self.device), self.judged))

    def more_tensors(self) -> dict[str, Tensor]:
        """The statistics of the codebook, if there is one."""
        if self.codebook is None:
            return {}
        return {
            "codebook.uses": self.codebook.uses.cpu(),
            "codebook.sums": self.codebook.sums.cpu(),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the statistics of the codebook back, if there are any."""
        if "codebook.uses" not in tensors:
            return
        uses, sums = tensors["codebook.uses"], tensors["codebook.sums"]
        rows = self.model.codebook.rows().shape
        if uses.shape != rows[:1] or sums.shape != rows:
            raise ValueError(f"the codebook is {tuple(sums.shape)}, expected {tuple(rows)}")
        self.codebook = CodebookState(
            uses.to(self.device), sums.to(self.device), self.model.spherical
        )


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
    """Train a tokenizer into the folder `out`.

    After the first checkpoint `load_tokenizer` can read the folder. The files `curves.json` and
    `training.safetensors` (to resume from) are in it too.

    Args:
        progress, resume, stop_at: as in `loop.train`.
        device: where to train, as torch names it.

    Raises:
        UsageError: frames of another size than the model's, or none.
        MismatchError, IntegrityError, WhamDataError: as `loop.train`.
        DeviceError: the memory of the device is full, or it fails.
    """
    _check_frames(frames, settings.model)
    out.mkdir(parents=True, exist_ok=True)
    with device_errors(f"training a tokenizer on {device}", loop.WITH_LESS_MEMORY):
        learner = fresh_learner(frames, settings, device)
        run = loop.train(learner, settings, out, progress, resume=resume, stop_at=stop_at)
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
    """The batch of one step; it depends only on the seed, the step and `share_done`.

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
        loop.on_device(torch.from_numpy(np.stack(crops)), device),
        loop.on_device(torch.from_numpy(np.stack(places)), device),
        (rows, columns),
    )


def _loss(
    model: ImageModel, codebook: CodebookState | None, batch: CropBatch, settings: TrainSettings
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss, the encoder's vectors [M, e], and the ids [M] that they chose (see `_quantised`)."""
    target = model.prepared(batch.frames)
    half = torch.autocast(batch.frames.device.type, torch.bfloat16, enabled=settings.bfloat16)
    with half:
        latents = model.latents_of(target, batch.places).float()
    if model.spherical:
        latents = on_sphere(latents)
    codes, chosen = _quantised(latents, codebook)
    with half:
        decoded = model.image_of(codes, batch.places, batch.grid)
    error = decoded.float() - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    commitment = (latents - codes.detach()).square().sum(-1).mean()
    loss = error.square().mean() + settings.edge_weight * edges + settings.commitment * commitment
    return loss, latents.detach().flatten(0, 1), chosen


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


def _moved(
    codebook: CodebookState,
    vectors: Tensor,
    chosen: Tensor,
    steps: int,
    may_revive: bool,
    settings: TrainSettings,
) -> CodebookState:
    """The codebook after `steps` steps: rows follow the vectors [M, e] that chose them.

    Now and then, if they may, dead rows are revived.
    """
    codebook = codebook_fit.follow(codebook, vectors, chosen, settings.codebook_decay)
    if may_revive and steps % settings.revive_every == 0:
        rng = np.random.default_rng((settings.seed, steps, 1))
        codebook = codebook_fit.revive(codebook, vectors, rng, settings.least_share)
    return codebook


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


def fresh_learner(frames: FrameSource, settings: TrainSettings, device: str) -> TokenizerLearner:
    """A tokenizer before its first step."""
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
    moved = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = loop.adam(
        [{"params": moved, "weight_decay": settings.weight_decay}],
        device,
        settings.learning_rate,
        (0.9, 0.99),
    )
    picked = loop.evenly(len(frames.held_out), settings.held_out_frames)
    judged = np.asarray(frames.held_out[picked])
    return TokenizerLearner(model, optimizer, settings, frames.train, judged, device)


def _check_frames(frames: FrameSource, model: ImageConfig) -> None:
    expected = (model.image_height, model.image_width, 3)
    for name, part in (("train", frames.train), ("held out", frames.held_out)):
        if part.dtype != np.uint8 or part.shape[1:] != expected or not len(part):
            raise UsageError(
                f"frames ({name}): {part.dtype} {part.shape}, expected some uint8 {expected}"
            )
