"""A runner yields one outcome for every item, wherever it runs, and a bad item costs only itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import (
    Advance,
    Encoder,
    LocalRunner,
    Outcome,
    Runner,
    Stage,
    Work,
)
from wham_data.schemas.errors import MismatchError, Reason, RefusedInput


def doubling(encoder: Encoder | None) -> Work[int, int]:
    """The stage in which every kind of mishap has its number."""
    assert encoder is None

    def double(number: int, advance: Advance) -> int:
        advance(1)
        if number == REFUSED:
            raise RefusedInput(Reason.CORRUPT, "an odd number", frames_expected=3)
        if number == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        return 2 * number

    return double


REFUSED, CRASHES = 13, 17
DOUBLE = Stage("double", doubling)


@pytest.fixture(autouse=True)
def _workers_find_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def run(runner: Runner, items: list[int]) -> tuple[dict[int, int | RefusedInput], int]:
    """Outcomes by item, and how many frames were reported on the way."""
    advanced: list[int] = []
    outcomes: list[Outcome[int, int]] = list(runner.run(DOUBLE, items, advanced.append))
    assert len(outcomes) == len(items)
    return {outcome.item: outcome.result for outcome in outcomes}, sum(advanced)


def test_a_stage_runs_here_one_item_after_the_other() -> None:
    outcomes, frames = run(LocalRunner(), [1, 2, 3, REFUSED])

    assert [outcomes[item] for item in (1, 2, 3)] == [2, 4, 6]
    assert isinstance(outcomes[REFUSED], RefusedInput)
    assert frames == 4


def test_on_ray_the_outcomes_are_the_same_and_a_dead_worker_costs_its_item_alone() -> None:
    sound = [1, 2, 3, 4, 5, REFUSED]

    outcomes, frames = run(RayRunner(workers=2), [1, 2, CRASHES, 3, 4, 5, REFUSED])

    here, _ = run(LocalRunner(), sound)
    assert {item: plain(outcomes[item]) for item in sound} == {
        item: plain(here[item]) for item in sound
    }
    refusal = outcomes[CRASHES]
    assert isinstance(refusal, RefusedInput)
    assert refusal.reason == Reason.WORKER_DIED
    assert "its worker process died 2 times" in str(refusal)
    assert len(sound) <= frames <= len(sound) + 2


@pytest.mark.parametrize("runner", [LocalRunner(), RayRunner(workers=1)], ids=["here", "on ray"])
def test_what_is_not_a_refusal_ends_the_run_as_what_it_is(runner: Runner) -> None:
    with pytest.raises(MismatchError, match="two things that must agree do not"):
        list(runner.run(Stage("mismatch", mismatched), [1, 2, 3], ignore))


def mismatched(_: Encoder | None) -> Work[int, int]:
    def work(_number: int, _advance: Advance) -> int:
        raise MismatchError("two things that must agree do not")

    return work


def ignore(frames: int) -> None:
    """Nobody watches."""


def plain(result: int | RefusedInput) -> object:
    """A result, or what a refusal says, to compare."""
    if isinstance(result, RefusedInput):
        return result.reason, str(result), result.frames_expected
    return result
