"""Remove players, matches or recordings from a corpus, and keep them out.

    1. mark     them as forgotten, so that no later ingest adds them       (tombstones.py)
    2. rewrite  every shard that holds their steps, without these steps    (compact.py)
    3. remove   their rows in the quarantine, their files in `runs/`, and answers about their clips
    4. commit   in one transaction: their episodes leave the manifest, and the other episodes of
                these shards are read from the new shards

If `forget` is interrupted, the same call completes it. Older versions of the corpus still hold the
removed steps, on disk and for readers, until a vacuum.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePath

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from wham_data.corpus.captions.answers import forget_answers
from wham_data.corpus.commit_rules import relocated
from wham_data.corpus.compact import write_merged
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.runs import RUNS, runs
from wham_data.corpus.shards import ShardFile
from wham_data.corpus.storage.contract import Storage
from wham_data.corpus.tombstones import FORGET, KINDS, Forgotten, Kind, remember
from wham_data.schemas.errors import UsageError
from wham_data.schemas.manifest import EPISODES_SCHEMA
from wham_data.schemas.player_key import PSEUDONYM, SETTING, PlayerKey, check_player_key

Wanted = Mapping[Kind, Collection[str]]
Moves = Mapping[tuple[str, str], tuple[ShardFile, int]]


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What `forget` removed from a corpus.

    location          of the corpus
    episodes, recordings, steps  counts of what was removed
    shards_left       count of shards that left the corpus because they held nothing else
    shards_rewritten  count of shards whose other episodes are in new shards now
    version           version of the corpus after `forget`
    """

    location: str
    episodes: int
    recordings: int
    steps: int
    shards_left: int
    shards_rewritten: int
    version: int


def forget(corpus: Corpus, wanted: Wanted) -> ForgetReport:
    """Remove all episodes of some players, matches or recordings, and keep them out.

    Args:
        corpus: the corpus; afterwards it is at the version without these episodes.
        wanted: kind -> names as in the manifest; see `players_as_stored`.

    Raises:
        UsageError: no name is given, or the corpus never had this player, match or recording.
        IntegrityError: a shard that must be rewritten is damaged.
    """
    corpus.refresh()
    _check_known(corpus, wanted)
    for kind, names in wanted.items():
        for name in names:
            remember(corpus.storage, kind, name)
    while True:
        corpus.refresh()
        gone = corpus.episodes.filter(_is_meant(wanted))
        stay = corpus.episodes.filter(
            ~_is_meant(wanted) & pl.col("shard").is_in(gone["shard"].to_list())
        )
        for recording in gone["recording"].unique():
            remember(corpus.storage, "recording", recording)
        moves = _rewrite(corpus, stay)
        corpus.refused.release(gone["recording"].unique().to_list(), FORGET)
        _forget_sources(corpus.storage, gone["source"].unique().to_list())
        forget_answers(corpus.storage, set(gone["recording"]))
        if _commit(corpus, wanted, set(gone["episode"]), moves):
            break
    left, rewritten = gone["shard"].n_unique(), stay["shard"].n_unique()
    return ForgetReport(
        location=corpus.location,
        episodes=len(gone),
        recordings=gone["recording"].n_unique(),
        steps=int(gone["n_steps"].sum()),
        shards_left=left - rewritten,
        shards_rewritten=rewritten,
        version=corpus.version,
    )


def players_as_stored(corpus: Corpus, players: Collection[str], key: PlayerKey | None) -> set[str]:
    """The names of players in the manifest: real names or pseudonyms, as the corpus stores them.

    Args:
        corpus: the corpus.
        players: real names or pseudonyms. If the corpus stores pseudonyms, a real name needs `key`.
        key: the players' key; None: not given.

    Raises:
        UsageError: a real name without the key, or an unknown pseudonym.
        MismatchError: the corpus was created with another key, or without one.
    """
    stored = corpus.info.settings.get(SETTING)
    if stored is None or key is not None:
        check_player_key(stored, key, corpus.location)
    if stored is None:
        return set(players)
    known = Forgotten.read(corpus.storage)
    there = set(corpus.episodes["player"])
    found: set[str] = set()
    for player in players:
        if PSEUDONYM.fullmatch(player) and (player in there or known.holds("player", player)):
            found.add(player)
        elif key is not None:
            found.add(key.pseudonym(player))
        elif PSEUDONYM.fullmatch(player):
            raise _unknown(corpus, "player", player)
        else:
            raise UsageError(
                f"{corpus.location}: its players are pseudonyms, and {player!r} is none; give the "
                "pseudonym, or the name and --player-key FILE"
            )
    return found


