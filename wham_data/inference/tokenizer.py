"""What a tokenizer is, and how one is found, identified and loaded. Importing this imports no
torch.

A tokenizer is a folder: `tokenizer.safetensors` (float32 or float16 tensors, nothing executable)
and `config.json`. It is known by its fingerprint, which changes with any bit of either and with the
arithmetic of this release, so a corpus can say which tokenizer its tokens belong to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from wham_data.inference.vit_config import ViTConfig
from wham_data.schemas.errors import IntegrityError, MissingPartError, UsageError

BUNDLED = {"wham-tiny": Path(__file__).parent / "weights" / "wham-tiny"}
"""The tokenizers that come with the package, by name."""

WEIGHTS_FILE = "tokenizer.safetensors"
CONFIG_FILE = "config.json"

ARITHMETIC = "vit-vqgan arithmetic 1"
"""Part of every fingerprint. Raise the number when the code comes to give other ids."""

_BYTES_PER_VALUE = {"F32": 4, "F16": 2}
_LARGEST_CONFIG = 64 * 1024
_LARGEST_HEADER = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """What a corpus records about its tokenizer.

    name         "wham-tiny", or the folder's name
    fingerprint  hex SHA-256 over configuration, weights and arithmetic
    grid         rows and columns of tokens; a frame's tokens are row-major
    vocab_size   ids are in [0, vocab_size)
    frame_size   width and height in pixels
    """

    name: str
    fingerprint: str
    grid: tuple[int, int]
    vocab_size: int
    frame_size: tuple[int, int]


class Tokenizer(Protocol):
    """Frames to token ids and back.

    A frame's ids depend on the frame and the fingerprint alone: not on the batch it came in, the
    number of threads or the process. (Another kind of processor or a GPU may settle a near tie
    between two codes the other way.)
    """

    @property
    def info(self) -> TokenizerInfo:
        """What a corpus records about it; the four properties below are its parts."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over configuration, weights and arithmetic."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size)."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...

    def encode(self, frames_u8: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """RGB frames uint8 [B, H, W, 3] to ids uint16 [B, N]. B may be 0.

        Raises:
            UsageError: another dtype or size of frame.
        """
        ...

    def decode(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Ids of any integer dtype [B, N] to RGB frames uint8 [B, H, W, 3]. B may be 0.

        Raises:
            UsageError: another shape or dtype, or an id outside the vocabulary.
        """
        ...


@dataclass(frozen=True, slots=True)
class TokenizerFolder:
    """A tokenizer on disk, its configuration read and its weights checked against it.

    Raises (from `open`):
        UsageError: no tokenizer is bundled under that name and no folder of that name holds one.
        IntegrityError: a file is damaged, oversized, or holds other tensors than the
            configuration demands.
    """

    path: Path
    config: ViTConfig
    info: TokenizerInfo

    @classmethod
    def open(cls, ref: str) -> TokenizerFolder:
        """Find, check and fingerprint a tokenizer: a bundled name, or a path to a folder."""
        path = BUNDLED.get(ref, Path(ref))
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            if not (path / name).is_file():
                raise UsageError(
                    f"tokenizer {ref!r}: no {name} in {path}. Give {' or '.join(sorted(BUNDLED))}, "
                    f"or a folder with {WEIGHTS_FILE} and {CONFIG_FILE}."
                )
        config = _read_config(path / CONFIG_FILE)
        digest = hashlib.sha256(f"{ARITHMETIC}\n{config.to_json()}".encode())
        for name, values in read_tensors(path / WEIGHTS_FILE, config):
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).data)
        info = TokenizerInfo(
            name=ref if ref in BUNDLED else path.resolve().name,
            fingerprint=digest.hexdigest(),
            grid=config.grid,
            vocab_size=config.vocab_size,
            frame_size=(config.image_width, config.image_height),
        )
        return cls(path, config, info)


def tokenizer_info(ref: str) -> TokenizerInfo:
    """What `load_tokenizer(ref).info` would say, from the files alone and without torch.

    Raises:
        UsageError, IntegrityError: as `TokenizerFolder.open`.
    """
    return TokenizerFolder.open(ref).info


def load_tokenizer(ref: str, device: str = "auto") -> Tokenizer:
    """Load a tokenizer, ready to encode.

    Args:
        ref: "wham-tiny", or a path to a folder with `tokenizer.safetensors` and `config.json`.
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU where there is one.

    Raises:
        UsageError, IntegrityError: as `TokenizerFolder.open`, and for a device of another name.
        MissingPartError: torch is not installed, or CUDA was asked for and is not there.
    """
    folder = TokenizerFolder.open(ref)
    try:
        from wham_data.inference.vit_tokenizer import ViTTokenizer
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise MissingPartError(
            "tokenizers need torch, which is not installed: `pip install torch` "
            "(or ingest with --tokenizer none)"
        ) from missing
    return ViTTokenizer.load(folder, device)


def read_tensors(path: Path, config: ViTConfig) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """The tensors that `config` demands, in order of their names, each checked.

    Raises:
        IntegrityError: the file is damaged or larger than the configuration allows; a tensor is
            missing, unexpected, of another shape or type, or holds a value that is not finite.
    """
    shapes = config.tensor_shapes()
    largest = 4 * sum(int(np.prod(shape)) for shape in shapes.values()) + _LARGEST_HEADER
    if (size := path.stat().st_size) > largest:
        raise IntegrityError(
            f"{path}: {size} bytes, expected at most {largest} for its config.json"
        )
    try:
        with safe_open(path, framework="np") as file:
            found = set(file.keys())
            if found != set(shapes):
                raise IntegrityError(
                    f"{path}: tensors missing: {_some(set(shapes) - found)}; "
                    f"unexpected: {_some(found - set(shapes))}"
                )
            for name in sorted(shapes):
                header = file.get_slice(name)
                if (
                    header.get_dtype() not in _BYTES_PER_VALUE
                    or tuple(header.get_shape()) != shapes[name]
                ):
                    raise IntegrityError(
                        f"{path}: {name} is {header.get_dtype()} {tuple(header.get_shape())}, "
                        f"expected F32 or F16 {shapes[name]}"
                    )
                values: NDArray[np.floating] = file.get_tensor(name)
                if not np.isfinite(values).all():
                    raise IntegrityError(f"{path}: {name} holds values that are not finite")
                yield name, values
    except SafetensorError as damaged:
        raise IntegrityError(f"{path}: no valid safetensors file ({damaged})") from damaged


def _read_config(path: Path) -> ViTConfig:
    if (size := path.stat().st_size) > _LARGEST_CONFIG:
        raise IntegrityError(f"{path}: {size} bytes, expected at most {_LARGEST_CONFIG}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as damaged:
        raise IntegrityError(f"{path}: no valid JSON ({damaged})") from damaged
    if not isinstance(values, dict):
        raise IntegrityError(f"{path}: a JSON {type(values).__name__}, expected an object")
    return ViTConfig.from_mapping(values, path)


def _some(names: set[str]) -> str:
    """A few names for an error line."""
    shown = ", ".join(sorted(names)[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "none"
