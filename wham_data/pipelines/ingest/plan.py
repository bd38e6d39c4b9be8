"""What an ingest would do: the recordings found, each with its identity, sorted into what to do with it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.readers import NO_OPTIONS, discover
from wham_data.pipelines.readers.kit.looked_at import looked_at
from wham_data.schemas.errors import NoInputsError, Reason, RefusedInput, counted
from wham_data.schemas.manifest import QuarantineRow, printable_unicode
from wham_data.schemas.recording import Recording

HASH_THREADS = 4
HASH_BLOCK = 1 << 20
PIECE_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class Found:
    """A recording with its identity.

    key      sha256 over the bytes of its files, and its part if it is one, hex. Names do not count:
             a renamed copy is the same recording
    bytes    size of all its files
    content  sha256 over the bytes of its files alone, which its neighbours in them share
    """

    recording: Recording
    key: str
    bytes: int
    content: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input that is refused, with the identity under which quarantine keeps it.

    path   what it is called: a path, and `#part` where it is one of several in its files
    stage  "find", "ingest" or "split"
    player whose recording it is, by name
    """

    path: str
    key: str
    stage: str
    why: RefusedInput
    player: str | None = None

    @property
    def line(self) -> str:
        """The input and why it is refused, for a person."""
        return f"{self.path}: {self.why} [{self.why.reason}]"

    def with_copies(self, copies: Copies) -> Iterator[Refusal]:
        """This refusal, and one for each copy of the recording, which is no better."""
        yield self
        for copy in copies.get(self.key, ()) if self.stage != "find" else ():
            player = copy.recording.provenance.player
            yield replace(self, path=copy.recording.source, player=player)


def refusal_of(found: Found, stage: str, why: RefusedInput) -> Refusal:
    """The refusal of a recording that was found."""
    recording = found.recording
    return Refusal(recording.source, found.key, stage, why, recording.provenance.player)


