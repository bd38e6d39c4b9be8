"""Assign recordings to the splits train, val and test, by whole matches and players.

Recordings that share a match or a player are tied. Tied recordings, also through others in between,
form a group, and a group goes to one split. If a group has episodes in the corpus, it goes to their
split; otherwise a seeded hash of the group chooses. So adding recordings never moves old episodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal, get_args

from wham_data.schemas.errors import UsageError
from wham_data.schemas.manifest import SPLITS

Tie = Literal["match", "player"]
TIES: Final[tuple[Tie, ...]] = get_args(Tie)
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


def assign_splits(
    recordings: Sequence[Ties],
    placed: Iterable[Placed],
    fractions: Sequence[float] = (90, 5, 5),
    seed: int = 0,
    tie_to: str | None = None,
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

    Returns:
        recording -> split, or the conflict because of which the recording must be left out.

    Raises:
        UsageError: `fractions` are not three shares with a sum above 0.
    """
    shares = _shares(fractions)
    groups = _Groups()
    answer: dict[str, str | Conflict] = {}
    for old in placed:
        groups.join(old.ties.names, old.split)
        answer[old.ties.recording] = old.split
    new = sorted({each.recording: each for each in recordings}.values(), key=lambda r: r.recording)
    members: dict[str, Ties] = {}
    for each in new:
        if each.recording in answer:
            continue
        touched = groups.splits(each.names)
        if len(touched) > 1:
            answer[each.recording] = tie_to or Conflict(tuple(sorted(touched)))
        else:
            groups.join(each.names)
            members[each.recording] = each
    smallest_of: dict[str, str] = {}
    for each in members.values():
        fixed = groups.splits(each.names)
        # The smallest hash of a group decides: members are sorted, so it is the first one here.
        group = groups.root(each.names[0]) if each.names else each.recording
        smallest = smallest_of.setdefault(group, each.recording)
        answer[each.recording] = fixed.pop() if fixed else _draw(smallest, shares, seed)
    names = {each.recording for each in recordings}
    return {recording: split for recording, split in answer.items() if recording in names}


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


def _draw(recording: str, shares: Sequence[float], seed: int) -> str:
    """The split of a new group, chosen by a hash of the seed and its smallest recording."""
    digest = hashlib.sha256(f"{seed}:{recording}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / DRAWS
    reached = 0.0
    for split, share in zip(SPLITS, shares, strict=True):
        reached += share
        if draw < reached:
            return split
    return next(split for split, share in zip(SPLITS, shares, strict=True) if share)


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
