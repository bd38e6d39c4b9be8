"""How close decoded frames are to the originals, and how much of the codebook they use. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.tokenizers.contract import GPU_BATCH, Tokenizer


@dataclass(frozen=True, slots=True)
class TokenizerFigures:
    """Figures over a set of frames.

    psnr_db      mean over the frames of the peak signal-to-noise ratio, decibels
    codes_used   distinct ids that occur
    perplexity   number of equally frequent ids that would have the same entropy
    """

    psnr_db: float
    codes_used: int
    perplexity: float


def tokenizer_figures(tokenizer: Tokenizer, frames: NDArray[np.uint8]) -> TokenizerFigures:
    """Encode and decode every frame, uint8 [B, H, W, 3] with B > 0."""
    psnr: list[NDArray[np.float64]] = []
    uses = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(frames), GPU_BATCH):
        part = np.asarray(frames[start : start + GPU_BATCH])
        tokens = tokenizer.encode(part)
        psnr.append(psnr_db(part, tokenizer.decode(tokens)))
        uses += np.bincount(tokens.ravel(), minlength=len(uses))
    return TokenizerFigures(
        float(np.concatenate(psnr).mean()), int((uses > 0).sum()), perplexity(uses)
    )


def psnr_db(frames: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio per frame, 10 log10(255^2 / mean squared error), float64 [B].

    Equal frames count as 108.1 dB, an error of one level in one value of a million.
    """
    error = frames.astype(np.float64) - decoded
    mean_square = np.square(error).reshape(len(frames), -1).mean(axis=1)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(mean_square, 1e-6)))


def perplexity(uses: NDArray[np.int64]) -> float:
    """The exponential of the entropy (nats) of the ids, from how often each occurs."""
    shares = uses[uses > 0] / uses.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def side_by_side(
    frames: NDArray[np.uint8], decoded: NDArray[np.uint8], pairs_per_row: int = 2
) -> NDArray[np.uint8]:
    """One picture of original and decoded frames in turn, uint8 [rows H, 2 pairs W, 3].

    Frames that do not fill a row are left out.
    """
    count, height, width, _ = frames.shape
    rows = count // pairs_per_row
    pairs = np.stack([frames, decoded], axis=1)[: rows * pairs_per_row]
    sheet = pairs.reshape(rows, pairs_per_row * 2, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(sheet.reshape(rows * height, pairs_per_row * 2 * width, 3))
