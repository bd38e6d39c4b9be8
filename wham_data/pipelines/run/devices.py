"""The device of a service: checked before a run begins, and on Ray asked of the nodes themselves.

Ray counts the GPUs of its nodes, but whether torch can use them shows only there. So each node with a GPU
tries it once, in a task of its own, before services are placed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wham_data.inference.device import (
    HIDDEN,
    check_gpu,
    choose_device,
    cpu_note,
    gpu_problem,
    parse_device,
)
from wham_data.pipelines.run.progress import ProgressListener
from wham_data.pipelines.run.ray_nodes import Node, on_node
from wham_data.schemas.errors import MissingPartError, UsageError, short_message

TRIAL_SECONDS: Final = 60.0
TRIAL_SHARE: Final = 0.01
"""Of a GPU, so that a trial finds room beside other work."""


def check_here(device: str, watch: ProgressListener) -> None:
    """Check the device of a service that runs in this process, and say if "auto" is not the GPU here.

    Raises:
        UsageError: it is not the name of a device.
        MissingPartError: it is a GPU that is not there.
    """
    if (note := cpu_note(device)) is not None:
        watch.message(note, warning=True)
    if parse_device(device)[0] == "cuda":
        choose_device(device)


def check_for_ray(device: str, *, elsewhere: bool) -> None:
    """Check the device of a service on Ray, as far as it shows before the nodes are asked.

    Args:
        device: its name.
        elsewhere: the cluster was running before, perhaps on other machines.

    Raises:
        UsageError: it is not the name of a device, or it is one card of a cluster that gives out its
            cards itself.
        MissingPartError: it is a GPU that this machine, where the cluster will be, does not have.
    """
    kind, number = parse_device(device)
    if kind != "cuda":
        return
    if not elsewhere:
        check_gpu(device)
    elif number is not None:
        raise UsageError(
            f"device {device!r}: a running Ray cluster gives out its GPUs itself. Use cuda for all of them, "
            "or run on one machine without --ray-address"
        )


def only_card(device: str, environment: Mapping[str, str]) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES with which a cluster has the card of "cuda:N" alone.

    Args:
        device: its name.
        environment: of this process. Cards are counted among those that it may see.

    Returns:
        None if all cards may be used.

    Raises:
        MissingPartError: there are not so many.
    """
    number = parse_device(device)[1]
    if number is None:
        return None
    visible = environment.get(HIDDEN)
    if visible is None:
        return str(number)
    cards = [card.strip() for card in visible.split(",") if card.strip()]
    if number >= len(cards):
        raise MissingPartError(
            f"device {device!r}: the variable {HIDDEN} is {visible!r}, which leaves {len(cards)} GPUs"
        )
    return cards[number]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a service runs on Ray.

    on_gpus  on GPUs; False: on CPUs
    without  ids of nodes whose GPUs cannot be used
    notes    for the user, one line each
    """

    on_gpus: bool
    without: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def verdict(service: str, device: str, tried: Sequence[tuple[Node, str | None]]) -> Verdict:
    """Decide where a service runs.

    Args:
        service: its name, for messages.
        device: that was asked for.
        tried: each node with a GPU, and why torch cannot use that; None: it can.

    Raises:
        MissingPartError: the service needs a GPU, and there is none that torch can use.
    """
    kind, _ = parse_device(device)
    bad = [(node, problem) for node, problem in tried if problem is not None]
    if kind == "cpu":
        return Verdict(on_gpus=False)
    if len(bad) == len(tried):
        what = "the Ray cluster has no GPU"
        if bad:
            what = f"{bad[0][0].name} has a GPU, but torch cannot use it there: {bad[0][1]}"
        if kind == "cuda":
            raise MissingPartError(f"device {device!r}: {what}. Use --device cpu, or auto")
        return Verdict(False, notes=(f"the {service} runs on CPUs: {what}",) if bad else ())
    notes = (
        f"the {service} does not use the GPU of {node.name}, because torch cannot: {problem}"
        for node, problem in bad
    )
    return Verdict(True, frozenset(node.id for node, _ in bad), tuple(notes))


def try_gpus(ray: Any, nodes: Sequence[Node]) -> list[tuple[Node, str | None]]:
    """Try the GPUs of the nodes, each where it is.

    Where other work leaves no room for the trial within a minute, the GPU counts as usable: it is in use.

    Returns:
        Each node with a GPU, and why torch cannot use that; None: it can.
    """
    # One trial per process: it would go on holding memory of the GPU.
    trial = ray.remote(num_cpus=0, num_gpus=TRIAL_SHARE, max_calls=1, max_retries=1)(gpu_problem)
    asked = {
        trial.options(scheduling_strategy=on_node(node.id)).remote(): node
        for node in nodes
        if node.gpus > 0
    }
    if not asked:
        return []
    ray.wait(list(asked), num_returns=len(asked), timeout=TRIAL_SECONDS)
    return [(node, _answer(ray, answer)) for answer, node in asked.items()]


def _answer(ray: Any, trial: Any) -> str | None:
    try:
        problem: str | None = ray.get(trial, timeout=0)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(trial)
        return None
    except ray.exceptions.RayError as error:
        return f"the trial failed ({short_message(error)})"
    return problem
