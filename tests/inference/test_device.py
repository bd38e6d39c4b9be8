"""Devices: their names, what is there, and why torch cannot use what is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from makers.commands import Run

from wham_data.inference.device import (
    choose_device,
    cpu_note,
    gpu_problem,
    gpus_here,
    gpus_of_driver,
    parse_device,
    why_unusable,
)
from wham_data.schemas.errors import MissingPartError, UsageError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
cpu_torch = pytest.mark.skipif(
    torch.version.cuda is not None or torch.version.hip is not None, reason="for a torch for CPUs"
)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("auto", ("auto", None)),
        ("cpu", ("cpu", None)),
        ("cuda", ("cuda", None)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:11", ("cuda", 11)),
    ],
)
def test_a_device_has_a_kind_and_perhaps_a_number(name: str, parsed: tuple[str, object]) -> None:
    assert parse_device(name) == parsed


@pytest.mark.parametrize(
    "name",
    ["banana", "gpu", "", "cuda:", "cuda:-1", "cuda:1.0", "cuda:²", "CUDA", "cpu:0", "auto:1"],
)
def test_anything_else_is_refused_with_what_is_there(name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N") as refused:
        choose_device(name)
    assert str(refused.value).endswith(gpus_here())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", ["ingest", "tokenize", "caption", "dream", "export"])
def test_every_command_refuses_it_before_it_looks_at_anything(cli: Run, command: str) -> None:
    needed = {
        "ingest": ("--out", "out"),
        "tokenize": ("--out", "out", "--tokenizer", "wham-tiny"),
        "caption": ("--endpoint", "http://localhost:1", "--model", "m"),
        "dream": ("--out", "out", "--model", "wham-tiny"),
        "export": ("--out", "out", "--to", "wham-npz"),
    }
    ended = cli(command, "nowhere", *needed[command], "--device", "gpu")

    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("wham-data: device 'gpu': expected auto, cpu, cuda or cuda:N. ")


@pytest.mark.parametrize(
    "command", [("train", "tokenizer"), ("train", "world-model"), ("bench", "dream")]
)
def test_so_do_commands_in_groups(cli: Run, command: tuple[str, str]) -> None:
    needed = () if command[0] == "bench" else ("nowhere", "--out", "out", "--steps", "1")
    ended = cli(*command, *needed, "--device", "banana")

    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "wham-data: device 'banana': expected auto, cpu, cuda or cuda:N. "
    )


@no_gpu
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_made(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    for workers in ("0", "1"):
        out = tmp_path / "corpus"
        ended = cli(
            "ingest", six_recordings, "--out", out, "--device", "cuda:1", "--workers", workers
        )
        assert (ended.returncode, ended.stderr.count("\n")) == (5, 1)
        assert "device 'cuda:1' is not there. Here is no GPU" in ended.stderr
        assert not out.exists()


@no_gpu
def test_auto_is_the_cpu_where_torch_cannot_use_a_gpu() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(MissingPartError, match="'cuda' is not there"):
        choose_device("cuda")


@pytest.mark.gpu
def test_auto_is_the_first_gpu_and_no_note_is_needed(cuda: str) -> None:
    assert choose_device("auto") == choose_device(cuda) == torch.device("cuda:0")
    assert gpu_problem() is None
    assert cpu_note("auto") is None
    with pytest.raises(MissingPartError, match=r"Here: cuda:0 \(.+ GiB\)"):
        choose_device("cuda:99")


# Why torch cannot use a GPU


def test_a_torch_for_cpus_is_named_with_what_to_install() -> None:
    assert why_unusable("2.13.0+cpu", None, "", "Torch not compiled") == (
        "torch 2.13.0+cpu is built for the CPU alone. Install a torch for CUDA (pytorch.org/get-started)"
    )


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_variable_that_hides_every_gpu_is_named(visible: str) -> None:
    assert why_unusable("2.13.0", "12.6", visible, "No CUDA GPUs are available") == (
        f"the variable CUDA_VISIBLE_DEVICES is {visible!r}, which hides every GPU. Unset it"
    )


def test_otherwise_torch_itself_says_why() -> None:
    told = why_unusable("2.13.0", "13.0", None, "The NVIDIA driver on your system is too old")
    assert told.startswith(
        "The NVIDIA driver on your system is too old. Torch 2.13.0 is built for CUDA 13.0"
    )


@cpu_torch
def test_the_torch_of_this_environment_says_why() -> None:
    assert gpu_problem() == why_unusable(torch.__version__, None, None, "")


# A GPU that the driver lists and torch cannot use: a library in the place of the driver's

NVML = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned n, void **device) {
  *device = (void *)(long)(n + 1);
  return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  strncpy(name, device == (void *)1 ? "NVIDIA H200" : "NVIDIA L4", length);
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
  rates[0] = 50;
  return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a library that lists two GPUs, as NVIDIA's driver would."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(NVML)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True)
    return str(folder)


@cpu_torch
def test_doctor_says_that_a_gpu_is_there_and_torch_cannot_use_it(
    cli_apart: Run, driver: str
) -> None:
    ended = cli_apart("doctor", LD_LIBRARY_PATH=driver)

    lines = [line.strip() for line in ended.stdout.splitlines()]
    start = lines.index("GPU          NVIDIA H200")
    assert lines[start + 1] == "GPU          NVIDIA L4"
    assert lines[start + 2].startswith("a GPU is there, but torch cannot use it: torch 2.")
    assert lines[start + 3] == "--device auto is the CPU"


@cpu_torch
def test_auto_says_in_one_line_that_it_is_the_cpu(
    cli_apart: Run, driver: str, six_recordings: Path, tmp_path: Path
) -> None:
    given = (six_recordings, "--out", tmp_path / "corpus", "--workers", "0", "--limit", "1")
    ended = cli_apart("ingest", *given, LD_LIBRARY_PATH=driver)

    said = [line for line in ended.stderr.splitlines() if "--device auto" in line]
    assert ended.returncode == 0
    assert len(said) == 1
    assert "a GPU is there, but torch cannot use it, so the CPU is used: torch 2." in said[0]


@cpu_torch
def test_a_gpu_that_torch_cannot_use_is_refused_with_the_reason(
    cli_apart: Run, driver: str
) -> None:
    ended = cli_apart("bench", "dream", "--device", "cuda", LD_LIBRARY_PATH=driver)

    assert (ended.returncode, ended.stderr.count("\n")) == (5, 1)
    assert "'cuda' is not there. A GPU is there, but torch cannot use it: torch 2." in ended.stderr


@no_gpu
def test_without_a_driver_nothing_is_listed() -> None:
    assert gpus_of_driver() == ()
    assert cpu_note("auto") is None
