"""What a corpus must not take in again, and which versions it no longer has: the names in `forgotten/`.

    forgotten/<64 hex digits>               a player, match or recording that was forgotten
    forgotten/versions-before-<20 digits>   what earlier versions named is gone

The files are empty; a name is put there once and never taken back. A player's mark is a hash of their
name in the manifest. If that is a pseudonym, nobody can test a guess without the key; if it is a
real name, everyone who has the corpus can.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from wham_data.corpus.splits import Ties
from wham_data.corpus.storage.contract import Storage

FOLDER: Final = "forgotten"
FORGET: Final = "FORGET"
"""The operation by which a manifest's history shows that rows were forgotten."""
Kind = Literal["player", "match", "recording"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
VERSIONS: Final = re.compile(r"versions-before-(\d{20})")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The names in `forgotten/`, as they were when it was read."""

    names: frozenset[str] = frozenset()

    @classmethod
    def read(cls, storage: Storage) -> Forgotten:
        """What the corpus has forgotten by now."""
        return cls(frozenset(storage.list(FOLDER)))

    def holds(self, kind: Kind, name: str | None) -> bool:
        """Whether this player, match or recording was forgotten."""
        return name is not None and mark_of(kind, name) in self.names

    def bars(self, ties: Ties) -> Kind | None:
        """What of a recording was forgotten, so that it must stay out; None: nothing."""
        if not self.names:
            return None
        names = zip(KINDS, (ties.player, ties.match, ties.recording), strict=True)
        return next((kind for kind, name in names if self.holds(kind, name)), None)

    @property
    def oldest_version(self) -> int:
        """The first version whose files are all there."""
        found = (VERSIONS.fullmatch(name) for name in self.names)
        return max((int(each[1]) for each in found if each), default=0)


def mark_of(kind: Kind, name: str) -> str:
    """Under which name `forgotten/` holds a player, match or recording."""
    text = f"wham-data forgotten {kind}\0{name}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def remember(storage: Storage, kind: Kind, name: str) -> None:
    """Note, durably, that this must not come back."""
    storage.put_if_absent(f"{FOLDER}/{mark_of(kind, name)}", b"")


def let_go_before(storage: Storage, version: int) -> None:
    """Note, durably, that versions before this one can no longer be opened."""
    storage.put_if_absent(f"{FOLDER}/versions-before-{version:020d}", b"")


def copy_marks(source: Storage, target: Storage) -> None:
    """Let a copy of a corpus keep out what the corpus itself does; its versions are its own."""
    for name in source.list(FOLDER):
        if not VERSIONS.fullmatch(name):
            target.put_if_absent(f"{FOLDER}/{name}", b"")
