"""The loop of the trainers, with a learner that counts its steps and a clock that we wind."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wham_data.inference.training import loop
from wham_data.inference.training.files import CHECKPOINT_FILE, CURVES_FILE
from wham_data.inference.training.loop import CurvePoint
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
