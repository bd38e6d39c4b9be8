"""The service that turns frames into tokens, for the stages that need one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.run.runner import Hosted, Service
from wham_data.schemas.recording import Frames

ImageTokens = NDArray[np.uint16]
Encoder = Hosted[Frames, ImageTokens]
"""uint8 [B, H, W, 3] in, uint16 [B, N] out."""

FRAMES_TOGETHER: Final = 64
"""Frames of several recordings that are encoded in one go, at most."""


def encoder_service(tokenizer: str | None, device: str) -> Service | None:
    """The tokenizer's encoder as a service; None for no tokenizer.

    Args:
        tokenizer: reference of the tokenizer.
        device: where it runs: "auto", "cpu" or "cuda".
    """
    if tokenizer is None:
        return None
    return Service("tokenizer", partial(_encode_with, tokenizer), device, FRAMES_TOGETHER)


def _encode_with(tokenizer: str, device: str) -> Callable[[Frames], ImageTokens]:
    from wham_data.inference.tokenizer import load_tokenizer

    return load_tokenizer(tokenizer, device).encode