def _check_known(corpus: Corpus, wanted: Wanted) -> None:
    if not any(wanted.values()):
        raise UsageError(f"nothing to forget: name a {', a '.join(KINDS[:-1])} or a {KINDS[-1]}")
    known = Forgotten.read(corpus.storage)
    for kind, names in wanted.items():
        there = set(corpus.episodes[kind])
        for name in names:
            if name not in there and not known.holds(kind, name):
                raise _unknown(corpus, kind, name)


def _unknown(corpus: Corpus, kind: Kind, name: str) -> UsageError:
    return UsageError(
        f"{corpus.location}: no episode of {kind} {name!r} is in version {corpus.version}, and none "
        "was forgotten; nothing was changed"
    )


def _is_meant(wanted: Wanted) -> pl.Expr:
    each = [pl.col(kind).is_in(list(names)) for kind, names in wanted.items()]
    return pl.any_horizontal(each).fill_null(value=False)


def _rewrite(corpus: Corpus, stay: pl.DataFrame) -> Moves:
    """Write the episodes that stay to new shards, and return their new places."""
    moves = {}
    rows = stay.sort("shard", "row_start").drop("created")
    for (name,), mine in rows.group_by("shard", maintain_order=True):
        shard = write_merged(corpus, corpus, mine.rows(named=True))
        for each in shard.episodes:
            moves[each.episode, str(name)] = shard, each.start
    return moves


def _commit(corpus: Corpus, wanted: Wanted, expected: set[str], moves: Moves) -> bool:
    """Remove the rows of `wanted` and change the places in `moves`, in one transaction.

    Args:
        corpus: the corpus.
        wanted: as in `forget`.
        expected: the episodes that the transaction may remove.
        moves: new places of the other episodes in the rewritten shards.

    Returns:
        False if nothing was done, because others have committed more such episodes in the meantime.
    """
    complete = False

    def amended(tables: list[pa.Table]) -> list[pa.Table]:
        nonlocal complete
        pairs = [_without(rows, wanted, moves) for rows in tables]
        gone = (
            pa.concat_tables([lost for _, lost in pairs])
            if pairs
            else EPISODES_SCHEMA.empty_table()
        )
        shards = set(gone.column("shard").to_pylist())
        complete = expected.issuperset(gone.column("episode").to_pylist()) and all(
            shards.isdisjoint(kept.column("shard").to_pylist()) for kept, _ in pairs
        )
        return [kept for kept, _ in pairs] if complete else tables

    corpus.amend(FORGET, amended)
    return complete


def _without(rows: pa.Table, wanted: Wanted, moves: Moves) -> tuple[pa.Table, pa.Table]:
    """The manifest rows that stay, with their new places, and the rows that are removed.

    If nothing changes, the first one is the same object as `rows`.
    """
    meant = pa.array([False] * len(rows), pa.bool_())
    for kind, names in wanted.items():
        found = pc.is_in(rows.column(kind), pa.array(sorted(names), pa.string()))
        meant = pc.or_(meant, found.combine_chunks())
    lost = rows.filter(meant)
    kept, moved = relocated(rows.filter(pc.invert(meant)), moves)
    return (kept if moved or len(lost) else rows), lost


def _forget_sources(storage: Storage, sources: Collection[str]) -> None:
    """Remove the file names of forgotten recordings from the reports in `runs/`."""
    names = {PurePath(source.partition("#")[0]).name for source in sources}
    for file, report in runs(storage):
        given = report.get("sources", [])
        left = [source for source in given if PurePath(str(source)).name not in names]
        if len(left) < len(given):
            text = json.dumps({**report, "sources": left}, indent=2, ensure_ascii=False) + "\n"
            storage.replace(f"{RUNS}/{file}", text.encode("utf-8", "backslashreplace"))
