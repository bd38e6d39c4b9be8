"""A short soak: see `soak.py`. `make soak` is the long one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("soak.py")


def soak(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the soak; its seed is in what it prints, or the one of WHAM_DATA_FAULT_SEED."""
    seed = os.environ.get("WHAM_DATA_FAULT_SEED", random.randrange(1 << 32))
    return subprocess.run(
        [sys.executable, SOAK, "--seed", str(seed), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)
def test_faults_of_every_kind_leave_a_whole_corpus_that_a_rerun_completes() -> None:
    run = soak("--faults", 20, "--ray", 0)

    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 violations" in run.stdout


@pytest.mark.timeout(300)
def test_so_does_the_death_of_a_node_of_ray() -> None:
    run = soak("--faults", 0, "--ray", 1, "--victim", "raylet")

    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 faults, 0 violations" in run.stdout
