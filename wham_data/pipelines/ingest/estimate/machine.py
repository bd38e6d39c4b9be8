"""The time and the money that work takes on a machine or a cluster: arithmetic of estimates.

[file of --cluster-spec]
cpus = 64
cpu_speed = 1.5                      # against a core of the machine that made the estimate
gpus = 2
steps_per_second_per_gpu = 900
price_per_cpu_hour = 0.04
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from wham_data.pipelines.ingest.estimate.sampling import Estimated
from wham_data.schemas.declarations import nearest, read_toml
from wham_data.schemas.errors import UsageError, counted

COUNTS: Final = ("cpus", "gpus")
HOUR_S: Final = 3600.0
HERE: Final = "this machine"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines that a run would have.

    cpus                      CPU cores that it may use
    gpus                      GPUs for the tokenizer
    cpu_speed                 speed of a core against one of this machine
    steps_per_second_per_cpu  what a core does, without the tokenizer if there are GPUs; None: as
                              measured here
    steps_per_second_per_gpu  what a GPU does; None: as measured here
    price_per_cpu_hour, price_per_gpu_hour  in any currency; None: not known
    name                      what it is called in texts
    """

    cpus: int
    gpus: int = 0
    cpu_speed: float = 1.0
    steps_per_second_per_cpu: float | None = None
    steps_per_second_per_gpu: float | None = None
    price_per_cpu_hour: float | None = None
    price_per_gpu_hour: float | None = None
    name: str = HERE

    def __post_init__(self) -> None:
        for field in fields(self):
            value, what = getattr(self, field.name), f"{self.name}: {field.name}"
            if field.name == "name" or value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{what} is {value!r}: expected a number")
            if field.name in COUNTS and not isinstance(value, int):
                raise UsageError(f"{what} is {value}: expected a whole number")
            least_allowed = field.name == "gpus" or field.name.startswith("price")
            if not math.isfinite(value) or value < 0 or (value == 0 and not least_allowed):
                raise UsageError(f"{what} is {value}: expected more than 0")
        if self.steps_per_second_per_cpu is not None and self.cpu_speed != 1:
            raise UsageError(
                f"{self.name}: cpu_speed and steps_per_second_per_cpu say the same thing; give one"
            )

    @classmethod
    def here(cls, workers: int | None, gpus: int) -> Cluster:
        """This machine.

        Args:
            workers: recordings to work on at once; None: one per core.
            gpus: how many it has for the tokenizer.
        """
        cores = len(os.sched_getaffinity(0))
        return cls(cores if workers is None else min(max(workers, 1), cores), gpus)

    def priced(self, per_cpu_hour: float | None, per_gpu_hour: float | None) -> Cluster:
        """With these prices where they are given."""
        cpu = self.price_per_cpu_hour if per_cpu_hour is None else per_cpu_hour
        gpu = self.price_per_gpu_hour if per_gpu_hour is None else per_gpu_hour
        return replace(self, price_per_cpu_hour=cpu, price_per_gpu_hour=gpu)


