"""Training of a world model on a tokenised corpus: next-token prediction over windows of S steps.

The first step of a window is context alone and is not predicted: a dream always has a step to go on
from. Image tokens that the model reads are replaced by other tokens of the batch now and then, the
ones that it is to predict never, so that it learns to go on from frames that it got slightly wrong
itself.

What step k draws depends on the seed and on k alone, and a checkpoint holds everything else, so a
resumed run is the run that was never interrupted. That holds for `steps`; with `minutes` the
schedule follows the clock.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.structured_start import structured_start
from wham_data.inference.tokenizer import BUNDLED
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.training.baselines import Baselines, baselines
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


class Windows(Protocol):
    """Windows of S consecutive steps by number: `WindowDataset(..., interleave=True).windows`."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def flat(self, windows: NDArray[np.int64], /) -> NDArray[np.integer]:
        """Integer [B, S P] in the model's vocabulary: each step's image tokens, then its action's."""
        ...


@dataclass(frozen=True, slots=True)
class WorldModelSettings:
    """Everything that decides what is learned. Either `steps` or `minutes` says how long.

    spec                the transformer
    steps, minutes      length of the whole run; a resumed run counts from its beginning
    batch_size          windows in a batch
    learning_rate       AdamW's, at its peak
    warm_up             steps until the peak
    input_noise         in every second window, up to this share of the image tokens read is replaced
    structured_start    begin as `structured_start` says; False begins with plain noise
    bfloat16            matrix products in bfloat16
    checkpoint_every    steps between checkpoints, each with the loss on held-out windows
    held_out_windows    number of those windows, spread evenly over what there is

    Raises:
        UsageError: both or neither of `steps` and `minutes`, or a model that holds a single step.
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
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("length of the training: give either steps or minutes")
        if self.spec.steps < 2:
            raise UsageError("a model of one step sees nothing to predict from: expected 2 or more")


CurvePoint = dict[str, float]
"""One checkpoint of the learning curve: `step`, `minutes`, `loss` (mean over the steps since the last
one), and the held-out losses `image_loss` and `action_loss`. Losses are nats per token."""


@dataclass(frozen=True, slots=True)
class WorldModelReport:
    """What a run came to: its last checkpoint, what simple predictors reach, and the curve."""

    steps: int
    minutes: float
    image_loss: float
    action_loss: float
    baselines: Baselines
    curve: tuple[CurvePoint, ...]


@dataclass(slots=True)
class _Run:
    """A run between two steps: what a checkpoint holds."""

    model: GPT
    optimizer: torch.optim.AdamW
    step: int = 0
    minutes: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)


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
) -> WorldModelReport:
    """Train a world model into the folder `out`, which `load_world_model` reads from the first
    checkpoint on.

    Beside the model lie a copy of its tokenizer, `curves.json` and the checkpoint
    `training.safetensors`.

    Args:
        tokenizer: the reference of the tokenizer that made the tokens.
        progress: called at every checkpoint.
        resume: go on from the checkpoint in `out`; where there is none, start afresh. Only the
            length of the run may have changed since.
        device: where to train, as torch names it.
        stop_at: leave off at this step, with a checkpoint, as if interrupted there.

    Raises:
        UsageError: no windows, or a tokenizer of other tokens than the model's.
        MismatchError: the checkpoint was made with other settings.
        IntegrityError: the checkpoint is damaged.
    """
    for name, windows in (("train", train), ("held out", held_out)):
        if not len(windows):
            raise UsageError(f"windows ({name}): there are none of {settings.spec.steps} steps")
    out.mkdir(parents=True, exist_ok=True)
    config, codebook = _copy_tokenizer(tokenizer, out, settings.spec)
    resumed = resume and (out / CHECKPOINT_FILE).exists()
    run = _restored(out, settings, device) if resumed else _fresh(settings, codebook, device)
    judged = held_out.flat(_evenly(len(held_out), settings.held_out_windows))
    started = time.monotonic() - 60 * run.minutes
    losses: list[float] = []
    finished = _share_done(run, settings) >= 1
    while not finished:
        tokens, targets = draw_batch(train, settings, run.step)
        losses.append(_training_step(run, tokens.to(device), targets.to(device), settings))
        run.minutes = (time.monotonic() - started) / 60
        finished = _share_done(run, settings) >= 1 or run.step == stop_at
        if finished or run.step % settings.checkpoint_every == 0:
            image_loss, action_loss = held_out_loss(run.model, judged, device)
            point: CurvePoint = {
                "step": run.step,
                "minutes": round(run.minutes, 3),
                "loss": float(np.mean(losses)),
                "image_loss": image_loss,
                "action_loss": action_loss,
            }
            run.curve.append(point)
            losses.clear()
            _save(run, config, settings, out)
            progress(point)
    last = run.curve[-1]
    seen = train.flat(_evenly(len(train), 16 * settings.held_out_windows))
    return WorldModelReport(
        run.step,
        run.minutes,
        last["image_loss"],
        last["action_loss"],
        baselines(seen, judged, settings.spec),
        tuple(run.curve),
    )


def draw_batch(windows: Windows, settings: WorldModelSettings, step: int) -> tuple[Tensor, Tensor]:
    """The batch of one step, drawn by the seed and the step: what the model reads, and the truth.

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
            losses.append(_losses(model, tokens, tokens).float().cpu())
    by_place = torch.stack(losses).view(-1, spec.tokens_per_step)
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


