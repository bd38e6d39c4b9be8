"""The nodes of a Ray cluster, which come and go during a run, and the actors placed on them.

Nodes   the nodes that may do the work: each is checked before it gets any
Fleet   actors on these nodes, as many as there is room for
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Any

from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.ray_services import Hosting
from wham_data.schemas.errors import MismatchError, WhamDataError, short_message
from wham_data.versions import versions

LOOK_SECONDS = 2.0
CHECK_SECONDS = 60.0
MOST_CRASHES = 10
REST_SECONDS = 5.0
"""A node where an actor died gets no other for so long: Ray notices late that a node is lost."""
Check = Callable[[], None]
"""Raises `WhamDataError` where the work cannot be done."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster.

    name  for messages: host name and address
    """

    id: str
    name: str
    cpus: float
    gpus: float


class Nodes:
    """The nodes that may do the work. `look` and `heard` keep them up to date.

    Args:
        ray: the package.
        check: called once on every node; None: no node is checked.
        watch: hears of nodes that come, go, or are left out.
    """

    def __init__(self, ray: Any, check: Check | None, watch: ProgressListener) -> None:
        self._ray = ray
        self._check = check
        self._watch = watch
        self._versions = release_versions()
        self._task = ray.remote(problem_here)
        self._fit: dict[str, Node] = {}
        self._left_out: set[str] = set()
        self._without_gpus: Set[str] = frozenset()
        self._checks: dict[Any, Node] = {}
        self._begun = time.monotonic()
        self._next_look = 0.0
        self._settled = False
        self._first = {node.id for node in self.alive()}
        self.look()

    def __iter__(self) -> Iterator[Node]:
        return iter(self._fit.values()) if self.settled else iter(())

    def __contains__(self, node: str) -> bool:
        return node in self._fit

    @property
    def ids(self) -> list[str]:
        """Ids of the nodes that may do the work."""
        return list(self._fit)

    @property
    def settled(self) -> bool:
        """Whether the nodes of the beginning have been checked, so that work can begin."""
        if not self._settled:
            asked = any(node.id in self._first for node in self._checks.values())
            self._settled = not asked or time.monotonic() - self._begun > CHECK_SECONDS
            for node in self._checks.values() if self._settled else ():
                self._watch.message(
                    f"{node.name} has not answered for {CHECK_SECONDS:g} s: it gets no work until it does",
                    warning=True,
                )
        return self._settled

    @property
    def refs(self) -> list[Any]:
        """What to wait for, and to hand to `heard` then."""
        return list(self._checks)

    @property
    def waiting(self) -> str | None:
        """What is being waited for, for a message."""
        names = sorted(node.name for node in self._checks.values())
        return f"the check of {', '.join(names)}" if names else None

    def look(self, *, now: bool = False) -> None:
        """Notice nodes that came or went. Does nothing if it was called a moment ago."""
        if not now and time.monotonic() < self._next_look:
            return
        alive = {node.id: node for node in self.alive()}
        self._next_look = time.monotonic() + LOOK_SECONDS
        for node in [node for node in self._fit.values() if node.id not in alive]:
            del self._fit[node.id]
            self._watch.message(
                f"{node.name} is lost: its work is done again on the other nodes", warning=True
            )
        self._checks = {ref: node for ref, node in self._checks.items() if node.id in alive}
        known = {*self._fit, *self._left_out, *(node.id for node in self._checks.values())}
        for node in alive.values():
            if node.id not in known:
                self._begin(node)

    def heard(self, ref: Any) -> None:
        """Take the answer of a node.

        Raises:
            MismatchError: a node that was there from the beginning cannot do the work.
        """
        node = self._checks.pop(ref, None)
        if node is None:
            return  # lost a moment ago
        try:
            problem = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            if all(node.id != each.id for each in self.alive()):
                return  # lost before it could answer
            problem = short_message(error)
        if problem is None:
            self._add(node)
        elif node.id in self._first:
            raise MismatchError(f"node {node.name}: {problem}")
        else:
            self._left_out.add(node.id)
            self._watch.message(f"{node.name} is left out: {problem}", warning=True)

    def _begin(self, node: Node) -> None:
        if self._check is None:
            self._add(node)
            return
        placed = on_node(node.id)
        task = self._task.options(num_cpus=0, max_retries=1, scheduling_strategy=placed)
        self._checks[task.remote(self._check, self._versions)] = node

    def _add(self, node: Node) -> None:
        self._fit[node.id] = node
        if node.id not in self._first:
            self._watch.message(f"{node.name} has joined", warning=False)

    def leave_out_gpus(self, ids: Set[str]) -> None:
        """Take it from now on that these nodes have no GPU."""
        self._without_gpus = ids
        self._fit = {
            each.id: replace(each, gpus=0.0) if each.id in ids else each
            for each in self._fit.values()
        }

    def alive(self) -> list[Node]:
        """The nodes that are alive and have a CPU."""
        return [
            Node(
                each["NodeID"],
                f"{each['NodeManagerHostname']} ({each['NodeManagerAddress']})",
                each["Resources"].get("CPU", 0.0),
                0.0 if each["NodeID"] in self._without_gpus else each["Resources"].get("GPU", 0.0),
            )
            for each in self._ray.nodes()
            if each["Alive"] and each["Resources"].get("CPU", 0.0) > 0
        ]


def on_node(node: str) -> Any:
    """The placement on this node alone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def release_versions() -> dict[str, str | None]:
    """The versions of packages, without what follows a `+`: builds for CPU and GPU count as the same."""
    return {name: found and found.partition("+")[0] for name, found in versions().items()}


