"""Weights that make windows with rare actions come more often.

Every dimension of an action is put into one of a few classes. A button is up or down. Any other
dimension is below, at or above rest, where "at rest" means within a twentieth of its range from zero.
If K classes of a dimension occur in the corpus, and a class has the share p of the steps, its weight
is 1 / (K p): 1 on average, more for a rare class. The weight of a step is the mean over its
dimensions. The weight of a run of windows is the mean over its steps, limited to 1/8 to 8. Finally
the weights are scaled so that the mean over all windows is 1: the length of an epoch does not change.
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
"""Share of the range of a dimension that counts as rest."""
MOST: Final = 8.0
"""Largest weight of a run of windows before the final scaling; the smallest is 1 / MOST."""
_CLASSES: Final = 3


def action_weights(shards: Shards, windows: Windows, shape: Shape) -> NDArray[np.float64]:
    """The weight of each run of windows. Reads the actions of all their shards twice.

    Args:
        shards: the shards that `windows` refers to.
        windows: all windows, in R runs.
        shape: length and stride of the windows.

    Returns:
        float64 [R], above 0; the mean over all windows is 1.

    Raises:
        IntegrityError: a shard is missing or damaged.
    """
    space = shards.corpora[0].info.action_space
    counts = np.zeros((space.size, _CLASSES), np.int64)
    for _, classes in _classes_by_shard(shards, windows, space):
        for number in range(_CLASSES):
            counts[:, number] += np.count_nonzero(classes == number, axis=0)
    class_weights = _class_weights(counts)
    weights = np.ones(len(windows.first))
    for runs, classes in _classes_by_shard(shards, windows, space):
        step_weights = np.take_along_axis(class_weights, classes.T, axis=1).mean(axis=0)
        sums = np.append(0.0, np.cumsum(step_weights))
        first = windows.first[runs]
        n_windows = windows.counts(runs.start, runs.stop)
        after = first + (n_windows - 1) * windows.stride + shape.length
        weights[runs] = (sums[after] - sums[first]) / (after - first)
    weights = weights.clip(1 / MOST, MOST)
    scaled: NDArray[np.float64] = weights * (len(windows) / (windows.counts() @ weights))
    return scaled


def _class_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight of each class of each dimension, float64 [A, classes + 1]; 1 for unknown actions."""
    n_known = counts.sum(axis=1, keepdims=True)
    n_classes = np.count_nonzero(counts, axis=1)[:, None]
    weights = n_known / (np.maximum(counts, 1) * np.maximum(n_classes, 1))
    return np.append(weights, np.ones((len(counts), 1)), axis=1)


def _classes_by_shard(
    shards: Shards, windows: Windows, space: ActionSpace
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """For each shard its runs, and the class of every dimension in every row, int64 [rows, A]."""
    edges = np.flatnonzero(np.diff(windows.shard, prepend=-1, append=len(shards)))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        view = shards.readable(int(windows.shard[low]))
        if view is None:
            continue
        pieces = [table for _, table in view.read_rows(0, view.rows, ["actions"])]
        actions = np.concatenate(
            [matrix_of(piece.column("actions").combine_chunks(), FLOAT) for piece in pieces]
        )
        yield slice(low, high), _classes(actions, space)


def _classes(actions: NDArray[np.float32], space: ActionSpace) -> NDArray[np.int64]:
    """0 below rest, 1 at rest, 2 above rest, 3 for an unknown action; int64 [rows, A]."""
    limit = REST * np.abs(space.ranges()).max(axis=1)
    classes = np.ones(actions.shape, np.int64)
    classes += actions > limit
    classes -= actions < -limit
    classes[np.isnan(actions).any(axis=1)] = _CLASSES
    return classes
