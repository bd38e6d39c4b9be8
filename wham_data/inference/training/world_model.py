"""Training of a world model on a tokenised corpus: next-token prediction over windows of S steps.

The first step of a window is only context and is not predicted, because a dream always has a step
before it. Now and then, image tokens that the model reads are replaced by other tokens of the batch;
tokens that it must predict never are. So it learns to continue frames that it made slightly wrong.

The loop (`training/loop.py`) does the rest: learning rate, checkpoints, resuming.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wham_data.inference.checkpoints.file_names import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WORLD_MODEL_FILE,
)
from wham_data.inference.checkpoints.lightning import open_tokenizer
from wham_data.inference.checkpoints.model_folder import config_text
from wham_data.inference.device.failures import device_errors
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.structured_start import structured_start
from wham_data.inference.tokenizer import BUNDLED
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.training import loop
from wham_data.inference.training.baselines import Baselines, baselines
from wham_data.inference.training.files import half_weights, replace_tensors, replace_text
from wham_data.inference.training.loop import CurvePoint
from wham_data.inference.training.ranks import ALONE, Ranks
from wham_data.schemas.errors import UsageError


class Windows(Protocol):
    """Windows of S consecutive steps by number: `WindowDataset(..., interleave=True).windows`."""

    def __len__(self) -> int:
        """Number of windows."""
        ...

    def flat(self, windows: NDArray[np.int64], /) -> NDArray[np.integer]:
        """Integer [B, S P] in the model's vocabulary: each step's image tokens, then its action's."""
        ...


@dataclass(frozen=True, slots=True)
class WorldModelSettings:
    """Everything that decides what is learned. Give either `steps` or `minutes`.

    spec                the transformer
    steps, minutes      length of the whole run; a resumed run counts from its beginning
    batch_size          windows in a batch
    learning_rate       AdamW's, at its peak
    warm_up             steps until the peak
    input_noise         largest share of image tokens replaced, in about every second window
    structured_start    whether to begin with `structured_start`; False: with plain noise
    bfloat16            whether matrix products are in bfloat16
    checkpoint_every    steps between checkpoints, each with the loss on held-out windows
    held_out_windows    number of those windows, spread evenly over what there is

    Raises:
        UsageError: both or neither of `steps` and `minutes`, or one that is not above 0; a model
            that holds a single step.
    """

    spec: GPTSpec
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    batch_size: int = 4
    learning_rate: float = 1e-3
    warm_up: int = 100
    weight_decay: float = 0.05
    input_noise: float = 0.1
    structured_start: bool = True
    bfloat16: bool = True
    checkpoint_every: int = 500
    held_out_windows: int = 64

    def __post_init__(self) -> None:
        loop.check_length(self)
        if self.spec.steps < 2:
            raise UsageError("a model of one step sees nothing to predict from: expected 2 or more")


@dataclass(frozen=True, slots=True)
class WorldModelReport:
    """The result of a run: its last checkpoint, the losses of simple predictors, and the curve.

    Losses are nats per token, on held-out windows.
    """

    steps: int
    minutes: float
    image_loss: float
    action_loss: float
    baselines: Baselines
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class WorldModelLearner:
    """A world model between two steps of its training, for the loop.

    loss        the mean loss of the model over tokens read and true, see `_MeanLoss`
    tokenizer   configuration of the tokenizer beside it
    judged      the held-out windows to judge by, integer [B, S P]
    ranks       the processes that train this model, each on its part of a batch
    """

    model: GPT
    loss: nn.Module
    optimizer: torch.optim.AdamW
    settings: WorldModelSettings
    tokenizer: TokenizerConfig
    train: Windows
    judged: NDArray[np.integer]
    device: str
    ranks: Ranks

    def learn(self, step: int, _share_done: float) -> float:
        """One step of AdamW."""
        mine = self.ranks.part(self.settings.batch_size)
        read, truth = (batch[mine] for batch in draw_batch(self.train, self.settings, step))
        tokens, targets = (loop.on_device(batch, self.device) for batch in (read, truth))
        half = torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.settings.bfloat16)
        with half:
            loss = self.loss(tokens, targets)
        return loop.descend(self, loss, self.ranks)

    def save(self, out: Path) -> None:
        """Write the model in float16, and the configuration that makes the folder a model."""
        replace_tensors(out / WORLD_MODEL_FILE, half_weights(self.model), {})
        replace_text(out / CONFIG_FILE, config_text(self.tokenizer, self.model.spec))

    def judge(self, _out: Path) -> CurvePoint:
        """The losses of the model in full precision."""
        image_loss, action_loss = held_out_loss(self.model, self.judged, self.device)
        return {"image_loss": image_loss, "action_loss": action_loss}

    def more_tensors(self) -> dict[str, Tensor]:
        """Nothing: the model and Adam's moments are all."""
        return {}

    def restore(self, _tensors: dict[str, Tensor]) -> None:
        """Nothing, as in `more_tensors`."""


