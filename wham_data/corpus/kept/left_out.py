"""Take steps out of `keep`, with the reasons, in one new version of the corpus; and put them back.

Nothing but the manifest changes: no shard is written. Each command has its own entry in the column
`left_out` of an episode, which also holds `keep` as it was, so the work of one can be undone without that
of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from wham_data.corpus.corpus import Corpus
from wham_data.schemas.left_out import LeftOut, Parts, Ranges, keep_after
from wham_data.schemas.manifest import EPISODES_SCHEMA, episode_record_of

Changed = Callable[[dict[str, Any]], tuple[LeftOut, ...] | None]
"""A manifest record in, its entries from now on out; None: they stay."""
LEAVE_OUT: Final = "LEAVE OUT"
"""Name of the transactions, in the history of the manifest."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a command found in an episode.

    parts     (start, end, reason) of what is to be left out, in order; none overlap
    unjudged  kinds of reasons that could not be judged
    """

    parts: Parts = ()
    unjudged: tuple[str, ...] = ()


def leave_out(corpus: Corpus, by: str, rules: str, found: Mapping[str, Judged]) -> int:
    """Write what a command found; what it found before in these episodes is replaced.

    Args:
        corpus: the corpus; afterwards it is at the new version. If nothing changes there is none.
        by: the command.
        rules: hash of what it went by.
        found: episode -> what is left out in it. Other episodes stay as they are.

    Returns:
        The count of changed episodes.
    """
    made = datetime.now(UTC)

    def changed(row: dict[str, Any]) -> tuple[LeftOut, ...] | None:
        if (judged := found.get(row["episode"])) is None:
            return None
        entries = _entries(row)
        before = entries[0].before if entries else _ranges(row["keep"])
        new = LeftOut(by, rules, made, before, _inside(judged.parts, before), judged.unjudged)
        same = [each for each in entries if each.by == by]
        if [_plain(each) for each in same] == [_plain(new)]:
            return None
        return (*(each for each in entries if each.by != by), new)

    return _amend(corpus, changed)


def put_back(corpus: Corpus, by: str) -> int:
    """Undo all that a command left out; returns the count of changed episodes."""

    def changed(row: dict[str, Any]) -> tuple[LeftOut, ...] | None:
        entries = _entries(row)
        others = tuple(each for each in entries if each.by != by)
        return others if len(others) < len(entries) else None

    return _amend(corpus, changed)


def _amend(corpus: Corpus, changed: Changed) -> int:
    count = 0

    def amended(tables: list[pa.Table]) -> list[pa.Table]:
        nonlocal count
        count = 0
        after = []
        for table in tables:
            new, n_changed = _changed_table(table, changed)
            after.append(new)
            count += n_changed
        return after

    corpus.amend(LEAVE_OUT, amended)
    return count


def _changed_table(table: pa.Table, changed: Changed) -> tuple[pa.Table, int]:
    rows = table.select(["episode", "keep", "left_out"]).to_pylist()
    count = 0
    for row in rows:
        if (entries := changed(row)) is None:
            continue
        before = _entries(row)[0].before if row["left_out"] else _ranges(row["keep"])
        row.update(episode_record_of(keep_after(before, entries), entries))
        count += 1
    if not count:
        return table, 0
    for name in ("keep", "left_out"):
        column = EPISODES_SCHEMA.field(name)
        values = pa.array([row[name] for row in rows], column.type)
        table = table.set_column(table.schema.get_field_index(name), column, values)
    return table, count


def _entries(row: Mapping[str, Any]) -> tuple[LeftOut, ...]:
    return tuple(map(LeftOut.from_record, row["left_out"] or ()))


def _ranges(records: Iterable[Mapping[str, int]]) -> Ranges:
    return tuple((each["start"], each["end"]) for each in records)


def _plain(entry: LeftOut) -> tuple[Any, ...]:
    return entry.rules, entry.parts, entry.unjudged


def _inside(parts: Parts, ranges: Ranges) -> Parts:
    """The parts as far as they are in the ranges."""
    inside = (
        (max(start, low), min(stop, high), reason)
        for start, stop, reason in parts
        for low, high in ranges
    )
    return tuple(each for each in inside if each[0] < each[1])
