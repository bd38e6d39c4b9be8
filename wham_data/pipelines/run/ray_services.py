"""Services on Ray: the actors that hold them, and how workers ask them.

An actor that dies is not started again in its place. Whoever asks it sends the request to another
one; if none is left, `ServiceLostError` tells the driver to start the item again later, when there are others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from wham_data.pipelines.run.appetite import Load
from wham_data.pipelines.run.runner import Service

IN_FLIGHT = 3
MOST_DEATHS = 2
"""So many actors may die of one request before it is given up."""


class ServiceActor:
    """Holds a service and answers waiting requests, those of different items together."""

    def __init__(self, service: Service, device: str) -> None:
        self._service = service
        self._device = device
        self._threads = ThreadPoolExecutor(service.at_once) if service.at_once else None
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._busy = asyncio.Lock()
        self._call: Any = None
        self._asked = time.monotonic()
        self._began: float | None = None
        self._busy_seconds = 0.0
        self._left: list[int] = []
        self._rows = 0

    async def ready(self) -> None:
        """Open the service. Not done in `__init__`, whose errors Ray hides."""
        self._call = await asyncio.to_thread(self._service.open, self._device)

    async def until_death(self) -> None:
        """Never returns, so that whoever waits for it hears of the death of this actor."""
        await asyncio.Event().wait()

    async def load(self) -> Load:
        """What it has done since this was last called."""
        now, calls = time.monotonic(), len(self._left)
        self._count_busy(now)
        load = Load(
            busy=min(1.0, self._busy_seconds / max(now - self._asked, 1e-9)),
            left=sum(self._left) / max(calls, 1),
            calls=calls,
            rows=self._rows,
        )
        self._asked, self._busy_seconds, self._left, self._rows = now, 0.0, [], 0
        return load

    def _count_busy(self, now: float) -> None:
        """Add what has passed of a call under way."""
        if self._began is not None:
            self._busy_seconds += now - self._began
            self._began = now

    async def ask(self, request: Any) -> Any:
        """Answer one request."""
        if self._threads is not None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._call, request)
        mine: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, mine))
        while not mine.done():
            async with self._busy:  # its holder answers all waiting requests
                if not mine.done():
                    await self._answer_waiting()
        return mine.result()

    async def _answer_waiting(self) -> None:
        together = self._next_requests()
        self._left.append(len(self._waiting))
        self._began = time.monotonic()
        try:
            if len(together) == 1:
                answers = [await asyncio.to_thread(self._call, together[0][0])]
            else:
                joined = np.concatenate([request for request, _ in together])
                ends = np.cumsum([len(request) for request, _ in together])[:-1]
                answers = np.split(await asyncio.to_thread(self._call, joined), ends)
        except Exception as error:
            for _, future in together:
                future.set_exception(error)
            return
        finally:
            self._count_busy(time.monotonic())
            self._began = None
        for (_, future), answer in zip(together, answers, strict=True):
            future.set_result(answer)

    def _next_requests(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        """The oldest waiting request, and those after it that fit into one call with it."""
        together = [self._waiting.popleft()]
        if self._service.rows_together:
            count = len(together[0][0])
            while self._waiting and count + len(self._waiting[0][0]) <= self._service.rows_together:
                together.append(self._waiting.popleft())
                count += len(together[-1][0])
            self._rows += count
        return together


class ServiceLostError(Exception):
    """No actor could answer a request of an item, so the item has to be started again."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """An actor that is alive, and the id of its node."""

    actor: Any
    node: str


@dataclass(frozen=True, slots=True)
class _Sent:
    request: Any
    to: Hosting
    answer: Any


class RemoteService:
    """Sends requests to actors on the same node in turn, else to all, a bounded number at a time.

    Args:
        at_once: requests that an actor answers at the same time, see `Service`.
    """

    def __init__(self, at_once: int = 0) -> None:
        self._in_flight = max(IN_FLIGHT, at_once)
        self._actors: list[Hosting] = []
        self._others: list[Hosting] = []
        self._turn = 0

    def use(self, actors: Sequence[Hosting], node: str, turn: int) -> None:
        """Ask these actors from now on.

        Args:
            actors: alive as far as is known.
            node: id of the node of this process.
            turn: number of the first actor to ask, so that different workers begin with different ones.
        """
        near = [each for each in actors if each.node == node]
        self._actors = near or list(actors)
        self._others = [each for each in actors if each.node != node] if near else []
        self._turn = turn

    def ask(self, request: Any) -> Any:
        """See `Hosted.ask`."""
        return self._answer(self._send(request))

    def stream(self, requests: Iterator[Any]) -> Iterator[Any]:
        """See `Hosted.stream`."""
        sent: deque[_Sent] = deque()
        for request in requests:
            sent.append(self._send(request))
            if len(sent) >= self._in_flight:
                yield self._answer(sent.popleft())
        while sent:
            yield self._answer(sent.popleft())

    def _send(self, request: Any) -> _Sent:
        if not self._actors:
            self._actors, self._others = self._others, []
        if not self._actors:
            raise ServiceLostError
        self._turn += 1
        to = self._actors[self._turn % len(self._actors)]
        return _Sent(request, to, to.actor.ask.remote(request))

    def _answer(self, sent: _Sent) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        for _ in range(MOST_DEATHS):
            try:
                return ray.get(sent.answer)
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            except RayError:  # its process or its node has died
                self._actors = [each for each in self._actors if each is not sent.to]
                sent = self._send(sent.request)
        raise ServiceLostError
