"""The numbers on a card, read from the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from wham_data.corpus import Corpus
from wham_data.corpus.balance.count import CorpusBalance, balance_of, count_balance
from wham_data.corpus.delta.table import HASHED_NAME, ManifestTable
from wham_data.corpus.stats import Amount, CorpusSummary, amounts, summarize, with_hours
from wham_data.pipelines.curate.card.audit import AuditSummary, read_audit
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import NoInputsError, plain_number
from wham_data.schemas.manifest import EPISODES_SCHEMA, SPLITS
from wham_data.schemas.player_key import PSEUDONYM, SETTING

MIXED: Final = "mixed"
"""The split of shards that hold episodes of several splits."""


@dataclass(frozen=True, slots=True)
class Players:
    """The players of a corpus.

    count       how many are stated
    pseudonyms  the corpus has pseudonyms, not names
    amounts     their episodes and hours, most steps first; empty where names are not to be shown
    """

    count: int
    pseudonyms: bool
    amounts: tuple[Amount, ...]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of the corpus: its path in it, SHA-256 and size in bytes."""

    name: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a card says that is measured.

    name        of the corpus' folder
    kept        hours in `keep` ranges
    known       share of the steps whose action is known
    gaps, lost  gaps in the recordings' clocks; frames that could not be decoded
    games       hours by split of each game, most steps first
    shards      by the split that all of their episodes have, else MIXED
    manifest    the data files of the table of episodes
    made        when the newest episode was added, UTC
    audit       None: not measured
    """

    name: str
    version: int
    info: CorpusInfo
    summary: CorpusSummary
    balance: CorpusBalance
    kept: float
    known: float
    gaps: int
    lost: int
    games: Mapping[str, Mapping[str, float]]
    players: Players
    shards: Mapping[str, tuple[DataFile, ...]]
    manifest: tuple[DataFile, ...]
    made: datetime
    audit: AuditSummary | None


def hours_text(hours: float) -> str:
    """Hours to two decimals; fewer than a tenth to two digits: 0.0042."""
    return f"{hours:,.2f}" if hours >= 0.1 or not hours else plain_number(hours, 2)


def read_facts(corpus: Corpus, *, show_players: bool = False) -> Facts:
    """Read the numbers. The shards are read once, for the actions.

    Args:
        corpus: the corpus.
        show_players: also give players by name where the corpus has their names.

    Raises:
        NoInputsError: the corpus has no episode.
    """
    manifest = with_hours(corpus)
    if not len(manifest):
        raise NoInputsError(f"{corpus.location}: no episode, so there is nothing to describe")
    kept = pl.col("keep").list.eval(
        pl.element().struct.field("end") - pl.element().struct.field("start")
    )
    steps = int(manifest["n_steps"].sum())
    clock = manifest["clock"].struct
    return Facts(
        name=corpus.location.rstrip("/").rpartition("/")[2] or "corpus",
        version=corpus.version,
        info=corpus.info,
        summary=summarize(corpus),
        balance=balance_of(count_balance(corpus)),
        kept=float(
            manifest.select((kept.list.sum() / pl.col("n_steps") * pl.col("hours")).sum()).item()
        ),
        known=1 - int(manifest["missing_actions"].sum()) / steps,
        gaps=int(clock.field("gaps").sum()),
        lost=int((clock.field("frames_expected") - clock.field("frames_found")).sum()),
        games=_games(manifest),
        players=_players(corpus.info, manifest, show_players=show_players),
        shards=_shards(corpus, manifest),
        manifest=_manifest_files(corpus),
        made=manifest["created"].max(),  # type: ignore[arg-type]
        audit=read_audit(corpus, manifest.select("episode", "hours")),
    )


def _games(manifest: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Hours by split of each game, most steps first."""
    split = manifest.group_by(pl.col("game").fill_null(""), "split").agg(pl.col("hours").sum())
    by_game: dict[str, dict[str, float]] = {each.name: {} for each in amounts(manifest, "game")}
    for game, name, hours in split.sort("game", "split").iter_rows():
        by_game[game][name] = hours
    return by_game


def _players(info: CorpusInfo, manifest: pl.DataFrame, *, show_players: bool) -> Players:
    stated = manifest.filter(pl.col("player").is_not_null())
    names = stated["player"].unique().to_list()
    hidden = info.settings.get(SETTING) is not None and all(map(PSEUDONYM.fullmatch, names))
    shown = amounts(stated, "player") if hidden or show_players else ()
    return Players(len(names), hidden, shown)


def _shards(corpus: Corpus, manifest: pl.DataFrame) -> dict[str, tuple[DataFile, ...]]:
    sizes = {each.name: each.n_bytes for each in corpus.storage.entries("shards")}
    by_split: dict[str, list[DataFile]] = {}
    each_shard = manifest.group_by("shard").agg(
        pl.col("shard_sha256").first(), pl.col("split").unique()
    )
    for shard, sha256, splits in each_shard.sort("shard").iter_rows():
        file = DataFile(f"shards/{shard}", sha256, sizes.get(shard, 0))
        by_split.setdefault(splits[0] if len(splits) == 1 else MIXED, []).append(file)
    order = (*SPLITS, MIXED)
    return {split: tuple(by_split[split]) for split in order if split in by_split}


def _manifest_files(corpus: Corpus) -> tuple[DataFile, ...]:
    table = ManifestTable(corpus.storage, "episodes", EPISODES_SCHEMA)
    sizes = {each.name: each.n_bytes for each in corpus.storage.entries("episodes")}
    found = []
    for name in sorted(table.snapshot(corpus.version).files):
        hashed = HASHED_NAME.fullmatch(name)
        path = f"episodes/{name}"
        sha256 = hashed[1] if hashed else corpus.storage.sha256(path)
        found.append(DataFile(path, sha256, sizes.get(name, 0)))
    return tuple(found)
