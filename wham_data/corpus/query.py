"""SQL over a corpus: the tables `episodes` and `steps`, only to be read.

    episodes   the manifest, with `rate` (Hz) and `hours`
    steps      a row for each step: the columns of `columns.STEP_COLUMNS`, and one for each dimension
               of the action

polars runs the SQL. It also has functions that read files (`read_csv(...)`), and statements that
change tables. A query with one of them is refused, so SQL from a stranger reads this corpus alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import polars as pl

from wham_data.corpus.columns import ABOUT, STEP_COLUMNS, dimension_columns
from wham_data.corpus.readable import ReadableCorpus
from wham_data.corpus.scan import PLACES, scan_schema, scan_with
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import UsageError, WhamDataError, printable

MOST_SQL: Final = 4_000
"""Most characters of a query. The parser of polars crashes on some queries of 8,000."""
MOST_MESSAGE: Final = 400
ROWS: Final = 10_000
ROWS_WITH_PICTURES: Final = 200
"""Rows of a row group of a Parquet file that is written; a few of them are in memory at once."""
_BEGINS: Final = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(select|with|from)\b", re.I | re.S)
_READS_FILES: Final = re.compile(
    r"(?:read|scan)_(?:csv|ipc|json|ndjson|parquet|avro|lines|delta|iceberg|excel|database)", re.I
)
_NO_TABLE: Final = re.compile(r"^relation .* was not found$", re.S)
_SCAN: Final = re.compile(r"(\w+) SCAN\b")


def query(corpus: ReadableCorpus, sql: str) -> pl.LazyFrame:
    """The result of a query in SQL, computed when it is collected or written.

    Args:
        corpus: the corpus to read, at one version.
        sql: one SELECT over the tables `episodes` and `steps`. Names are case-sensitive.

    Raises:
        UsageError: it is not a query over these tables; the message has one line.
    """
    if len(sql) > MOST_SQL:
        raise UsageError(f"SQL: {len(sql)} characters, expected at most {MOST_SQL}")
    if not _BEGINS.match(sql):
        raise UsageError("SQL: expected one query that begins with SELECT, WITH or FROM")
    if named := _READS_FILES.search(sql):
        raise UsageError(
            f"SQL: {named[0][:40]}: a query reads the tables episodes and steps, and no files"
        )
    with sql_errors():
        found = pl.SQLContext(tables_of(corpus)).execute(sql, eager=False)
        reads = scans_files(found)
    if reads:
        raise UsageError("SQL: a query reads the tables episodes and steps, and no files")
    return found


def scans_files(found: pl.LazyFrame) -> bool:
    """Whether a query reads files: whatever a later release of polars reads is a scan in the plan."""
    return bool(set(_SCAN.findall(found.explain(optimized=False))) - {"PYTHON"})


def tables_of(corpus: ReadableCorpus) -> dict[str, pl.LazyFrame]:
    """The tables `episodes` and `steps` of a corpus."""
    episodes = episodes_table(corpus)
    return {"episodes": episodes.lazy(), "steps": _steps_table(corpus, episodes)}


def episodes_table(corpus: ReadableCorpus) -> pl.DataFrame:
    """The manifest with `rate` in Hz and `hours`, null if not known; `clock` as columns of its own."""
    rate = corpus.info.rate
    per_second = pl.col("source_fps") if rate == "native" else pl.lit(float(rate))
    manifest = corpus.episodes.unnest("clock").with_columns(
        rate=pl.when(per_second > 0).then(per_second)
    )
    manifest = manifest.with_columns(hours=pl.col("n_steps") / pl.col("rate") / 3600)
    first = ["episode", "split", "n_steps", "rate", "hours", *ABOUT]
    return manifest.select(*first, pl.exclude(first))


def _steps_table(corpus: ReadableCorpus, episodes: pl.DataFrame) -> pl.LazyFrame:
    """The table `steps`. A query reads only the columns and shards that it needs."""
    same = ["split", "rate", "hours", *ABOUT]
    about = episodes.with_columns(hours=1 / pl.col("rate") / 3600).select(*PLACES, *same)
    stored = scan_schema(corpus)
    schema = stored | {name: about.schema[name] for name in same}
    actions = pl.col("actions")
    # float64, because a sum of float32 stays as it is from 16.8 million on.
    steps = scan_with(corpus, about, schema).with_columns(
        actions.is_not_null().alias("action_known"),
        *(
            actions.list.get(number).cast(pl.Float64).alias(name)
            for number, name in enumerate(dimension_columns(corpus.info.action_space))
        ),
        *([pl.col("reward").cast(pl.Float64)] if corpus.info.reward else []),
    )
    return steps.select(step_columns(corpus.info.action_space, stored))


def step_columns(space: ActionSpace, stored: Collection[str]) -> list[str]:
    """The columns of the table `steps`, in their order.

    Args:
        space: of the actions.
        stored: the columns of `Corpus.scan()`.
    """
    there = {*stored, "rate", "hours", *ABOUT, "action_known"}
    after = STEP_COLUMNS.index("actions")
    names = [*STEP_COLUMNS[:after], *dimension_columns(space), *STEP_COLUMNS[after:]]
    return [name for name in names if name in there or name not in STEP_COLUMNS]


def first_rows(found: pl.LazyFrame, most: int) -> pl.DataFrame:
    """The first rows of a result. A query that neither sorts nor groups reads no more than these.

    Raises:
        UsageError: the query fails, such as at a text that is no number.
    """
    with sql_errors():
        return found.head(most).collect(engine="streaming")


def plain_rows(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows as values for JSON: bytes as base64; null for a number that is not finite."""
    columns = [
        pl.when(pl.col(name).is_finite()).then(pl.col(name))
        if kind.is_float()
        else pl.col(name).bin.encode("base64")
        if kind == pl.Binary
        else pl.col(name)
        for name, kind in rows.schema.items()
    ]
    return rows.select(columns).rows(named=True)


def write_csv(found: pl.LazyFrame, target: Path | IO[bytes]) -> None:
    """Write all rows of a result as CSV, a part at a time.

    Raises:
        UsageError: the query fails, or a column holds lists, structs or bytes.
    """
    with sql_errors():
        schema = found.collect_schema()
        held = [name for name, kind in schema.items() if kind.is_nested() or kind == pl.Binary]
        if held:
            raise UsageError(
                f"--csv: column {printable(held[0])} is {schema[held[0]]}, which CSV cannot hold; "
                "select other columns or elements such as tokens[1], or write --parquet"
            )
        found.sink_csv(target, engine="streaming")


def write_parquet(found: pl.LazyFrame, target: Path) -> None:
    """Write all rows of a result as Parquet, a part at a time.

    Raises:
        UsageError: the query fails.
    """
    with sql_errors():
        pictures = pl.Binary in found.collect_schema().values()
        rows = ROWS_WITH_PICTURES if pictures else ROWS
        found.sink_parquet(target, compression="snappy", row_group_size=rows, engine="streaming")


@contextmanager
def sql_errors() -> Iterator[None]:
    """Turns an error of polars into a `UsageError` of one line."""
    try:
        yield
    except WhamDataError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        text = str(error).strip().partition("\n")[0]
        if _NO_TABLE.search(text):
            text += "; the tables are episodes and steps"
        short = printable(text)
        cut = "..." if len(short) > MOST_MESSAGE else ""
        raise UsageError(f"SQL: {short[:MOST_MESSAGE]}{cut}") from error