Copies = Mapping[str, Sequence[Found]]
"""Key of a recording -> its copies."""


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Every input once, in exactly one of these lists.

    to_do        to be ingested, by key; those that share files stand together
    already      in the corpus
    duplicates   (the copy, the recording it is a copy of)
    refused      refused before anything was opened
    in_quarantine  refused by an earlier run, with their copies; not tried again unless asked for
    forgotten    left out, for its player, its match or itself was forgotten
    ignored      files that are no recordings and belong to none
    by_pieces    the identities are of pieces of the files, see `make_plan`
    """

    to_do: tuple[Found, ...]
    already: tuple[Found, ...]
    duplicates: tuple[tuple[Found, Found], ...]
    refused: tuple[Refusal, ...]
    in_quarantine: tuple[Found, ...]
    forgotten: tuple[Found, ...]
    ignored: tuple[Path, ...]
    by_pieces: bool = False

    @property
    def found(self) -> int:
        """Inputs found."""
        return (
            len(self.to_do)
            + len(self.already)
            + len(self.duplicates)
            + len(self.refused)
            + len(self.in_quarantine)
            + len(self.forgotten)
        )

    @property
    def recordings(self) -> tuple[Found, ...]:
        """Every distinct recording that was recognised, whatever becomes of it, by key."""
        every = (*self.to_do, *self.already, *self.in_quarantine, *self.forgotten)
        return tuple(sorted({found.key: found for found in every}.values(), key=_in_order))

    @property
    def copies(self) -> Copies:
        """The duplicates of each recording that has some."""
        found: defaultdict[str, list[Found]] = defaultdict(list)
        for copy, original in self.duplicates:
            found[original.key].append(copy)
        return found

    def against(
        self,
        corpus: Corpus,
        *,
        retry_quarantined: bool = False,
        barred: Collection[str] = (),
    ) -> IngestPlan:
        """The plan seen against a corpus.

        Args:
            corpus: what it holds, or has refused before, is not done again.
            retry_quarantined: except for what it has refused.
            barred: keys of recordings that must stay out, should they not be in.
        """
        there = corpus.known_recordings()
        left_out = set(barred) - there
        refused = set() if retry_quarantined else {*refused_in(corpus)}
        set_aside = refused - there - left_out
        ruled_out, copies = there | left_out | set_aside, self.copies
        return replace(
            self,
            to_do=tuple(f for f in self.to_do if f.key not in ruled_out),
            already=tuple(f for f in self.to_do if f.key in there),
            duplicates=tuple(d for d in self.duplicates if d[1].key not in set_aside),
            in_quarantine=tuple(
                each
                for found in self.to_do
                if found.key in set_aside
                for each in (found, *copies.get(found.key, ()))
            ),
            forgotten=tuple(f for f in self.to_do if f.key in left_out),
        )


def make_plan(
    sources: Sequence[str | Path],
    *,
    reader: str = "auto",
    limit: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    only: Collection[str] | None = None,
    most_hashed: int | None = None,
) -> IngestPlan:
    """Find recordings and recognise copies. All distinct recordings are still to do.

    Args:
        sources: files and folders.
        reader: "auto", or the one reader to use.
        limit: take only so many recordings, the first by path.
        options: values of readers' options.
        only: take just these sources, named as in the quarantine; None: all.
        most_hashed: if all files together have more bytes than this, files of equal size are the
            same if three pieces of them are, and no identity is the one that a corpus knows. For
            forecasts, which must not take as long as reading everything. None: no limit.

    Raises:
        UsageError: a source that does not exist, or no such option.
    """
    discovery = discover(sources, reader, options)
    recordings = [r for r in discovery.recordings if _is_meant(r.source, only)][:limit]
    refused_files = [
        (path, why)
        for path, why in (discovery.refused if limit is None else ())
        if _is_meant(str(path), only)
    ]
    paths = {path: None for recording in recordings for path in recording.files}
    paths |= {path: None for path, _ in refused_files}
    by_pieces = most_hashed is not None and sum(map(_size, paths)) > most_hashed
    digest = partial(_hash_file, by_pieces=by_pieces)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = dict(zip(paths, pool.map(digest, paths), strict=True))

    refused = [
        Refusal(str(path), _content((path,), digests), "find", why) for path, why in refused_files
    ]
    first: dict[str, Found] = {}
    duplicates = []
    for recording in recordings:
        unreadable = [d for path in recording.files if isinstance(d := digests[path], RefusedInput)]
        if unreadable:
            player = recording.provenance.player
            refused.append(Refusal(recording.source, "", "find", unreadable[0], player))
            continue
        found = _identified(recording, digests)
        original = first.setdefault(found.key, found)
        if original is not found:
            duplicates.append((found, original))

    return IngestPlan(
        to_do=tuple(sorted(first.values(), key=_in_order)),
        already=(),
        duplicates=tuple(duplicates),
        refused=tuple(refused),
        in_quarantine=(),
        forgotten=(),
        ignored=discovery.ignored,
        by_pieces=by_pieces,
    )


def planned(
    sources: Sequence[str | Path],
    settings: IngestSettings,
    choices: IngestChoices,
    most_hashed: int | None = None,
) -> IngestPlan:
    """Find the recordings, without comparing them with the corpus.

    Args:
        sources, settings, choices: of the run.
        most_hashed: see `make_plan`.

    Raises:
        NoInputsError: no recording was found.
    """
    plan = make_plan(
        sources,
        reader=choices.reader,
        limit=choices.limit,
        options=settings.options_of_search(choices.reader),
        only=choices.only,
        most_hashed=most_hashed,
    )
    if not plan.found:
        raise NoInputsError(
            f"{', '.join(map(str, sources))}: no recording found in "
            f"{counted(len(plan.ignored), 'file')}: {looked_at(plan.ignored)}. "
            "docs/readers.md lists the formats that are read"
        )
    return plan


def _is_meant(source: str, only: Collection[str] | None) -> bool:
    return only is None or printable_unicode(source) in only


def _in_order(found: Found) -> tuple[str, str]:
    return found.content, found.key


def refused_in(corpus: Corpus) -> dict[str, list[QuarantineRow]]:
    """The rows in the corpus' quarantine under its settings, by the key of the recording."""
    table = corpus.quarantine.drop("created")
    rows: defaultdict[str, list[QuarantineRow]] = defaultdict(list)
    for record in table.filter(table["settings"] == corpus.info.settings_hash).rows(named=True):
        rows[record["sha256"]].append(QuarantineRow.from_record(record))
    return rows


@dataclass(frozen=True, slots=True)
class _Digest:
    """sha256 and size of one file."""

    sha256: bytes
    size: int


_Digests = Mapping[Path, _Digest | RefusedInput]


def _identified(recording: Recording, digests: _Digests) -> Found:
    """The recording with its identity; all its files are readable."""
    content = _content(recording.files, digests)
    size = sum(d.size for path in recording.files if isinstance(d := digests[path], _Digest))
    if not recording.part:
        return Found(recording, content, size, content)
    key = hashlib.sha256(f"{content}#{recording.part}".encode("utf-8", "surrogateescape"))
    return Found(recording, key.hexdigest(), size, content)


def _content(files: Sequence[Path], digests: _Digests) -> str:
    """sha256 over the files' own; "" if one cannot be read."""
    whole = hashlib.sha256()
    for path in files:
        digest = digests[path]
        if isinstance(digest, RefusedInput):
            return ""
        whole.update(digest.sha256)
    return whole.hexdigest()


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _hash_file(path: Path, *, by_pieces: bool = False) -> _Digest | RefusedInput:
    """A file that cannot be read is a refusal. By pieces: its size, begin, middle and end count."""
    if not path.is_file():  # opening a FIFO would wait for ever
        return RefusedInput(Reason.UNREADABLE, "not a regular file")
    digest, count = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            if by_pieces and (size := _size(path)) > 3 * PIECE_BYTES:
                for start in (0, size // 2, size - PIECE_BYTES):
                    file.seek(start)
                    digest.update(file.read(PIECE_BYTES))
                digest.update(str(size).encode())
                return _Digest(digest.digest(), size)
            while block := file.read(HASH_BLOCK):
                digest.update(block)
                count += len(block)
    except OSError as error:
        return RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror or error}")
    return _Digest(digest.digest(), count)
