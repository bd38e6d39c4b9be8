"""The loop that every trainer runs: how long, how fast, when a checkpoint is due, and how to resume.

A trainer gives the loop a `Learner`: what one step does, what to save and how to judge it.

What a step draws may depend only on the seed and on the step's number, and a checkpoint holds
everything else. So on a CPU, with as many threads, a resumed run is equal, bit for bit, to a run that was
never interrupted. This is true for a length in `steps`. With a length in `minutes` the learning rate
follows the clock, and no two runs are equal. On a GPU two runs need not be equal either, resumed or not: torch
adds up some gradients, and the statistics of a codebook, in another order each time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wham_data.inference.training.files import (
    CHECKPOINT_FILE,
    CURVES_FILE,
    check_tensors,
    model_tensors,
    moments_of,
    read_checkpoint,
    replace_text,
    restore_model,
    restore_moments,
    write_checkpoint,
)
from wham_data.inference.training.ranks import ALONE, Ranks
from wham_data.schemas.errors import MismatchError, UsageError

WITH_LESS_MEMORY = (
    "The last checkpoint is kept. End other programs that use the device (nvidia-smi lists them) and run the "
    "same command with --resume; or start in another folder with a smaller model (--width, --layers)"
)
"""What to do where training does not fit into the memory of a device."""

CurvePoint = dict[str, float]
"""One checkpoint of the learning curve: `step`, `minutes`, `loss` (mean over the steps since the
checkpoint before), and the figures of `Learner.judge`."""


class LoopSettings(Protocol):
    """What the loop needs to know of a trainer's settings, which are a frozen dataclass.

    Exactly one of `steps` and `minutes` is given: the length of the whole run, counted from its
    beginning if it is resumed.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def steps(self) -> int | None:
        """Length of the run in steps."""
        ...

    @property
    def minutes(self) -> float | None:
        """Length of the run in minutes."""
        ...

    @property
    def learning_rate(self) -> float:
        """At its peak."""
        ...

    @property
    def warm_up(self) -> int:
        """Steps until the peak."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        ...


class Learner(Protocol):
    """What is trained: the part that differs from trainer to trainer."""

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        ...

    @property
    def optimizer(self) -> torch.optim.AdamW:
        """Moves parameters of the model. The loop sets its learning rate before every step."""
        ...

    def learn(self, step: int, share_done: float, /) -> float:
        """Draw the batch of one step, learn from it (see `descend`), and return its loss.

        Args:
            step: number of steps before this one.
            share_done: part of the run that is over, in [0, 1).
        """
        ...

    def save(self, out: Path, /) -> None:
        """Write the model as users load it, each file whole or not at all."""
        ...

    def judge(self, out: Path, /) -> CurvePoint:
        """Figures on held-out data. `save` has just written the model to `out`."""
        ...

    def more_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides the model and Adam's moments; often nothing."""
        ...

    def restore(self, tensors: dict[str, Tensor], /) -> None:
        """Take back `more_tensors` from all tensors of a checkpoint, which are on the CPU.

        Raises:
            LookupError, ValueError: one of them is missing or has another shape.
        """
        ...


@dataclass(slots=True)
class Run:
    """How far a run has come.

    step      steps made
    minutes   time they took, without the time between an interruption and the resumed run
    curve     one point per checkpoint
    """

    step: int = 0
    minutes: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)

    def share_done(self, settings: LoopSettings) -> float:
        """The part of the run that is over, by steps or by minutes; 1 or more at the end."""
        if settings.steps is not None:
            return self.step / settings.steps
        assert settings.minutes is not None, "`check_length` saw to it"
        return self.minutes / settings.minutes


def check_length(settings: LoopSettings) -> None:
    """Refuse settings that do not say how long a run is.

    Raises:
        UsageError: both or neither of `steps` and `minutes`, or one that is not above zero.
    """
    if (settings.steps is None) == (settings.minutes is None):
        raise UsageError("length of the training: give either steps or minutes")
    for name, length in (("steps", settings.steps), ("minutes", settings.minutes)):
        if length is not None and not length > 0:
            raise UsageError(f"length of the training: {length} {name}, expected more than 0")


