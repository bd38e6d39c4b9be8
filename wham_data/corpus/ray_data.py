"""The steps of a corpus as a Ray Data dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from wham_data.corpus.readable import ReadableCorpus
from wham_data.corpus.shard_view import steps_from
from wham_data.schemas.errors import MissingPartError
from wham_data.schemas.steps import EpisodeSteps

FROM_MANIFEST: Final = ("episode", "split", "row_start", "n_steps")


def steps_dataset(corpus: ReadableCorpus, split: str | None = None) -> Any:
    """The steps of a corpus as a Ray Data dataset; one task reads one shard.

    Args:
        corpus: the corpus at the version to read.
        split: read only the episodes of this split; None: all of them.

    Returns:
        A dataset with the columns that `Corpus.to_ray` lists.

    Raises:
        MissingPartError: Ray Data needs a package that is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise MissingPartError(f"Ray Data: {error}; pip install 'ray[data]'") from error
    manifest = corpus.episodes
    if split is not None:
        manifest = manifest.filter(manifest["split"] == split)
    shards = manifest.group_by("shard").agg(FROM_MANIFEST).sort("shard").to_dicts()

    def read(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        view = corpus.open_shard(str(batch["shard"][0]))
        rows_of_episodes = zip(*(batch[name][0] for name in FROM_MANIFEST), strict=True)
        for episode, split, start, n_steps in rows_of_episodes:
            for _, rows in view.read_rows(start, start + n_steps):
                yield {"split": np.full(len(rows), split), **_columns(steps_from(episode, rows))}

    return ray.data.from_items(shards).map_batches(read, batch_size=1)


def _columns(steps: EpisodeSteps) -> dict[str, Any]:
    """Steps as a batch of Ray Data: arrays of T rows, without the columns that the corpus lacks."""
    n = steps.n_steps
    columns: dict[str, Any] = {
        "episode": np.full(n, steps.episode),
        "step": np.arange(steps.first_step, steps.first_step + n, dtype=np.int32),
        "time_ns": steps.time_ns,
        "actions": steps.actions,
        "action_known": steps.action_known,
        "tokens": steps.tokens,
        "frame": None if steps.frames is None else np.array(steps.frames, object),
    }
    return {name: column for name, column in columns.items() if column is not None}
