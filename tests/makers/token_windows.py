"""Windows of tokens to train a world model on, without a corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Made:
    """Windows that are all there at once."""

    tokens: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.tokens)

    def flat(self, windows: NDArray[np.int64]) -> NDArray[np.uint16]:
        return self.tokens[windows]