def train(
    learner: Learner,
    settings: LoopSettings,
    out: Path,
    progress: Callable[[CurvePoint], None] = lambda _: None,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    ranks: Ranks = ALONE,
) -> Run:
    """Train until the length in the settings is reached, with checkpoints in the folder `out`.

    At a checkpoint these are written in turn: the model, the file `training.safetensors` to resume
    from, and the learning curve `curves.json`. There is always one at the end.

    Args:
        learner: freshly made; if the run is resumed, the loop restores it.
        out: a folder that exists.
        progress: called after every checkpoint.
        resume: go on from the checkpoint in `out`; if there is none, start again. Only the length
            of the run may have changed since.
        stop_at: stop at this step, with a checkpoint, as if interrupted there.
        clock: seconds, from any beginning.
        ranks: the processes that train this model. `progress` is called in the first one alone.

    Raises:
        MismatchError: the checkpoint was made with other settings, or a process sees another one.
        IntegrityError: the checkpoint is damaged.
        WhamDataError: the checkpoint cannot be read at present.
    """
    run = Run()
    if resume and (out / CHECKPOINT_FILE).exists():
        run = _restored(learner, settings, out)
    if ranks.same(str(run.step)) != str(run.step):
        raise MismatchError(
            f"{out}: this process sees a run of {run.step} steps there, but the first one another. "
            "All machines must see the same folder"
        )
    started = clock() - 60 * run.minutes
    losses: list[float] = []
    finished = run.share_done(settings) >= 1
    while not finished:
        losses.append(_one_step(learner, run, settings))
        run.minutes = (clock() - started) / 60
        if settings.minutes is not None:
            run.minutes = float(ranks.same(repr(run.minutes)))
        finished = run.share_done(settings) >= 1 or run.step == stop_at
        if finished or run.step % settings.checkpoint_every == 0:
            if ranks.first:
                _checkpoint(learner, run, settings, out, float(np.mean(losses)))
            point = json.loads(ranks.same(json.dumps(run.curve[-1] if ranks.first else None)))
            if ranks.first:
                progress(point)
            else:
                run.curve.append(point)
            losses.clear()
    return run


def rate_factor(step: int, share_done: float, warm_up: int) -> float:
    """The learning rate as a part of its peak: up over `warm_up` steps, then a cosine down to 2 %."""
    return min((step + 1) / warm_up, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share_done)))


def descend(learner: Learner, loss: Tensor, ranks: Ranks = ALONE) -> float:
    """One step of AdamW down the gradient of a loss, which is clipped to length 1. Returns the loss.

    The step is queued on the device before the loss is read, which is the only wait for the device.
    """
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
    learner.optimizer.step()
    return float(ranks.mean(loss.detach()))


def on_device(values: Tensor, device: str) -> Tensor:
    """Values from the CPU, on a device; a copy to a GPU is queued and not waited for."""
    if torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def adam(
    groups: list[dict[str, Any]], device: str, learning_rate: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW over groups of parameters; on a GPU in one kernel for many of them ("fused")."""
    fused = True if torch.device(device).type == "cuda" else None
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the indices in [0, count), spread evenly and without repetition."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def _one_step(learner: Learner, run: Run, settings: LoopSettings) -> float:
    share = run.share_done(settings)
    rate = settings.learning_rate * rate_factor(run.step, share, settings.warm_up)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    loss = learner.learn(run.step, share)
    run.step += 1
    return loss


def _checkpoint(learner: Learner, run: Run, settings: LoopSettings, out: Path, loss: float) -> None:
    """Save, judge, and write the checkpoint and the curve, which has one point more then."""
    learner.save(out)
    point: CurvePoint = {"step": run.step, "minutes": round(run.minutes, 3), "loss": loss}
    run.curve.append(point | learner.judge(out))
    tensors = model_tensors(learner.model) | moments_of(learner.optimizer, learner.model)
    state = {"settings": asdict(settings), **asdict(run)}
    write_checkpoint(out / CHECKPOINT_FILE, tensors | learner.more_tensors(), state)
    replace_text(out / CURVES_FILE, json.dumps(run.curve, indent=1) + "\n")


def _restored(learner: Learner, settings: LoopSettings, out: Path) -> Run:
    """Put the learner into the state of the checkpoint, and tell how far the run had come."""

    def restore(tensors: dict[str, Tensor], state: dict[str, Any]) -> Run:
        run = Run(state["step"], state["minutes"], state["curve"])
        check_tensors(learner.model, learner.optimizer, tensors)
        restore_model(learner.model, tensors)
        restore_moments(learner.optimizer, learner.model, tensors, run.step)
        learner.restore(tensors)
        return run

    return read_checkpoint(out / CHECKPOINT_FILE, asdict(settings), restore)