def read_cluster(path: Path) -> Cluster:
    """The file of `--cluster-spec`: TOML with the fields of `Cluster`; `cpus` is required.

    Raises:
        UsageError: it is missing, has another field, or a value that makes no sense.
    """
    table = read_toml(path)
    known = [field.name for field in fields(Cluster) if field.name != "name"]
    for key in table:
        if key not in known:
            raise UsageError(f"{path}: no field {key!r}{nearest(key, known, 'fields')}")
    if "cpus" not in table:
        raise UsageError(f"{path}: cpus is missing: how many CPU cores the run may use")
    return Cluster(**table, name=path.name)


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do, as measured on this machine; None: not measured.

    steps             steps to make
    recordings        recordings to read, each of which is the work of one worker
    read_cpu_hours    CPU-hours for everything but the tokenizer
    tokens_cpu_hours  CPU-hours for the tokenizer; None also where it ran on a GPU
    tokens_gpu_hours  GPU-hours for the tokenizer; None also where it ran on a CPU
    has_tokenizer     whether tokens are made
    """

    steps: Estimated
    recordings: float
    read_cpu_hours: Estimated | None
    tokens_cpu_hours: Estimated | None
    tokens_gpu_hours: Estimated | None
    has_tokenizer: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """What the work takes on a cluster; None: not known.

    machine     what it is, for a person
    cpu_hours   CPU-hours of that cluster
    gpu_hours   GPU-hours of that cluster; None also where it has no GPU
    wall_hours  how long it takes if the cluster does nothing else
    bound_by    what decides on that
    cost        in the currency of the prices
    assumed     what was assumed, and what is not known and why; for a person
    """

    machine: str
    cpu_hours: Estimated | None
    gpu_hours: Estimated | None
    wall_hours: Estimated | None
    bound_by: str | None
    cost: Estimated | None
    assumed: tuple[str, ...]


def needs(work: Work, cluster: Cluster) -> Needs:
    """What the work takes on a cluster. The formulas are in docs/estimate.md."""
    assumed: list[str] = []
    on_gpu = work.has_tokenizer and cluster.gpus > 0
    cpu_hours = _cpu_hours(work, cluster, on_gpu, assumed)
    gpu_hours = _gpu_hours(work, cluster, assumed) if on_gpu else None
    wall_hours, bound_by = None, None
    if cpu_hours is not None and (gpu_hours is not None or not on_gpu):
        busy = max(min(cluster.cpus, work.recordings), 1.0)
        wall_hours = cpu_hours.times(1 / busy)
        bound_by = "the CPUs" if busy == cluster.cpus else "the number of recordings"
        on_gpus = None if gpu_hours is None else gpu_hours.times(1 / cluster.gpus)
        if on_gpus is not None and on_gpus.estimate > wall_hours.estimate:
            wall_hours, bound_by = on_gpus, "the GPUs"
    gpus = counted(cluster.gpus, "GPU") if cluster.gpus else "no GPU"
    cost = _cost(cpu_hours, gpu_hours, cluster, on_gpu, assumed)
    machine = f"{cluster.name} ({counted(cluster.cpus, 'CPU')}, {gpus})"
    return Needs(machine, cpu_hours, gpu_hours, wall_hours, bound_by, cost, tuple(assumed))


def _cpu_hours(work: Work, cluster: Cluster, on_gpu: bool, assumed: list[str]) -> Estimated | None:
    if (speed := cluster.steps_per_second_per_cpu) is not None:
        assumed.append(f"A CPU makes {speed:g} steps a second, as {cluster.name} says.")
        return work.steps.times(1 / speed / HOUR_S)
    hours = work.read_cpu_hours
    if hours is not None and work.has_tokenizer and not on_gpu:
        if work.tokens_cpu_hours is None:
            assumed.append("The tokenizer was measured on a GPU, so CPU-hours are not known.")
            return None
        hours = hours.plus(work.tokens_cpu_hours)
    if hours is None:
        return None
    if cluster.cpu_speed != 1:
        assumed.append(f"A CPU is {cluster.cpu_speed:g} times as fast as one here.")
    return hours.times(1 / cluster.cpu_speed)


def _gpu_hours(work: Work, cluster: Cluster, assumed: list[str]) -> Estimated | None:
    if (speed := cluster.steps_per_second_per_gpu) is not None:
        assumed.append(f"A GPU makes {speed:g} steps a second, as {cluster.name} says.")
        return work.steps.times(1 / speed / HOUR_S)
    if work.tokens_gpu_hours is None:
        assumed.append(
            "GPU-hours are not known: no GPU was measured here, and no steps_per_second_per_gpu is "
            "given in --cluster-spec."
        )
    elif cluster.name != HERE:
        assumed.append("A GPU is as fast as the one here.")
    return work.tokens_gpu_hours


def _cost(
    cpu_hours: Estimated | None,
    gpu_hours: Estimated | None,
    cluster: Cluster,
    on_gpu: bool,
    assumed: list[str],
) -> Estimated | None:
    """The price of the hours of work; None if a part of it is not known."""
    if cluster.price_per_cpu_hour is None and cluster.price_per_gpu_hour is None:
        return None
    parts = [(cpu_hours, cluster.price_per_cpu_hour, "CPU")]
    if on_gpu:
        parts.append((gpu_hours, cluster.price_per_gpu_hour, "GPU"))
    cost = Estimated.exactly(0.0)
    for hours, price, what in parts:
        if hours is None or price is None:
            assumed.append(f"The cost is not known: {what}-hours or their price are missing.")
            return None
        cost = cost.plus(hours.times(price))
    assumed.append("The cost is for hours of work; hours in which a rented core waits come on top.")
    return cost
