"""What a tokenizer is, and how one is found, identified and loaded. Importing this imports no
torch.

A tokenizer is a folder, `tokenizer.safetensors` (float32 or float16 tensors, nothing executable)
and `config.json`, or lies in a WHAM checkpoint. It is known by its fingerprint, which changes with
any bit of either and with the arithmetic of this release, so a corpus can say which tokenizer its
tokens belong to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.errors import MissingPartError, UsageError

if TYPE_CHECKING:
    from wham_data.inference.checkpoints.lightning import TokenizerFiles

BUNDLED = {"wham-tiny": Path(__file__).parent / "weights" / "wham-tiny"}
"""The tokenizers that come with the package, by name."""

WEIGHTS_FILE = "tokenizer.safetensors"
CONFIG_FILE = "config.json"

ARITHMETIC = "vit-vqgan arithmetic 1"
"""Part of every fingerprint. Raise the number when the code comes to give other ids."""


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


def tokenizer_info(ref: str) -> TokenizerInfo:
    """What `load_tokenizer(ref).info` would say, from the files alone and without torch.

    Raises:
        UsageError: no tokenizer is bundled under that name, and there is no such file or folder.
        IntegrityError: a file is damaged, oversized or unsafe, or holds other tensors than its
            configuration demands.
    """
    return _files(ref).info()


def load_tokenizer(ref: str, device: str = "auto") -> Tokenizer:
    """Load a tokenizer, ready to encode.

    Args:
        ref: "wham-tiny", a folder with `tokenizer.safetensors` and `config.json`, or a WHAM
            checkpoint (`.ckpt`).
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU where there is one.

    Raises:
        UsageError, IntegrityError: as `tokenizer_info`, and for a device of another name.
        MissingPartError: torch is not installed, or CUDA was asked for and is not there.
    """
    files = _files(ref)
    try:
        from wham_data.inference.tokenizers.frame_tokenizer import FrameTokenizer
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise MissingPartError(
            "tokenizers need torch, which is not installed: `pip install torch` "
            "(or ingest with --tokenizer none)"
        ) from missing
    return FrameTokenizer.load(files, device)


def _files(ref: str) -> TokenizerFiles:
    from wham_data.inference.checkpoints.lightning import open_tokenizer

    path = BUNDLED.get(ref, Path(ref))
    if not path.is_file() and not (path / WEIGHTS_FILE).is_file():
        raise UsageError(
            f"tokenizer {ref!r}: no {WEIGHTS_FILE} in {path}. Give {' or '.join(sorted(BUNDLED))}, "
            f"a folder with {WEIGHTS_FILE} and {CONFIG_FILE}, or a WHAM checkpoint."
        )
    return open_tokenizer(path)