def problem_here(check: Check, expected: dict[str, str | None]) -> str | None:
    """Why this node cannot do the work; None if it can.

    Args:
        check: of the job.
        expected: versions of packages in the driver.
    """
    found = release_versions()
    other = [
        f"{name} {found.get(name) or 'is missing'}, but {version or 'none'} where the command runs"
        for name, version in expected.items()
        if found.get(name) != version
    ]
    if other:
        return "; ".join(other) + ". Install the same versions on all nodes"
    try:
        check()
    except (WhamDataError, OSError) as error:
        return short_message(error)
    return None


@dataclass(frozen=True, slots=True)
class _Placed:
    actor: Any
    node: Node
    ready: bool


class Fleet:
    """Actors on the nodes of a cluster: as many as there is room for.

    Args:
        ray: the package.
        name: of what the actors hold, for messages.
        start: starts an actor on a node. It has the methods `ready` and `until_death`.
        room: count of actors that a node has room for.
        most: count of actors in all.
    """

    def __init__(
        self,
        ray: Any,
        name: str,
        start: Callable[[Node], Any],
        room: Callable[[Node], int],
        most: int,
    ) -> None:
        self._ray = ray
        self._name = name
        self._start = start
        self._room = room
        self._most = most
        self._placed: dict[Any, _Placed] = {}
        self._crashes = 0
        self._resting: dict[str, float] = {}

    @property
    def alive(self) -> list[Hosting]:
        """The actors that are ready."""
        return [Hosting(e.actor, e.node.id) for e in self._placed.values() if e.ready]

    @property
    def refs(self) -> list[Any]:
        """What to wait for, and to hand to `heard` then."""
        return list(self._placed)

    @property
    def waiting(self) -> str | None:
        """What is being waited for, for a message."""
        if not self._placed:
            return f"a node with room for the {self._name}"
        starting = sorted({each.node.name for each in self._placed.values() if not each.ready})
        return f"the {self._name} to start on {', '.join(starting)}" if starting else None

    def on(self, node: str) -> int:
        """Count of actors on a node, ready or not."""
        return sum(each.node.id == node for each in self._placed.values())

    def follow(self, nodes: Nodes) -> None:
        """Forget actors on nodes that are lost, and place new ones where there is room."""
        self._placed = {ref: each for ref, each in self._placed.items() if each.node.id in nodes}
        held = Counter(each.node.id for each in self._placed.values())
        while len(self._placed) < self._most:
            free = [
                (self._room(node) - held[node.id], node.id, node)
                for node in nodes
                if self._resting.get(node.id, 0.0) < time.monotonic()
            ]
            if not free or max(free)[0] < 1:
                return
            node = max(free)[2]
            actor = self._start(node)
            self._placed[actor.ready.remote()] = _Placed(actor, node, ready=False)
            held[node.id] += 1

    def heard(self, ref: Any) -> Hosting | None:
        """Take it that an actor is ready, or that it has died.

        Returns:
            The actor that has become ready; None: one has died.

        Raises:
            Exception: what the service raised when it was opened.
            WhamDataError: an actor cannot be made there, or the actors die again and again.
        """
        each = self._placed.pop(ref, None)
        if each is None:
            return None  # forgotten a moment ago
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):  # it would fail again
                raise WhamDataError(
                    f"the {self._name} does not start on {each.node.name}: {_last_line(error)}"
                ) from None
            self._resting[each.node.id] = time.monotonic() + REST_SECONDS
            if not isinstance(error, self._ray.exceptions.ActorUnschedulableError):
                self._crashes += 1
            if self._crashes >= MOST_CRASHES:
                raise WhamDataError(
                    f"the process of the {self._name} died {self._crashes} times in a row, the last "
                    f"time on {each.node.name}: {short_message(error)}"
                ) from None
            return None
        self._placed[each.actor.until_death.remote()] = _Placed(each.actor, each.node, ready=True)
        return Hosting(each.actor, each.node.id)

    def forget(self, actor: Any) -> None:
        """Forget an actor that has died."""
        self._placed = {ref: each for ref, each in self._placed.items() if each.actor is not actor}

    def useful(self) -> None:
        """Note that an item has its outcome, so that earlier crashes do not count any more."""
        self._crashes = 0


def _last_line(error: BaseException) -> str:
    """The last line of a message: of an actor that was not made, Ray gives the traceback, coloured."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[-1].strip()[:200] if lines else type(error).__name__
