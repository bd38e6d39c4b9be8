"""The losses of two predictors without a model, nats per image token. A world model must beat them.

unigram   each token by how often it occurs
copy      with probability c the token at the same place one step before, otherwise as unigram
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.gpt.spec import GPTSpec

_CHOICES = np.linspace(0.01, 0.99, 99)
"""The probabilities c that are tried."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """Mean losses over the image tokens of all steps of a window but the first, nats.

    unigram   of the unigram predictor
    copy      of the mixture with copying
    copied    c, the probability of copying that fits the training windows best
    """

    unigram: float
    copy: float
    copied: float


def baselines(
    train: NDArray[np.integer], held_out: NDArray[np.integer], spec: GPTSpec
) -> Baselines:
    """Both predictors fitted on some windows and judged on others.

    Args:
        train, held_out: integer [B, S P] in the model's vocabulary, B > 0.
    """
    counts = np.bincount(_images(train, spec).ravel(), minlength=spec.image_vocab) + 1.0
    frequencies = counts / counts.sum()
    fitted = [_copy_loss(train, frequencies, c, spec) for c in _CHOICES]
    best = float(_CHOICES[int(np.argmin(fitted))])
    return Baselines(
        unigram=_copy_loss(held_out, frequencies, 0.0, spec),
        copy=_copy_loss(held_out, frequencies, best, spec),
        copied=best,
    )


def _copy_loss(
    windows: NDArray[np.integer], frequencies: NDArray[np.float64], copied: float, spec: GPTSpec
) -> float:
    images = _images(windows, spec)
    now, before = images[:, 1:], images[:, :-1]
    likely = (1 - copied) * frequencies[now] + copied * (now == before)
    return float(-np.log(likely).mean())


def _images(windows: NDArray[np.integer], spec: GPTSpec) -> NDArray[np.integer]:
    """integer [B, S, N]."""
    return windows.reshape(len(windows), -1, spec.tokens_per_step)[..., : spec.image_tokens]
