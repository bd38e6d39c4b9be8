"""The part of a corpus that scanning and verifying use, so that they need not import `corpus.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from wham_data.corpus.shard_view import ShardView
from wham_data.corpus.storage.contract import Storage
from wham_data.schemas.corpus_info import CorpusInfo

if TYPE_CHECKING:
    import polars as pl


class ReadableCorpus(Protocol):
    """A corpus at one version, open for reading. `Corpus` has this interface.

    Attributes:
        info: the settings that all shards share.
        storage: the files behind the corpus.
    """

    info: CorpusInfo
    storage: Storage

    @property
    def episodes(self) -> pl.DataFrame:
        """See `Corpus.episodes`."""

    def manifest_columns(self, names: Sequence[str]) -> pa.Table:
        """See `Corpus.manifest_columns`."""

    def open_shard(self, name: str) -> ShardView:
        """See `Corpus.open_shard`."""

    def manifest_problems(self) -> list[str]:
        """See `Corpus.manifest_problems`."""


def has_text(corpus: ReadableCorpus) -> bool:
    """Whether steps have texts: from their sources, or from `wham-data caption`."""
    captions = corpus.manifest_columns(("captions",)).column("captions")
    return corpus.info.text or bool(pc.any(pc.greater(pc.list_value_length(captions), 0)).as_py())
