"""Errands are done by threads here, and beside them on nodes; nothing depends on the nodes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future, wait

import pytest

from wham_data.pipelines.run import errands as module
from wham_data.pipelines.run.errands import Errands


def doubled(number: int) -> int:
    return 2 * number


def held_up(gate: threading.Event, threads: int = 1) -> Errands[int, int]:
    """Errands whose threads wait for a gate."""

    def here(number: int) -> int:
        gate.wait(20)
        return doubled(number)

    return Errands(here, doubled, threads, "doubling")


def behind(errands: Errands[int, int], count: int) -> list[Future[int]]:
    """So many errands, asked for so long ago that nodes may help."""
    answers = [errands.ask(number) for number in range(count)]
    time.sleep(module.BEHIND_SECONDS + 0.1)
    return answers


def test_errands_are_done_in_threads() -> None:
    errands = Errands(doubled, doubled, 2, "doubling")

    answers = [errands.ask(number) for number in range(100)]

    assert [answer.result(10) for answer in answers] == [2 * number for number in range(100)]


def test_an_error_is_the_answer() -> None:
    def fails(number: int) -> int:
        raise ValueError(number)

    with pytest.raises(ValueError, match="7"):
        Errands(fails, fails, 1, "failing").ask(7).result(10)


def test_nodes_get_nothing_while_the_threads_keep_up() -> None:
    gate = threading.Event()
    errands = held_up(gate)
    for number in range(10):
        errands.ask(number)

    assert errands.take(10) == []
    gate.set()


def test_nodes_do_what_was_asked_for_last() -> None:
    gate = threading.Event()
    errands = held_up(gate)
    answers = behind(errands, 10)

    taken = errands.take(3)
    assert [each.item for each in taken] == [9, 8, 7]
    errands.answered(taken, [18, 16])

    assert [answers[9].result(0), answers[8].result(0), answers[7].done()] == [18, 16, False]
    assert [each.item for each in errands.take(2)] == [7, 6], "what there was no time for is first"
    gate.set()


def test_what_a_node_loses_is_done_here() -> None:
    gate = threading.Event()
    errands = held_up(gate)
    answers = behind(errands, 10)

    taken = errands.take(100)
    assert len(taken) == 9
    errands.lost(taken)
    assert errands.take(100) == []
    gate.set()

    assert [answer.result(10) for answer in answers] == [2 * number for number in range(10)]


def test_what_nodes_have_when_they_go_is_done_here() -> None:
    gate = threading.Event()
    errands = held_up(gate)
    with errands.helped():
        answers = behind(errands, 10)
        assert errands.take(100)
        gate.set()
        assert wait(answers, 0.2).not_done

    assert [answer.result(10) for answer in answers] == [2 * number for number in range(10)]


def test_what_a_node_keeps_for_long_is_done_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TAKEN_OVER_SECONDS", 0.1)
    gate = threading.Event()
    errands = held_up(gate)
    answers = behind(errands, 4)
    taken = errands.take(100)
    gate.set()

    assert [answer.result(10) for answer in answers] == [0, 2, 4, 6]
    errands.answered(taken, [0, 0, 0])
    errands.lost(taken)
    assert [answer.result(0) for answer in answers] == [0, 2, 4, 6]


def test_after_the_end_nothing_is_waited_for() -> None:
    gate = threading.Event()
    errands = held_up(gate)
    answers = behind(errands, 4)
    errands.take(1)

    errands.close()

    for answer in (*answers[1:], errands.ask(5)):
        with pytest.raises(CancelledError):
            answer.result(0)
    gate.set()
