"""What an ingest would do: every input found and sorted before anything is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Ties
from wham_data.corpus.tombstones import Forgotten
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.intake.identity import Identities
from wham_data.pipelines.ingest.intake.inputs import (
    Copies,
    Copy,
    Found,
    LeftOut,
    Refusal,
    SetAside,
)
from wham_data.pipelines.ingest.intake.known_inputs import KeySet, KnownInputs
from wham_data.pipelines.ingest.intake.sorting import Against, Sorting
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.readers import SourceSearch
from wham_data.pipelines.readers.kit.looked_at import looked_at
from wham_data.pipelines.readers.kit.units import FoundInUnit
from wham_data.schemas.errors import NoInputsError, counted
from wham_data.schemas.manifest import QuarantineRow, printable_unicode
from wham_data.schemas.paths import told
from wham_data.schemas.recording import Recording


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Every input of a run.

    to_do        recordings to be ingested, by path
    duplicates   copies of recordings
    refused      refused before anything was opened
    in_quarantine  refused by an earlier run, with their copies; not tried again unless asked for
    forgotten    left out, for the player, the match or the recording itself was forgotten
    endings      counts of files that are no recordings and belong to none, by `ending_of`
    counts       how many there are of each, and of those that the corpus has
    ties         of each recording that is not in the corpus
    out          keys of those that will not get into it
    players      names of all players
    keys         of all recordings
    by_pieces    some identities are of pieces of files, see `make_plan`
    """

    to_do: tuple[Found, ...]
    duplicates: tuple[Copy, ...]
    refused: tuple[Refusal, ...]
    in_quarantine: tuple[SetAside, ...]
    forgotten: tuple[LeftOut, ...]
    endings: Mapping[str, int]
    counts: Counts
    ties: tuple[Ties, ...]
    out: tuple[str, ...]
    players: frozenset[str]
    keys: tuple[bytes, ...]
    by_pieces: bool

    @property
    def copies(self) -> Copies:
        """The duplicates of each recording that has some."""
        found: defaultdict[str, list[Copy]] = defaultdict(list)
        for copy in self.duplicates:
            found[copy.key].append(copy)
        return found


def make_plan(
    found: Iterable[Recording | FoundInUnit],
    against: Against | None = None,
    known: KnownInputs | None = None,
    most_hashed: int | None = None,
) -> IngestPlan:
    """Give every recording its identity, recognise copies, and sort all of them.

    Args:
        found: recordings by path, and what else is in their units.
        against: the corpus; None: there is none.
        known: hashes that earlier runs noted; None: every file is read.
        most_hashed: if the files that no earlier run noted have more bytes than this, those of equal
            size are the same if three pieces of them are, and no identity of theirs is the one that a
            run gives. For forecasts, which must not take as long as reading everything. None: no limit.
    """
    identities = Identities(known or KnownInputs())
    if most_hashed is not None:
        found = list(found)
        identities.by_pieces = identities.bytes_to_read(found) > most_hashed
    sorting = Sorting(identities, against or Against(), None)
    lists: dict[type, list[object]] = defaultdict(list)
    try:
        for each in sorting.run(found):
            lists[type(each)].append(each)
    finally:
        identities.close()
    return IngestPlan(
        to_do=tuple(lists[Found]),  # type: ignore[arg-type]
        duplicates=tuple(lists[Copy]),  # type: ignore[arg-type]
        refused=tuple(lists[Refusal]),  # type: ignore[arg-type]
        in_quarantine=tuple(lists[SetAside]),  # type: ignore[arg-type]
        forgotten=tuple(lists[LeftOut]),  # type: ignore[arg-type]
        endings=sorting.endings,
        counts=sorting.counts,
        ties=tuple(sorting.ties),
        out=tuple(sorting.out),
        players=frozenset(sorting.players),
        keys=tuple(sorted(sorting.seen)),
        by_pieces=identities.by_pieces,
    )


def planned(
    sources: Sequence[str | Path],
    settings: IngestSettings,
    choices: IngestChoices,
    corpus: Corpus | None = None,
    most_hashed: int | None = None,
) -> IngestPlan:
    """Find the recordings, and sort them.

    Args:
        sources: files and folders.
        settings, choices: of the run.
        corpus: what it has, or has refused before, is not done again; None: there is none.
        most_hashed: see `make_plan`.

    Raises:
        NoInputsError: no recording was found.
        UsageError: a source that does not exist, or no such option.
    """
    found = chosen(search_of(sources, settings, choices).found(), choices)
    if corpus is None:
        plan = make_plan(found, most_hashed=most_hashed)
    else:
        known = KnownInputs(corpus.storage, choices.player_key, rehash=choices.rehash)
        against = against_corpus(corpus, settings, choices)
        plan = make_plan(found, against, known, most_hashed)
    if not plan.counts.found:
        raise nothing_found(sources, plan.endings)
    return plan


def search_of(
    sources: Sequence[str | Path], settings: IngestSettings, choices: IngestChoices
) -> SourceSearch:
    """The search for the recordings of a run.

    Raises:
        UsageError: a source that does not exist, or no such option.
    """
    return SourceSearch(sources, choices.reader, settings.options_of_search(choices.reader))


def nothing_found(sources: Sequence[str | Path], endings: Mapping[str, int]) -> NoInputsError:
    """What to say if there is no recording, and what the other files are."""
    return NoInputsError(
        f"{', '.join(map(str, sources))}: no recording found in "
        f"{counted(sum(endings.values()), 'file')}: {looked_at(endings)}. "
        "docs/readers.md lists the formats that are read"
    )


def chosen(
    found: Iterable[Recording | FoundInUnit], choices: IngestChoices
) -> Iterator[Recording | FoundInUnit]:
    """Of what was found, what the run is about: see `only` and `limit` of `IngestChoices`."""
    taken = 0
    for each in found:
        if isinstance(each, FoundInUnit):
            refused = {} if choices.limit is not None else each.refused
            kept = {
                path: why for path, why in refused.items() if _is_meant(told(path), choices.only)
            }
            yield replace(each, refused=kept)
        elif _is_meant(each.source, choices.only):
            taken += 1
            yield each
            if taken == choices.limit:
                return


def _is_meant(source: str, only: Collection[str] | None) -> bool:
    return only is None or printable_unicode(source) in only


def against_corpus(corpus: Corpus, settings: IngestSettings, choices: IngestChoices) -> Against:
    """What inputs are seen against where they go to a corpus."""
    rows = corpus.manifest_columns(("recording", "settings"))
    mine = pc.equal(rows.column("settings"), corpus.info.settings_hash)
    recordings = rows.column("recording")
    del rows
    if not pc.all(mine).as_py():
        recordings = recordings.filter(mine)
    refused = () if choices.retry_quarantined else [*refused_in(corpus)]
    forgotten = Forgotten() if choices.allow_forgotten else Forgotten.read(corpus.storage)
    return Against(
        KeySet(recordings),
        KeySet(refused),
        forgotten,
        Naming(choices.player_key, choices.license),
        settings.split_by,
    )


def refused_in(corpus: Corpus) -> dict[str, list[QuarantineRow]]:
    """The rows in the corpus' quarantine under its settings, by the key of the recording."""
    # Not `corpus.quarantine`: a run without anything to do would load polars for it.
    table = corpus.refused.read().drop_columns(["created"])
    mine = table.filter(pc.field("settings") == corpus.info.settings_hash)
    rows: defaultdict[str, list[QuarantineRow]] = defaultdict(list)
    for record in mine.sort_by("path").to_pylist():
        rows[record["sha256"]].append(QuarantineRow.from_record(record))
    return rows
