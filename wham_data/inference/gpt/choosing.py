"""From logits to the tokens of dreams, each with the noise of its own place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.sampling import Draw, Sampling, choose, gumbel
from wham_data.schemas.wham_tokens import token_ranges

Ids = NDArray[np.int64]


class Chooser:
    """Chooses the tokens of a model, on its device."""

    def __init__(self, spec: GPTSpec, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self._ids = spec.vocabulary
        self._ranges = torch.from_numpy(
            token_ranges(
                spec.image_vocab, spec.image_tokens, without_first_zero=sampling.without_first_zero
            )
        ).to(device)

    def tokens(self, logits: Tensor, draws: Sequence[Draw]) -> Ids:
        """A token for each place of the draws, int64 [n]; logits are float32 [n, ids]."""
        if logits.is_cpu:
            # The numbers of a place are held: it is often drawn again, and here they cost time.
            noise = None
            if not self.sampling.greedy:
                noise = torch.cat([draw.numbers() for draw in draws])
            spans = [self._ranges[draw.positions.start : draw.positions.stop] for draw in draws]
            chosen = choose(logits, torch.cat(spans), self.sampling, noise)
        else:
            counts = [len(draw.positions) for draw in draws]
            keys = np.repeat([draw.key for draw in draws], counts)
            places = np.concatenate([draw.positions for draw in draws])
            keys, places = torch.from_numpy(np.stack([keys, places])).to(logits.device)
            chosen = self.chosen(logits, keys, places)
        ids: Ids = chosen.cpu().numpy()
        return ids

    def chosen(self, logits: Tensor, keys: Tensor, places: Tensor) -> Tensor:
        """A token for each row. A GPU can record this: no value decides what is computed.

        Args:
            logits: float32 [n, ids].
            keys: int64 [n], from `Noise.key`.
            places: int64 [n], positions in the step. What is chosen for others has no meaning.

        Returns:
            int64 [n].
        """
        ranges = self._ranges[places.clamp(0, len(self._ranges) - 1)]
        noise = None if self.sampling.greedy else gumbel(keys, places, self._ids)
        return choose(logits, ranges, self.sampling, noise, recorded=True)
