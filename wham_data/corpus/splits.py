"""Which episodes are for training and which for judging: by whole matches and players.

Recordings that share a match or a player are tied, and what is tied (over any number of steps) is
one group and goes to one split. A group that holds episodes already in the corpus has their split;
a new group gets the one that a seeded hash of it says. So appending never moves an old episode.
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
    """What ties a recording to others.

    recording      its hash
    match, player  None: not known, ties nothing
    """

    recording: str
    match: str | None = None
    player: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its match and its player, which may be called alike without being the same."""
        pairs: tuple[tuple[Tie, str | None], ...] = (("match", self.match), ("player", self.player))
        return tuple(tie_name(kind, name) for kind, name in pairs if name)


def tie_name(kind: Tie, name: str) -> str:
    """What a match or a player is called among all that ties."""
    return f"{kind} {name}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A recording already in the corpus, and its split."""

    ties: Ties
    split: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A new recording that would tie two splits together: `splits`, sorted."""

    splits: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"its match and player tie {' and '.join(self.splits)} together; "
            "say which split such recordings go to, or leave it out"
        )


@dataclass(slots=True)
class SplitIndex:
    """The splits in which each match and each player of a corpus is found.

    beneath  another index that is looked through to but not added to
    """

    splits: dict[str, frozenset[str]] = field(default_factory=dict)
    beneath: SplitIndex | None = None

    def add(self, placed: Placed) -> None:
        """Take note of a recording of the corpus."""
        for name in placed.ties.names:
            self.add_name(name, placed.split)

    def add_name(self, name: str, split: str) -> None:
        """Take note of a match or a player (see `tie_name`) being in a split."""
        self.splits[name] = _with(self.splits.get(name, NOWHERE), split)

    def found(self, name: str) -> frozenset[str]:
        """The splits that a match or a player is in."""
        beneath = self.beneath.found(name) if self.beneath else NOWHERE
        return self.splits.get(name, NOWHERE) | beneath

    def place(self, ties: Ties, split: str, tie_to: str | None = None) -> str | Conflict:
        """Where a recording meant for `split` belongs, seeing what the corpus holds by now.

        Somebody else may have committed its player or its match in the meantime: it then goes where
        they are. Who is found in two splits already goes to `tie_to`, or nowhere.
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
    """The split of every recording, whatever the order they are given in.

    Args:
        recordings: all inputs of a run, also those that are already in the corpus. Only then does
            a run that was killed half-way and started again get the same splits.
        placed: the recordings of the corpus.
        fractions: shares of train, val and test; only their proportions matter.
        seed: seed for assigning splits.
        tie_to: the split of recordings that would tie two splits together; None: they are a
            Conflict.

    Returns:
        recording -> split, or the conflict for which it must be set aside.
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
    drawn: dict[str, str] = {}
    for each in members.values():
        fixed = groups.splits(each.names)
        # The smallest hash of a group speaks for it: members come sorted, so it is the first seen.
        group = groups.root(each.names[0]) if each.names else each.recording
        speaker = drawn.setdefault(group, each.recording)
        answer[each.recording] = fixed.pop() if fixed else _draw(speaker, shares, seed)
    wanted = {each.recording for each in recordings}
    return {recording: split for recording, split in answer.items() if recording in wanted}


class _Groups:
    """Names joined into groups, each with the splits its old episodes are in (union-find)."""

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
    """The splits and one more; a million players share the few sets there are."""
    return splits | {split}


def _draw(recording: str, shares: Sequence[float], seed: int) -> str:
    """The split of a new group, from the hash of its smallest recording."""
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
