"""What keeps Ray from starting is said in one line, soon, and nothing is left of killed runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.pipelines.run.ray_start import PREFIX
from wham_data.pipelines.run.runner import Advance, Hosted, Stage, Work
from wham_data.schemas.errors import UsageError, WhamDataError

ROOT = Path(__file__).parents[2]


def doubling(_: Hosted[int, int] | None) -> Work[int, int]:
    def double(number: int, _advance: Advance) -> int:
        return 2 * number

    return double


DOUBLE = Stage("double", doubling)


def killing(_: Hosted[int, int] | None) -> Work[int, int]:
    def kill(_number: int, _advance: Advance) -> int:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
        return 0

    return kill


KILL = Stage("kill", killing)


def run(runner: RayRunner) -> None:
    list(runner.run(DOUBLE, [1], lambda _: None))


def test_an_address_where_nobody_answers_is_named_soon() -> None:
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        begun = time.monotonic()

        with pytest.raises(WhamDataError, match=f"--ray-address {address}: nobody answers"):
            run(RayRunner(1, address))

    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("address", ["head", "6379", "head:", "head:port"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UsageError, match="expected auto or HOST:PORT"):
        run(RayRunner(1, address))


def test_a_folder_that_cannot_be_used_is_named_with_the_way_out(tmp_path: Path) -> None:
    for folder, why in (
        (Path("/nowhere"), "/nowhere: Ray needs a folder .* No such file"),
        (Path("/proc"), "/proc: 0 MiB free, but Ray needs 64 MiB"),  # as full as a disk can be
        (tmp_path / ("long" * 10), "too long for the folder of Ray"),
    ):
        with pytest.raises(UsageError, match=f"{why}.*--ray-temp-dir"):
            run(RayRunner(1, temp_dir=folder))

    with pytest.raises(
        UsageError, match="--ray-temp-dir is for a cluster that this command starts"
    ):
        RayRunner(1, "auto", temp_dir=tmp_path)


AFTER_AN_IMPORT = """
import os
import ray
from test_ray_start import DOUBLE
from wham_data.pipelines.run.ray_jobs import RayRunner

results = [each.result for each in RayRunner(1).run(DOUBLE, [1, 2], print)]
print(results, os.environ.get("RAY_AUTH_TOKEN"))
"""


def test_a_process_that_has_read_no_token_makes_one_for_its_own_cluster_alone() -> None:
    """Ray reads the mode when it is imported, and would then not send what its cluster requires."""
    run = subprocess.run(
        [sys.executable, "-c", AFTER_AN_IMPORT], env=for_workers(), capture_output=True, text=True
    )

    assert run.stdout.strip() == "[2, 4] None", run.stderr


KILLS_ITS_RAYLET = """
from test_ray_start import KILL
from wham_data.pipelines.run.ray_jobs import RayRunner

print(list(RayRunner(1).run(KILL, [1], print)))
"""


def test_the_death_of_the_node_of_the_command_itself_is_said() -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLS_ITS_RAYLET], env=for_workers(), capture_output=True, text=True
    )

    assert run.returncode != 0
    assert "wham-data: the run ended at once" in run.stderr


def for_workers() -> dict[str, str]:
    """An environment without token, in which workers find this module."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}


IN_A_FOLDER = """
import sys, time
from pathlib import Path
from wham_data.pipelines.run.ray_start import own_folder

with own_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_next_run_removes_the_folder_of_a_killed_one() -> None:
    parent = Path("/tmp") / f"wd-test-{time.monotonic_ns() % 10**9}"
    parent.mkdir()
    runs: list[subprocess.Popen[str]] = []
    try:
        folders = []
        for victim in (
            None,
            0,
            None,
        ):  # the first is killed before the second starts; that one lives on
            if victim is not None:
                runs[victim].send_signal(signal.SIGKILL)
                runs[victim].wait()
            started = subprocess.Popen(
                [sys.executable, "-c", IN_A_FOLDER, parent],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            runs.append(started)
            assert started.stdout is not None
            folders.append(Path(started.stdout.readline().strip()))

        assert [folder.exists() for folder in folders] == [False, True, True]
        for started in runs[1:]:
            started.communicate()
        assert list(parent.glob(f"{PREFIX}*")) == []
    finally:
        for started in runs:
            started.kill()
            started.communicate()
        parent.rmdir()
