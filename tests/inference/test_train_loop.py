"""The loop of the trainers, with a learner that counts its steps and a clock that we wind."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.training import loop
from wham_data.inference.training.files import (
    CHECKPOINT_FILE,
    CURVES_FILE,
    model_tensors,
    moments_of,
    restore_model,
    restore_moments,
)
from wham_data.inference.training.loop import CurvePoint
from wham_data.inference.training.tokenizer import TrainSettings, fresh_learner
from wham_data.schemas.errors import IntegrityError, MismatchError, UsageError, WhamDataError


@dataclass(frozen=True)
class Settings:
    steps: int | None = 10
    minutes: float | None = None
    learning_rate: float = 0.5
    warm_up: int = 2
    checkpoint_every: int = 4
    pace: float = 1.0


class Number(nn.Module):
    """A model of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))


@dataclass
class Counter:
    """Moves a number towards the number of the step, and notes what the loop asked of it."""

    model: Number = field(default_factory=Number)
    learned: list[tuple[int, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    saved: int = 0
    total: float = 0.0

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=99.0)

    def learn(self, step: int, share_done: float) -> float:
        self.learned.append((step, share_done))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.total += step
        loop.descend(self, (self.model.value - step).square().sum())
        return float(step)

    def save(self, _out: Path) -> None:
        self.saved += 1

    def judge(self, _out: Path) -> CurvePoint:
        return {"saved_before": self.saved, "total": self.total}

    def more_tensors(self) -> dict[str, Tensor]:
        return {"total": torch.tensor(self.total)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.total = float(tensors["total"])

    @property
    def value(self) -> float:
        return float(self.model.value.detach())


def test_every_step_is_learned_once_in_order(tmp_path: Path) -> None:
    counter = Counter()
    run = loop.train(counter, Settings(steps=4), tmp_path)
    assert counter.learned == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert run.step == 4


def test_a_checkpoint_comes_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    seen: list[CurvePoint] = []
    run = loop.train(Counter(), Settings(), tmp_path, seen.append)
    assert [point["step"] for point in seen] == [4, 8, 10]
    assert [point["loss"] for point in seen] == [1.5, 5.5, 8.5]  # of the steps since the last one
    assert [point["saved_before"] for point in seen] == [1, 2, 3]
    assert json.loads((tmp_path / CURVES_FILE).read_text()) == seen == run.curve


def test_the_learning_rate_follows_its_course(tmp_path: Path) -> None:
    counter = Counter()
    loop.train(counter, Settings(), tmp_path)
    course = [0.5 * loop.rate_factor(step, step / 10, 2) for step in range(10)]
    assert counter.rates == course


def test_a_run_in_parts_is_equal_to_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = Counter()
    loop.train(whole, Settings(), tmp_path / "whole")
    for stop in (1, 4, 7, None):
        part = Counter()
        run = loop.train(part, Settings(), tmp_path / "parts", resume=True, stop_at=stop)
    assert (part.value, part.total) == (whole.value, 45.0)
    assert [point["step"] for point in run.curve] == [1, 4, 7, 8, 10]


def test_without_resume_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    loop.train(Counter(), Settings(), tmp_path)
    again = Counter()
    loop.train(again, Settings(), tmp_path)
    assert len(again.learned) == 10


def test_a_finished_run_has_no_step_left_and_keeps_its_curve(tmp_path: Path) -> None:
    first = loop.train(Counter(), Settings(), tmp_path)
    counter = Counter()
    assert loop.train(counter, Settings(), tmp_path, resume=True) == first
    assert counter.learned == []


def test_minutes_count_from_the_beginning_of_the_first_part(tmp_path: Path) -> None:
    def seconds() -> float:
        return float(next(ticks))

    by_clock = Settings(steps=None, minutes=1.0)
    ticks = itertools.count(100, 15)  # a step takes a quarter of a minute
    assert loop.train(Counter(), by_clock, tmp_path, stop_at=1, clock=seconds).minutes == 0.25
    ticks = itertools.count(9000, 15)  # the pause does not count
    counter = Counter()
    run = loop.train(counter, by_clock, tmp_path, resume=True, clock=seconds)
    assert [share for _, share in counter.learned] == [0.25, 0.5, 0.75]
    assert (run.step, run.minutes) == (4, 1.0)


def test_only_the_length_may_change_in_a_resumed_run(tmp_path: Path) -> None:
    loop.train(Counter(), Settings(), tmp_path, stop_at=2)
    with pytest.raises(MismatchError, match=r"\(pace\)"):
        loop.train(Counter(), Settings(pace=2.0), tmp_path, resume=True)
    assert loop.train(Counter(), Settings(steps=12), tmp_path, resume=True).step == 12


def test_a_checkpoint_that_the_learner_cannot_use_is_damaged(tmp_path: Path) -> None:
    class Another(Counter):
        def restore(self, tensors: dict[str, Tensor]) -> None:
            self.total = float(tensors["another"])

    loop.train(Counter(), Settings(), tmp_path, stop_at=2)
    with pytest.raises(IntegrityError, match="Remove it to start again"):
        loop.train(Another(), Settings(), tmp_path, resume=True)


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: device busy"),
        RuntimeError("No CUDA GPUs are available"),
        AssertionError("Torch not compiled with CUDA enabled"),
    ],
)
def test_a_device_that_fails_while_a_run_is_resumed_says_nothing_of_the_checkpoint(
    tmp_path: Path, failure: Exception
) -> None:
    class OnAFullDevice(Counter):
        def restore(self, _tensors: dict[str, Tensor]) -> None:
            raise failure

    loop.train(Counter(), Settings(), tmp_path, stop_at=2)
    with pytest.raises(type(failure)) as raised:
        loop.train(OnAFullDevice(), Settings(), tmp_path, resume=True)
    assert raised.value is failure
    assert loop.train(Counter(), Settings(), tmp_path, resume=True).step == 10


