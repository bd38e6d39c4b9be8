"""Models for `benchmarks/gpu.py`, made without any file but the bundled ones, nor the package safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from wham_data.inference.device import choose_device
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.gpt.world_model import DType, GPTWorldModel
from wham_data.inference.tokenizer import BUNDLED
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.tokenizers.contract import Tokenizer
from wham_data.inference.tokenizers.frame_tokenizer import FrameTokenizer, image_model
from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.schemas.corpus_info import TokenizerInfo

TINY = BUNDLED["wham-tiny"]

BIG_VIT = ViTConfig(300, 180, 10, 1024, 32, 12, 64, 16384)
BIG_VIT_GFLOP = 178
"""Of one frame through the encoder, with the search in the codebook."""
SMALL_VIT = ViTConfig(60, 36, 10, 64, 8, 2, 32, 64)
TAMING = TamingConfig(128, 128, (1, 1, 2, 2), 2, (16,), 256, 256, 4096)
SMALL_TAMING = TamingConfig(32, 32, (1, 1), 1, (16,), 32, 32, 64)
SMALL_GPT = GPTSpec(2, 2, 32, positions=4 * 22, image_tokens=6, image_vocab=20)
LARGE_TRAINED = GPTSpec(16, 16, 1024, positions=5560, image_tokens=540, image_vocab=4096)
SMALL_TRAINED = GPTSpec(1, 1, 16, positions=1112, image_tokens=540, image_vocab=4096)
ACTION_NUMBERS = 16
DTYPES: dict[DType, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class RandomFiles:
    """A tokenizer with the weights that torch draws for seed 0; implements `TokenizerFiles`."""

    config: TokenizerConfig
    name: str = "random"

    def info(self) -> TokenizerInfo:
        return self.config.info(self.name, "0" * 64)

    def tensors(self) -> Iterator[tuple[str, NDArray[np.floating]]]:
        torch.manual_seed(0)
        weights = image_model(self.config.encoder).state_dict()
        return iter(sorted((name, tensor.numpy()) for name, tensor in weights.items()))


@dataclass(frozen=True, slots=True)
class BundledFiles:
    """The tokenizer of wham-tiny; implements `TokenizerFiles`."""

    config: TokenizerConfig
    name: str = "wham-tiny"

    def info(self) -> TokenizerInfo:
        return self.config.info(self.name, "0" * 64)

    def tensors(self) -> Iterator[tuple[str, NDArray[np.floating]]]:
        return iter(sorted(stored_arrays(TINY / "tokenizer.safetensors").items()))


def stored_arrays(path: Path) -> dict[str, NDArray[np.floating]]:
    """The arrays of a safetensors file that comes with the package."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    header.pop("__metadata__", None)
    types = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
    found = {}
    for name, of in header.items():
        first, end = of["data_offsets"]
        flat = np.frombuffer(content[start + first : start + end], types[of["dtype"]])
        found[name] = flat.reshape(of["shape"])
    return found


def bundled_config() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((TINY / "config.json").read_text())
    return parsed


def bundled_tokenizer(device: str) -> Tokenizer:
    config = TokenizerConfig.from_mapping(bundled_config()["tokenizer"], TINY)
    return FrameTokenizer.load(BundledFiles(config), device)


def bundled_world_model(device: str, dtype: DType, *, compiled: bool) -> GPTWorldModel:
    return GPTWorldModel.from_tensors(
        "wham-tiny",
        GPTSpec.from_mapping(bundled_config()["world_model"], TINY),
        [
            (name, torch.from_numpy(values.copy()))
            for name, values in stored_arrays(TINY / "world_model.safetensors").items()
        ],
        None,
        choose_device(device),
        DTYPES[dtype],
        wham=False,
        unexpected=(),
        compiled=compiled,
    )


def small_world_model(device: str, dtype: DType, *, compiled: bool) -> GPTWorldModel:
    torch.manual_seed(0)
    gpt = GPT(SMALL_GPT).eval().requires_grad_(False)
    for weight in gpt.parameters():
        torch.nn.init.normal_(weight, std=0.6)
    gpt = gpt.to(choose_device(device), DTYPES[dtype])
    return GPTWorldModel("small", gpt, None, compiled=compiled)


def pictures(count: int) -> NDArray[np.uint8]:
    """Frames of the bundled picture of held-out frames, repeated, uint8 [count, 180, 300, 3]."""
    sheet = np.asarray(Image.open(TINY / "held_out.png").convert("RGB"))
    rows, columns = range(0, len(sheet) - 179, 180), range(0, sheet.shape[1] - 299, 600)
    cells = [sheet[y : y + 180, x : x + 300] for y in rows for x in columns]
    return np.ascontiguousarray(np.stack((cells * count)[:count]))


@dataclass(frozen=True, slots=True)
class SameWindow:
    """The same random window under every number; implements `Windows`."""

    spec: GPTSpec

    def __len__(self) -> int:
        return 16

    def flat(self, windows: NDArray[np.int64], /) -> NDArray[np.integer]:
        row = np.random.default_rng(0).integers(0, self.spec.image_vocab, self.spec.positions)
        return np.tile(row, (len(windows), 1))
