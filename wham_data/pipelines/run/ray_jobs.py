"""Run stages on Ray, on this machine or a cluster.

    driver ──items──> tasks (half a CPU each, at most `workers` at a time)
                         │ requests, at most IN_FLIGHT per item (back-pressure)
                         v
                      service actors (a share of a GPU each, else half a CPU)
                         waiting requests of different items are answered together

A stage that owns its service runs in actors instead: each has its own copy of the service and
works on one item at a time.

    ray_start.py     the session: a new cluster, or one that is running
    ray_nodes.py     which nodes may do the work, and the actors on them
    devices.py       whether a service runs on GPUs
    ray_services.py  services, and how workers ask them
    ray_work.py      the workers: what runs in them, and how many there is room for
    ray_errands.py   small work that finding the next items needs, in tasks without a share of a CPU

The nodes are looked at every few seconds. No more is started than they have room for, so nothing waits
for a place that something else holds. If a worker dies, its item is tried once more and then refused;
other items are not affected. If a node is lost, its items are started on another one. If nothing moves
for a minute, the run says what it waits for; if nothing is in work either, it ends.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from wham_data.pipelines.run.ahead import Ahead
from wham_data.pipelines.run.devices import check_for_ray, only_card, try_gpus, verdict
from wham_data.pipelines.run.progress import ProgressListener, Silent
from wham_data.pipelines.run.ray_errands import NodeErrands
from wham_data.pipelines.run.ray_nodes import Nodes
from wham_data.pipelines.run.ray_services import ServiceLostError
from wham_data.pipelines.run.ray_start import connected
from wham_data.pipelines.run.ray_work import Ended, Owners, Pool, Started, Tasks
from wham_data.pipelines.run.runner import (
    Advance,
    In,
    Out,
    Outcome,
    Service,
    Stage,
    errands_of,
    left_of,
)
from wham_data.schemas.errors import (
    Reason,
    RefusedInput,
    StalledError,
    UsageError,
)

NOTHING: Final[Any] = object()
UNKNOWN: Final = 1 << 30
"""Where nothing tells how many items there are."""
LOST_NODE_TRIES = 4
CRASH_TRIES = 2
PAUSE_SECONDS = 100e-6
"""For each reference that is waited for."""
LONGEST_PAUSE_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long nothing may move.

    speak  seconds after which the run says what it waits for, each time again
    end    seconds after which it ends, if no item is in work
    """

    speak: float = 60.0
    end: float = 300.0


class RayRunner:
    """Runs stages on Ray.

    Args:
        workers: count of items to work on at once; None: one for every CPU of the cluster.
        address: address of a running cluster (`host:port` or "auto"); None: start a cluster on this
            machine for this run alone.
        temp_dir: folder in which a cluster of our own keeps logs and sockets; None: /tmp.
        watch: hears of nodes that come and go, and what the run waits for.
        patience: how long nothing may move.

    Raises:
        UsageError: the address is for Ray Client, which cannot stream results.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        *,
        temp_dir: str | os.PathLike[str] | None = None,
        watch: ProgressListener | None = None,
        patience: Patience | None = None,
    ) -> None:
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--ray-address {address}: Ray Client cannot stream results; run this on a node of the "
                "cluster with --ray-address auto, or with `ray job submit`"
            )
        if address is not None and temp_dir is not None:
            raise UsageError(
                "--ray-temp-dir is for a cluster that this command starts, not for --ray-address"
            )
        self._workers = workers
        self._address = address
        self._temp_dir = None if temp_dir is None else Path(temp_dir)
        self._watch = watch or Silent()
        self._patience = patience or Patience()

    @property
    def is_elsewhere(self) -> bool:
        """Whether it works on a cluster that was running before, so perhaps on other machines."""
        return self._address is not None

    def room(self, device: str) -> int:
        """How many workers with a GPU each, or without GPUs with a CPU each, the cluster has room for now.

        Args:
            device: of the workers; "cpu": a GPU is not wanted.
        """
        with connected(self._address, self._workers, self._temp_dir) as ray:
            there = ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
        return max(1, gpus or int(there.get("CPU", 1)))

    def run(
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`.

        Raises:
            UsageError, MissingPartError: the device of the service is none, or is not there.
            StalledError: nothing moves, and nothing is in work.
            MismatchError: a node has other versions, or does not see the same files.
        """
        left, all_known = left_of(items)
        count = left if all_known else UNKNOWN
        waiting = iter(items)
        first = next(waiting, NOTHING)
        if first is NOTHING:
            return
        with ExitStack() as stack:
            device = "cpu" if stage.service is None else stage.service.device
            check_for_ray(device, elsewhere=self.is_elsewhere)
            ray = stack.enter_context(
                connected(
                    self._address, self._workers, self._temp_dir, only_card(device, os.environ)
                )
            )
            check = (
                stack.enter_context(stage.check()) if self.is_elsewhere and stage.check else None
            )
            nodes = Nodes(ray, check, self._watch)
            gpus = self._on_gpus(ray, nodes, stage.service)
            most = min(self._workers or count, count)
            pool: Pool = (
                Owners(ray, nodes, stage, most, gpus=gpus)
                if stage.owns
                else Tasks(ray, nodes, stage, most, self._workers, gpus=gpus)
            )
            errands = errands_of(items)
            if errands is not None:
                stack.enter_context(errands.helped())
            beside = NodeErrands(ray, nodes, errands, self._watch)
            stall = Stall(self._patience, self._watch)
            yield from run_all(ray, pool, nodes, beside, chain((first,), waiting), advance, stall)

    def _on_gpus(self, ray: Any, nodes: Nodes, service: Service | None) -> bool:
        """Whether a service runs on GPUs of the cluster.

        Raises:
            MissingPartError: the service needs a GPU, and there is none that can be used.
        """
        if service is None or service.device == "cpu":
            return False
        found = verdict(service.name, service.device, try_gpus(ray, nodes.alive()))
        for note in found.notes:
            self._watch.message(note, warning=True)
        nodes.leave_out_gpus(found.without)
        return found.on_gpus


