"""Which runner a person asks for."""

from __future__ import annotations

from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.runner import LocalRunner, Runner
from wham_data.schemas.errors import UsageError


def choose_runner(workers: int | None, ray_address: str | None) -> Runner:
    """In this process for 0 workers, else on Ray; None is a worker for every CPU."""
    return LocalRunner() if workers == 0 else RayRunner(workers, ray_address)


def choose_workers(workers: int | None, ray_address: str | None) -> Runner | None:
    """Ray for those who ask for it, by a number of workers or an address; else None: this process.

    Raises:
        UsageError: no workers, but an address.
    """
    if workers == 0 and ray_address is not None:
        raise UsageError("--workers 0 runs without Ray, so --ray-address makes no sense with it")
    return RayRunner(workers, ray_address) if workers or ray_address is not None else None
