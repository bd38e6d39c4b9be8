"""Dreams made by several: several commands into one folder, and all GPUs of a machine."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers.commands import command
from makers.dreams import dream, small_checkpoint, wham_episode, write_npz

from wham_data.pipelines.run.choose import usual_workers, workers_at_once
from wham_data.pipelines.run.ray_jobs import RayRunner

COUNT = 4
SHARED = ("--context", "3", "--steps", "4", "--batch-size", "1", "--save", "npz,csv", "--json")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in range(COUNT):
        write_npz(folder / f"e{number}.npz", wham_episode(seed=number, steps=8))
    return folder


def arguments(data: Path, checkpoint: Path, out: Path, *more: str) -> tuple[Any, ...]:
    return (data, "--model", checkpoint, "--out", out, *SHARED, *more)


@pytest.fixture(scope="module")
def made_by_one(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    assert dream(*arguments(data, checkpoint, out)).code == 0
    return out


def contents(out: Path) -> dict[str, bytes]:
    """All files by path. How long a dream took is left out of its `dream.json`."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.name == "dream.json":
            account = json.loads(content)
            del account["stats"]["ms_per_frame"]
            content = json.dumps(account).encode()
        found[str(path.relative_to(out))] = content
    return found


def start(environment: dict[str, str], *given: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(("dream", *given)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(running: subprocess.Popen[str], until: Callable[[], object]) -> None:
    while running.poll() is None and not until():
        time.sleep(0.005)


def test_two_commands_into_one_folder_make_each_dream_once(
    data: Path,
    checkpoint: Path,
    made_by_one: Path,
    tmp_path: Path,
    command_environment: dict[str, str],
) -> None:
    out = tmp_path / "out"
    given = arguments(data, checkpoint, out)
    first = start(command_environment, *given)
    wait(first, lambda: list(out.glob(".claim-*")))
    first.send_signal(signal.SIGSTOP)  # so that the other one has time to catch up
    second = start(command_environment, *given)
    wait(second, lambda: len(list(out.rglob("dream.json"))) >= COUNT - 1)
    first.send_signal(signal.SIGCONT)
    ended = [(*each.communicate(timeout=100), each.returncode) for each in (first, second)]

    assert [code for _, _, code in ended] == [0, 0], ended
    reports = [json.loads(report) for report, _, _ in ended]
    assert [each["made"] + each["already_there"] for each in reports] == [COUNT, COUNT]
    assert sum(each["made"] for each in reports) == COUNT
    assert min(each["made"] for each in reports) > 0
    assert contents(out) == contents(made_by_one)


def test_what_a_killed_command_had_begun_is_taken_over(
    data: Path,
    checkpoint: Path,
    made_by_one: Path,
    tmp_path: Path,
    command_environment: dict[str, str],
) -> None:
    out = tmp_path / "out"
    given = arguments(data, checkpoint, out, "--batch-size", "4")  # the first one takes all
    killed = start(command_environment, *given)
    wait(killed, lambda: len(list(out.glob(".*"))) == len(list(out.glob(".claim-*"))) == COUNT)
    killed.send_signal(signal.SIGSTOP)
    survivor = start(command_environment, *given)
    assert survivor.stderr is not None
    waits = survivor.stderr.readline()
    killed.kill()
    killed.communicate()
    report, rest = survivor.communicate(timeout=100)

    assert f"another command makes in this folder: process {killed.pid} on" in waits
    assert survivor.returncode == 0, rest
    assert json.loads(report)["made"] == COUNT
    for left in out.glob(".dream-*"):
        left.rename(tmp_path / left.name)  # of the killed one; goes after a day
    assert contents(out) == contents(made_by_one)


def test_an_episode_that_fails_with_one_command_fails_with_the_other_too(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_npz(tmp_path / "data" / "short.npz", wham_episode(4))
    given = (tmp_path / "data", "--model", checkpoint, "--out", tmp_path / "out", *SHARED)

    assert dream(*given).code == dream(*given).code == 6
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("stated", "device", "gpus", "items", "workers"),
    [
        (None, "auto", 8, 100, 8),  # all GPUs
        (None, "cuda", 8, 100, 8),
        (None, "auto", 8, 3, 3),  # no more than there is work for
        (None, "auto", 8, 1, None),
        (None, "auto", 1, 100, None),  # a single one does not need Ray
        (None, "auto", 0, 100, None),
        (None, "cpu", 8, 100, None),
        (None, "cuda:1", 8, 100, None),  # this one alone
        (0, "auto", 8, 100, 0),
        (2, "auto", 8, 100, 2),
    ],
)
def test_without_workers_all_gpus_of_the_machine_dream(
    stated: int | None, device: str, gpus: int, items: int, workers: int | None
) -> None:
    assert usual_workers(stated, None, device, gpus, items) == workers


def test_a_batch_is_shared_out_among_those_who_will_really_work() -> None:
    def at_once(workers: int | None, device: str, gpus: int) -> int:
        return workers_at_once(workers, RayRunner(workers), device, gpus)

    assert at_once(64, "auto", gpus=8) == 8
    assert at_once(4, "auto", gpus=8) == 4
    assert at_once(4, "cpu", gpus=8) == 4
    assert at_once(4, "auto", gpus=0) == 4
    assert workers_at_once(64, RayRunner(64, "head:6379"), "auto", gpus=0) == 64
    assert usual_workers(None, "head:6379", "auto", 8, 100) is None
