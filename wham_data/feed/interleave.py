"""Windows as rows of token ids for a world model: for each step image tokens, then action tokens.

    image tokens of o_0 | 16 tokens of a_0 | image tokens of o_1 | 16 tokens of a_1 | ...

Image ids are 0..V-1. The 68 action ids follow them, so all ids fit 16 bits if V is below 65,469.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import load_space
from wham_data.schemas.conversion import Conversion, find_conversion
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import ACTION_SIZE, ACTION_VOCAB, encode_actions

MODEL_SPACE: Final = "wham16"


@dataclass(frozen=True, slots=True)
class Interleaving:
    """How the steps of a corpus become token ids.

    image_vocab   V: number of different image tokens
    image_tokens  N: image tokens per step
    conversion    from the corpus' action space to wham16; None: the corpus uses wham16
    """

    image_vocab: int
    image_tokens: int
    conversion: Conversion | None = None

    @classmethod
    def of(cls, info: CorpusInfo) -> Interleaving:
        """The interleaving of a corpus.

        Args:
            info: description of the corpus.

        Raises:
            UsageError: the corpus has no tokens, or there is no conversion from its actions to wham16.
        """
        if info.tokenizer is None:
            raise UsageError("interleave: the corpus holds no tokens; ingest with --tokenizer")
        target = load_space(MODEL_SPACE)
        conversion = (
            None if info.action_space == target else find_conversion(info.action_space, target)
        )
        return cls(info.tokenizer.vocab_size, info.tokenizer.n_tokens, conversion)

    @property
    def tokens_per_step(self) -> int:
        """Token ids per step: N + 16."""
        return self.image_tokens + ACTION_SIZE

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the ids: uint16 if all ids fit, else int32."""
        fits = self.image_vocab + ACTION_VOCAB <= np.iinfo(np.uint16).max + 1
        return np.dtype(np.uint16 if fits else np.int32)

    def flat(
        self, tokens: NDArray[np.uint16], actions: NDArray[np.float32]
    ) -> NDArray[np.uint16] | NDArray[np.int32]:
        """The token ids of windows, one row per window.

        Args:
            tokens: uint16 [B, L, N], or [B, L + 1, N] with the observation after the last action.
            actions: float32 [B, L, A], in the action space and units of the corpus.

        Returns:
            ids of type `self.dtype`, [B, L (N + 16)]; with one more observation [B, L (N + 16) + N].

        Raises:
            NoTokenError: an action is not known (NaN).
        """
        batch, length, size = actions.shape
        if self.conversion is not None:
            actions = self.conversion.apply(actions.reshape(-1, size)).reshape(batch, length, -1)
        codes, _ = encode_actions(actions)
        end = length * self.tokens_per_step
        last = tokens[:, length:].reshape(batch, -1)
        ids = np.empty((batch, end + last.shape[1]), self.dtype)
        steps = ids[:, :end].reshape(batch, length, -1)
        steps[..., : self.image_tokens] = tokens[:, :length]
        steps[..., self.image_tokens :] = codes + self.image_vocab
        ids[:, end:] = last
        return ids
