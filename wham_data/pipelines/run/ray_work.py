"""The workers on Ray: what runs in them, and how many of them there is room for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from wham_data.pipelines.run.appetite import Load, items_at_once
from wham_data.pipelines.run.ray_nodes import Fleet, Node, Nodes, on_node
from wham_data.pipelines.run.ray_services import Hosting, RemoteService, ServiceActor
from wham_data.pipelines.run.runner import Advance, In, Out, Stage, Work

REPORTS_A_SECOND = 100
"""All workers together send at most about so many reports of progress."""
LOAD_SECONDS = 5.0
"""Between two questions to the instances of a service how busy they are."""


@dataclass(frozen=True, slots=True)
class Started:
    """An item has begun.

    node  id of the node where it is in work
    """

    node: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an item in its worker.

    outcome  the result, or the exception
    frames   done since the last report
    """

    outcome: Any
    frames: int


Event = Started | int | Ended
"""What a worker sends: at last an `Ended`, before it counts of frames done."""


class Pool(Protocol):
    """Workers on Ray.

    service  name of the service, for messages
    """

    service: str

    @property
    def size(self) -> int:
        """Largest count of items in work at once, as the nodes are now."""

    @property
    def refs(self) -> list[Any]:
        """What to wait for besides streams, and to hand to `heard` then."""

    @property
    def waiting(self) -> str | None:
        """What work cannot begin without, for a message."""

    def follow(self) -> None:
        """Adapt to nodes that have come or gone."""

    def heard(self, ref: Any) -> None:
        """Take what one of `refs` tells."""

    def submit(self, item: Any) -> Any:
        """Let a worker start on an item. Returns the stream of its events."""

    def release(self, stream: Any, *, died: bool) -> None:
        """Note that the worker of this stream has finished its item, or has died."""

    def useful(self) -> None:
        """Note that an item has its outcome."""


