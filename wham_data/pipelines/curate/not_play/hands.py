"""When hands rest: each control by its own rest band, whatever the device is.

A stick rests near 0, but rarely at 0, and it trembles; a trigger may rest anywhere; a mouse may jitter by
one count; a button that is down is never at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import ActionSpace, Dimension

REACH: Final = 0.3
"""A stick rests at most this far from 0, in parts of its range."""
BIN: Final = 0.02
NARROWEST: Final = 0.05
WIDEST: Final = 0.2
"""Half-widths of a band, which always reaches NARROWEST to both sides of 0. Common pads have a dead zone of 0.24."""
USUAL: Final = 0.1
ENOUGH: Final = 20
"""Values near rest from which a band is measured; with fewer it is 0 +- USUAL."""
MARGIN: Final = 1.5
"""The band is this much wider than where values become rare."""
RARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Band:
    """Values at which a control rests.

    low, high  both ends belong to it
    measured   False: too few values to measure it
    """

    low: float
    high: float
    measured: bool = True


def rest_band(values: NDArray[np.float32], control: Dimension) -> Band:
    """Where a control rests, from all its values in an episode.

    Args:
        values: float32 [T], without NaN.
        control: what it is.
    """
    if control.kind == "button":
        return Band(0.0, 0.5)
    if control.kind == "delta":
        moved = np.abs(values[values != 0])
        if not len(moved):
            return Band(0.0, 0.0)
        one = float(moved.min())
        # Motion in whole counts may be jitter of one count; measured in degrees, no such count is known.
        counts = np.allclose(moved / one, np.rint(moved / one), atol=1e-3)
        return Band(-1.5 * one, 1.5 * one) if counts and control.unit == "count" else Band(0.0, 0.0)
    scale = max(control.high, -control.low)
    if control.kind == "trigger" and len(values) >= ENOUGH and _sticks(values / scale):
        return Band(float(values.min()), float(values.max()))
    return _band_of_stick(values[np.abs(values) <= REACH * scale] / scale, scale)


def _sticks(pulled: NDArray[np.float32]) -> bool:
    """Whether a trigger never leaves a place between its ends: some drivers report it so."""
    low, high = float(pulled.min()), float(pulled.max())
    return low > REACH and high < 1 - REACH and high - low < 2 * NARROWEST


def _band_of_stick(near: NDArray[np.float32], scale: float) -> Band:
    if len(near) < ENOUGH:
        return Band(-USUAL * scale, USUAL * scale, measured=False)
    edges = np.arange(-1 - BIN / 2, 1 + BIN, BIN)
    counts = np.histogram(near, edges)[0]
    smooth = np.convolve(counts, [1, 1, 1], "same")
    mode = int(smooth.argmax())
    common = smooth > RARE * smooth[mode]
    left = mode - int(np.argmin(np.append(common[mode::-1], False)))
    right = mode + int(np.argmin(np.append(common[mode:], False)))
    centre = (mode * BIN) - 1
    half = MARGIN * BIN * max(mode - left, right - mode)
    half = min(max(half, NARROWEST), WIDEST)
    low, high = min(centre - half, -NARROWEST), max(centre + half, NARROWEST)
    return Band(low * scale, high * scale)


def at_work(actions: NDArray[np.float32], space: ActionSpace) -> NDArray[np.bool_]:
    """In which steps any control is beyond its rest band, bool [T]; False where actions are not known.

    Args:
        actions: float32 [T, A] of a whole episode; a row of NaN: not known.
        space: of the actions.
    """
    known = ~np.isnan(actions).any(axis=1)
    busy = np.zeros(len(actions), np.bool_)
    for index, control in enumerate(space.dimensions):
        values = actions[known, index]
        band = rest_band(values, control)
        busy[known] |= (values < band.low) | (values > band.high)
    return busy