@dataclass(slots=True)
class _Running:
    """An item, and its present try.

    node    id of the node where it is in work; None: it has not begun
    frames  reported so far
    """

    item: Any
    tries: int = 1
    node: str | None = None
    frames: int = 0


@dataclass(slots=True)
class Stall:
    """Watches that a run moves, and says if it does not."""

    patience: Patience
    watch: ProgressListener
    last_move: float = field(default_factory=time.monotonic)
    spoken: float = 0.0

    def moved(self) -> None:
        """Note that something happened."""
        self.last_move = time.monotonic()
        self.spoken = 0.0

    def look(
        self,
        pool: Pool,
        nodes: Nodes,
        beside: NodeErrands,
        running: Sequence[_Running],
        waiting: int,
    ) -> None:
        """Say what the run waits for, if nothing has moved for long.

        Raises:
            StalledError: it cannot go on.
        """
        silent = time.monotonic() - self.last_move
        if silent < self.spoken + self.patience.speak:
            return
        in_work = [each for each in running if each.node is not None]
        text = f"nothing has moved for {silent:.0f} s. " + _waits(
            pool, nodes, beside, running, waiting
        )
        if silent >= self.patience.end and not in_work and not beside.refs:
            raise StalledError(f"{text}. The run ends, because nothing is in work")
        self.spoken = silent
        self.watch.message(text, warning=True)


def _waits(
    pool: Pool, nodes: Nodes, beside: NodeErrands, running: Sequence[_Running], waiting: int
) -> str:
    """What a run waits for, in one line."""
    names = {node.id: node.name for node in nodes}
    in_work = [each for each in running if each.node is not None]
    where = sorted({names.get(each.node or "", "a lost node") for each in in_work})
    parts = [f"{waiting + len(running) - len(in_work)} items wait"]
    parts += [f"{len(in_work)} in work on {', '.join(where)} report nothing"] if in_work else []
    parts += [
        f"waiting for {each}" for each in (nodes.waiting, pool.waiting, beside.waiting) if each
    ]
    if not names:
        parts.append("no node with a CPU can do the work")
    elif len(running) > len(in_work):
        parts.append(f"waiting for a free CPU on {', '.join(sorted(names.values()))}")
    return "; ".join(parts)


def run_all(
    ray: Any,
    pool: Pool,
    nodes: Nodes,
    beside: NodeErrands,
    items: Iterable[In],
    advance: Advance,
    stall: Stall,
) -> Iterator[Outcome[In, Any]]:
    """Give the items to the workers of a pool, and yield the outcomes."""
    ahead = Ahead(items)
    try:
        yield from _run_all(ray, pool, nodes, beside, ahead, advance, stall)
    finally:
        ahead.close()


