"""A pass computes in IEEE float32, whatever the program around has set in torch, and leaves that as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.commands import run_python
from makers.slow_gpt import random_model
from makers.wham_checkpoints import TAMING, write_checkpoint
from numpy.typing import NDArray
from torch.nn.modules.module import register_module_forward_pre_hook

import wham_data
from wham_data.inference.device.arithmetic import IEEE, TREE, ieee_float32, precision
from wham_data.inference.session import Context
from wham_data.inference.tokenizer import load_tokenizer

backends: Any = torch.backends

pytestmark = [
    pytest.mark.skipif(not hasattr(backends, "fp32_precision"), reason="torch before 2.9"),
    pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN"),
]


def matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # the two interfaces disagree
        return "mixed"


def settings() -> dict[str, object]:
    """All that torch has been told of float32."""
    return {
        "matmul": matmul_precision(),
        "benchmark": backends.cudnn.benchmark,
        **{"/".join(place): precision(place) for place in TREE},
    }


PINNED = {
    "matmul": "highest",
    "benchmark": False,
    **{"/".join(place): IEEE for place in TREE},
}


def as_torch_comes() -> None:
    pass


def matmul_high() -> None:
    torch.set_float32_matmul_precision("high")


def matmul_medium() -> None:
    torch.set_float32_matmul_precision("medium")


def older_switches() -> None:
    backends.cuda.matmul.allow_tf32 = True
    backends.cudnn.allow_tf32 = True


def all_tf32() -> None:
    backends.fp32_precision = "tf32"


def each_tf32() -> None:
    backends.cudnn.fp32_precision = "tf32"
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.cudnn.conv.fp32_precision = "tf32"


def bfloat16_on_a_cpu() -> None:
    backends.mkldnn.matmul.fp32_precision = "bf16"


def both_interfaces() -> None:
    torch.set_float32_matmul_precision("medium")
    backends.cuda.matmul.fp32_precision = "ieee"
    backends.mkldnn.matmul.fp32_precision = "ieee"


def by_timing() -> None:
    backends.cudnn.benchmark = True


CHOICES = (
    as_torch_comes,
    matmul_high,
    matmul_medium,
    older_switches,
    all_tf32,
    each_tf32,
    bfloat16_on_a_cpu,
    both_interfaces,
    by_timing,
)


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """Leave torch as it comes to the other tests."""
    yield
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.benchmark = False
    backends.cudnn.allow_tf32 = True
    for place in TREE:
        if place not in (("cuda", "conv"), ("cuda", "rnn")):
            torch._C._set_fp32_precision_setter(*place, "none")


@contextmanager
def seen_by_layers() -> Iterator[list[dict[str, object]]]:
    """The settings that each layer of a model finds when it is called."""
    seen: list[dict[str, object]] = []
    hook = register_module_forward_pre_hook(lambda *_: seen.append(settings()))
    try:
        yield seen
    finally:
        hook.remove()


def encode_and_decode(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(write_checkpoint(tmp_path / "model.ckpt", TAMING)), "cpu")
    tokenizer.decode(tokenizer.encode(np.zeros((2, 16, 16, 3), np.uint8)))


def dream(tmp_path: Path) -> None:  # noqa: ARG001
    model = random_model()
    tokens = np.zeros((1, model.spec.image_tokens), np.int64)
    wham_data.dream(
        model, Context(np.zeros((1, 16), np.float32), tokens=tokens), steps=1, mode="full"
    )


def score(tmp_path: Path) -> None:  # noqa: ARG001
    random_model().logits(np.zeros((1, 5), np.int64))


@pytest.mark.parametrize("choose", CHOICES)
@pytest.mark.parametrize("a_pass", [encode_and_decode, dream, score])
def test_every_layer_of_a_pass_finds_ieee_and_the_caller_gets_their_settings_back(
    tmp_path: Path, choose: Callable[[], None], a_pass: Callable[[Path], None]
) -> None:
    choose()
    before = settings()

    with seen_by_layers() as seen:
        a_pass(tmp_path)

    assert seen
    assert all(found == PINNED for found in seen)
    assert settings() == before


def test_a_pass_that_fails_gives_the_settings_back() -> None:
    matmul_high()
    before = settings()

    def fails() -> None:
        raise RuntimeError("in the middle of a pass")

    hook = register_module_forward_pre_hook(lambda *_: fails())
    with pytest.raises(RuntimeError, match="in the middle"):
        random_model().logits(np.zeros((1, 5), np.int64))
    hook.remove()

    assert settings() == before


def test_convolutions_follow_the_setting_above_them_after_a_pass_as_before(tmp_path: Path) -> None:
    code = (  # in a process where nobody has set anything
        "import torch; from wham_data.inference.device.arithmetic import ieee_float32\n"
        "with ieee_float32(): pass\n"
        "print(torch.backends.cudnn.conv.fp32_precision)\n"
        "torch.backends.fp32_precision = 'ieee'\n"
        "print(torch.backends.cudnn.conv.fp32_precision)"
    )
    assert run_python(code, tmp_path).split() == ["tf32", "ieee"]


def test_the_end_of_one_pass_does_not_unpin_another() -> None:
    matmul_high()
    before = settings()
    begun, may_end = threading.Event(), threading.Event()

    def long_pass() -> None:
        with ieee_float32():
            begun.set()
            may_end.wait(10)

    thread = threading.Thread(target=long_pass)
    thread.start()
    begun.wait(10)
    with ieee_float32(), ieee_float32():
        assert settings() == PINNED
    assert settings() == PINNED  # the long one goes on
    may_end.set()
    thread.join()

    assert settings() == before


def test_what_is_chosen_during_a_pass_is_pinned_for_the_next_and_kept_after_the_last() -> None:
    with ieee_float32():
        backends.cuda.matmul.fp32_precision = "tf32"
        with ieee_float32():
            assert settings() == PINNED
        backends.cudnn.conv.fp32_precision = "tf32"

    assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == "tf32"


def test_autocast_does_not_change_the_ids_of_a_frame(gameplay_frame: NDArray[np.uint8]) -> None:
    tokenizer = load_tokenizer("wham-tiny", "cpu")
    expected = tokenizer.encode(gameplay_frame)

    with torch.autocast("cpu", torch.bfloat16):
        found = tokenizer.encode(gameplay_frame)
        assert torch.is_autocast_enabled("cpu")

    assert (found == expected).all()


@pytest.fixture
def gameplay_frame() -> NDArray[np.uint8]:
    """A frame with some of everything, uint8 [1, 180, 300, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (1, 18, 30, 3), np.uint8)
    return coarse.repeat(10, axis=1).repeat(10, axis=2)


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("choose", CHOICES)
def test_a_gpu_gives_the_same_ids_whatever_was_chosen(
    cuda: str, gameplay_frame: NDArray[np.uint8], choose: Callable[[], None]
) -> None:
    tokenizer = load_tokenizer("wham-tiny", cuda)
    expected = tokenizer.encode(gameplay_frame)
    choose()

    assert (tokenizer.encode(gameplay_frame) == expected).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_ids_of_the_cpu_for_convolutions_too(cuda: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.ckpt", TAMING)
    frames = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)

    found, expected = (load_tokenizer(str(path), device).encode(frames) for device in (cuda, "cpu"))

    assert (found == expected).mean() > 0.999  # near ties may fall the other way
