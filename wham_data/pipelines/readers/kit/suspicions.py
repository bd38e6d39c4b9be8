"""What is legal in a track of actions and yet looks wrong: a note each, nothing is changed.

A stick that never rests, a control at its end all the time, a mouse that gives positions, a pad whose y
grows the other way: such logs are read as they stand, and train a model to do the same.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import Dimension
from wham_data.schemas.recording import ActionTrack

FEWEST_ROWS: Final = 50
AT_REST: Final = 0.15
AT_END: Final = 0.99
NEARLY_ALL: Final = 0.98
HARDLY_EVER: Final = 0.01
PUSHED: Final = 0.5
OFTEN_PUSHED: Final = 0.1
ONE_SIDED: Final = 5.0
SCREEN_LIKE: Final = 32.0
SMOOTH: Final = 0.25


def suspicious(track: ActionTrack, declared: Collection[str] = ()) -> list[str]:
    """Notes on what looks wrong in a track.

    Rows count by how long they last, but for at most a second.

    Args:
        track: the actions.
        declared: dimensions whose scale somebody has declared: their sign is not questioned.
    """
    notes = []
    if len(track.times_ns) < FEWEST_ROWS:
        return []
    until_ns = np.append(track.times_ns[1:], max(track.end_ns, int(track.times_ns[-1])))
    lasting = np.minimum(until_ns - track.times_ns, 1_000_000_000).astype(np.float64)
    for place, dimension in enumerate(track.space.dimensions):
        column = track.values[:, place]
        known = np.isfinite(column)
        if np.count_nonzero(known) < FEWEST_ROWS or not lasting[known].sum():
            continue
        values, weights = column[known], lasting[known] / lasting[known].sum()
        if dimension.kind == "delta":
            notes += _positions(dimension, values)
        elif dimension.kind in ("axis", "trigger"):
            stuck = _stuck(dimension, values, weights)
            sure = stuck or dimension.name in declared
            notes += stuck if sure else _upside_down(dimension, values, weights)
            notes += [] if sure else _held_down(dimension, values, weights)
    return notes


def _stuck(
    dimension: Dimension, values: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[str]:
    """A stick or trigger at one of its ends nearly all the time, or never at rest."""
    name = dimension.name
    for end in (dimension.low, dimension.high):
        far = np.abs(values - end) <= (1 - AT_END) * abs(end)
        share = float(weights[far].sum()) if end else 0.0
        if share >= NEARLY_ALL:
            return [
                f"suspicious: {name} is at its end ({end:g}) in {share:.0%} of the time: is it on another "
                "scale, or something else?"
            ]
    reach = max(abs(dimension.low), abs(dimension.high))
    resting = float(weights[np.abs(values) <= AT_REST * reach].sum())
    if resting > HARDLY_EVER:
        return []
    low, high = float(values.min()), float(values.max())
    if low <= AT_END * dimension.low and high >= AT_END * dimension.high and dimension.low < 0:
        return []  # from end to end: its rest is where it is taken to be
    return [
        f"suspicious: {name} never rests: it is between {low:g} and {high:g} all the time; is it on "
        "another scale, or something else?"
    ]


def _held_down(
    dimension: Dimension, values: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[str]:
    """A trigger that is pulled as the log begins and ends, and most of the time: it may rest there."""
    pulled = values >= AT_END * dimension.high
    share = float(weights[pulled].sum())
    if dimension.kind != "trigger" or not (pulled[0] and pulled[-1]) or share <= PUSHED:
        return []
    return [
        f"suspicious: {dimension.name} is pulled all the way in {share:.0%} of the time, as the log begins "
        f"and as it ends: if it rests there, write {dimension.name} = {{ invert = true }} under [columns]"
    ]


def _positions(dimension: Dimension, values: NDArray[np.float64]) -> list[str]:
    """A motion that is a position on the screen: never below 0, hardly ever 0, and it changes slowly."""
    typical = float(np.median(values))
    steps = float(np.median(np.abs(np.diff(values))))
    if values.min() < 0 or typical < SCREEN_LIKE or steps > SMOOTH * typical:
        return []
    if np.count_nonzero(values == 0) > HARDLY_EVER * len(values):
        return []
    return [
        f"suspicious: {dimension.name} looks like a position on the screen ({values.min():g} to "
        f"{values.max():g}), not like motion: write how far the mouse went since the row above"
    ]


def _upside_down(
    dimension: Dimension, values: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[str]:
    """A left stick that is pulled back far more often than pushed forward, as players do not."""
    if dimension.kind != "axis" or dimension.sign not in ("up", "down"):
        return []
    if "left" not in dimension.name.lower():
        return []
    forward = values if dimension.sign == "up" else -values
    ahead = float(weights[forward >= PUSHED].sum())
    back = float(weights[forward <= -PUSHED].sum())
    if back < OFTEN_PUSHED or back < ONE_SIDED * ahead:
        return []
    return [
        f"suspicious: {dimension.name} is pulled back in {back:.0%} of the time and pushed forward in "
        f"{ahead:.0%}: if it grows {'downwards' if dimension.sign == 'up' else 'upwards'} in the log (as "
        f"with SDL, evdev and DualSense), write {dimension.name} = {{ invert = true }} under [columns]"
    ]
