"""Nodes come and go, places run short, and a run on Ray goes on with what is there, or says why not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wham_data.pipelines.run.progress import Progress
from wham_data.pipelines.run.ray_jobs import Patience, RayRunner
from wham_data.pipelines.run.runner import Advance, Hosted, LocalRunner, Service, Stage, Work
from wham_data.schemas.errors import MismatchError, StalledError

IntArray = NDArray[np.int64]
SOON_MISSED = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""A lost node is noticed after a few seconds rather than after fifteen."""


class Heard:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progressed(self, progress: Progress) -> None:
        pass

    def message(self, text: str, *, warning: bool) -> None:  # noqa: ARG002
        self.lines.append(text)


pytestmark = pytest.mark.timeout(300)  # several nodes are started on one busy machine


@pytest.fixture(autouse=True)
def _workers_find_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """A cluster with a node for each count of CPUs, the head first."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # Ray prints of each node that it died
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cpus[0], "_system_config": SOON_MISSED}
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        for count in cpus[1:]:
            started.add_node(num_cpus=count)
        yield started
    finally:
        started.shutdown()


def tens(device: str) -> Callable[[IntArray], IntArray]:
    assert device in ("auto", "cpu")
    return lambda numbers: 10 * numbers


def asking(service: Hosted[IntArray, IntArray]) -> Work[int, int]:
    """Asks ten times, slowly."""

    def work(number: int, advance: Advance) -> int:
        total = 0
        for part in range(10):
            time.sleep(0.05)
            total += int(service.ask(np.array([number * part]))[0])
            advance(1)
        return total

    return work


ASK = Stage("ask", asking, Service("tens", tens, rows_together=8))


def where(_: Hosted[int, int] | None) -> Work[int, str]:
    def work(_number: int, _advance: Advance) -> str:
        import ray

        time.sleep(0.3)
        node: str = ray.get_runtime_context().get_node_id()
        return node

    return work


def test_more_workers_than_cpus_leave_each_other_room() -> None:
    """Sixteen services would take all of both CPUs, and the work would wait for them for ever."""
    with cluster(1, 1) as ours:
        there = list(RayRunner(16, ours.address).run(ASK, range(16), lambda _: None))

    here = list(LocalRunner().run(ASK, range(16), lambda _: None))
    assert {each.item: each.result for each in there} == {each.item: each.result for each in here}


def test_a_lost_node_shrinks_the_run_and_a_new_one_widens_it() -> None:
    frames: list[int] = []
    heard = Heard()
    with cluster(1, 1, 1, 1) as ours:
        lost = list(ours.worker_nodes)[:2]
        results: dict[int, int | Exception] = {}
        for outcome in RayRunner(4, ours.address, watch=heard).run(ASK, range(20), frames.append):
            results[outcome.item] = outcome.result
            if len(results) == 1:
                for node in lost:
                    ours.remove_node(node, allow_graceful=False)
            if len(results) == 8:
                ours.add_node(num_cpus=1)
        nodes = {
            each.result
            for each in RayRunner(3, ours.address).run(Stage("where", where), range(9), print)
        }

    here = LocalRunner().run(ASK, range(20), lambda _: None)
    assert results == {each.item: each.result for each in here}
    assert sum(frames) == 20 * 10  # what was done on a lost node is taken back
    assert sum("is lost" in line for line in heard.lines) == 2
    assert any("has joined" in line for line in heard.lines)
    assert len(nodes) == 3


def test_a_run_that_cannot_begin_says_what_it_waits_for_and_ends() -> None:
    heard = Heard()
    with cluster(1) as ours:
        take_the_cpu(ours.address)
        runner = RayRunner(1, ours.address, watch=heard, patience=Patience(1.0, 3.0))

        with pytest.raises(
            StalledError, match=r"waiting for the tens to start on .*nothing is in work"
        ):
            list(runner.run(ASK, range(2), lambda _: None))
        with pytest.raises(StalledError, match="waiting for a free CPU on "):
            list(runner.run(Stage("where", where), range(2), lambda _: None))

    assert any(line.startswith("nothing has moved for 1 s. 2 items wait") for line in heard.lines)


def take_the_cpu(address: str) -> None:
    """Another job takes the only CPU of a cluster."""
    import ray

    class Holder:
        def held(self) -> None:
            pass

    ray.init(address, log_to_driver=False)
    holder = ray.remote(Holder).options(num_cpus=1, lifetime="detached", name="other")
    ray.get(holder.remote().held.remote())
    ray.shutdown()


def test_a_node_with_other_versions_is_left_out_or_named_before_the_work(tmp_path: Path) -> None:
    about = tmp_path / "av-1.2.3.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: av\nVersion: 1.2.3\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    heard = Heard()
    with cluster(1) as ours:
        run = RayRunner(2, ours.address, watch=heard).run(CHECKED, range(16), lambda _: None)
        nodes = {next(run).result}
        ours.add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
        nodes.update(outcome.result for outcome in run)

        assert len(nodes) == 1
        assert any("is left out: av 1.2.3, but" in line for line in heard.lines), heard.lines
        with pytest.raises(
            MismatchError, match=r"node .*: av 1\.2\.3, but .* where the command runs"
        ):
            list(RayRunner(2, ours.address).run(CHECKED, range(2), lambda _: None))


def test_a_corpus_does_not_show_which_nodes_came_and_went_while_it_was_made() -> None:
    """Twenty-four recordings on up to six nodes; `make soak` does it with ten thousand."""
    soak = Path(__file__).parents[1] / "soak" / "ray_nodes.py"
    run = subprocess.run(
        [sys.executable, soak, "--recordings", "24", "--every", "2", "--seed", "1"],
        capture_output=True,
        text=True,
        start_new_session=True,
    )

    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert run.stdout.strip().endswith("joined: equal")


@contextmanager
def nothing_to_check() -> Iterator[Callable[[], None]]:
    yield int


CHECKED = Stage("where", where, check=nothing_to_check)