class Tasks:
    """One task for every item; separate actors hold the service.

    Tasks and actors get half a CPU each. There are at most as many actors as CPUs, on each node and in
    all, so at least half of each node is left to tasks.

    With GPUs, unless the user asked for a number, there are as many tasks as CPUs at first, and then as
    many as keep the actors busy (`appetite.py`).

    Args:
        ray: the package.
        nodes: where to work.
        stage: the work.
        most: largest count of tasks, and of actors.
        workers: that the user asked for; None: as many as CPUs, or as the GPUs can use.
        gpus: whether the service is on GPUs.
    """

    def __init__(
        self,
        ray: Any,
        nodes: Nodes,
        stage: Stage[Any, Any],
        most: int,
        workers: int | None,
        *,
        gpus: bool,
    ) -> None:
        self.service = stage.service.name if stage.service else "work"
        self._nodes = nodes
        self._most = most
        self._workers = workers
        self._gpus = gpus
        self._ray = ray
        self._follows_load = gpus and workers is None
        self._at_once: int | None = None
        self._asked: list[Any] = []
        self._next_question = time.monotonic() + LOAD_SECONDS
        self._name = stage.name
        self._key = uuid4().hex
        self._stage = ray.put(stage)
        self._fleet = _service_fleet(ray, stage, most, gpus=gpus) if stage.service else None
        self._task = ray.remote(run_item)
        self._placed: tuple[tuple[str, ...], Any] = (), None
        self._submitted = 0

    @property
    def size(self) -> int:
        """See `Pool.size`."""
        if self._fleet is not None and not self._fleet.alive:
            return 0
        return min(self._most, self._workers or self._at_once or self._cpus, self._room)

    @property
    def refs(self) -> list[Any]:
        """See `Pool.refs`."""
        return self._fleet.refs if self._fleet else []

    @property
    def waiting(self) -> str | None:
        """See `Pool.waiting`."""
        return self._fleet.waiting if self._fleet else None

    def follow(self) -> None:
        """See `Pool.follow`."""
        if self._fleet is not None:
            self._fleet.follow(self._nodes)
            if self._follows_load:
                self._follow_load(self._fleet)

    def _follow_load(self, fleet: Fleet) -> None:
        """Ask the actors how busy they are, now and then, and adapt when all have answered.

        Their answers are not among `refs`, for they do not show that the work moves.
        """
        if self._asked:
            ready, waiting = self._ray.wait(self._asked, num_returns=len(self._asked), timeout=0)
            if waiting and time.monotonic() < self._next_question:
                return
            loads = [load for ref in ready if (load := self._load(ref)) is not None]
            self._asked.clear()
            now = self._at_once or self._cpus
            self._at_once = items_at_once(now, loads, len(fleet.alive), min(self._most, self._room))
        elif time.monotonic() >= self._next_question:
            self._next_question = time.monotonic() + LOAD_SECONDS
            self._asked = [each.actor.load.remote() for each in fleet.alive]

    def _load(self, ref: Any) -> Load | None:
        """What an actor has answered; None: it has died."""
        try:
            load: Load = self._ray.get(ref)
        except self._ray.exceptions.RayError:
            return None
        return load

    @property
    def _cpus(self) -> int:
        return max(1, sum(int(node.cpus) for node in self._nodes))

    @property
    def _room(self) -> int:
        return sum(int(2 * node.cpus) - self._actors_on(node) for node in self._nodes)

    def heard(self, ref: Any) -> None:
        """See `Pool.heard`."""
        assert self._fleet is not None
        self._fleet.heard(ref)

    def submit(self, item: Any) -> Any:
        """See `Pool.submit`."""
        self._submitted += 1
        alive = self._fleet.alive if self._fleet else []
        every = report_seconds(self.size)
        return self._on_nodes().remote(self._key, self._stage, alive, self._submitted, every, item)

    def release(self, stream: Any, *, died: bool) -> None:
        """Does nothing, because a task ends by itself."""

    def useful(self) -> None:
        """See `Pool.useful`."""
        if self._fleet is not None:
            self._fleet.useful()

    def _on_nodes(self) -> Any:
        """The task, to be placed on one of the nodes."""
        ids = tuple(self._nodes.ids)
        if self._placed[0] != ids:
            placed = self._task.options(
                num_cpus=0.5,
                max_retries=0,
                num_returns="streaming",
                scheduling_strategy="SPREAD",  # otherwise Ray fills one node before it uses the next
                label_selector={"ray.io/node-id": f"in({','.join(ids)})"},
                name=self._name,
            )
            self._placed = ids, placed
        return self._placed[1]

    def _actors_on(self, node: Node) -> int:
        return 0 if self._fleet is None or self._gpus else self._fleet.on(node.id)


def _service_fleet(ray: Any, stage: Stage[Any, Any], most: int, *, gpus: bool) -> Fleet:
    """The actors that hold a service: `per_gpu` for every GPU; without GPUs at most one per CPU.

    A service that answers several requests at once has one actor.
    """
    service = stage.service
    assert service is not None
    share = {"num_gpus": 1 / service.per_gpu, "num_cpus": 0} if gpus else {"num_cpus": 0.5}
    actor = ray.remote(ServiceActor)

    def start(node: Node) -> Any:
        placed = actor.options(max_concurrency=1000, scheduling_strategy=on_node(node.id), **share)
        return placed.remote(service, "cuda" if gpus else "cpu")

    def room(node: Node) -> int:
        return int(node.gpus) * service.per_gpu if gpus else int(node.cpus)

    most = 1 if service.at_once else 1 << 30 if gpus else most
    return Fleet(ray, service.name, start, room, most)


