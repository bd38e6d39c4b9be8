"""The HUD of a game, learnt from the corpus: edges that are in the same place in most of its pictures.

A status bar or a map frame is there all the time while the world behind it changes. Where it is covered or
gone, the step is not normal play. No labels are needed, but pictures of tens of minutes: in few pictures
the world is in the same place too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.motion import grey_of
from wham_data.pipelines.curate.small import COLUMNS, ROWS, Small

STRONG: Final = 8.0
"""An edge of the HUD: brightness changes by at least this from cell to cell, in the median."""
PRESENT: Final = 0.6
"""An edge of the HUD is in at least this share of the pictures, so up to a third may be menus."""
FEWEST: Final = 12
"""Edges that make a HUD; fewer may be chance."""
LARGEST: Final = 0.5
"""Share of all cells: where more is always in its place, the whole scene stands still."""
STEADY: Final = 0.75
"""The HUD must be seen to this share in nine pictures of ten that show it at all."""

Gradients = NDArray[np.float32]
"""float32 [n, 2, ROWS, COLUMNS]: the change of brightness to the right and down."""


@dataclass(frozen=True, slots=True)
class NoHud:
    """There is none to go by.

    why  "few": too few pictures; "none": no edges that stay in their place; "scene": nearly all do
    """

    why: str

    def scores(self, grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """NaN for every picture: it cannot be judged."""
        unknown = np.full(len(grey), np.nan, np.float32)
        return unknown, unknown


@dataclass(frozen=True, slots=True)
class Hud:
    """Edges of a game's HUD.

    gradients  float32 [2, ROWS, COLUMNS]  the median change of brightness to the right and down
    cells      bool [ROWS, COLUMNS]        which cells belong to the HUD
    """

    gradients: NDArray[np.float32]
    cells: NDArray[np.bool_]

    def scores(self, grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The share of the HUD that is in its place, and that of the mirrored HUD, float32 [n] each."""
        here = gradients_of(grey)
        return self._score(here), self._score(gradients_of(grey[:, :, ::-1]))

    def _score(self, here: Gradients) -> NDArray[np.float32]:
        fits = agree(here[..., self.cells], self.gradients[:, self.cells])
        return np.asarray(fits.mean(axis=1), np.float32)


def learn_hud(pictures: Small, fewest: int) -> Hud | NoHud:
    """Find the HUD in pictures of one game.

    Args:
        pictures: at random times of different episodes, [n, ROWS, COLUMNS, 3].
        fewest: with less than this many the result is `NoHud`.
    """
    if len(pictures) < fewest:
        return NoHud("few")
    median, present = np.empty((2, ROWS, COLUMNS), np.float32), np.empty((ROWS, COLUMNS))
    for row in range(ROWS):  # a row at a time: all gradients of all pictures would be large
        some = gradients_of(grey_of(pictures[:, row : row + 2]))[:, :, :1]
        middle = np.median(some, axis=0)
        median[:, row : row + 1] = middle
        present[row] = agree(some, middle).mean(axis=0)[0]
    cells = (np.hypot(*median) >= STRONG) & (present >= PRESENT)
    if cells.sum() < FEWEST:
        return NoHud("none")
    return NoHud("scene") if cells.mean() > LARGEST else Hud(median, cells)


def gradients_of(grey: NDArray[np.float32]) -> Gradients:
    """The change of brightness from each cell to that on its right and that below, 0 at the edge."""
    found = np.zeros((len(grey), 2, *grey.shape[1:]), np.float32)
    found[:, 0, :, :-1] = np.diff(grey, axis=2)
    found[:, 1, :-1] = np.diff(grey, axis=1)
    return found


def agree(found: Gradients, expected: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a gradient is as expected but for half of its size, bool [n, ...]."""
    off = np.hypot(found[:, 0] - expected[0], found[:, 1] - expected[1])
    return np.asarray(off <= 0.5 * np.hypot(*expected) + 2)


def sampled(n_steps: NDArray[np.int64], most: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Steps to learn from, spread at random over all steps of some episodes.

    Args:
        n_steps: of each episode, int64 [E].
        most: at most this many steps in all.
        seed: of the choice.

    Yields:
        For each episode its steps, int64, increasing.
    """
    total = int(n_steps.sum())
    chosen = np.random.default_rng(seed).choice(total, min(most, total), replace=False)
    chosen.sort()
    ends = np.cumsum(n_steps)
    for start, end in zip(ends - n_steps, ends, strict=True):
        yield chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)] - start
