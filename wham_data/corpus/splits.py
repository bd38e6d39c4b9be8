"""Assign recordings to the splits train, val and test, by whole matches and players.

Recordings that share a match or a player are tied. Tied recordings, also through others in between,
form a group, and a group goes to one split. If a group has episodes in the corpus, it goes to their
split; otherwise a seeded hash of the group draws one. So adding recordings never moves old episodes,
and what a group draws does not depend on the other groups.

Few groups may leave a split empty that was asked for. It then gets a new group of another split: the
smallest that is not the only one there, in order of the same hash. If there are fewer groups than
splits, train comes before val, and val before test.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal, get_args

from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.manifest import SPLITS

Tie = Literal["match", "player"]
TIES: Final[tuple[Tie, ...]] = get_args(Tie)
SplitBy = Literal["player", "match", "recording", "time"]
SPLIT_BY: Final[Mapping[SplitBy, tuple[Tie, ...]]] = {
    "player": TIES,
    "match": ("match",),
    "recording": (),
    "time": (),
}
"""What ties recordings. With "time" each recording is divided itself: see `pipelines/time_blocks.py`."""
SPLIT_BY_SETTING: Final = "split_by"
"""Name of the setting of a corpus that says it; absent for "player"."""
DRAWS: Final = 1 << 64
NOWHERE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Ties:
    """The properties of a recording that tie it to other recordings.

    recording      hash of the recording
    match, player  names; None: not known, so it ties nothing
    """

    recording: str
    match: str | None = None
    player: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its match and its player, each as a `tie_name`."""
        pairs: tuple[tuple[Tie, str | None], ...] = (("match", self.match), ("player", self.player))
        return tuple(tie_name(kind, name) for kind, name in pairs if name)