class Owners:
    """Actors that hold the service and do the work; an actor that died is replaced."""

    def __init__(
        self, ray: Any, nodes: Nodes, stage: Stage[Any, Any], most: int, *, gpus: bool
    ) -> None:
        assert stage.service is not None
        self.service = stage.service.name
        per_gpu = stage.service.per_gpu
        stored = ray.put(stage)
        share = {"num_gpus": 1 / per_gpu, "num_cpus": 0} if gpus else {"num_cpus": 1}
        actor = ray.remote(Owner)

        def start(node: Node) -> Any:
            # It works, and is waited for until its death.
            placed = actor.options(max_concurrency=2, scheduling_strategy=on_node(node.id), **share)
            return placed.remote(stored, "cuda" if gpus else "cpu", node.id)

        def room(node: Node) -> int:
            return int(node.gpus) * per_gpu if gpus else int(node.cpus)

        self._nodes = nodes
        self._fleet = Fleet(ray, self.service, start, room, most)
        self._busy: dict[Any, Any] = {}

    @property
    def size(self) -> int:
        """See `Pool.size`."""
        return len(self._busy) + len(self._idle())

    @property
    def refs(self) -> list[Any]:
        """See `Pool.refs`."""
        return self._fleet.refs

    @property
    def waiting(self) -> str | None:
        """See `Pool.waiting`."""
        return self._fleet.waiting

    def follow(self) -> None:
        """See `Pool.follow`."""
        self._fleet.follow(self._nodes)

    def heard(self, ref: Any) -> None:
        """See `Pool.heard`."""
        self._fleet.heard(ref)

    def submit(self, item: Any) -> Any:
        """See `Pool.submit`."""
        owner = self._idle()[0]
        every = report_seconds(self.size)
        stream = owner.run_item.options(num_returns="streaming").remote(every, item)
        self._busy[stream] = owner
        return stream

    def release(self, stream: Any, *, died: bool) -> None:
        """See `Pool.release`."""
        owner = self._busy.pop(stream)
        if died:
            self._fleet.forget(owner)

    def useful(self) -> None:
        """See `Pool.useful`."""
        self._fleet.useful()

    def _idle(self) -> list[Any]:
        busy = set(map(id, self._busy.values()))
        return [each.actor for each in self._fleet.alive if id(each.actor) not in busy]


class Owner:
    """A worker that holds the service of its stage and works on one item after another."""

    def __init__(self, stage: Stage[Any, Any], device: str, node: str) -> None:
        self._stage = stage
        self._device = device
        self._node = node
        self._work: Work[Any, Any] | None = None
        self._dead = threading.Event()

    def ready(self) -> None:
        """Open the service. Not done in `__init__`, whose errors Ray hides."""
        assert self._stage.service is not None
        self._work = self._stage.setup(self._stage.service.open(self._device))

    def until_death(self) -> None:
        """Never returns, so that whoever waits for it hears of the death of this actor."""
        self._dead.wait()

    def run_item(self, every: float, item: Any) -> Iterator[Event]:
        """Run one item; yields its events, see `events`."""
        work = self._work
        assert work is not None
        yield from events(self._stage.name, self._node, every, lambda advance: work(item, advance))


_prepared: dict[str, tuple[RemoteService, Work[Any, Any]]] = {}
"""In a worker process: the work of the stage, by the run."""


def run_item(
    key: str,
    stage: Stage[In, Out],
    actors: Sequence[Hosting],
    turn: int,
    every: float,
    item: In,
) -> Iterator[Event]:
    """Run one item in a task; yields its events, see `events`.

    Args:
        key: of the run. The stage is set up once in every process of a run.
        stage: the work.
        actors: hold its service.
        turn: which of them to ask first.
        every: seconds between reports.
        item: to work on.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()

    def work(advance: Advance) -> Out:
        if key not in _prepared:
            hosted = RemoteService(stage.service.at_once if stage.service else 0)
            _prepared[key] = hosted, stage.setup(hosted if actors else None)
        hosted, ready = _prepared[key]
        hosted.use(actors, node, turn)
        done: Out = ready(item, advance)
        return done

    yield from events(stage.name, node, every, work)


def events(name: str, node: str, every: float, work: Callable[[Advance], Any]) -> Iterator[Event]:
    """Run the work of an item in a thread, and yield its events.

    Args:
        name: of the thread.
        node: id of this node.
        every: seconds between reports, whatever the work does in the meantime.
        work: is given a function to report progress.
    """
    yield Started(node)
    counts: queue.SimpleQueue[int] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcomes.put(work(counts.put))
        except BaseException as error:
            outcomes.put(error)

    def frames() -> int:
        return sum(counts.get() for _ in range(counts.qsize()))

    threading.Thread(target=run, name=name, daemon=True).start()
    while True:
        try:
            outcome = outcomes.get(timeout=every)
        except queue.Empty:
            if done := frames():
                yield done
        else:
            yield Ended(outcome, frames())
            return


def report_seconds(workers: int) -> float:
    """Seconds between two reports of a worker: the more workers there are, the longer."""
    return max(1.0, workers / REPORTS_A_SECOND)
