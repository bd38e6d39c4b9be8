"""What the card says of the audit: a reading of the table `audit/`, if the corpus has one.

The card uses these columns, and of them those that the table has: `episode`, `verdict`, `lag_ms` and
`drift_ppm`, and the shares of an episode (0 to 1) that are `frozen`, `idle`, `menu`, `black` and
`duplicate`. Rows of episodes that the corpus no longer has do not count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from wham_data.corpus import Corpus
from wham_data.corpus.delta.actions import LOG
from wham_data.corpus.delta.table import ManifestTable

FOLDER: Final = "audit"
SHARES: Final = ("frozen", "idle", "menu", "black", "duplicate")
_NUMBERS: Final = ("lag_ms", "drift_ppm", *SHARES)


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The audit in a few numbers.

    episodes   audited episodes that the corpus has
    verdicts   their counts by verdict, the most frequent first
    lag_ms     quartiles of the lags that could be measured: lowest, quarter, median, three quarters,
               highest; None: none could
    measured   count of these
    shares     hours that are frozen, idle, ...; of the columns that the table has
    """

    episodes: int
    verdicts: Mapping[str, int]
    lag_ms: tuple[float, float, float, float, float] | None
    measured: int
    shares: Mapping[str, float]


def read_audit(corpus: Corpus, hours: pl.DataFrame) -> AuditSummary | None:
    """The summary of the audit; None: nothing of the corpus was audited.

    Args:
        corpus: the corpus.
        hours: a row for each of its episodes: `episode` and `hours`.

    Raises:
        IntegrityError: the table is damaged.
    """
    if not corpus.storage.list(f"{FOLDER}/{LOG}"):
        return None
    rows = (
        _rows(corpus)
        .join(hours, on="episode", how="inner")
        .unique("episode", keep="last", maintain_order=True)
    )
    if not len(rows):
        return None
    lags = rows.filter(pl.col("lag_ms").is_finite())["lag_ms"] if "lag_ms" in rows.columns else ()
    counts = Counter(rows["verdict"].fill_null("not stated").to_list())
    return AuditSummary(
        episodes=len(rows),
        verdicts=dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))),
        lag_ms=tuple(np.percentile(lags, (0, 25, 50, 75, 100)).tolist()) if len(lags) else None,
        measured=len(lags),
        shares={
            name: float((rows[name].fill_null(0.0).fill_nan(0.0).clip(0, 1) * rows["hours"]).sum())
            for name in SHARES
            if name in rows.columns
        },
    )


def _rows(corpus: Corpus) -> pl.DataFrame:
    log = ManifestTable(corpus.storage, FOLDER, pa.schema([])).log
    files = log.files()
    there: set[str] = set()
    for action in log.actions_to(files.newest, files):
        if isinstance(about := action.get("metaData"), dict):
            there = {each["name"] for each in json.loads(str(about["schemaString"]))["fields"]}
    wanted = [pa.field("episode", pa.string()), pa.field("verdict", pa.string())]
    wanted += [pa.field(name, pa.float64()) for name in _NUMBERS if name in there]
    table = ManifestTable(corpus.storage, FOLDER, pa.schema(wanted))
    frame = pl.from_arrow(table.read(list(table.snapshot().files)))
    assert isinstance(frame, pl.DataFrame)
    return frame
