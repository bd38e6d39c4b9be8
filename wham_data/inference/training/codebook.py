"""How a codebook is made and kept in use while its tokenizer is trained: pure functions of arrays.

The rows of a ViT-VQGAN are directions (`spherical`): its vectors and its rows lie on the unit sphere.
The rows of a Taming VQGAN are points. In both the nearest row has the smallest distance, which on the
sphere is the largest cosine.

If a codebook learns by gradient, most of its rows are never used. These rules avoid that: the
codebook starts from k-means on the encoder's outputs, then each row follows the running mean of the
vectors that choose it, and a row that hardly any vector chooses moves onto a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wham_data.inference.tokenizers.vit_vqgan import on_sphere

_FAINTEST = 1e-5
"""Uses per step below which the running means of a row do not decay any more."""


@dataclass(frozen=True, slots=True)
class CodebookState:
    """The running statistics behind the codebook.

    uses       float32 [V]      how often a row is chosen in a step, running mean
    sums       float32 [V, e]   sum of the vectors that chose it in a step, running mean
    spherical  whether rows are directions
    """

    uses: Tensor
    sums: Tensor
    spherical: bool = True

    @property
    def rows(self) -> Tensor:
        """The codebook that these statistics make, float32 [V, e]."""
        return on_sphere(self.sums) if self.spherical else self.sums / self.uses[:, None]


def nearest_row(vectors: Tensor, rows: Tensor, spherical: bool = True) -> Tensor:
    """The nearest row for each vector, float [M, e] and [V, e] to int64 [M]."""
    away = 0 if spherical else rows.square().sum(1) / 2  # of equal lengths the angle alone decides
    return torch.cat([(part @ rows.t() - away).argmax(1) for part in torch.split(vectors, 8192)])


def kmeans_rows(
    vectors: Tensor, rows: int, rng: np.random.Generator, rounds: int, spherical: bool = True
) -> Tensor:
    """K-means, float32 [M, e] (of unit length if spherical) to [rows, e].

    Starts from vectors drawn by `rng` (with repetition only where M < rows). A centre that nothing
    chooses in a round moves to a drawn vector.
    """
    centres = vectors[_draw(rng, len(vectors), rows)]
    for _ in range(rounds):
        chosen = nearest_row(vectors, centres, spherical)
        counts = torch.bincount(chosen, minlength=rows)
        sums = torch.zeros_like(centres).index_add_(0, chosen, vectors)
        means = on_sphere(sums) if spherical else sums / counts[:, None]
        strangers = vectors[_draw(rng, len(vectors), rows)]
        centres = torch.where((counts > 0)[:, None], means, strangers)
    return centres


def start_codebook(rows: Tensor, uses_per_step: float, spherical: bool = True) -> CodebookState:
    """The state of a fresh codebook whose rows are assumed to be used equally."""
    uses = rows.new_full((len(rows),), uses_per_step / len(rows))
    return CodebookState(uses, rows * uses[:, None], spherical)


def follow(state: CodebookState, vectors: Tensor, chosen: Tensor, decay: float) -> CodebookState:
    """One step of the running means, with vectors [M, e] and the ids [M] of the rows they chose.

    A row that is almost never used keeps its means, because rounding would destroy its direction.
    """
    each = torch.ones_like(chosen, dtype=state.uses.dtype)  # `bincount` would wait for the device
    counts = torch.zeros_like(state.uses).index_add_(0, chosen, each)
    sums = torch.zeros_like(state.sums).index_add_(0, chosen, vectors)
    kept = torch.where(state.uses > _FAINTEST, decay, 1.0)
    return CodebookState(
        kept * state.uses + (1 - decay) * counts,
        kept[:, None] * state.sums + (1 - decay) * sums,
        state.spherical,
    )


def revive(
    state: CodebookState, vectors: Tensor, rng: np.random.Generator, least_share: float
) -> CodebookState:
    """Move the rows used less than `least_share` of an equal share onto drawn vectors [M, e].

    A moved row starts with half an equal share, so that vectors have time to choose it before it
    counts as dead again.
    """
    equal_share = state.uses.sum() / len(state.uses)
    dead = state.uses < least_share * equal_share
    strangers = vectors[_draw(rng, len(vectors), len(state.uses))]
    uses = torch.where(dead, 0.5 * equal_share, state.uses)
    sums = torch.where(dead[:, None], strangers * uses[:, None], state.sums)
    return CodebookState(uses, sums, state.spherical)


def _draw(rng: np.random.Generator, population: int, count: int) -> Tensor:
    return torch.from_numpy(rng.choice(population, size=count, replace=population < count))
