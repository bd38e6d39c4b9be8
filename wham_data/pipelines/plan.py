"""What an ingest would do: the recordings found, each with its identity, sorted into what to do with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from wham_data.corpus import Corpus
from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import Recording

HASH_THREADS = 4
HASH_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A recording with its identity.

    key    sha256 over the bytes of its files, hex. Names do not count: a renamed copy is the same
           recording
    bytes  size of all its files
    """

    recording: Recording
    key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input that is refused, with the identity under which quarantine keeps it.

    stage  "find", "ingest" or "split"
    """

    path: Path
    key: str
    stage: str
    why: RefusedInput


@dataclass(frozen=True, slots=True)
class Plan:
    """Every input once, in exactly one of these lists.

    to_do        to be ingested, by key
    already      in the corpus
    duplicates   (the copy, the recording it is a copy of)
    refused      refused before anything was opened
    in_quarantine  refused by an earlier run; not tried again unless asked for
    ignored      files that are no recordings and belong to none
    """

    to_do: tuple[Found, ...]
    already: tuple[Found, ...]
    duplicates: tuple[tuple[Found, Found], ...]
    refused: tuple[Refusal, ...]
    in_quarantine: tuple[Found, ...]
    ignored: tuple[Path, ...]

    @property
    def found(self) -> int:
        """Inputs found."""
        return (
            len(self.to_do)
            + len(self.already)
            + len(self.duplicates)
            + len(self.refused)
            + len(self.in_quarantine)
        )

    @property
    def recordings(self) -> tuple[Found, ...]:
        """Every distinct recording that was recognised, whatever becomes of it, by key."""
        return tuple(
            sorted((*self.to_do, *self.already, *self.in_quarantine), key=lambda found: found.key)
        )

    def against(self, corpus: Corpus, *, retry_quarantined: bool = False) -> Plan:
        """The plan seen against a corpus: without what it holds, or has refused before."""
        there = corpus.known_recordings()
        set_aside = set() if retry_quarantined else refused_in(corpus) - there
        return replace(
            self,
            to_do=tuple(f for f in self.to_do if f.key not in there and f.key not in set_aside),
            already=tuple(f for f in self.to_do if f.key in there),
            in_quarantine=tuple(f for f in self.to_do if f.key in set_aside),
        )


def make_plan(
    sources: Sequence[str | Path], *, reader: str = "auto", limit: int | None = None
) -> Plan:
    """Look for recordings and tell copies apart; everything distinct is still to do.

    Args:
        sources: files and folders.
        reader: "auto", or the one reader to use.
        limit: take only so many recordings, the first by path.

    Raises:
        UsageError: a source that does not exist.
    """
    discovery = discover(sources, reader)
    recordings = discovery.recordings[:limit]
    refused_files = discovery.refused if limit is None else ()
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        identities = list(pool.map(_identify, (recording.files for recording in recordings)))
        refused_ids = list(pool.map(_identify, ((path,) for path, _ in refused_files)))

    refused = [
        Refusal(path, _key(identity), "find", why)
        for (path, why), identity in zip(refused_files, refused_ids, strict=True)
    ]
    first: dict[str, Found] = {}
    duplicates = []
    for recording, identity in zip(recordings, identities, strict=True):
        if isinstance(identity, RefusedInput):
            refused.append(Refusal(recording.path, "", "find", identity))
            continue
        found = Found(recording, *identity)
        original = first.setdefault(found.key, found)
        if original is not found:
            duplicates.append((found, original))

    return Plan(
        to_do=tuple(sorted(first.values(), key=lambda found: found.key)),
        already=(),
        duplicates=tuple(duplicates),
        refused=tuple(refused),
        in_quarantine=(),
        ignored=discovery.ignored,
    )


def refused_in(corpus: Corpus) -> set[str]:
    """Keys of the recordings in the corpus' quarantine under its settings."""
    table = corpus.quarantine
    return set(table.filter(table["settings"] == corpus.info.settings_hash)["sha256"])


def _identify(files: tuple[Path, ...]) -> tuple[str, int] | RefusedInput:
    """Key and size of a recording; a file that cannot be read is a refusal."""
    whole = hashlib.sha256()
    size = 0
    for path in files:
        if not path.is_file():  # opening a FIFO would wait for ever
            return RefusedInput(Reason.UNREADABLE, "not a regular file")
        try:
            digest, count = _hash_file(path)
        except OSError as error:
            return RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror or error}")
        whole.update(digest)
        size += count
    return whole.hexdigest(), size


def _key(identity: tuple[str, int] | RefusedInput) -> str:
    return "" if isinstance(identity, RefusedInput) else identity[0]


def _hash_file(path: Path) -> tuple[bytes, int]:
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            count += len(block)
    return digest.digest(), count
