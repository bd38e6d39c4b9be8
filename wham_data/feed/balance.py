"""Weights by which rare actions are seen more often.

Each dimension of an action takes one of a few values: a button up or down; anything else below,
at or above rest, with a twentieth of its range for rest. A value that a share p of the corpus' K
values has counts 1 / (K p): 1 on average, more where it is rare. A step counts the mean over its
dimensions, a run of windows the mean over its steps, within 1/8 and 8; and the windows of the corpus
1 on average, so that an epoch keeps its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus.shard_view import matrix_of
from wham_data.feed.mapped_shards import Shards
from wham_data.feed.windows import Shape, Windows
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.steps import FLOAT

REST: Final = 0.05
MOST: Final = 8.0
_VALUES: Final = 3


def action_weights(shards: Shards, windows: Windows, shape: Shape) -> NDArray[np.float64]:
    """The weight of each run of windows, float64 [R]. Reads the actions of their shards twice.

    Raises:
        IntegrityError: a shard is missing or damaged.
    """
    space = shards.corpora[0].info.action_space
    counts = np.zeros((space.size, _VALUES), np.int64)
    for _, values in _values_by_shard(shards, windows, space):
        for value in range(_VALUES):
            counts[:, value] += np.count_nonzero(values == value, axis=0)
    worth = _worth(counts)
    weights = np.ones(len(windows.first))
    for runs, values in _values_by_shard(shards, windows, space):
        of_step = np.take_along_axis(worth, values.T, axis=1).mean(axis=0)
        reached = np.append(0.0, np.cumsum(of_step))
        first = windows.first[runs]
        n_windows = windows.counts(runs.start, runs.stop)
        after = first + (n_windows - 1) * windows.stride + shape.length
        weights[runs] = (reached[after] - reached[first]) / (after - first)
    weights = weights.clip(1 / MOST, MOST)
    normal: NDArray[np.float64] = weights * (len(windows) / (windows.counts() @ weights))
    return normal


def _worth(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each value of each dimension counts, float64 [A, values + 1]; unknown ones count 1."""
    known = counts.sum(axis=1, keepdims=True)
    kinds = np.count_nonzero(counts, axis=1)[:, None]
    worth = known / (np.maximum(counts, 1) * np.maximum(kinds, 1))
    return np.append(worth, np.ones((len(counts), 1)), axis=1)


def _values_by_shard(
    shards: Shards, windows: Windows, space: ActionSpace
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """For each shard the runs in it, and which value every dimension has in its rows, [rows, A]."""
    edges = np.flatnonzero(np.diff(windows.shard, prepend=-1, append=len(shards)))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        view = shards.readable(int(windows.shard[low]))
        if view is None:
            continue
        pieces = [table for _, table in view.read_rows(0, view.rows, ["actions"])]
        actions = np.concatenate(
            [matrix_of(piece.column("actions").combine_chunks(), FLOAT) for piece in pieces]
        )
        yield slice(low, high), _values(actions, space)


def _values(actions: NDArray[np.float32], space: ActionSpace) -> NDArray[np.int64]:
    """0 below rest, 1 at rest, 2 above it, 3 where the action is not known; [rows, A]."""
    reach = REST * np.abs(space.ranges()).max(axis=1)
    values = np.ones(actions.shape, np.int64)
    values += actions > reach
    values -= actions < -reach
    values[np.isnan(actions).any(axis=1)] = _VALUES
    return values
