"""Errands on the nodes of a Ray cluster, in tasks beside the work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from wham_data.pipelines.run.errands import Errand, Errands
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.ray_nodes import REST_SECONDS, Node, Nodes, on_node
from wham_data.schemas.errors import short_message

CPUS_PER_TASK: Final = 4
"""A node has one task for so many CPUs, and at least one. On that of the command, its threads count too."""
MOST_TOGETHER: Final = 256
TASK_SECONDS: Final = 2.0
"""A task begins no errand after so long."""


class NodeErrands:
    """Gives errands to the nodes.

    A task takes no CPU from Ray's account: it starts at once, whatever else works on the node, and no
    work waits for it. That there are few of them keeps them from holding up the work.

    Args:
        ray: the package.
        nodes: where to work.
        errands: what to do; None: nothing.
        watch: hears of nodes that fail.
    """

    def __init__(
        self, ray: Any, nodes: Nodes, errands: Errands[Any, Any] | None, watch: ProgressListener
    ) -> None:
        self._ray = ray
        self._nodes = nodes
        self._errands = errands
        self._watch = watch
        self._task = ray.remote(run_errands)
        self._here = ray.get_runtime_context().get_node_id()
        self._running: dict[Any, tuple[Node, list[Errand[Any, Any]]]] = {}
        self._together = 1
        self._resting: dict[str, float] = {}

    @property
    def refs(self) -> list[Any]:
        """What to wait for, and to hand to `heard` then."""
        return list(self._running)

    @property
    def waiting(self) -> str | None:
        """What is being waited for, for a message."""
        if self._errands is None or not self._running:
            return None
        names = sorted({node.name for node, _ in self._running.values()})
        return f"the {self._errands.name} on {', '.join(names)}"

    def follow(self) -> None:
        """Start tasks where there is room for one."""
        if self._errands is None:
            return
        held = Counter(node.id for node, _ in self._running.values())
        while free := [node for node in self._nodes if self._has_room(node, held[node.id])]:
            taken = self._errands.take(self._together)
            if not taken:
                return
            node = min(free, key=lambda each: held[each.id] / each.cpus)
            placed = self._task.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=on_node(node.id),
                name=self._errands.name,
            )
            items = [errand.item for errand in taken]
            self._running[placed.remote(self._errands.there, items)] = node, taken
            held[node.id] += 1

    def heard(self, ref: Any) -> None:
        """Take the results of a task. What a task has not done is done here."""
        assert self._errands is not None
        node, taken = self._running.pop(ref)
        try:
            results = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._errands.lost(taken)
            self._nodes.look(now=True)
            self._resting[node.id] = time.monotonic() + REST_SECONDS
            if node.id in self._nodes:
                self._watch.message(
                    f"{self._errands.name} on {node.name}: {short_message(error)}. It is done where the "
                    "command runs",
                    warning=True,
                )
            return
        self._errands.answered(taken, results)
        all_done = len(results) == len(taken)
        self._together = min(2 * len(taken), MOST_TOGETHER) if all_done else len(results)

    def _has_room(self, node: Node, held: int) -> bool:
        rests = time.monotonic() < self._resting.get(node.id, 0.0)
        room = max(1, int(node.cpus / CPUS_PER_TASK))
        if node.id == self._here and self._errands is not None:
            room -= self._errands.threads
        return held < room and not rests


def run_errands(do: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Results of the first items, at least one: as many as `TASK_SECONDS` allow."""
    until = time.monotonic() + TASK_SECONDS
    results = []
    for item in items:
        results.append(do(item))
        if time.monotonic() > until:
            break
    return results
