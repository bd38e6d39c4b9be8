"""The splits of a run: which recording goes where, and what to say if a split stays empty."""

from __future__ import annotations

from collections.abc import Iterator

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Placed, SplitBy, SplitPlan, split_by_of, tied_by
from wham_data.pipelines.ingest.plan import IngestPlan
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.settings import IngestSettings


def planned_splits(
    plan: IngestPlan,
    corpus: Corpus | None,
    settings: IngestSettings,
    naming: Naming,
    tie_to: str | None,
) -> SplitPlan:
    """The splits of the recordings of a run.

    Args:
        plan: the recordings. Those that an earlier run refused and those that were forgotten fill no
            split.
        corpus: where they go; None: a new corpus.
        settings: shares, seed, and what ties recordings.
        naming: how the corpus names players.
        tie_to: see `SplitPlan`.
    """
    splits = SplitPlan(
        [naming.tied_by(settings.split_by, found) for found in plan.recordings],
        () if corpus is None else placed_in(corpus),
        settings.split,
        settings.split_seed,
        tie_to,
    )
    for found in (*plan.in_quarantine, *plan.forgotten):
        splits.refuse(found.key)
    return splits


def placed_in(corpus: Corpus) -> Iterator[Placed]:
    """The recordings of a corpus with their splits."""
    by = split_by_of(corpus.info)
    columns = ("recording", "match", "player", "split")
    for recording, match, player, split in corpus.episodes.select(columns).unique().iter_rows():
        yield Placed(tied_by(by, recording, match, player), split)


def empty_splits(splits: SplitPlan, settings: IngestSettings) -> str | None:
    """What to say if a split that was asked for gets no recording.

    None: each gets one, or the run has a single recording, of which nobody expects it.
    """
    missing = splits.missing
    if not missing or settings.split_by == "time" or splits.n_recordings < 2:
        return None
    count = "a single group" if splits.n_groups == 1 else f"{splits.n_groups} groups"
    return (
        f"no episode will be in {' or '.join(missing)}: {GROUPS[settings.split_by]}, and the new "
        f"recordings form {count}. {HELP[settings.split_by]}"
    )


GROUPS: dict[SplitBy, str] = {
    "player": "all recordings of a player or a match go to one split",
    "match": "all recordings of a match go to one split",
    "recording": "a recording goes to one split",
}
HELP: dict[SplitBy, str] = {
    "player": "What helps, with a new --out: --split-by match, --split-by recording (both put a "
    "player into several splits), or --split-by time (divides each recording)",
    "match": "What helps, with a new --out: --split-by recording, or --split-by time (divides each "
    "recording)",
    "recording": "What helps: more recordings, or, with a new --out, --split-by time (divides each "
    "recording)",
}
