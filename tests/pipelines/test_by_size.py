"""A small job stays in this process; a large one goes on with another runner, and says so."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from wham_data.pipelines.run.by_size import BySize
from wham_data.pipelines.run.choose import choose_runner
from wham_data.pipelines.run.errands import Errands
from wham_data.pipelines.run.progress import Event, Progress
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import (
    Advance,
    Hosted,
    In,
    LocalRunner,
    Out,
    Outcome,
    Runner,
    Stage,
    Work,
    errands_of,
)


def slow(_: Hosted[int, int] | None) -> Work[int, int]:
    """Takes a hundredth of a second for each frame of an item."""

    def work(count: int, advance: Advance) -> int:
        for _frame in range(count):
            time.sleep(0.01)
            advance(1)
        return 2 * count

    return work


SLOW = Stage("slow", slow)


class Rest:
    """The runner for what is left; keeps how much that was."""

    def __init__(self) -> None:
        self.items: list[object] = []
        self.errands: Errands[Any, Any] | None = None
        self.lines: list[str] = []

    def run(
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        self.errands = errands_of(items)
        here = list(items)
        self.items = [*here]
        return LocalRunner().run(stage, here, advance)

    def progressed(self, progress: Progress) -> None:
        pass

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:  # noqa: ARG002
        assert warning
        self.lines.append(text)


def run(items: list[int], start_seconds: float, cores: int = 2) -> tuple[Rest, int]:
    """Run the items; what was left for the other runner, and how many frames were reported."""
    rest, frames = Rest(), []
    runner: Runner = BySize(lambda: rest, rest, cores=cores, start_seconds=start_seconds)
    outcomes = list(runner.run(SLOW, items, frames.append))
    assert [(each.item, each.result) for each in outcomes] == [(n, 2 * n) for n in items]
    return rest, sum(frames)


def test_a_small_job_stays_here() -> None:
    assert run([1] * 20, start_seconds=10)[0].items == []


def test_a_large_one_goes_on_with_the_other_runner_and_says_so() -> None:
    rest, frames = run([1] * 50, start_seconds=0.05)

    assert 0 < len(rest.items) < 50
    assert frames == 50
    (line,) = rest.lines
    assert line.startswith(
        f"{len(rest.items)} inputs are left, about 0 minutes in this process: Ray"
    )


def test_a_long_item_is_begun_again_there_and_no_frame_counts_twice() -> None:
    rest, frames = run([100, 100], start_seconds=0.1)

    assert rest.items == [100, 100]
    assert frames == 200


def test_one_input_or_one_core_is_never_worth_it() -> None:
    assert run([50], start_seconds=0)[0].items == []
    assert run([10] * 5, start_seconds=0, cores=1)[0].items == []


def test_what_is_asked_for_is_not_chosen_by_size() -> None:
    assert isinstance(choose_runner(0, None), LocalRunner)
    assert isinstance(choose_runner(2, None), RayRunner)
    assert isinstance(choose_runner(None, "head:6379"), RayRunner)
    assert isinstance(choose_runner(None, None), BySize)


class Slow:
    """Items that come one by one; the first two are known at once."""

    def __init__(self, items: list[int]) -> None:
        self.known, self.coming = items[:2], items[2:]
        self.errands: Errands[Any, Any] | None = None

    left, all_known = 1000, False

    def __iter__(self) -> Iterator[int]:
        yield from self.known
        yield from self.coming


def test_of_items_that_are_still_searched_those_that_are_known_count() -> None:
    heard = Rest()
    runner: Runner = BySize(lambda: heard, heard, cores=2, start_seconds=0.1)
    items = [1] * 10

    outcomes = list(runner.run(SLOW, Slow(items), lambda _: None))

    assert [each.item for each in outcomes] == items
    assert heard.lines[0].startswith("at least 100")


def test_what_is_left_still_tells_what_finding_more_of_it_needs() -> None:
    errands = Errands(str, str, 1, "spelling")
    items = Slow([1] * 10)
    items.errands = errands
    heard = Rest()

    list(BySize(lambda: heard, heard, cores=2, start_seconds=0.1).run(SLOW, items, lambda _: None))

    assert heard.errands is errands
