"""Full memory and a failed device are one line, and neither a damaged file nor anything else is taken for one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.commands import ROOT
from makers.wham_checkpoints import TAMING, write_checkpoint
from numpy.typing import NDArray
from torch.nn.modules.module import register_module_forward_pre_hook

from wham_data.inference.checkpoints.lightning import open_tokenizer
from wham_data.inference.device.failures import device_errors
from wham_data.inference.tokenizer import load_tokenizer
from wham_data.inference.tokenizers.frame_tokenizer import FrameTokenizer, tokenizer_model
from wham_data.schemas.errors import DeviceError, UsageError

CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB\n"
    "If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF"
)


def torch_cannot_allocate() -> None:
    torch.empty(1 << 55)


def numpy_cannot_allocate() -> None:
    np.zeros(1 << 55)


def a_gpu_is_full() -> None:
    raise torch.OutOfMemoryError(CUDA_SAYS)


def a_library_is_full() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def the_end_of_a_recording_fails_too() -> None:
    try:
        a_gpu_is_full()
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def it_is_said_by_something_else() -> None:
    try:
        a_gpu_is_full()
    except RuntimeError as error:
        raise ValueError("the pass could not be made") from error


FULL = (
    torch_cannot_allocate,
    numpy_cannot_allocate,
    a_gpu_is_full,
    a_library_is_full,
    the_end_of_a_recording_fails_too,
    it_is_said_by_something_else,
)


@pytest.mark.parametrize("work", FULL)
def test_full_memory_is_one_line_with_what_to_lower(work: Callable[[], None]) -> None:
    with (
        pytest.raises(DeviceError, match=r"^12 dreams: out of memory \(.+\)\. Give fewer$") as told,
        device_errors("12 dreams", "Give fewer"),
    ):
        work()
    assert "\n" not in str(told.value)


def failed_kernel() -> Exception:
    return torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile")


@pytest.mark.parametrize(
    "failure",
    [
        failed_kernel(),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("No CUDA GPUs are available"),
        AssertionError("Torch not compiled with CUDA enabled"),
    ],
)
def test_a_failed_device_is_one_line(failure: Exception) -> None:
    with (
        pytest.raises(
            DeviceError, match=r"^12 dreams: the device failed \([^\n]+\)\. Run the same"
        ),
        device_errors("12 dreams", "Give fewer"),
    ):
        raise failure


@pytest.mark.parametrize(
    "other", [RuntimeError("shape '[2]' is invalid"), KeyError("a"), UsageError("--seed: a number")]
)
def test_any_other_error_stays_as_it_is(other: Exception) -> None:
    with pytest.raises(type(other)) as raised, device_errors("12 dreams", "Give fewer"):
        raise other
    assert raised.value is other


def test_a_command_ends_in_one_line_where_the_machine_has_no_memory() -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import wham_data.inference.gpt.bench\n"
        "from wham_data.cli.main import main\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "most = pages * resource.getpagesize() + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "sys.argv = ['wham-data', 'bench', 'dream', '--shape', '4x64x8192']\n"
        "main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("wham-data: bench dream, 4x64x8192 on cpu: out of memory (")
    assert ended.stderr.endswith("a smaller model or --dtype bf16\n")
    assert ended.stderr.count("\n") == 1


# A tokenizer's batches


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (11, 16, 16, 3), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.ckpt", TAMING)


def in_batches(path: Path, batch: int) -> FrameTokenizer:
    """A tokenizer that works in batches, as on a GPU."""
    files = open_tokenizer(path)
    model = tokenizer_model(files.config)
    weights = {name: torch.from_numpy(np.array(values)) for name, values in files.tensors()}
    model.load_state_dict(weights, assign=True)
    return FrameTokenizer(model, files.info(), torch.device("cpu"), batch)


class Memory:
    """Has room for so many frames: a layer that is given more raises what torch raises on a GPU."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.passes: list[int] = []

    def __enter__(self) -> Memory:
        self._hook = register_module_forward_pre_hook(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _look(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(layer, torch.nn.Conv2d):
            if len(inputs[0]) > self.most:
                raise torch.OutOfMemoryError(CUDA_SAYS)
            self.passes.append(len(inputs[0]))


def test_a_tokenizer_halves_its_batch_and_goes_on(path: Path, frames: NDArray[np.uint8]) -> None:
    expected = load_tokenizer(str(path), "cpu").encode(frames)
    tokenizer = in_batches(path, 32)

    with Memory(most=5) as memory, pytest.warns(RuntimeWarning, match="from now on") as told:
        ids = tokenizer.encode(frames)

    assert (ids == expected).mean() > 0.99  # near ties may fall the other way
    assert set(memory.passes) == {4}
    assert [str(each.message).partition("from now on ")[2][:2] for each in told] == [
        "16",
        "8 ",
        "4 ",
    ]


def test_the_smaller_batch_stays_and_is_not_told_again(
    path: Path, frames: NDArray[np.uint8]
) -> None:
    tokenizer = in_batches(path, 8)
    with Memory(most=4), pytest.warns(RuntimeWarning, match="4 frames at a time"):
        ids = tokenizer.encode(frames)

    with Memory(most=8) as memory, warnings.catch_warnings():
        warnings.simplefilter("error")
        again = tokenizer.encode(frames)
        decoded = tokenizer.decode(ids)

    assert set(memory.passes) == {4}
    assert (again == ids).all()
    assert decoded.shape == frames.shape


@pytest.mark.filterwarnings("ignore:.*from now on")
def test_where_not_even_one_frame_fits_it_is_said(path: Path, frames: NDArray[np.uint8]) -> None:
    with Memory(most=0), pytest.raises(DeviceError, match=r"model\.ckpt: not even one frame fits"):
        in_batches(path, 4).encode(frames)


def test_an_error_of_another_kind_is_no_reason_to_halve(
    path: Path, frames: NDArray[np.uint8]
) -> None:
    def fails(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    hook = register_module_forward_pre_hook(fails)
    with pytest.raises(DeviceError, match=r"model\.ckpt on cpu: the device failed"):
        in_batches(path, 4).encode(frames)
    hook.remove()


# On a GPU


@pytest.mark.gpu
def test_a_gpu_without_room_for_a_batch_gets_smaller_ones(cuda: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 180, 300, 3), np.uint8)
    tokenizer = load_tokenizer("wham-tiny", cuda)
    held = torch.cuda.memory_allocated()
    expected = tokenizer.encode(frames)
    needed = torch.cuda.max_memory_allocated() - held
    total = torch.cuda.get_device_properties(0).total_memory

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((held + 0.6 * needed) / total)
    try:
        with pytest.warns(RuntimeWarning, match="from now on"):
            found = tokenizer.encode(frames)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert (found == expected).mean() > 0.999


@pytest.mark.gpu
def test_what_a_full_gpu_raises_is_full_memory(cuda: str) -> None:
    with (
        pytest.raises(DeviceError, match=r"^12 dreams: out of memory \(CUDA out of memory"),
        device_errors("12 dreams", "Give fewer"),
    ):
        torch.empty(1 << 50, device=cuda)
