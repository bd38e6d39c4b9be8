"""Windows of a small corpus, for the tests of the feed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from makers.corpora import add_shard, small_corpus
from wham_data.corpus import Corpus
from wham_data.feed import WindowDataset

TRAIN = {"ann-0": 20, "ann-1": 20, "dan-0": 33}
"""Episodes of the split `train`, and their steps."""
VAL = {"bob-0": 20, "cem-0": 20}


def feed_corpus(location: Path) -> Corpus:
    """Five episodes of 20 or 33 steps in three shards, every seventh action unknown.

    `train` has 32 windows of 4 steps.
    """
    corpus = small_corpus(location)
    corpus.commit(add_shard(corpus, "dan-0", n_steps=TRAIN["dan-0"], player="dan"))
    return corpus


def dataset(corpus: Corpus, **changes: Any) -> WindowDataset:
    """Batches of three windows of four steps, or with other settings."""
    return WindowDataset(corpus, **{"length": 4, "batch_size": 3, **changes})