def train_world_model(
    train: Windows,
    held_out: Windows,
    tokenizer: str,
    out: Path,
    settings: WorldModelSettings,
    progress: Callable[[CurvePoint], None] = lambda _: None,
    *,
    resume: bool = False,
    device: str = "cpu",
    stop_at: int | None = None,
    ranks: Ranks = ALONE,
) -> WorldModelReport:
    """Train a world model into the folder `out`.

    After the first checkpoint `load_world_model` can read the folder. A copy of the tokenizer and
    the files `curves.json` and `training.safetensors` (to resume from) are in it too.

    Args:
        tokenizer: the name or folder of the tokenizer that made the tokens.
        progress, resume, stop_at: as in `loop.train`.
        device: where to train, as torch names it.
        ranks: the processes that train this model, each of which calls this. A batch is divided among
            them, so the run is that of one process, except for rounding.

    Raises:
        UsageError: no windows, a tokenizer of other tokens than the model's, or a batch that cannot be
            divided among the processes.
        MismatchError, IntegrityError, WhamDataError: as `loop.train`.
        DeviceError: the memory of the device is full, or it fails.
    """
    for name, windows in (("train", train), ("held out", held_out)):
        if not len(windows):
            raise UsageError(f"windows ({name}): there are none of {settings.spec.steps} steps")
    ranks.part(settings.batch_size)
    out.mkdir(parents=True, exist_ok=True)
    config, codebook = _copy_tokenizer(tokenizer, out, settings.spec, write=ranks.first)
    judged = held_out.flat(loop.evenly(len(held_out), settings.held_out_windows))
    lower = loop.WITH_LESS_MEMORY
    if settings.batch_size > 1:
        lower = f"{lower}, or with a --batch-size below {settings.batch_size}"
    with device_errors(f"training a world model on {device}", lower):
        model = _fresh(settings, codebook).to(device)
        learner = WorldModelLearner(
            model,
            ranks.together(_MeanLoss(model)),
            _optimizer(model, settings, device),
            settings,
            config,
            train,
            judged,
            device,
            ranks,
        )
        run = loop.train(
            learner, settings, out, progress, resume=resume, stop_at=stop_at, ranks=ranks
        )
    last = run.curve[-1]
    seen = train.flat(loop.evenly(len(train), 16 * settings.held_out_windows))
    return WorldModelReport(
        run.step,
        run.minutes,
        last["image_loss"],
        last["action_loss"],
        baselines(seen, judged, settings.spec),
        tuple(run.curve),
    )


def draw_batch(windows: Windows, settings: WorldModelSettings, step: int) -> tuple[Tensor, Tensor]:
    """The batch of one step: what the model reads, and the truth. Depends only on seed and step.

    Returns:
        two int64 [B, S P]; they differ in the image tokens that were replaced.
    """
    rng = np.random.default_rng((settings.seed, step))
    truth = windows.flat(rng.integers(0, len(windows), settings.batch_size)).astype(np.int64)
    spec = settings.spec
    steps = truth.reshape(len(truth), -1, spec.tokens_per_step)
    rates = settings.input_noise * rng.random(len(truth)) * (rng.random(len(truth)) < 0.5)
    replaced = rng.random(steps.shape) < rates[:, None, None]
    replaced[..., spec.image_tokens :] = False
    pool = steps[..., : spec.image_tokens].reshape(-1)
    read = np.where(replaced, rng.choice(pool, steps.shape), steps)
    return torch.from_numpy(read.reshape(truth.shape)), torch.from_numpy(truth)


def held_out_loss(
    model: GPT, windows: NDArray[np.integer], device: str = "cpu"
) -> tuple[float, float]:
    """Mean loss over image tokens and over action tokens, nats, of all steps but the first.

    Args:
        windows: integer [B, S P], B > 0.
    """
    spec = model.spec
    losses = []
    with torch.inference_mode():
        for window in windows:
            tokens = torch.from_numpy(window[None].astype(np.int64)).to(device)
            losses.append(_losses(model, tokens, tokens).float())
    by_place = torch.stack(losses).cpu().view(-1, spec.tokens_per_step)
    images, actions = by_place[:, : spec.image_tokens], by_place[:, spec.image_tokens :]
    return float(images.mean()), float(actions.mean())


def _losses(model: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """Loss of each token of all steps but the first, float [B (S - 1) P]."""
    first = model.spec.tokens_per_step
    states = model.states(tokens[:, :-1])[:, first - 1 :]
    logits = functional.linear(states, model.lm_head.weight)
    return functional.cross_entropy(
        logits.float().flatten(0, 1), targets[:, first:].flatten(), reduction="none"
    )


class _MeanLoss(nn.Module):
    """The mean of `_losses`, as a module that several processes can train together."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """int64 [B, S P] each to a scalar."""
        return _losses(self.model, tokens, targets).mean()


def _fresh(settings: WorldModelSettings, codebook: NDArray[np.float32]) -> GPT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = GPT(settings.spec)
        if settings.structured_start:
            structured_start(model, codebook, settings.seed)
    return model


def _optimizer(model: GPT, settings: WorldModelSettings, device: str) -> torch.optim.AdamW:
    """AdamW; matrices decay, norms do not."""
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return loop.adam(groups, device, settings.learning_rate, (0.9, 0.95))


def _copy_tokenizer(
    ref: str, out: Path, spec: GPTSpec, *, write: bool
) -> tuple[TokenizerConfig, NDArray[np.float32]]:
    """Copy the tokenizer's weights into `out`, if `write`. Returns its configuration and its codebook [V, e]."""
    folder = BUNDLED.get(ref, Path(ref))
    files = open_tokenizer(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise UsageError(
            f"{ref}: a checkpoint, expected a tokenizer's folder. `wham-data convert` makes one."
        )
    if (files.config.tokens, files.config.vocab_size) != (spec.image_tokens, spec.image_vocab):
        raise UsageError(
            f"tokenizer {ref}: {files.config.tokens} tokens out of {files.config.vocab_size}, but "
            f"the model is for {spec.image_tokens} out of {spec.image_vocab}"
        )
    if write and (folder / WEIGHTS_FILE).resolve() != (out / WEIGHTS_FILE).resolve():
        shutil.copyfile(folder / WEIGHTS_FILE, out / WEIGHTS_FILE)
    codebook = next(
        rows for _, rows in files.tensors() if rows.ndim == 2 and len(rows) == spec.image_vocab
    )
    return files.config, np.asarray(codebook, np.float32)
