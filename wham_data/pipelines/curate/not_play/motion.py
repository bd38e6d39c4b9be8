"""What the pictures of an episode do from step to step: numbers per step, made block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.motion import grey_of
from wham_data.pipelines.curate.not_play.hud import Hud, NoHud
from wham_data.pipelines.curate.small import COLUMNS, ROWS, Small

CHANGED: Final = 4.0
"""A cell has changed if its brightness has by more than this, of 255."""
DARK: Final = 20.0
BLURRED: Final = 6

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Motion:
    """Per step of an episode; T steps.

    spread     float32 [T]     how much cells differ in colour: the largest standard deviation of a channel
    plain      float32 [T]     share of cells that have the most common brightness
    most       float32 [T]     the largest change of a cell since the step before; 255 at step 0
    share      float32 [T]     share of cells that changed since then; 1 at step 0
    blurred    uint8   [T, 60] brightness in 6 x 10 equal parts of the picture
    hud        float32 [T]     share of the game's HUD that is in its place; NaN: the game has none
    flipped    float32 [T]     the same for the mirrored HUD
    bars       int16   [T, 2]  rows at top and bottom, and columns at left and right, that are black bars
    """

    spread: Floats
    plain: Floats
    most: Floats
    share: Floats
    blurred: NDArray[np.uint8]
    hud: Floats
    flipped: Floats
    bars: NDArray[np.int16]

    @property
    def n_steps(self) -> int:
        """T."""
        return len(self.spread)

    def alike(self, one: int, other: int) -> float:
        """Correlation of two blurred pictures, -1 to 1; 1 where both are of one colour, 0 where one is."""
        return float(_correlation(self.blurred[one], self.blurred[other]))


def motion_of(blocks: Iterable[Small], hud: Hud | NoHud) -> Motion:
    """Measure an episode.

    Args:
        blocks: its small pictures, in order, at least one.
        hud: of its game.
    """
    parts: list[Motion] = []
    before: NDArray[np.float32] | None = None
    for small in blocks:
        grey = grey_of(small)
        parts.append(_of_block(small, grey, before, hud))
        before = grey[-1:]
    return Motion(
        **{
            name.name: np.concatenate([getattr(p, name.name) for p in parts])
            for name in fields(Motion)
        }
    )


def _of_block(small: Small, grey: Floats, before: Floats | None, hud: Hud | NoHud) -> Motion:
    previous = np.concatenate([grey[:1] if before is None else before, grey[:-1]])
    change = np.abs(grey - previous)
    measures: dict[str, Any] = {
        "spread": small.reshape(len(small), -1, 3).std(axis=1, dtype=np.float32).max(axis=1),
        "plain": _plainness(grey),
        "most": change.max(axis=(1, 2)),
        "share": (change > CHANGED).mean(axis=(1, 2), dtype=np.float32),
        "blurred": _blurred(grey),
        "bars": _bars(grey),
    }
    if before is None:
        measures["most"][0], measures["share"][0] = 255.0, 1.0
    measures["hud"], measures["flipped"] = hud.scores(grey)
    return Motion(**measures)


def _plainness(grey: Floats) -> Floats:
    """Share of the cells within 8 of the most common brightness, float32 [n]."""
    levels = (grey // 8).astype(np.int64).reshape(len(grey), -1)
    places = levels + 33 * np.arange(len(grey))[:, None]
    counts = np.bincount(places.ravel(), minlength=33 * len(grey)).reshape(len(grey), 33)
    pairs = counts[:, :-1] + counts[:, 1:]
    return np.asarray(pairs.max(axis=1) / (ROWS * COLUMNS), np.float32)


def _blurred(grey: Floats) -> NDArray[np.uint8]:
    n, down, across = len(grey), ROWS // BLURRED, COLUMNS // BLURRED
    means = grey.reshape(n, down, BLURRED, across, BLURRED).mean(axis=(2, 4))
    return np.asarray(np.rint(means.reshape(n, -1)), np.uint8)


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Floats:
    one_, other_ = (
        each - each.mean(axis=-1, keepdims=True) for each in (one.astype(np.float32), other)
    )
    sizes = np.sqrt((one_**2).sum(axis=-1)), np.sqrt((other_**2).sum(axis=-1))
    same = np.maximum(*sizes) < 1
    product, dot = sizes[0] * sizes[1], (one_ * other_).sum(axis=-1)
    varied = np.minimum(*sizes) >= 1
    return np.asarray(np.where(varied, dot / np.maximum(product, 1), same), np.float32)


def _bars(grey: Floats) -> NDArray[np.int16]:
    """Black rows at top and bottom, and columns at the sides, as far as both sides have them."""
    rows, columns = grey.max(axis=2) < DARK, grey.max(axis=1) < DARK
    pairs = [np.minimum(_leading(d), _leading(d[:, ::-1])) for d in (rows, columns)]
    return np.stack(pairs, axis=1).astype(np.int16)


def _leading(dark: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many values of each row are True before the first False, int64 [n]."""
    return np.asarray(np.where(dark.all(axis=1), dark.shape[1], np.argmin(dark, axis=1)))
