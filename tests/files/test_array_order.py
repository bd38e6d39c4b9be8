"""Arrays in any order of their numbers: permuted tensors of torch, column-major arrays of numpy."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wham_data.files import npz
from wham_data.files.npz import opened_npz, read_numbers, read_rows
from wham_data.files.torch_file import TorchFile
from wham_data.schemas.errors import Reason, RefusedInput

PICTURES = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)


def read_back(tensor: torch.Tensor, path: Path) -> Any:
    torch.save({"obs": tensor}, path)
    file = TorchFile.open(path)
    assert isinstance(file.content, dict)
    return file.array(file.content["obs"], "obs")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.from_numpy(PICTURES).permute(0, 3, 1, 2),
        torch.from_numpy(PICTURES).permute(3, 2, 1, 0),
        torch.from_numpy(PICTURES)[:, ::2, 1:, :],
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(12.0)[5:],
        torch.arange(12).reshape(3, 1, 4).expand(3, 1, 4),
        torch.zeros(0, 3).t(),
        torch.tensor(7),
    ],
    ids=["channels first", "reversed", "cut", "turned", "an end", "ones", "empty", "one number"],
)
def test_a_view_of_a_tensor_is_read_as_torch_shows_it(tmp_path: Path, tensor: torch.Tensor) -> None:
    found = read_back(tensor, tmp_path / "a.pt")

    assert found.shape == tuple(tensor.shape)
    assert (found == tensor.numpy()).all()
    assert not found.flags.writeable or not found.size


@pytest.mark.parametrize(
    "values",
    [np.arange(6, dtype=">i4"), np.arange(6, dtype="<f2"), np.arange(6) > 3],
    ids=["big-endian", "little-endian", "of one byte"],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_numpy_array_beside_tensors_is_read_as_numpy_shows_it(
    tmp_path: Path, values: Any, order: Any
) -> None:
    values = np.array(values.reshape(2, 3), order=order)
    torch.save({"obs": values}, tmp_path / "a.pt")
    file = TorchFile.open(tmp_path / "a.pt")
    assert isinstance(file.content, dict)

    assert file.array(file.content["obs"], "obs").tolist() == values.tolist()


@pytest.mark.parametrize(
    "tensor", [torch.zeros(1).expand(1000, 1000), torch.zeros(4).unfold(0, 2, 1)]
)
def test_a_tensor_that_repeats_its_numbers_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(RefusedInput, match="contiguous") as refused:
        read_back(tensor, tmp_path / "a.pt")
    assert refused.value.reason is Reason.LOG_TYPE


def test_strides_that_leave_the_storage_are_refused(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(3, 4).t()
    torch.save({"obs": tensor}, tmp_path / "a.pt")
    strides, farther = b"K\x01K\x04\x86", b"K\x01K\x40\x86"
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(strides, farther))
    file = TorchFile.open(tmp_path / "b.pt")
    assert isinstance(file.content, dict)
    with pytest.raises(RefusedInput) as refused:
        file.array(file.content["obs"], "obs")
    assert refused.value.reason is Reason.CORRUPT


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.float32, np.int64]),
        arrays.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.integers(0, 100),
    )
)
def test_a_column_major_array_is_read_like_any_other(
    tmp_path_factory: pytest.TempPathFactory, values: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / f"a{os.getpid()}.npz"
    np.savez_compressed(path, a=np.asfortranarray(values), b=values)

    with opened_npz(path) as archive:
        for name in ("a.npy", "b.npy"):
            rows = list(read_rows(archive, name, np.arange(len(values))))
            assert (np.stack(rows) == values).all()
            if values.ndim == 2:
                assert (read_numbers(archive, name, len(values), None) == values).all()


def test_a_large_column_major_array_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MOST_COLUMN_MAJOR", 100)
    np.savez(tmp_path / "a.npz", a=np.asfortranarray(np.zeros((20, 20))))

    with opened_npz(tmp_path / "a.npz") as archive, pytest.raises(RefusedInput) as refused:
        list(read_rows(archive, "a.npy", np.array([0])))
    assert refused.value.reason is Reason.TOO_LARGE
    assert "np.ascontiguousarray" in refused.value.message


def test_damage_in_a_column_major_array_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.asfortranarray(np.arange(4000.0).reshape(40, 100)))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)

    with pytest.raises(RefusedInput) as refused, opened_npz(path) as archive:
        list(read_rows(archive, "a.npy", np.arange(40)))
    assert refused.value.reason is Reason.ARCHIVE_CORRUPT