def tie_name(kind: Tie, name: str) -> str:
    """A name for a match or a player; it differs even if a match and a player have equal names."""
    return f"{kind} {name}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A recording that is in the corpus, and its split."""

    ties: Ties
    split: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A new recording that would tie several splits together.

    splits  their names, sorted
    """

    splits: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"its match and player tie {' and '.join(self.splits)} together; "
            "say which split such recordings go to, or leave it out"
        )


@dataclass(slots=True)
class SplitIndex:
    """The splits of each match and each player of a corpus.

    splits  tie name -> names of splits
    base    another index whose entries count too; it is never changed
    """

    splits: dict[str, frozenset[str]] = field(default_factory=dict)
    base: SplitIndex | None = None

    def add(self, placed: Placed) -> None:
        """Add the match and the player of a recording of the corpus."""
        for name in placed.ties.names:
            self.add_name(name, placed.split)

    def add_name(self, name: str, split: str) -> None:
        """Add a split of a match or a player (see `tie_name`)."""
        self.splits[name] = _with(self.splits.get(name, NOWHERE), split)

    def found(self, name: str) -> frozenset[str]:
        """The splits of a match or a player (see `tie_name`); empty if it is unknown."""
        in_base = self.base.found(name) if self.base else NOWHERE
        return self.splits.get(name, NOWHERE) | in_base

    def place(self, ties: Ties, split: str, tie_to: str | None = None) -> str | Conflict:
        """The split of a recording, from what the corpus holds now.

        Another process may have committed its player or its match in the meantime. The recording
        then goes to their split.

        Args:
            ties: of the recording.
            split: its split if neither its player nor its match is in the corpus.
            tie_to: its split if they are in several splits; None: a Conflict.
        """
        touched = {split for name in ties.names for split in self.found(name)}
        if len(touched) > 1:
            return tie_to or Conflict(tuple(sorted(touched)))
        return touched.pop() if touched else split


def tied_by(by: SplitBy, recording: str, match: str | None, player: str | None) -> Ties:
    """What ties a recording to others in a corpus whose splits are made by `by`."""
    ties = SPLIT_BY[by]
    return Ties(recording, match if "match" in ties else None, player if "player" in ties else None)


def split_by_of(info: CorpusInfo) -> SplitBy:
    """What ties recordings in a corpus.

    Raises:
        IntegrityError: the corpus was made by a release that knows more ways.
    """
    by = info.settings.get(SPLIT_BY_SETTING, "player")
    if by not in SPLIT_BY:
        raise IntegrityError(
            f"corpus.json: {SPLIT_BY_SETTING} {str(by)[:40]!r} is none of {', '.join(SPLIT_BY)}: "
            "it needs a newer release"
        )
    return by  # type: ignore[return-value]  # checked above


def assign_splits(
    recordings: Sequence[Ties],
    placed: Iterable[Placed],
    fractions: Sequence[float] = (90, 5, 5),
    seed: int = 0,
    tie_to: str | None = None,
    refused: Collection[str] = (),
) -> dict[str, str | Conflict]:
    """The split of every recording. The order of the recordings does not matter.

    Args:
        recordings: all inputs of a run, including those in the corpus. Otherwise a run that is
            killed and started again would assign other splits.
        placed: the recordings of the corpus.
        fractions: shares of train, val and test; only their ratios matter.
        seed: seed for assigning splits.
        tie_to: the split of recordings that would tie several splits together; None: they get a
            Conflict.
        refused: recordings that will not be in the corpus: they fill no split.

    Returns:
        recording -> split, or the conflict because of which the recording must be left out.

    Raises:
        UsageError: `fractions` are not three shares with a sum above 0.
    """
    plan = SplitPlan(recordings, placed, fractions, seed, tie_to)
    for each in refused:
        plan.refuse(each)
    return plan.splits()


@dataclass(slots=True)
class _Group:
    """New recordings that are tied to each other and to none of the corpus.

    drawn  the split that its hash draws
    left   count of recordings that are not refused
    taken  whether one of them is sure to get into the corpus
    """

    drawn: str
    left: int = 0
    taken: bool = False


class SplitPlan:
    """The splits of a run's recordings, and which of them are final while some may still be refused.

    Which recordings are refused turns out one by one, in any order. The final splits do not depend
    on that order: see `is_final`.
    """

    def __init__(
        self,
        recordings: Sequence[Ties],
        placed: Iterable[Placed],
        fractions: Sequence[float] = (90, 5, 5),
        seed: int = 0,
        tie_to: str | None = None,
        *,
        others: int = 0,
    ) -> None:
        """Draw a split for each group. The arguments are those of `assign_splits`.

        Args:
            others: count of recordings of the run that are in the corpus, if `recordings` lack them.
        """
        self._others = others
        shares = _shares(fractions)
        self._asked = [split for split, share in zip(SPLITS, shares, strict=True) if share]
        self._largest = max(zip(shares, SPLITS, strict=True), key=lambda pair: pair[0])[1]
        ties = _Groups()
        self._fixed: dict[str, str | Conflict] = {}
        for old in placed:
            ties.join(old.ties.names, old.split)
            self._fixed[old.ties.recording] = old.split
        self._there = {split for split in self._fixed.values() if isinstance(split, str)}
        self._sure = set(self._there)
        self._names = {each.recording for each in recordings}
        members = self._tie_new(ties, recordings, tie_to)
        self._groups: dict[str, _Group] = {}
        self._group_of: dict[str, str] = {}  # of those that are not the smallest of their group
        self._gone: set[str] = set()
        smallest_of: dict[str, str] = {}
        for each in members:
            if found := ties.splits(each.names):
                self._fixed[each.recording] = found.pop()
                continue
            # The smallest hash of a group decides: members are sorted, so it is the first one here.
            root = ties.root(each.names[0]) if each.names else each.recording
            first = smallest_of.setdefault(root, each.recording) if each.names else root
            if first == each.recording:
                self._groups[first] = _Group(_draw(first, shares, seed))
            else:
                self._group_of[each.recording] = first
            self._groups[first].left += 1
        self._order = sorted(
            self._groups, key=lambda name: (self._groups[name].left, _digest(name, seed))
        )

    def _tie_new(self, ties: _Groups, recordings: Sequence[Ties], tie_to: str | None) -> list[Ties]:
        """Tie the new recordings that make no conflict, and return them, sorted."""
        members = []
        unique = {each.recording: each for each in recordings}
        for _, each in sorted(unique.items()):
            if each.recording in self._fixed:
                continue
            touched = ties.splits(each.names)
            if len(touched) > 1:
                self._fixed[each.recording] = tie_to or Conflict(tuple(sorted(touched)))
            else:
                ties.join(each.names)
                members.append(each)
        return members

    @property
    def n_groups(self) -> int:
        """Groups of new recordings that are not refused as a whole."""
        return sum(1 for _ in self._live())

    @property
    def n_recordings(self) -> int:
        """Recordings of the run that are not refused."""
        return self._others + len(self._names) - len(self._gone)

    @property
    def missing(self) -> tuple[str, ...]:
        """The splits that were asked for and get no recording."""
        if self._sure.issuperset(self._asked):
            return ()
        there = self._there | set(self._chosen().values())
        return tuple(split for split in self._asked if split not in there)

    def refuse(self, recording: str) -> None:
        """Note that a recording will not be in the corpus, so it cannot fill a split."""
        group = self._of(recording)
        if group is not None and recording not in self._gone:
            self._gone.add(recording)
            self._groups[group].left -= 1

    def take(self, recording: str) -> None:
        """Note that a recording will be in the corpus, unless it is refused at the commit."""
        if (name := self._of(recording)) is not None:
            group = self._groups[name]
            group.taken = True
            self._sure.add(group.drawn)

    def splits(self, recordings: Collection[str] | None = None) -> dict[str, str | Conflict]:
        """recording -> split or conflict, if no more recordings are refused; None: of all."""
        answer: dict[str, str | Conflict] = {}
        moved = {} if self._sure.issuperset(self._asked) else self._chosen()
        for recording in self._names if recordings is None else recordings:
            if (name := self._of(recording)) is None:
                answer[recording] = self._fixed[recording]
            else:
                answer[recording] = moved.get(name, self._groups[name].drawn)
        return answer

    def final(self, recordings: Collection[str]) -> set[str]:
        """Those of the recordings whose split stays, whichever of the others are refused.

        A group keeps the split it drew once every split has a group that is sure. Before that, only
        the outermost groups in order can be moved to an empty split: for each of the three splits
        one, behind those that are alone in the two others.
        """
        if self._sure.issuperset(self._asked):
            return set(recordings)
        sure = [name for name in self._live() if self._groups[name].taken]
        if len(sure) == self.n_groups:
            return set(recordings)
        most = len(SPLITS)
        stays = {*sure[most:-most]}
        return {name for name in recordings if (group := self._of(name)) is None or group in stays}

    def _of(self, recording: str) -> str | None:
        """The group of a recording; None: its split does not depend on others."""
        return recording if recording in self._groups else self._group_of.get(recording)

    def _live(self) -> Iterator[str]:
        return (name for name in self._order if self._groups[name].left)

    def _chosen(self) -> dict[str, str]:
        """The split of each group that is not refused as a whole, in order."""
        chosen = {name: self._groups[name].drawn for name in self._live()}
        for place, missing in enumerate(self._asked):
            counts = Counter(chosen.values())
            if missing in self._there or counts[missing]:
                continue
            later = self._asked[place + 1 :]
            spare = [
                name
                for name, split in chosen.items()
                if split in later or split in self._there or counts[split] > 1
            ]
            if spare:
                chosen[spare[-1 if missing == self._largest else 0]] = missing
        return chosen


class _Groups:
    """Groups of tie names, each with the splits of its episodes in the corpus (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._splits: dict[str, set[str]] = {}

    def root(self, name: str) -> str:
        parent = self._parent.setdefault(name, name)
        while parent != name:
            self._parent[name] = self._parent[parent]
            name, parent = parent, self._parent[parent]
        return name

    def join(self, names: Sequence[str], split: str | None = None) -> None:
        roots = {self.root(name) for name in names}
        if not roots:
            return
        first = min(roots)
        splits = set() if split is None else {split}
        for root in roots:
            self._parent[root] = first
            splits |= self._splits.pop(root, set())
        self._splits[first] = splits

    def splits(self, names: Sequence[str]) -> set[str]:
        return {split for name in names for split in self._splits.get(self.root(name), ())}


@cache
def _with(splits: frozenset[str], split: str) -> frozenset[str]:
    """The splits and one more. Cached, so that a million players share a few sets."""
    return splits | {split}


def drawn_alone(recording: str, fractions: Sequence[float], seed: int) -> str:
    """The split that a recording draws which nothing ties to another; see `SplitPlan`."""
    return _draw(recording, _shares(fractions), seed)


def splits_asked(fractions: Sequence[float]) -> frozenset[str]:
    """The splits that have a share."""
    return frozenset(
        split for split, share in zip(SPLITS, _shares(fractions), strict=True) if share
    )


def _draw(recording: str, shares: Sequence[float], seed: int) -> str:
    """The split of a new group, chosen by a hash of the seed and its smallest recording."""
    draw = int.from_bytes(_digest(recording, seed)[:8], "big") / DRAWS
    reached = 0.0
    for split, share in zip(SPLITS, shares, strict=True):
        reached += share
        if draw < reached:
            return split
    return next(split for split, share in zip(SPLITS, shares, strict=True) if share)


def _digest(recording: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{recording}".encode()).digest()


def _shares(fractions: Sequence[float]) -> tuple[float, ...]:
    total = sum(fractions)
    if (
        len(fractions) != len(SPLITS)
        or not all(f >= 0 for f in fractions)
        or not 0 < total < float("inf")
    ):
        raise UsageError(
            f"split {', '.join(map(str, fractions))}: expected {len(SPLITS)} shares for "
            f"{', '.join(SPLITS)}, such as 90,5,5"
        )
    return tuple(f / total for f in fractions)
