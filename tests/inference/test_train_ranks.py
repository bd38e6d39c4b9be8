"""Training in several processes, as `torchrun` starts them: the run of one process, by two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers import train_in_ranks
from makers.commands import ROOT
from safetensors.numpy import load_file

from wham_data.inference.training.files import CHECKPOINT_FILE
from wham_data.inference.training.ranks import ALONE, Ranks, joined
from wham_data.schemas.errors import UsageError

SCRIPT = Path(train_in_ranks.__file__)


def torchrun(out: Path, *jobs: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node=2", SCRIPT, out, *jobs,
        ],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """The folder of the runs of two processes, and for each what the two knew at the end."""

    out: Path
    told: dict[str, list[list[Any]]]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    out = tmp_path_factory.mktemp("two")
    run = torchrun(out, "whole,4,4,2", "parts,4,2,2", "parts,4,4,2", "clock,,999999,2")
    assert run.returncode == 0, run.stderr
    told: dict[str, list[list[Any]]] = {}
    for line in run.stdout.splitlines():
        if line.startswith("["):
            folder, *rest = json.loads(line)
            told[folder] = sorted([*told.get(folder, []), rest])
    return Runs(out, told)


def test_two_processes_learn_what_one_learns(by_two: Runs, tmp_path: Path) -> None:
    out, (first, second) = by_two.out / "whole", by_two.told["whole"]
    train_in_ranks.train(tmp_path, "one,4,4,2")

    one = json.loads((tmp_path / "one/curves.json").read_text())
    two = json.loads((out / "curves.json").read_text())
    assert [point["step"] for point in two] == [point["step"] for point in one] == [2, 4]
    for mine, theirs in zip(one, two, strict=True):
        for name in ("loss", "image_loss", "action_loss"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5)
    assert (first[:2], second[:2]) == ([0, 4], [1, 4])
    assert first[2] == second[2] == two  # both know the figures, which the first one took
    weights, same = load_file(tmp_path / "one" / CHECKPOINT_FILE), load_file(out / CHECKPOINT_FILE)
    assert weights.keys() == same.keys()
    for name, values in weights.items():
        assert np.abs(values - same[name]).max() < 2e-4, name  # of steps of 1e-3


def test_one_process_alone_writes(by_two: Runs) -> None:
    assert {path.name for path in (by_two.out / "whole").iterdir()} == {
        "config.json",
        "curves.json",
        "tokenizer.safetensors",
        "training.safetensors",
        "world_model.safetensors",
    }


def test_a_run_of_two_goes_on_where_it_was_bit_for_bit(by_two: Runs) -> None:
    assert [(number, steps) for number, steps, _ in by_two.told["parts"]] == [
        (0, 2), (0, 4), (1, 2), (1, 4),
    ]  # fmt: skip
    before, after = (load_file(by_two.out / name / CHECKPOINT_FILE) for name in ("whole", "parts"))
    assert all(np.array_equal(values, after[name]) for name, values in before.items())


def test_by_the_clock_all_end_at_the_same_step(by_two: Runs) -> None:
    (_, first, _), (_, second, _) = by_two.told["clock"]
    assert first == second > 0


def test_a_batch_that_cannot_be_divided_is_refused_in_one_line(tmp_path: Path) -> None:
    run = torchrun(tmp_path, "odd,4,4,3")

    assert run.returncode != 0
    lines = [line for line in run.stdout.splitlines() if "error" in line]
    assert lines == [
        "error: a batch of 3 cannot be divided equally among 2 processes: use a --batch-size that is a "
        "multiple of 2"
    ]
    assert not list(tmp_path.iterdir())


def test_each_process_has_its_part_of_the_rows() -> None:
    rows = np.arange(12)
    parts = [rows[Ranks(number, 3).part(12)] for number in range(3)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert ALONE.part(7) == slice(0, 7)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("auto") as (ranks, device):
        assert (ranks, device) == (ALONE, "auto")
        assert ranks.same("x") == "x"
        assert ranks.mean(torch.tensor(2.0)) == 2


def test_one_gpu_is_not_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "",
        "MASTER_PORT": "1",
    }
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="a GPU of its own"), joined("cuda:0"):
        pass
