"""Chooses the runner from the options of the command line."""

from __future__ import annotations

from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import LocalRunner, Runner
from wham_data.schemas.errors import UsageError


def choose_runner(workers: int | None, ray_address: str | None) -> Runner:
    """A runner in this process for 0 workers, else one on Ray; None: a worker for each CPU."""
    return LocalRunner() if workers == 0 else RayRunner(workers, ray_address)


def choose_workers(workers: int | None, ray_address: str | None) -> Runner | None:
    """A runner on Ray if there is a number of workers or an address; None: use this process.

    Raises:
        UsageError: 0 workers together with an address.
    """
    if workers == 0 and ray_address is not None:
        raise UsageError("--workers 0 runs without Ray, so --ray-address makes no sense with it")
    return RayRunner(workers, ray_address) if workers or ray_address is not None else None


def works_elsewhere(runner: Runner) -> bool:
    """Whether its processes are not all below this one, so that their CPU time is not seen."""
    return isinstance(runner, RayRunner) and runner.is_elsewhere
