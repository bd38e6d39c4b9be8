"""Checks that every node of a cluster sees the same corpora and recordings, before it gets work."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wham_data.corpus.storage.contract import TEMPORARY, Storage
from wham_data.schemas.errors import MismatchError

MOST_FILES = 64
"""So many files are looked at on each node, spread evenly over all."""


@contextmanager
def same_files(corpora: Sequence[Storage], files: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """A check for `Stage.check`: of corpora that workers write to, and of files that they read.

    Until the end of the block each corpus has a temporary file, by which other machines recognise it.
    """
    name = f"shards/{TEMPORARY}{uuid.uuid4().hex}"
    sample = [each.absolute() for each in files[:: len(files) // MOST_FILES + 1]]
    sizes = tuple((each, each.stat().st_size) for each in sample if each.is_file())
    try:
        for corpus in corpora:
            corpus.put_if_absent(name, name.encode())
        yield _SameFiles(tuple(corpora), name, sizes)
    finally:
        for corpus in corpora:
            corpus.delete(name)


@dataclass(frozen=True, slots=True)
class _SameFiles:
    """The check, to be called on another machine.

    corpora  each has a file `name`, which holds its name
    files    with their sizes in bytes
    """

    corpora: tuple[Storage, ...]
    name: str
    files: tuple[tuple[Path, int], ...]

    def __call__(self) -> None:
        """Raise `MismatchError` if this machine does not see the same."""
        for corpus in self.corpora:
            if not self._seen_in(corpus):
                raise MismatchError(
                    f"{corpus.location} is not the corpus that the command sees there. Every node must see "
                    "the corpus and the recordings under the same paths"
                )
            mine = f"{self.name}-{uuid.uuid4().hex}"
            corpus.put_if_absent(mine, b"")
            corpus.delete(mine)
        for path, size in self.files:
            try:
                found = f"{path.stat().st_size} bytes"
            except OSError as error:
                found = error.strerror or str(error)
            if found != f"{size} bytes":
                raise MismatchError(
                    f"{path}: {found}, but {size} bytes where the command runs. Every node must see the "
                    "corpus and the recordings under the same paths"
                )

    def _seen_in(self, corpus: Storage) -> bool:
        try:
            return corpus.read(self.name, 1 << 10) == self.name.encode()
        except FileNotFoundError:
            return False
