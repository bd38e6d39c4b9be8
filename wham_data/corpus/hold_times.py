"""How long controls were held: runs of steps, counted an episode at a time."""

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
"""A stick or trigger that is moved by less of its range is taken to rest."""


@dataclass(frozen=True, slots=True)
class Way:
    """A control moved in one direction.

    index   of its dimension
    sign    1 or -1
    beyond  how far from 0 it must be to count as held
    """

    index: int
    sign: int
    beyond: float


@dataclass(frozen=True, slots=True)
class Held:
    """How one way was held, in steps.

    steps     in which it was
    complete  holds whose beginning and end were seen: not cut by an end of an episode, nor by a step
              of which no action is known
    shortest, longest  of the complete ones; 0 without any
    """

    way: Way
    steps: int
    complete: int
    shortest: int
    longest: int


def ways(dimensions: Sequence[Dimension]) -> tuple[Way, ...]:
    """Every way in which every control can be moved."""
    found = []
    for index, each in enumerate(dimensions):
        for sign, reach in ((-1, -each.low), (1, each.high)):
            if reach > 0:
                still = {"button": 0.5, "delta": 0.0}.get(each.kind, AT_REST * reach)
                found.append(Way(index, sign, still))
    return tuple(found)


def count_holds(
    episodes: Iterable[NDArray[np.float32]], dimensions: Sequence[Dimension]
) -> tuple[Held, ...]:
    """How every way was held.

    Args:
        episodes: actions of each, float32 [T, A], a row of NaN where none is known.
        dimensions: of the action space, A of them.
    """
    found = ways(dimensions)
    index = np.array([way.index for way in found], np.int64)
    sign = np.array([way.sign for way in found], np.float32)
    beyond = np.array([way.beyond for way in found], np.float32)
    steps, complete, longest = (np.zeros(len(found), np.int64) for _ in range(3))
    shortest = np.full(len(found), np.iinfo(np.int64).max)
    for actions in episodes:
        held: Flags = sign * actions[:, index] > beyond
        known = np.asarray(~np.isnan(actions).any(axis=1), np.bool_)
        way, lengths = complete_holds(held, known)
        steps += held.sum(axis=0)
        complete += np.bincount(way, minlength=len(found))
        np.minimum.at(shortest, way, lengths)
        np.maximum.at(longest, way, lengths)
    shortest[complete == 0] = 0
    figures = zip(*(each.tolist() for each in (steps, complete, shortest, longest)), strict=True)
    return tuple(Held(way, *each) for way, each in zip(found, figures, strict=True))


def complete_holds(held: Flags, known: Flags) -> tuple[Index, Index]:
    """The runs of `held` that begin and end inside what is known.

    Args:
        held: bool [T, W], the steps of one episode; false where nothing is known.
        known: bool [T].

    Returns:
        The column of each run, and its length in steps, both int64.
    """
    edge = np.zeros((1, held.shape[1]), np.bool_)
    column, at = np.nonzero(np.diff(held, axis=0, prepend=edge, append=edge).T)
    column, start, stop = column[::2], at[::2], at[1::2]
    whole = (start > 0) & (stop < len(held))
    whole[whole] = known[start[whole] - 1] & known[stop[whole]]
    return column[whole], (stop - start)[whole]
