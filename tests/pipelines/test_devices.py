"""The device of a service on Ray: the nodes are asked whether torch can use the GPUs that Ray counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wham_data.pipelines.ingest.encoder import encoder_service
from wham_data.pipelines.run.devices import Verdict, check_for_ray, only_card, verdict
from wham_data.pipelines.run.progress import Event, Progress
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.ray_nodes import Node
from wham_data.pipelines.run.ray_start import connected
from wham_data.pipelines.run.runner import Advance, Hosted, Service, Stage, Work
from wham_data.schemas.errors import MissingPartError, UsageError, WhamDataError

GOOD, BAD = Node("a", "one", 8, 2), Node("b", "two", 8, 1)
CPU_TORCH = "torch 2.13.0+cpu is built for the CPU alone"


# What is decided


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_gpus_that_torch_can_use_are_used(device: str) -> None:
    assert verdict("tokenizer", device, [(GOOD, None)]) == Verdict(on_gpus=True)


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_said() -> None:
    assert verdict("tokenizer", "auto", []) == Verdict(on_gpus=False)


def test_auto_is_the_cpu_where_torch_cannot_use_the_gpu_and_says_so() -> None:
    assert verdict("tokenizer", "auto", [(BAD, CPU_TORCH)]) == Verdict(
        False,
        notes=(
            f"the tokenizer runs on CPUs: two has a GPU, but torch cannot use it there: {CPU_TORCH}",
        ),
    )


def test_cuda_is_refused_where_there_is_no_gpu_or_torch_cannot_use_it() -> None:
    with pytest.raises(MissingPartError, match="'cuda': the Ray cluster has no GPU"):
        verdict("tokenizer", "cuda", [])
    with pytest.raises(
        MissingPartError, match="'cuda': two has a GPU, but torch cannot use it there"
    ):
        verdict("tokenizer", "cuda", [(BAD, CPU_TORCH)])


def test_the_gpus_of_a_node_whose_torch_cannot_use_them_are_left_out() -> None:
    found = verdict("tokenizer", "auto", [(GOOD, None), (BAD, CPU_TORCH)])

    assert (found.on_gpus, found.without) == (True, {"b"})
    assert found.notes == (
        f"the tokenizer does not use the GPU of two, because torch cannot: {CPU_TORCH}",
    )


@pytest.mark.parametrize(
    ("device", "visible", "card"),
    [
        ("auto", None, None),
        ("cpu", "0,1", None),
        ("cuda", "0,1", None),
        ("cuda:1", None, "1"),
        ("cuda:1", "2,3", "3"),
        ("cuda:0", " 5 ", "5"),
        ("cuda:1", "GPU-aa,GPU-bb", "GPU-bb"),
    ],
)
def test_a_numbered_card_is_the_one_that_a_cluster_of_our_own_may_see(
    device: str, visible: str | None, card: str | None
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert only_card(device, environment) == card


def test_a_number_beyond_the_visible_cards_is_refused() -> None:
    with pytest.raises(MissingPartError, match=r"'cuda:2': .+ is '0,1', which leaves 2 GPUs"):
        only_card("cuda:2", {"CUDA_VISIBLE_DEVICES": "0,1"})


def test_a_running_cluster_gives_out_its_cards_itself() -> None:
    check_for_ray("cuda", elsewhere=True)  # shows when the nodes are asked
    with pytest.raises(
        UsageError, match="'cuda:1': a running Ray cluster gives out its GPUs itself"
    ):
        check_for_ray("cuda:1", elsewhere=True)
    with pytest.raises(UsageError, match="'banana': expected auto"):
        check_for_ray("banana", elsewhere=True)


# On Ray, with a node that counts one GPU

pytestmark = pytest.mark.timeout(300)


class Heard:  # here, because workers of Ray find this module alone
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progressed(self, progress: Progress) -> None:
        pass

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:  # noqa: ARG002
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _workers_find_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
        yield cluster.address
        cluster.shutdown()


def encoded(encoder: Hosted[NDArray[np.uint8], NDArray[np.uint16]]) -> Work[int, int]:
    def work(frames: int, advance: Advance) -> int:
        advance(frames)
        return int(encoder.ask(np.zeros((frames, 180, 300, 3), np.uint8)).size)

    return work


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")


@no_gpu
def test_auto_goes_on_without_a_gpu_that_torch_cannot_use(address: str) -> None:
    heard = Heard()
    stage = Stage("encode", encoded, encoder_service("wham-tiny", "auto"))

    outcomes = list(RayRunner(1, address, watch=heard).run(stage, [1, 2], lambda _: None))

    assert sorted(outcome.result for outcome in outcomes) == [540, 1080]
    assert len(heard.lines) == 1
    assert heard.lines[0].startswith("the tokenizer runs on CPUs: ")
    assert "has a GPU, but torch cannot use it there: " in heard.lines[0]


@no_gpu
def test_cuda_is_refused_in_one_line(address: str) -> None:
    stage = Stage("encode", encoded, encoder_service("wham-tiny", "cuda"))

    with pytest.raises(
        MissingPartError, match=r"has a GPU, but torch cannot use it there: .+ cpu, or auto$"
    ):
        list(RayRunner(1, address).run(stage, [1], lambda _: None))


def of_tomorrow() -> None:
    raise ModuleNotFoundError("No module named 'torch_of_tomorrow'")


class NotThere:
    """Opens a service here, but cannot be unpickled in a worker."""

    def __reduce__(self) -> tuple[Any, ...]:
        return of_tomorrow, ()

    def __call__(self, device: str) -> object:
        raise NotImplementedError(device)


@pytest.mark.parametrize("owns", [False, True])
def test_a_service_that_cannot_be_made_ends_the_run_with_its_cause(
    address: str, owns: bool
) -> None:
    stage = Stage("encode", encoded, Service("tokenizer", NotThere(), "cpu"), owns=owns)

    with pytest.raises(
        WhamDataError,
        match=r"the tokenizer does not start on .+: ModuleNotFoundError: No module named 'torch_of_tomorrow'",
    ):
        list(RayRunner(1, address).run(stage, [1], lambda _: None))


def test_workers_of_a_cluster_of_our_own_see_one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")

    with connected(None, 1, None, only_card("cuda:1", os.environ)) as ray:
        seen = ray.get(ray.remote(os.getenv).remote("CUDA_VISIBLE_DEVICES"))

    assert seen == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