def _run_all(
    ray: Any,
    pool: Pool,
    nodes: Nodes,
    beside: NodeErrands,
    ahead: Ahead[In],
    advance: Advance,
    stall: Stall,
) -> Iterator[Outcome[In, Any]]:
    waiting: deque[_Running] = deque()
    running: dict[Any, _Running] = {}
    while waiting or running or not ahead.ended:
        nodes.look()
        pool.follow()
        waiting.extend(map(_Running, ahead.take(pool.size - len(running) - len(waiting))))
        while waiting and len(running) < pool.size:
            started = waiting.popleft()
            running[pool.submit(started.item)] = started
        beside.follow()
        checks, errands = nodes.refs, beside.refs
        idle = len(running) < pool.size and not ahead.ended
        longest = LONGEST_PAUSE_SECONDS if idle else LONGEST_WAIT_SECONDS
        ready = _all_ready(ray, [*running, *checks, *errands, *pool.refs], longest)
        for ref in ready:
            if ref in running:
                mine = running[ref]
                outcome = _heard(ray, pool, nodes, ref, mine, advance)
                if outcome is None:
                    continue
                del running[ref]
                if isinstance(outcome, _Running):
                    waiting.append(outcome)
                else:
                    pool.useful()
                    yield outcome
            elif ref in checks:
                nodes.heard(ref)
            elif ref in errands:
                beside.heard(ref)
            else:
                pool.heard(ref)
        if ready or not (waiting or running or errands or ahead.count):  # nothing to move
            stall.moved()
        else:
            stall.look(pool, nodes, beside, list(running.values()), len(waiting) + ahead.count)


def _all_ready(ray: Any, refs: list[Any], longest: float) -> list[Any]:
    """All that is ready; waits up to `longest` seconds until something is.

    Ray looks at every reference, so the more there are, the longer this lets events gather first. That
    keeps the cost of an event nearly independent of the number of references.
    """
    if not refs:
        time.sleep(LONGEST_PAUSE_SECONDS)
        return []
    time.sleep(min(PAUSE_SECONDS * len(refs), LONGEST_PAUSE_SECONDS))
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    if not ready:
        ready, _ = ray.wait(refs, num_returns=1, timeout=longest)
    return list(ready)


def _heard(
    ray: Any, pool: Pool, nodes: Nodes, stream: Any, mine: _Running, advance: Advance
) -> Outcome[Any, Any] | _Running | None:
    """Take the next event of an item.

    Returns:
        Its outcome, or the next try, or None while it goes on.
    """
    try:
        event = ray.get(next(stream))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, BaseException) else error) from None
    except ray.exceptions.RayError as error:
        pool.release(stream, died=True)
        nodes.look(now=True)
        return _again(mine, advance, *_verdict(ray, nodes, mine, error))
    if isinstance(event, Started):
        mine.node = event.node
        return None
    if not isinstance(event, Ended):
        mine.frames += event
        advance(event)
        return None
    pool.release(stream, died=False)
    outcome = event.outcome
    if isinstance(outcome, ServiceLostError):
        why = f"the process of its {pool.service} died {LOST_NODE_TRIES} times"
        return _again(mine, advance, LOST_NODE_TRIES, RefusedInput(Reason.WORKER_DIED, why))
    if isinstance(outcome, BaseException) and not isinstance(outcome, RefusedInput):
        raise outcome
    if event.frames:
        advance(event.frames)
    return Outcome(mine.item, outcome)


def _again(
    mine: _Running, advance: Advance, most_tries: int, refusal: RefusedInput
) -> Outcome[Any, Any] | _Running:
    """The next try of an item whose worker is lost, or its refusal after the last one."""
    if mine.tries >= most_tries:
        return Outcome(mine.item, refusal)
    if mine.frames:
        advance(-mine.frames)
    return _Running(mine.item, mine.tries + 1)


def _verdict(ray: Any, nodes: Nodes, mine: _Running, error: Exception) -> tuple[int, RefusedInput]:
    """How often to try an item in all whose worker died, and the refusal after the last try."""
    errors = ray.exceptions
    lost_node = (errors.NodeDiedError, errors.ObjectLostError, errors.TaskUnschedulableError)
    if isinstance(error, lost_node) or (mine.node is not None and mine.node not in nodes):
        why = f"the machine of its worker died {LOST_NODE_TRIES} times"
        return LOST_NODE_TRIES, RefusedInput(Reason.WORKER_DIED, why)
    if isinstance(error, errors.OutOfMemoryError):
        why = f"its worker ran out of memory {CRASH_TRIES} times"
        return CRASH_TRIES, RefusedInput(Reason.OUT_OF_MEMORY, why)
    why = f"its worker process died {CRASH_TRIES} times"
    return CRASH_TRIES, RefusedInput(Reason.WORKER_DIED, why)
