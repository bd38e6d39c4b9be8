"""Chooses the runner from the options of the command line."""

from __future__ import annotations

import os

from wham_data.pipelines.run.by_size import BySize
from wham_data.pipelines.run.devices import check_for_ray, check_here
from wham_data.pipelines.run.progress import ProgressListener, Silent
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import LocalRunner, Runner
from wham_data.schemas.errors import UsageError


def choose_runner(
    workers: int | None,
    ray_address: str | None,
    temp_dir: str | os.PathLike[str] | None = None,
    watch: ProgressListener | None = None,
) -> Runner:
    """A runner in this process for 0 workers, on Ray for more or for an address, else by size.

    Args:
        workers: count of items to work on at once; None: not stated.
        ray_address: of a running cluster; None: one of our own, if any.
        temp_dir: for the files of a cluster of our own; None: /tmp.
        watch: hears what the runner has to say.

    Raises:
        UsageError: options that make no sense together.
    """
    listener = watch or Silent()
    on_ray = choose_workers(workers, ray_address, temp_dir, watch)
    if on_ray is not None:
        return on_ray
    if workers == 0:
        return LocalRunner()
    return BySize(lambda: RayRunner(temp_dir=temp_dir, watch=listener), listener)


def choose_workers(
    workers: int | None,
    ray_address: str | None,
    temp_dir: str | os.PathLike[str] | None = None,
    watch: ProgressListener | None = None,
) -> Runner | None:
    """A runner on Ray if there is a number of workers or an address; None: use this process.

    Raises:
        UsageError: options that make no sense together.
    """
    if workers == 0 and ray_address is not None:
        raise UsageError("--workers 0 runs without Ray, so --ray-address makes no sense with it")
    if not workers and ray_address is None:
        return None
    return RayRunner(workers, ray_address, temp_dir=temp_dir, watch=watch)


def check_device(device: str, runner: Runner | None, watch: ProgressListener) -> None:
    """Check the device of a service before anything is done, as far as it shows here.

    Where the service will run in this process, it is also said if "auto" is the CPU although there is a
    GPU; a runner on Ray asks its nodes when it starts.

    Args:
        device: its name.
        runner: of the service; None: this process.
        watch: hears what there is to say.

    Raises:
        UsageError: it is not the name of a device, or one card of a running cluster.
        MissingPartError: it is a GPU that is not there.
    """
    if isinstance(runner, RayRunner):
        check_for_ray(device, elsewhere=runner.is_elsewhere)
    else:
        check_here(device, watch)


def usual_workers(
    workers: int | None, ray_address: str | None, device: str, gpus: int, items: int
) -> int | None:
    """The workers of a job whose every worker wants a GPU: one for each GPU of this machine.

    Args:
        workers: as stated; None: not stated.
        ray_address: of a running cluster; None: none.
        device: "auto" and "cuda" are all GPUs, "cuda:N" is one.
        gpus: of this machine that can be used.
        items: count of items to work on.

    Returns:
        See `choose_workers`.
    """
    if workers is not None or ray_address is not None or device not in ("auto", "cuda"):
        return workers
    most = min(gpus, items)
    return most if most > 1 else None


def workers_at_once(workers: int | None, runner: Runner, device: str, gpus: int) -> int:
    """How many of these workers there will be, where each has a GPU or, without GPUs, a CPU.

    Args:
        workers: as stated; None: as many as there is room for.
        runner: on Ray. A cluster that is running is asked for its room if no number is stated.
        device, gpus: as for `usual_workers`.
    """
    if isinstance(runner, RayRunner) and runner.is_elsewhere:
        return workers or runner.room(device)
    if device != "cpu" and gpus:
        return min(workers or gpus, gpus)
    return workers or os.cpu_count() or 1


def works_elsewhere(runner: Runner) -> bool:
    """Whether its processes are not all below this one, so that their CPU time is not seen."""
    return isinstance(runner, RayRunner) and runner.is_elsewhere
