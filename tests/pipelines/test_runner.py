"""A runner yields one outcome for every item, wherever it runs, and a bad item costs only itself."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import (
    Advance,
    Hosted,
    LocalRunner,
    Outcome,
    Runner,
    Service,
    Stage,
    Work,
    in_threads,
)
from wham_data.schemas.errors import MismatchError, Reason, RefusedInput

IntArray = NDArray[np.int64]


def doubling(service: Hosted[int, int] | None) -> Work[int, int]:
    """The stage in which every kind of mishap has its number."""
    assert service is None

    def double(number: int, advance: Advance) -> int:
        advance(1)
        if number == REFUSED:
            raise RefusedInput(Reason.CORRUPT, "an odd number", frames_expected=3)
        if number == CRASHES:
            os.kill(os.getpid(), signal.SIGKILL)
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


def mismatched(_: Hosted[int, int] | None) -> Work[int, int]:
    def work(_number: int, _advance: Advance) -> int:
        raise MismatchError("two things that must agree do not")

    return work


def tens(device: str) -> Callable[[IntArray], IntArray]:
    """A service that answers with ten times the numbers, and how many it was asked at once."""
    assert device in ("auto", "cpu")
    return lambda numbers: np.stack([10 * numbers, np.full_like(numbers, len(numbers))], axis=1)


def asking(service: Hosted[IntArray, IntArray]) -> Work[int, list[int]]:
    """Streams the numbers below an item through the service, and asks it once more."""

    def work(count: int, _advance: Advance) -> list[int]:
        requests = (np.array([number]) for number in range(count))
        answers = [*service.stream(requests), service.ask(np.array([count, count]))]
        return [int(number) for answer in answers for number in answer[:, 0]]

    return work


def owning(opened: Callable[[IntArray], IntArray]) -> Work[int, list[int]]:
    """Calls what the service opened itself."""

    def work(number: int, advance: Advance) -> list[int]:
        if number == CRASHES:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == REFUSED:
            raise RefusedInput(Reason.CORRUPT, "an odd number")
        advance(1)
        return opened(np.array([number]))[:, 0].tolist()

    return work


def test_a_service_answers_in_order_wherever_it_is_hosted() -> None:
    stage = Stage("ask", asking, Service("tens", tens, "cpu", rows_together=8))
    expected = {
        count: [10 * number for number in (*range(count), count, count)] for count in (3, 5)
    }

    for runner in (LocalRunner(), RayRunner(workers=2)):
        outcomes = {each.item: each.result for each in runner.run(stage, [3, 5], ignore)}

        assert outcomes == expected


def test_a_service_that_calls_out_answers_several_requests_at_the_same_time() -> None:
    stage = Stage("ask", streaming, Service("together", Together, "cpu", at_once=3))

    for runner in (LocalRunner(), RayRunner(workers=2)):
        (outcome,) = runner.run(stage, [6], ignore)

        assert outcome.result == [0, 10, 20, 30, 40, 50]


def test_an_error_of_a_call_in_a_thread_is_that_of_the_stage() -> None:
    answers = in_threads(divided, iter([1, 0, 2]), 2)

    assert next(answers) == 1
    with pytest.raises(ZeroDivisionError):
        next(answers)


class Together:
    """A service that answers as soon as three requests are there."""

    def __init__(self, _device: str) -> None:
        self._all_there = threading.Barrier(3)

    def __call__(self, number: int) -> int:
        self._all_there.wait(30)
        return 10 * number


def streaming(service: Hosted[int, int]) -> Work[int, list[int]]:
    """Streams the numbers below an item through the service."""
    return lambda count, _advance: list(service.stream(iter(range(count))))


def divided(number: int) -> float:
    return 1 / number


def test_a_worker_that_owns_its_service_is_replaced_when_it_dies() -> None:
    stage = Stage("own", owning, Service("tens", tens, "cpu"), owns=True)
    items = [1, CRASHES, 2, REFUSED, 3]

    there = {each.item: each.result for each in RayRunner(workers=2).run(stage, items, ignore)}

    here = {each.item: each.result for each in LocalRunner().run(stage, [1, 2, 3], ignore)}
    assert {item: there[item] for item in (1, 2, 3)} == here == {1: [10], 2: [20], 3: [30]}
    assert str(there[REFUSED]) == "an odd number"
    assert "its worker process died 2 times" in str(there[CRASHES])


def ignore(frames: int) -> None:
    """Nobody watches."""


def plain(result: int | RefusedInput) -> object:
    """A result, or what a refusal says, to compare."""
    if isinstance(result, RefusedInput):
        return result.reason, str(result), result.frames_expected
    return result
