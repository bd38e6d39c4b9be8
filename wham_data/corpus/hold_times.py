"""How long players hold each control: runs of steps, counted in one episode after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import Dimension
from wham_data.schemas.clock import Index

Flags = NDArray[np.bool_]
AT_REST: Final = 0.1
"""A stick or trigger counts as held if it is moved by more than this part of its range."""


@dataclass(frozen=True, slots=True)
class Way:
    """One direction in which a control can be moved.

    index      position of its dimension in the action space
    sign       1: above 0; -1: below 0
    threshold  the control is held while its distance from 0 is larger than this
    """

    index: int
    sign: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Held:
    """How a control was held in one direction.

    way       the control and the direction
    steps     count of steps in which it was held
    complete  count of holds that begin and end inside an episode, between steps with known actions
    shortest, longest  lengths of complete holds, in steps; 0 if there are none
    """

    way: Way
    steps: int
    complete: int
    shortest: int
    longest: int


def ways(dimensions: Sequence[Dimension]) -> tuple[Way, ...]:
    """All directions in which the controls of an action space can be moved."""
    all_ways = []
    for index, each in enumerate(dimensions):
        for sign, reach in ((-1, -each.low), (1, each.high)):
            if reach > 0:
                threshold = {"button": 0.5, "delta": 0.0}.get(each.kind, AT_REST * reach)
                all_ways.append(Way(index, sign, threshold))
    return tuple(all_ways)


def count_holds(
    episodes: Iterable[NDArray[np.float32]], dimensions: Sequence[Dimension]
) -> tuple[Held, ...]:
    """How each control was held in each direction.

    Args:
        episodes: the actions of each episode, float32 [T, A]; a row of NaN is not known.
        dimensions: the A dimensions of the action space.

    Returns:
        One item for each of `ways(dimensions)`, in that order.
    """
    all_ways = ways(dimensions)
    index = np.array([way.index for way in all_ways], np.int64)
    sign = np.array([way.sign for way in all_ways], np.float32)
    threshold = np.array([way.threshold for way in all_ways], np.float32)
    steps, complete, longest = (np.zeros(len(all_ways), np.int64) for _ in range(3))
    shortest = np.full(len(all_ways), np.iinfo(np.int64).max)
    for actions in episodes:
        held: Flags = sign * actions[:, index] > threshold
        known = np.asarray(~np.isnan(actions).any(axis=1), np.bool_)
        way, lengths = complete_holds(held, known)
        steps += held.sum(axis=0)
        complete += np.bincount(way, minlength=len(all_ways))
        np.minimum.at(shortest, way, lengths)
        np.maximum.at(longest, way, lengths)
    shortest[complete == 0] = 0
    figures = zip(*(each.tolist() for each in (steps, complete, shortest, longest)), strict=True)
    return tuple(Held(way, *each) for way, each in zip(all_ways, figures, strict=True))


def complete_holds(held: Flags, known: Flags) -> tuple[Index, Index]:
    """The runs of `held` that begin and end inside an episode, between known steps.

    Args:
        held: bool [T, W], one column for each direction; False where the action is not known.
        known: bool [T], whether the action of the step is known.

    Returns:
        For each of the R runs its column, int64 [R], and its length in steps, int64 [R].
    """
    edge = np.zeros((1, held.shape[1]), np.bool_)
    column, at = np.nonzero(np.diff(held, axis=0, prepend=edge, append=edge).T)
    column, start, stop = column[::2], at[::2], at[1::2]
    whole = (start > 0) & (stop < len(held))
    whole[whole] = known[start[whole] - 1] & known[stop[whole]]
    return column[whole], (stop - start)[whole]
