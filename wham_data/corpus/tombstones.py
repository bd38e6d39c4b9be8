"""Marks in the folder `forgotten/`: what must not enter the corpus again, and which versions are gone.

    forgotten/<64 hex digits>               a player, match or recording that was forgotten
    forgotten/versions-before-<20 digits>   earlier versions can no longer be opened

The files are empty, and they are never removed. The mark of a player is a hash of the name in the
manifest. If this name is a pseudonym, nobody can check a guess without the key. If it is a real name,
everyone who has the corpus can check whether a certain player was forgotten.
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
"""Name of the transactions that forget rows, in the history of the manifest."""
Kind = Literal["player", "match", "recording"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
VERSIONS: Final = re.compile(r"versions-before-(\d{20})")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The marks of a corpus at the time when they were read.

    names  names of the files in `forgotten/`
    """

    names: frozenset[str] = frozenset()

    @classmethod
    def read(cls, storage: Storage) -> Forgotten:
        """The marks of the corpus in `storage` at this moment."""
        return cls(frozenset(storage.list(FOLDER)))

    def holds(self, kind: Kind, name: str | None) -> bool:
        """Whether this player, match or recording was forgotten; False for None."""
        return name is not None and mark_of(kind, name) in self.names

    def blocks(self, ties: Ties) -> Kind | None:
        """Why a recording must stay out: its player, its match or itself was forgotten.

        Returns:
            The kind of the first mark that applies; None: the recording may enter.
        """
        if not self.names:
            return None
        names = zip(KINDS, (ties.player, ties.match, ties.recording), strict=True)
        return next((kind for kind, name in names if self.holds(kind, name)), None)

    @property
    def oldest_version(self) -> int:
        """The oldest version that can still be opened; 0: all versions can."""
        found = (VERSIONS.fullmatch(name) for name in self.names)
        return max((int(each[1]) for each in found if each), default=0)


def mark_of(kind: Kind, name: str) -> str:
    """The file name in `forgotten/` for a player, match or recording: 64 hex digits."""
    text = f"wham-data forgotten {kind}\0{name}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def remember(storage: Storage, kind: Kind, name: str) -> None:
    """Mark a player, match or recording as forgotten. The mark is durable on return."""
    storage.put_if_absent(f"{FOLDER}/{mark_of(kind, name)}", b"")


def mark_versions_gone(storage: Storage, version: int) -> None:
    """Mark the versions before this one as gone. The mark is durable on return."""
    storage.put_if_absent(f"{FOLDER}/versions-before-{version:020d}", b"")


def copy_marks(source: Storage, target: Storage) -> None:
    """Copy the marks of players, matches and recordings to a copy of a corpus.

    Marks of versions are not copied, because the copy has versions of its own.
    """
    for name in source.list(FOLDER):
        if not VERSIONS.fullmatch(name):
            target.put_if_absent(f"{FOLDER}/{name}", b"")