def test_a_checkpoint_is_read_to_the_cpu(tmp_path: Path) -> None:
    class Watching(Counter):
        def restore(self, tensors: dict[str, Tensor]) -> None:
            devices.update(tensor.device.type for tensor in tensors.values())

    devices: set[str] = set()
    loop.train(Counter(), Settings(), tmp_path, stop_at=2)
    loop.train(Watching(), Settings(), tmp_path, resume=True)
    assert devices == {"cpu"}


def test_a_checkpoint_of_other_shapes_is_damaged(tmp_path: Path) -> None:
    class Wider(Number):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.zeros(2))

    loop.train(Counter(), Settings(), tmp_path, stop_at=2)
    with pytest.raises(IntegrityError, match=r"model\.value is \(1,\), expected \(2,\)"):
        loop.train(Counter(Wider()), Settings(), tmp_path, resume=True)


def test_a_checkpoint_that_the_disk_does_not_give_may_be_sound(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).mkdir()  # as good as unreadable, for root too
    with pytest.raises(WhamDataError, match=r"cannot be read .+ It may be sound") as raised:
        loop.train(Counter(), Settings(), tmp_path, resume=True)
    assert not isinstance(raised.value, IntegrityError)


def test_nothing_is_left_beside_the_files_of_a_run(tmp_path: Path) -> None:
    loop.train(Counter(), Settings(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT_FILE, CURVES_FILE}


@pytest.mark.parametrize(
    ("steps", "minutes", "says"),
    [
        (None, None, "either steps or minutes"),
        (1, 1.0, "either steps or minutes"),
        (0, None, "0 steps, expected more than 0"),
        (-1, None, "-1 steps, expected more than 0"),
        (None, 0.0, "0.0 minutes, expected more than 0"),
        (None, float("nan"), "nan minutes, expected more than 0"),
    ],
)
def test_a_length_that_makes_no_sense_is_refused(
    steps: int | None, minutes: float | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        loop.check_length(replace(Settings(), steps=steps, minutes=minutes))


def test_indices_are_spread_evenly_and_never_repeated() -> None:
    assert loop.evenly(9, 3).tolist() == [0, 4, 8]
    assert loop.evenly(2, 5).tolist() == [0, 1]


WAITS = {"_local_scalar_dense", "nonzero", "bincount", "masked_select"}
"""Operations after which the program must wait for what a GPU has queued."""


@dataclass(frozen=True)
class Frames:
    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


class Waits(TorchDispatchMode):
    """Counts such operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


def test_a_step_of_the_tokenizer_waits_for_the_device_once() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    spec = ViTConfig(
        image_width=40, image_height=40, patch_size=10, transf_dim=16, embedding_dim=4,
        num_layers=1, head_size=8, vocab_size=32,
    )  # fmt: skip
    settings = TrainSettings(
        spec, steps=9, patches_per_step=32, crop=(2, 2), quantise_from=0, kmeans_frames=2
    )
    learner = fresh_learner(Frames(frames, frames), settings, "cpu")
    weights = learner.optimizer.param_groups[0]["params"]
    learner.optimizer = torch.optim.AdamW(weights, fused=True)  # as on a GPU
    learner.learn(0, 0.0)

    with Waits() as waits:
        learner.learn(1, 0.1)

    assert waits.count == 1


def test_fused_adam_goes_on_where_it_was_with_its_count_on_the_device_of_the_weights() -> None:
    def moved(optimizer: torch.optim.AdamW, model: nn.Module) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    def fresh() -> tuple[nn.Module, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    model, optimizer = fresh()
    moved(optimizer, model)
    taken = model_tensors(model) | moments_of(optimizer, model)
    kept = {name: tensor.clone() for name, tensor in taken.items()}
    moved(optimizer, model)

    again, resumed = fresh()
    restore_model(again, kept)
    restore_moments(resumed, again, kept, step=1)
    moved(resumed, again)

    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert [state["step"].item() for state in resumed.state.values()] == [2, 2]


@pytest.mark.gpu
def test_on_a_gpu_a_run_of_the_fused_optimizer_goes_on_where_it_was(
    tmp_path: Path, cuda: str
) -> None:
    class OnGpu(Counter):
        def __post_init__(self) -> None:
            self.model.to(cuda)
            groups = [{"params": list(self.model.parameters())}]
            self.optimizer = loop.adam(groups, cuda, 99.0, (0.9, 0.99))

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, part = OnGpu(), OnGpu()
    loop.train(whole, Settings(), tmp_path / "whole", device=cuda)
    loop.train(OnGpu(), Settings(), tmp_path / "parts", device=cuda, stop_at=3)
    loop.train(part, Settings(), tmp_path / "parts", device=cuda, resume=True)

    (state,) = part.optimizer.state.values()
    assert part.optimizer.param_groups[0]["fused"]
    assert state["step"].device.type == "cuda"
    assert part.value == whole.value
