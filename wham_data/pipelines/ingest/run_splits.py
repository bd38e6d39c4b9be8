"""The splits of a run: which recording goes where, and what to say if a split stays empty."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from wham_data.corpus import Corpus
from wham_data.corpus.splits import (
    Conflict,
    Placed,
    SplitBy,
    SplitPlan,
    Ties,
    drawn_alone,
    split_by_of,
    splits_asked,
    tied_by,
)
from wham_data.pipelines.ingest.intake.known_inputs import KeySet
from wham_data.pipelines.ingest.plan import IngestPlan
from wham_data.pipelines.ingest.settings import IngestSettings


class RunSplits:
    """The splits of a run, while its recordings are still being found.

    A group's split depends on all of its recordings, so those with a player or a match have to wait
    until every recording is found: see `settle`. One that nothing ties is a group of its own. Its split
    is final as soon as every split that was asked for is sure to get an episode: then no group moves.
    """

    def __init__(self, corpus: Corpus, settings: IngestSettings, tie_to: str | None) -> None:
        """Begin with what the corpus has."""
        self._corpus = corpus
        self._settings = settings
        self._tie_to = tie_to
        splits = corpus.manifest_columns(("split",)).column("split")
        self._sure = set(splits.unique().to_pylist())
        self._placed: KeySet | None = None
        self._taken: list[str] = []
        self._refused: list[str] = []
        self.plan: SplitPlan | None = None

    def settle(self, ties: Sequence[Ties], out: Iterable[str], others: int) -> None:
        """Every recording is found: the splits of all of them.

        Args:
            ties: of each recording that was not in the corpus when it was found.
            out: keys of those that will not get into it.
            others: count of the recordings that were in the corpus.
        """
        settings = self._settings
        self.plan = SplitPlan(
            ties,
            placed_in(self._corpus),
            settings.split,
            settings.split_seed,
            self._tie_to,
            others=others,
        )
        for key in (*out, *self._refused):
            self.plan.refuse(key)
        for key in self._taken:
            self.plan.take(key)
        self._refused.clear()
        self._taken.clear()

    def refuse(self, key: str) -> None:
        """See `SplitPlan.refuse`."""
        if self.plan is None:
            self._refused.append(key)
        else:
            self.plan.refuse(key)

    def take(self, ties: Ties) -> None:
        """See `SplitPlan.take`."""
        if self.plan is not None:
            self.plan.take(ties.recording)
            return
        self._taken.append(ties.recording)
        if self._is_alone(ties):
            self._sure.add(self._drawn(ties.recording))

    def final(self, taken: Collection[Ties]) -> set[str]:
        """Those of the recordings that can be committed now, for their splits stay."""
        if self._settings.split_by == "time":
            return {each.recording for each in taken}
        if self.plan is not None:
            return self.plan.final({each.recording for each in taken})
        if not self._sure.issuperset(splits_asked(self._settings.split)):
            return set()
        return {each.recording for each in taken if self._is_alone(each)}

    def of(self, keys: Collection[str]) -> Mapping[str, str | Conflict]:
        """The split of each of these recordings, which are final, or all are found."""
        if self.plan is not None:
            return self.plan.splits(keys)
        return {key: self._drawn(key) for key in keys}

    def _is_alone(self, ties: Ties) -> bool:
        if ties.names:
            return False
        if self._placed is None:  # also under other settings
            recordings = self._corpus.manifest_columns(("recording",)).column("recording")
            self._placed = KeySet(recordings)
        return bytes.fromhex(ties.recording) not in self._placed

    def _drawn(self, key: str) -> str:
        return drawn_alone(key, self._settings.split, self._settings.split_seed)


def planned_splits(
    plan: IngestPlan, corpus: Corpus | None, settings: IngestSettings, tie_to: str | None
) -> SplitPlan:
    """The splits of the recordings of a plan. Those that it leaves out fill none.

    Args:
        plan: the recordings, seen against the corpus.
        corpus: where they go; None: a new corpus.
        settings: shares and seed.
        tie_to: see `SplitPlan`.
    """
    placed = () if corpus is None else placed_in(corpus)
    others = plan.counts.already
    splits = SplitPlan(
        plan.ties, placed, settings.split, settings.split_seed, tie_to, others=others
    )
    for key in plan.out:
        splits.refuse(key)
    return splits


def placed_in(corpus: Corpus) -> Iterator[Placed]:
    """The recordings of a corpus with their splits."""
    by = split_by_of(corpus.info)
    columns = ["recording", "match", "player", "split"]
    rows = corpus.manifest_columns(columns).group_by(columns).aggregate([]).select(columns)
    for batch in rows.to_batches(max_chunksize=1 << 14):
        lists = (column.to_pylist() for column in batch.columns)
        for recording, match, player, split in zip(*lists, strict=True):
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
