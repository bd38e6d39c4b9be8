"""Converts a WHAM checkpoint into a folder of safetensors.

The folder holds only the weights, opens at once and is safe to load.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from wham_data.files.whole import folder_whole
from wham_data.inference.checkpoints.file_names import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WORLD_MODEL_FILE,
)
from wham_data.inference.checkpoints.lightning import WhamCheckpoint, open_checkpoint
from wham_data.inference.checkpoints.locate import locate_model
from wham_data.inference.checkpoints.model_folder import config_text
from wham_data.inference.tokenizers.config import Fingerprint
from wham_data.schemas.errors import UsageError

WorldModelType = Literal["float32", "bf16"]

_WIDTH = {"F32": 4, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of a conversion.

    fingerprint   the tokenizer's fingerprint, the same before and after
    bytes         size of all files
    ignored       number of keys of the state dict that inference does not need
    unexpected    unknown keys of the state dict, which were left out
    notes         what was taken or changed to open the checkpoint
    """

    out: Path
    fingerprint: str
    bytes: int
    ignored: int
    unexpected: tuple[str, ...]
    notes: tuple[str, ...] = ()


def convert(
    model: Path | str, out: Path, dtype: WorldModelType = "float32", n_head: int | None = None
) -> Converted:
    """Write a checkpoint as a folder that `open_checkpoint` opens, whole or not at all.

    Beyond the mapped checkpoint, memory stays within a tensor, whatever the size of the model.

    Args:
        out: a new or empty folder.
        dtype: of the world model's weights; bf16 rounds to the nearest. The tokenizer's stay
            float32, so that its ids and its fingerprint stay the same.
        n_head: as for `open_checkpoint`.

    Raises:
        UsageError: `model` is a folder; `out` holds something or can't be written; and as
            `open_checkpoint`.
        IntegrityError: as `open_checkpoint`, and for a weight that is damaged or not finite.
    """
    located = locate_model(model)
    if located.path.is_dir():
        raise UsageError(f"{model}: a folder, expected a checkpoint to convert")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: there is something already. Give a new folder.")
    checkpoint = open_checkpoint(model, n_head)
    try:
        with folder_whole(out) as beside:
            fingerprint = _write_tokenizer(checkpoint, beside / WEIGHTS_FILE)
            _write_world_model(checkpoint, beside / WORLD_MODEL_FILE, dtype)
            text = config_text(checkpoint.tokenizer.config, checkpoint.gpt, wham=checkpoint.wham)
            (beside / CONFIG_FILE).write_bytes(text.encode())
            size = sum(file.stat().st_size for file in beside.iterdir())
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error
    return Converted(
        out, fingerprint, size, len(checkpoint.ignored), checkpoint.unexpected, checkpoint.notes
    )


def _write_tokenizer(checkpoint: WhamCheckpoint, path: Path) -> str:
    """Write the tensors and take their fingerprint in the same pass over them."""
    tokenizer = checkpoint.tokenizer
    shapes = dict(sorted(tokenizer.config.tensor_shapes().items()))
    fingerprint = Fingerprint(tokenizer.config)

    def parts() -> Iterator[bytes | memoryview]:
        yield _header("F32", shapes)
        for name, values in tokenizer.tensors():
            fingerprint.add(name, values)
            yield np.ascontiguousarray(values).data

    _write(path, parts())
    return fingerprint.hex()


def _write_world_model(checkpoint: WhamCheckpoint, path: Path, dtype: WorldModelType) -> None:
    def parts() -> Iterator[bytes | memoryview]:
        yield _header("F32" if dtype == "float32" else "BF16", checkpoint.gpt.tensor_shapes())
        for _, values in checkpoint.world_model_tensors():
            if dtype == "bf16":
                values = values.to(torch.bfloat16).view(torch.int16)
            yield values.numpy().data

    _write(path, parts())


def _write(path: Path, parts: Iterator[bytes | memoryview]) -> None:
    with path.open("xb") as file:
        for part in parts:
            file.write(part)


def _header(kind: str, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The start of a safetensors file whose tensors follow in this order, all of one type.

    Eight bytes say how long the JSON after them is, which spaces fill up to a multiple of eight.
    """
    entries: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + _WIDTH[kind] * math.prod(shape)
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
