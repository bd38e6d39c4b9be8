"""The corpus, its shards and its manifest: write, commit, open, read, verify and compact them."""

from wham_data.corpus.commit_rules import CommitReport
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.shards import RowRange, ShardFile, shard_id
from wham_data.corpus.splits import Conflict, Placed, Ties, assign_splits
from wham_data.corpus.verify import VerifyReport

__all__ = [
    "CommitReport",
    "Conflict",
    "Corpus",
    "Placed",
    "RowRange",
    "ShardFile",
    "Ties",
    "VerifyReport",
    "assign_splits",
    "shard_id",
]
