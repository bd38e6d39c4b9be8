"""The checks for a first hour on a GPU: they run anywhere, need little, and tell right from wrong."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from makers.commands import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
NOT_NEEDED = (
    "av", "deltalake", "h5py", "obstore", "polars", "pyarrow", "ray", "rich", "safetensors", "typer"
)  # fmt: skip
"""Packages that a machine with a GPU may lack."""

START = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({NOT_NEEDED}))  # importing one of them fails
sys.path.append({str(SCRIPT.parent)!r})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def checks(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_on_a_cpu_needs_only_torch_numpy_and_pillow(tmp_path: Path) -> None:
    ran = checks("--device", "cpu", "--json", tmp_path / "gpu.json")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures: list[dict[str, Any]] = json.loads((tmp_path / "gpu.json").read_text())["figures"]
    parts = Counter(figure["part"] for figure in figures)
    assert set(parts) == {"env", "right", "attn", "dream", "tok", "oom", "train", "nvdec"}
    right = [figure for figure in figures if figure["part"] == "right" and figure["expected"]]
    assert len(right) > 15
    assert {figure["verdict"] for figure in right} == {"ok"}
    assert all(figure["otherwise"] for figure in figures if figure["expected"])
    for figure in figures:  # the table for benchmarks/README.md
        assert f"| {figure['part']} | {figure['name'].strip()} | " in ran.stdout


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The names of the script."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(SCRIPT.parent)])
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_parts_are_chosen_by_option_or_variable(
    script: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def part(_: Any) -> None: ...

    def ran(*arguments: str) -> list[str]:
        assert script.main(arguments, dict.fromkeys(("env", "right", "oom"), part)) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("== ")]

    assert ran("--device", "cpu") == ["== env", "== right", "== oom"]
    assert ran("--device", "cpu", "--only", "oom,env") == ["== oom", "== env"]
    monkeypatch.setenv("DEV", "cpu")
    monkeypatch.setenv("PARTS", "oom env")
    assert ran() == ["== oom", "== env"]
    with pytest.raises(SystemExit, match="2"):
        ran("--only", "right,wrong")
    assert "--only wrong: expected env, right, oom" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        ran("--device", "cuda:99")
    assert "device 'cuda:99' is not there" in capsys.readouterr().err


def test_training_is_measured_where_its_files_can_be_written(
    script: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--device", "cpu", "--only", "train"]) == 0
    assert re.search(r"the loss falls .* ok\n", capsys.readouterr().out)


def test_a_wrong_result_is_wrong_anywhere_and_a_slow_one_only_where_speed_is_known(
    script: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    known, unknown = (script.Bench(torch.device("cpu"), judges) for judges in (True, False))
    for bench in (known, unknown):
        bench.check("ids", 0.5, False, ">= 0.999", "compare the layers")
        bench.speed("copy", 1.0, "TB/s", least=4.1, otherwise="look at nvidia-smi")
        bench.speed("pass", 1.0, "ms", most=2.0, otherwise="look at the kernels")

    assert [figure.verdict for figure in known.figures] == ["WRONG", "look", "ok"]
    assert [figure.verdict for figure in unknown.figures] == ["WRONG", "", ""]
    assert capsys.readouterr().out.count("-> ") == 3


def test_a_part_that_breaks_off_is_wrong_and_the_others_are_still_run(
    script: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image")

    def whole(bench: Any) -> None:
        bench.note("answer", 42)

    found = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--json", str(found)]
    code = script.main(arguments, {"broken": broken, "whole": whole})

    assert code == 1
    assert "WRONG: broken: the whole part" in capsys.readouterr().out
    assert "no kernel image" in found.read_text()
    assert script.main(arguments, {"whole": whole}) == 0


COLLECT = """
import sys, pytest
sys.modules.update(dict.fromkeys(("av", "obstore", "ray")))
sys.exit(pytest.main([*sys.argv[1:], "-m", "gpu", "--collect-only", "-v", "-p", "no:cacheprovider"]))
"""


def test_the_tests_for_a_gpu_need_no_pyav_ray_or_obstore() -> None:
    mark = "@pytest.mark." + "gpu"
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if mark in path.read_text()]

    ran = subprocess.run(
        [sys.executable, "-c", COLLECT, *map(str, marked)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert all(f"<Module {path.name}>" in ran.stdout for path in marked)
