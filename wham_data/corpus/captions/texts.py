"""Write answers into the column `text`: a new version of the corpus.

    1. compare   the texts of the steps with the answers: which steps get a text
    2. rewrite   every shard that holds such steps, with the column `text`
    3. commit    in one transaction: the episodes of these shards are read from the new shards, and
                 their rows name the model and the prompt

Shards never change, so older versions keep their steps and texts. corpus.json does not change either:
captions are no setting, and later ingests into the corpus go on as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus.captions.answers import Answer
from wham_data.corpus.commit_rules import relocated
from wham_data.corpus.compact import check_shards, pieces_of
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.shards import ShardFile
from wham_data.schemas.corpus_info import content_hash
from wham_data.schemas.errors import WhamDataError
from wham_data.schemas.manifest import Captions, EpisodeRow
from wham_data.schemas.steps import EpisodeSteps

CAPTION: Final = "CAPTION"
"""Name of the transactions that add texts, in the history of the manifest."""
TRIES: Final = 8

Texts = list[str | None]
Record = dict[str, Any]
Place = tuple[str, str]
"""An episode, and the shard that holds it."""


@dataclass(frozen=True, slots=True)
class WrittenTexts:
    """What was written.

    episodes, steps  that have a new text
    shards           count of shards that were written anew
    """

    episodes: int = 0
    steps: int = 0
    shards: int = 0


@dataclass(frozen=True, slots=True)
class _Changed:
    """New texts of an episode.

    texts    of all its steps
    written  bool [T], the steps whose text is new
    """

    texts: Texts
    written: NDArray[np.bool_]


def steps_with_text(corpus: Corpus, row: EpisodeRow) -> NDArray[np.bool_]:
    """Which steps of an episode have a text, bool [T].

    Raises:
        IntegrityError: its shard is damaged. It is read only if the sources of the corpus have texts.
    """
    if not corpus.info.text:
        return _held([part for each in row.captions for part in each.steps], row.n_steps)
    texts = _stored_texts(corpus, row.shard, row.row_start, row.n_steps)
    return np.array([text is not None for text in texts], np.bool_)


def write_texts(
    corpus: Corpus, answers: Iterable[Answer], about: Captions, *, replace_texts: bool
) -> WrittenTexts:
    """Give every step of the answered clips its text, in one new version.

    Args:
        corpus: the corpus; afterwards it is at the new version.
        answers: at most one for each step.
        about: the model, the prompt and the settings of the answers.
        replace_texts: also replace texts that are there; if False, only steps without one get one.

    Raises:
        IntegrityError: a shard is damaged; damage is never copied.
        WhamDataError: others moved the episodes in every attempt.
    """
    of: dict[str, list[Answer]] = {}
    for answer in answers:
        of.setdefault(answer.clip.episode, []).append(answer)
    written = WrittenTexts()
    for _ in range(TRIES):
        corpus.refresh()
        shards = dict(_changed_shards(corpus, of, replace_texts=replace_texts))
        if not shards:
            return written
        changes = {(e, name): each for name in shards for e, each in shards[name].items()}
        done = _commit(corpus, shards, of, about) & changes.keys()
        written = WrittenTexts(
            written.episodes + len(done),
            written.steps + sum(int(changes[place].written.sum()) for place in done),
            written.shards + len({name for _, name in done}),
        )
        if len(done) == len(changes):
            return written
    raise WhamDataError(
        f"{corpus.location}: other runs moved its episodes {TRIES} times meanwhile; run this again"
    )


def captions_after(
    before: Sequence[Captions], about: Captions, written: NDArray[np.bool_]
) -> tuple[Captions, ...]:
    """The captions of an episode after some of its steps have got a new text.

    Args:
        before: those so far; none of their steps is in two of them.
        about: of the new texts. Captions with the same settings are joined with them.
        written: bool [T], the steps with a new text.
    """
    after = []
    new = written.copy()
    for each in before:
        held = _held(each.steps, len(written))
        if each.settings == about.settings:
            new |= held
        elif steps := _runs(held & ~written):
            after.append(replace(each, steps=steps))
    return (*after, replace(about, steps=_runs(new)))


def _stored_texts(corpus: Corpus, shard: str, start: int, n_steps: int) -> Texts:
    view = corpus.open_shard(shard)
    if not view.has_text:
        return [None] * n_steps
    tables = view.read_rows(start, start + n_steps, ["step", "text"])
    return [text for _, table in tables for text in table.column("text").to_pylist()]


def _held(ranges: Iterable[tuple[int, int]], n_steps: int) -> NDArray[np.bool_]:
    held = np.zeros(n_steps, np.bool_)
    for start, stop in ranges:
        held[start:stop] = True
    return held


def _runs(held: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    edges = np.flatnonzero(np.diff(held, prepend=False, append=False)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _changed_shards(
    corpus: Corpus, of: Mapping[str, Sequence[Answer]], *, replace_texts: bool
) -> Iterator[tuple[str, dict[str, _Changed]]]:
    """For each shard with steps that get a text: its episodes with such steps."""
    rows = corpus.episodes.filter(pl.col("episode").is_in(list(of))).sort("shard", "row_start")
    for (name,), mine in rows.group_by("shard", maintain_order=True):
        changed = {}
        for record in mine.iter_rows(named=True):
            place = record["shard"], record["row_start"], record["n_steps"]
            texts = _stored_texts(corpus, *place)
            change = _with_answers(
                texts, record["recording"], of[record["episode"]], replace_texts=replace_texts
            )
            if change.written.any():
                changed[record["episode"]] = change
        if changed:
            yield str(name), changed


def _with_answers(
    before: Texts, recording: str, answers: Sequence[Answer], *, replace_texts: bool
) -> _Changed:
    texts = before.copy()
    for answer in answers:
        clip = answer.clip
        if clip.recording == recording:
            for step in range(clip.start, min(clip.stop, len(texts))):
                if replace_texts or before[step] is None:
                    texts[step] = answer.text
    written = [new != old for new, old in zip(texts, before, strict=True)]
    return _Changed(texts, np.array(written, np.bool_))


def _commit(
    corpus: Corpus,
    shards: Mapping[str, Mapping[str, _Changed]],
    of: Mapping[str, Sequence[Answer]],
    about: Captions,
) -> set[Place]:
    """Write the new shards and name them in the manifest.

    Returns:
        The episodes that are read from a new shard now. Others were moved or forgotten meanwhile.
    """
    moves: dict[Place, tuple[ShardFile, int]] = {}
    captions: dict[Place, list[Record]] = {}
    rows = corpus.episodes.filter(pl.col("shard").is_in(list(shards))).sort("shard", "row_start")
    for (key,), mine in rows.group_by("shard", maintain_order=True):
        name = str(key)
        records = mine.rows(named=True)
        shard = _rewritten(corpus, records, shards[name])
        starts = {each.episode: each.start for each in shard.episodes}
        for record in records:
            place = record["episode"], name
            moves[place] = shard, starts[record["episode"]]
            if change := shards[name].get(record["episode"]):
                made = max(answer.received for answer in of[record["episode"]])
                before = [Captions.from_record(each) for each in record["captions"] or ()]
                after = captions_after(before, replace(about, made=made), change.written)
                captions[place] = [each.to_record() for each in after]
    done: set[Place] = set()

    def amended(tables: list[pa.Table]) -> list[pa.Table]:
        done.clear()
        return [_with_captions(table, moves, captions, done) for table in tables]

    corpus.amend(CAPTION, amended)
    return done


def _rewritten(
    corpus: Corpus, records: Sequence[Record], changed: Mapping[str, _Changed]
) -> ShardFile:
    """Write the episodes of a shard to a new one with their texts."""
    check_shards(corpus, {record["shard"]: record["shard_sha256"] for record in records})
    parts = [
        [record["shard_sha256"], record["episode"], _texts_hash(changed.get(record["episode"]))]
        for record in records
    ]
    shard_id = content_hash(["caption", corpus.info.settings_hash, parts])

    def pieces() -> Iterator[EpisodeSteps]:
        for steps in pieces_of(corpus, records):
            change = changed.get(steps.episode)
            if change is None:
                yield steps
            else:
                first = steps.first_step
                yield replace(steps, text=change.texts[first : first + steps.n_steps])

    return corpus.write_shard(pieces(), shard_id, captioned=True)


def _texts_hash(change: _Changed | None) -> str | None:
    """A hash of all texts of an episode; None: they do not change."""
    return None if change is None else content_hash(change.texts)


def _with_captions(
    rows: pa.Table,
    moves: Mapping[Place, tuple[ShardFile, int]],
    captions: Mapping[Place, list[Record]],
    done: set[Place],
) -> pa.Table:
    """Manifest rows with the new places and captions of the episodes in `moves`, added to `done`."""
    keys = list(
        zip(rows.column("episode").to_pylist(), rows.column("shard").to_pylist(), strict=True)
    )
    moved = [key for key in keys if key in moves]
    if not moved:
        return rows
    done.update(moved)
    after, _ = relocated(rows, moves)
    column = rows.column("captions").to_pylist()
    values = [captions.get(key, value) for key, value in zip(keys, column, strict=True)]
    field = rows.schema.field("captions")
    return after.set_column(
        rows.schema.get_field_index("captions"), field, pa.array(values, field.type)
    )
