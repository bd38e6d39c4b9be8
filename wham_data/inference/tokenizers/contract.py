"""What a tokenizer is, and the files that one is loaded from. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.schemas.corpus_info import TokenizerInfo

GPU_BATCH: Final = 32
"""Frames per forward pass on a GPU. Whoever gives multiples of it leaves no place empty."""


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


class TokenizerFiles(Protocol):
    """A tokenizer on disk, whatever the format of its files; `checkpoints` reads them."""

    @property
    def name(self) -> str:
        """The file's or folder's name."""
        ...

    @property
    def config(self) -> TokenizerConfig:
        """Its family and sizes."""
        ...

    def info(self) -> TokenizerInfo:
        """What a corpus records about it. Reads all weights, for the fingerprint."""
        ...

    def tensors(self) -> Iterator[tuple[str, NDArray[np.floating]]]:
        """All tensors with their names, in order of the names.

        Raises:
            IntegrityError: a checksum is wrong, or a value is not finite.
        """
        ...
