"""How many recordings are in work follows how full the queues of the tokenizers are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wham_data.pipelines.run.appetite import Load, items_at_once
from wham_data.pipelines.run.ray_services import ServiceActor
from wham_data.pipelines.run.runner import Service


def load(busy: float, left: float) -> Load:
    return Load(busy, left, calls=10, rows=320)


@pytest.mark.parametrize(
    ("now", "loads", "then"),
    [
        (16, [load(0.5, 0)], 20),  # hungry
        (2, [load(0.0, 0)], 3),
        (30, [load(0.5, 0)], 32),  # no more than there is room for
        (16, [load(1.0, 2)], 16),  # something always waits: enough
        (16, [load(1.0, 20)], 12),  # too much waits
        (3, [load(1.0, 20)], 2),  # no fewer than instances
        (16, [load(0.5, 0), load(1.0, 20)], 12),  # of all together
        (16, [], 16),  # nothing is known
        (16, [Load(0, 0, calls=0, rows=0)] * 2, 16),  # the first frames are not there yet
        (64, [], 32),  # a node was lost
    ],
)
def test_hungry_instances_get_more_and_full_ones_fewer(
    now: int, loads: list[Load], then: int
) -> None:
    assert items_at_once(now, loads, least=2, most=32) == then


@pytest.mark.parametrize("decoders_needed", [3, 10, 27])
def test_it_settles_where_the_service_is_busy_and_little_waits(decoders_needed: int) -> None:
    """A service that answers as fast as so many decoders ask; each has up to 3 requests in flight."""
    now = 16
    for _ in range(30):
        share = now / decoders_needed
        waiting = 3 * max(0, now - decoders_needed)
        now = items_at_once(now, [load(min(1, share), waiting)], least=1, most=64)
    assert 0.9 * decoders_needed <= now <= decoders_needed + 2


def test_an_instance_tells_how_busy_it_was_and_how_full_its_calls_were() -> None:
    def slow(rows: NDArray[Any]) -> NDArray[Any]:
        time.sleep(0.05)
        return rows

    async def tells() -> list[Load]:
        actor = ServiceActor(Service("slow", lambda _: slow, rows_together=64), "cpu")
        await actor.ready()
        await actor.load()
        await asyncio.gather(*(actor.ask(np.zeros(32)) for _ in range(6)))
        worked = await actor.load()
        await asyncio.sleep(0.05)
        return [worked, await actor.load()]

    worked, idle = asyncio.run(tells())
    assert (worked.calls, worked.rows) == (3, 6 * 32) or worked.calls == 4  # the first may go alone
    assert worked.busy > 0.8
    assert worked.left > 0
    assert (idle.busy, idle.left, idle.calls, idle.rows) == (0, 0, 0, 0)
