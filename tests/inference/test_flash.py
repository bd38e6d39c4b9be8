"""flash-attn is used if it has both functions and they compute; else torch's own attention, with the reason."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from makers.commands import run_python
from torch import Tensor
from torch.nn import functional

from wham_data.inference.gpt.flash import FlashAttn, flash_problem, functions_of, tried

CPU = torch.device("cpu")


def whole(query: Tensor, keys: Tensor, values: Tensor, *, causal: bool) -> Tensor:
    """What flash-attn 2 says of its function, in torch."""
    assert causal
    q, k, v = (each.transpose(1, 2) for each in (query, keys, values))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def cached(
    query: Tensor, keys: Tensor, values: Tensor, *, cache_seqlens: Tensor, causal: bool
) -> Tensor:
    used = int(cache_seqlens[0])
    return whole(query, keys[:, :used], values[:, :used], causal=causal)


def test_a_package_with_both_functions_that_compute_is_used() -> None:
    found = functions_of(SimpleNamespace(flash_attn_func=whole, flash_attn_with_kvcache=cached))

    assert found == FlashAttn(whole, cached)
    assert tried(found, CPU) == found


@pytest.mark.parametrize(
    ("package", "why"),
    [
        (
            SimpleNamespace(),
            "the package flash_attn here has no flash_attn_func and no flash_attn_with",
        ),
        (
            SimpleNamespace(__version__="1.0.9", flash_attn_func=whole),
            "flash_attn 1.0.9 has no flash_attn_with_kvcache; expected flash-attn 2",
        ),
    ],
)
def test_a_package_that_lacks_a_function_is_not_used(package: Any, why: str) -> None:
    assert str(functions_of(package)).startswith(why)


def test_a_folder_of_that_name_is_not_flash_attn_2(tmp_path: Path) -> None:
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)  # as version 4 comes
    code = "from wham_data.inference.gpt.flash import imported; print(imported())"

    assert run_python(code, tmp_path).startswith(
        "the package flash_attn here has no flash_attn_func"
    )


def test_a_package_that_does_not_load_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "flash_attn.py").write_text("raise ImportError('libcudart.so.11: no such file')")
    code = "from wham_data.inference.gpt.flash import imported; print(imported())"

    assert run_python(code, tmp_path) == "flash-attn: libcudart.so.11: no such file"


def test_kernels_that_are_not_for_this_gpu_show_in_the_trial() -> None:
    def without_kernels(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nMore"
        )

    assert tried(FlashAttn(without_kernels, cached), CPU) == (
        "a trial of flash-attn failed: CUDA error: no kernel image is available for execution on the device"
    )


def test_functions_that_mean_something_else_show_in_the_trial() -> None:
    def not_causal(query: Tensor, keys: Tensor, values: Tensor, **_: Any) -> Tensor:
        q, k, v = (each.transpose(1, 2) for each in (query, keys, values))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    for found in (FlashAttn(not_causal, cached), FlashAttn(whole, not_causal)):
        assert tried(found, CPU) == "a trial of flash-attn gave other results than torch"


def test_a_cpu_has_no_flash_attn_and_nothing_is_imported_for_it() -> None:
    assert flash_problem(CPU) == "flash-attn is for GPUs"
    assert "flash_attn" not in sys.modules


@pytest.mark.gpu
def test_on_a_gpu_it_is_used_or_the_reason_is_known(cuda: str) -> None:
    pytest.importorskip("flash_attn")
    assert flash_problem(torch.device(cuda)) is None