def _training_step(
    run: _Run, tokens: Tensor, targets: Tensor, settings: WorldModelSettings
) -> float:
    """One step of AdamW. Returns the loss before the step."""
    factor = rate_factor(run.step, _share_done(run, settings), settings.warm_up)
    for group in run.optimizer.param_groups:
        group["lr"] = settings.learning_rate * factor
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=settings.bfloat16):
        loss = _losses(run.model, tokens, targets).mean()
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    run.step += 1
    return float(loss.detach())


def _fresh(settings: WorldModelSettings, codebook: NDArray[np.float32], device: str) -> _Run:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = GPT(settings.spec)
        if settings.structured_start:
            structured_start(model, codebook, settings.seed)
    model.to(device)
    return _Run(model, _optimizer(model, settings))


def _optimizer(model: GPT, settings: WorldModelSettings) -> torch.optim.AdamW:
    """AdamW; matrices decay, norms do not."""
    decayed = [weight for _, weight in _learned(model) if weight.dim() > 1]
    others = [weight for _, weight in _learned(model) if weight.dim() == 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
    )


def _learned(model: GPT) -> list[tuple[str, nn.Parameter]]:
    """The parameters in the optimizer's order: matrices, then vectors."""
    return sorted(model.named_parameters(), key=lambda item: item[1].dim() == 1)


def _share_done(run: _Run, settings: WorldModelSettings) -> float:
    return share_done(run.step, run.minutes, settings.steps, settings.minutes)


def _copy_tokenizer(
    ref: str, out: Path, spec: GPTSpec
) -> tuple[TokenizerConfig, NDArray[np.float32]]:
    """Put the tokenizer's weights into `out`; its configuration, and its codebook [V, e]."""
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
    if (folder / WEIGHTS_FILE).resolve() != (out / WEIGHTS_FILE).resolve():
        shutil.copyfile(folder / WEIGHTS_FILE, out / WEIGHTS_FILE)
    codebook = next(
        rows for _, rows in files.tensors() if rows.ndim == 2 and len(rows) == spec.image_vocab
    )
    return files.config, np.asarray(codebook, np.float32)


def _save(run: _Run, config: TokenizerConfig, settings: WorldModelSettings, out: Path) -> None:
    """The checkpoint, then the model in float16: half the bytes, and no loss that shows."""
    tensors = {f"model.{name}": tensor.cpu() for name, tensor in run.model.state_dict().items()}
    state = {
        "settings": asdict(settings),
        "step": run.step,
        "minutes": run.minutes,
        "curve": run.curve,
    }
    moments = moments_of(run.optimizer, _learned(run.model))
    write_checkpoint(out / CHECKPOINT_FILE, tensors | moments, state)
    replace_text(out / CURVES_FILE, json.dumps(run.curve, indent=1) + "\n")
    weights = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in run.model.state_dict().items()
    }
    replace_tensors(out / WORLD_MODEL_FILE, weights, {})
    replace_text(out / CONFIG_FILE, config_text(config, settings.spec))


def _restored(out: Path, settings: WorldModelSettings, device: str) -> _Run:
    model = GPT(settings.spec).to(device)
    run = _Run(model, _optimizer(model, settings))

    def restore(tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        run.model.load_state_dict(
            {name: tensors[f"model.{name}"] for name in run.model.state_dict()}
        )
        restore_moments(run.optimizer, _learned(run.model), tensors, state["step"])
        run.step, run.minutes, run.curve = state["step"], state["minutes"], state["curve"]

    read_checkpoint(out / CHECKPOINT_FILE, asdict(settings), device, restore)
    return run


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` of `count` indices, spread evenly over them."""
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(np.int64))
