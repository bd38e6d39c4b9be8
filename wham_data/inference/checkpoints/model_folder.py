"""The folder format of a model: `config.json`, `tokenizer.safetensors`, `world_model.safetensors`.

`config.json` contains the name of the format, and the configurations of the tokenizer and of the
world model. The two safetensors files contain exactly the tensors that these configurations need.
Their names are those in WHAM's checkpoints, without the prefixes. If there is a pair of tokenizers,
the names of the first begin with `0.`, those of the second with `1.`.

Each of the two may be several files with an index (`shards`), as large models are passed on.

A tokenizer without a world model has no `world_model.safetensors`, and its `config.json` contains
only the configuration of the tokenizer. A model that was converted from a WHAM checkpoint has the
key `converted_from`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from wham_data.files.found import stand_in
from wham_data.inference.checkpoints.file_names import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WORLD_MODEL_FILE,
)
from wham_data.inference.checkpoints.json_file import read_model_json
from wham_data.inference.checkpoints.shards import is_there, tensors_by_file
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.schemas.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "wham-data model 1"
WHAM_CHECKPOINT = "WHAM checkpoint"

_LARGEST_CONFIG = 64 * 1024
_LARGEST_HEADER = 16 * 1024 * 1024
_VALUES_AT_A_TIME = 1 << 16

_TOKENIZER_TYPES = ("F32", "F16")
_WORLD_MODEL_TYPES = ("F32", "F16", "BF16")
_LARGEST_VALUE = 4
_FULL_EXPONENT = np.uint16(0x7F80)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder, with its configuration read and the names and shapes of its tensors checked.

    path       of the folder
    tokenizer  configuration of the tokenizer
    gpt        configuration of the world model; None: a tokenizer without a world model
    wham       whether it was converted from a WHAM checkpoint
    """

    path: Path
    tokenizer: TokenizerConfig
    gpt: GPTSpec | None
    wham: bool
    _tokenizer_files: Mapping[str, Path]
    _world_model_files: Mapping[str, Path]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Read the configuration, and check that the headers of both safetensors files match it.

        Raises:
            UsageError: a file is missing.
            IntegrityError: a file is damaged or too large, or its tensors are not those that the
                configuration needs.
        """
        config, weights, world_model = (
            path / name for name in (CONFIG_FILE, WEIGHTS_FILE, WORLD_MODEL_FILE)
        )
        for file, found in ((config, config.is_file()), (weights, is_there(weights))):
            if not found:
                raise UsageError(f"{file}: no such file, expected in the folder of a model")
        tokenizer_values, gpt_values, wham = _read_config(config)
        tokenizer = TokenizerConfig.from_mapping(tokenizer_values, config)
        files = _checked_files(weights, tokenizer.tensor_shapes(), _TOKENIZER_TYPES)
        if gpt_values is None:
            return cls(path, tokenizer, None, False, files, {})
        gpt = GPTSpec.from_mapping(gpt_values, config)
        if (gpt.image_tokens, gpt.image_vocab) != (tokenizer.tokens, tokenizer.vocab_size):
            raise IntegrityError(
                f"{config}: the world model has {gpt.image_tokens} tokens per image and a "
                f"vocabulary of {gpt.image_vocab}, but the tokenizer has {tokenizer.tokens} and "
                f"{tokenizer.vocab_size}"
            )
        if not is_there(world_model):
            raise UsageError(f"{world_model}: no such file, but config.json has a world_model")
        of_gpt = _checked_files(world_model, gpt.tensor_shapes(), _WORLD_MODEL_TYPES)
        return cls(path, tokenizer, gpt, wham, files, of_gpt)

    def tokenizer_array(self, name: str) -> NDArray[np.floating]:
        """A tensor of the tokenizer, with the stored type.

        Raises:
            IntegrityError: a value is not finite.
        """
        path = self._tokenizer_files[name]
        with safe_open(path, framework="np") as file:
            values: NDArray[np.floating] = file.get_tensor(name)
        if not _is_finite(values):
            raise IntegrityError(f"{path}: {name} has values that are not finite")
        return values

    def world_model_tensor(self, name: str) -> Tensor:
        """A tensor of the world model, with the stored type.

        Raises:
            IntegrityError: a value is not finite.
        """
        import torch

        path = self._world_model_files[name]
        with safe_open(path, framework="pt") as file:
            values: Tensor = file.get_tensor(name)
        plain = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
        if not _is_finite(plain.numpy()):
            raise IntegrityError(f"{path}: {name} has values that are not finite")
        return values


def _is_finite(values: NDArray[Any]) -> bool:
    """Whether no value is infinite or NaN.

    Args:
        values: floating point of any shape; uint16 stands for bfloat16, which numpy does not have.
            A bfloat16 is not finite if all bits of its exponent are 1.
    """
    flat = values.reshape(-1)
    parts = (flat[i : i + _VALUES_AT_A_TIME] for i in range(0, len(flat), _VALUES_AT_A_TIME))
    if values.dtype == np.uint16:
        return all((part & _FULL_EXPONENT).max() < _FULL_EXPONENT for part in parts)
    return all(np.isfinite(part).all() for part in parts)


def config_text(tokenizer: TokenizerConfig, gpt: GPTSpec, *, wham: bool = False) -> str:
    """The text of `config.json`.

    Args:
        tokenizer: configuration of the tokenizer.
        gpt: configuration of the world model.
        wham: whether the model was converted from a WHAM checkpoint.
    """
    values: dict[str, object] = {
        "format": FORMAT,
        "tokenizer": tokenizer.to_mapping(),
        "world_model": gpt.to_mapping(),
    }
    if wham:
        values["converted_from"] = WHAM_CHECKPOINT
    return json.dumps(values, indent=2) + "\n"


def _read_config(path: Path) -> tuple[dict[str, object], dict[str, object] | None, bool]:
    """The values for the tokenizer and the world model, and whether it was a WHAM checkpoint."""
    values = read_model_json(path, _LARGEST_CONFIG)
    match values:
        case {
            "format": format_,
            "tokenizer": dict(tokenizer),
            "world_model": dict(gpt),
            **rest,
        } if format_ == FORMAT and rest in ({}, {"converted_from": WHAM_CHECKPOINT}):
            return tokenizer, gpt, bool(rest)
        case {"family": _}:
            return values, None, False
        case dict():
            raise IntegrityError(
                f"{path}: expected format {FORMAT!r}, a tokenizer and a world_model"
            )
    raise IntegrityError(f"{path}: a JSON {type(values).__name__}, expected an object")


def _checked_files(
    path: Path, shapes: Mapping[str, tuple[int, ...]], types: tuple[str, ...]
) -> dict[str, Path]:
    """The file of each tensor; checks the headers of all of them."""
    found = tensors_by_file(path, shapes)
    for file, names in found.items():
        _check_header(file, {name: shapes[name] for name in names}, types)
    return {name: file for file, names in found.items() for name in names}


def _check_header(
    path: Path, shapes: Mapping[str, tuple[int, ...]], types: tuple[str, ...]
) -> None:
    """Check names, shapes and types of the tensors; reads no weights."""
    largest = _LARGEST_VALUE * sum(map(math.prod, shapes.values())) + _LARGEST_HEADER
    if (size := path.stat().st_size) > largest:
        raise IntegrityError(f"{path}: {size} bytes, expected at most {largest} by its config.json")
    try:
        with safe_open(path, framework="np") as file:
            found = set(file.keys())
            if found != set(shapes):
                raise IntegrityError(
                    f"{path}: tensors missing: {_some(set(shapes) - found)}; "
                    f"unexpected: {_some(found - set(shapes))}"
                )
            for name, shape in shapes.items():
                header = file.get_slice(name)
                if header.get_dtype() not in types or tuple(header.get_shape()) != shape:
                    raise IntegrityError(
                        f"{path}: {name} is {header.get_dtype()} of shape "
                        f"{tuple(header.get_shape())}, expected {' or '.join(types)} {shape}"
                    )
    except SafetensorError as damaged:
        why = stand_in(path) or damaged
        raise IntegrityError(f"{path}: not a valid safetensors file ({why})") from damaged


def _some(names: set[str]) -> str:
    """A few of the names, for an error message."""
    shown = ", ".join(sorted(names)[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "none"
